/*
 * Copies by the GPUs' copy engines: to a peer, and from pinned host memory.
 */
#ifndef MOE_CALIBRATE_LANE_COPIES_H
#define MOE_CALIBRATE_LANE_COPIES_H

#include "calibrate/collective/lanes.h"
#include "sim/base/error.h"

/* Queues a peer_copy or host_to_device on the lanes that carry it out; both ends of a peer_copy are
 * lanes of this process. Errors: MOE_DEVICE. */
enum moe_status moe_lane_copies_enqueue(const struct moe_lanes *lanes,
                                        const struct moe_collective_call *call,
                                        struct moe_error *err) MOE_MUST_CHECK;

#endif
