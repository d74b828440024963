/*
 * Lanes: the GPUs that take part in a measurement, each with a stream, buffers and events, started
 * together.
 *
 * A batch queues the same call on all lanes behind one hold (clock/hold.h), each call between a
 * pair of events of its lane, and opens the hold when everything is queued: so no time of the host
 * is in the times, and all lanes start within about a microsecond. The first call behind the hold
 * is not timed: it takes up what is left of that microsecond.
 *
 * All calls from one thread. Lane i of this process is rank rank_first + i of rank_count.
 */
#ifndef MOE_CALIBRATE_LANES_H
#define MOE_CALIBRATE_LANES_H

#include <stdbool.h>
#include <stdint.h>

#include "calibrate/collective/collective_op.h"
#include "calibrate/collective/collective_plan.h"
#include "calibrate/device/device.h"
#include "calibrate/device/nvml.h"
#include "kernels/clock/hold.h"
#include "sim/base/error.h"

enum {
    MOE_LANE_LIMIT = 16,
    MOE_LANE_BATCH = 20, /* timed calls of a batch */
};

/* Of a receive buffer at most as much is looked at. */
#define MOE_LANES_CHECK_BYTES (INT64_C(4) << 20)

/* Work that has not ended after this is given up, and with it the GPUs. (A test is in a hurry.) */
#ifndef MOE_LANES_PATIENCE_S
#define MOE_LANES_PATIENCE_S 20.0
#endif

struct moe_lane {
    uint32_t device; /* CUDA's number of the GPU */
    uint32_t rank;
    void *stream; /* cudaStream_t; of the highest priority, as engines run their exchanges */
    void *begin[MOE_LANE_BATCH]; /* cudaEvent_t */
    void *end[MOE_LANE_BATCH];
    void *send_dev;
    void *recv_dev;
    void *host; /* pinned, all GPUs may read it; NULL when nothing comes from the host */
    struct moe_device about;
    struct moe_nvml_gpu *sensor; /* NULL: no NVML */
    struct moe_nvml_load load;   /* last reading */
};

struct moe_lanes {
    struct moe_lane lanes[MOE_LANE_LIMIT];
    uint32_t count;
    uint32_t rank_first;
    uint32_t rank_count;
    struct moe_collective_room room;
    const struct moe_nvml *nvml; /* NULL: none */
    double read_s;               /* CLOCK_MONOTONIC of the last reading of the sensors */
    double read_every_s;         /* so that reading them takes little of the time */
    struct moe_hold *hold;
    bool stuck; /* a wait was given up: no call to the driver would come back */
};

/* Queues one call on the streams of all lanes that take part in it. */
typedef enum moe_status (*moe_lanes_enqueue)(void *context, struct moe_error *err);

/* Times of one batch, in microseconds, by lane; sensors as they were while it ran, or within the
 * second before where a reading is slow. */
struct moe_lanes_times {
    float us[MOE_LANE_LIMIT][MOE_LANE_BATCH];
    struct moe_nvml_load load[MOE_LANE_LIMIT];
    bool late; /* the hold ended by itself before all was queued: the times are worth nothing */
};

/* devices[count]: CUDA's numbers. Buffers are filled with random bf16. Peers may write each
 * other's memory where the machine lets them. Errors: MOE_LIMIT when a GPU has no room;
 * MOE_DEVICE. On error nothing is held. */
enum moe_status moe_lanes_create(const uint32_t *devices, uint32_t count, uint32_t rank_first,
                                 uint32_t rank_count, const struct moe_collective_room *room,
                                 const struct moe_nvml *nvml, struct moe_lanes *out,
                                 struct moe_error *err) MOE_MUST_CHECK;
void moe_lanes_destroy(struct moe_lanes *lanes); /* a zeroed one is allowed */

/* Whether this lane's stream carries the call out. */
bool moe_lane_works(const struct moe_lane *lane, const struct moe_collective_call *call);

/* Waits until all streams are idle; what names the work in an error. Errors: MOE_DEVICE, also when
 * it does not end within MOE_LANES_PATIENCE_S; then lanes->stuck is set. */
enum moe_status moe_lanes_wait(struct moe_lanes *lanes, const char *what,
                               struct moe_error *err) MOE_MUST_CHECK;

/* count calls (1 .. MOE_LANE_BATCH) behind a hold, after one that is not timed. They must have run
 * once before. Errors: what enqueue says; MOE_DEVICE. */
enum moe_status moe_lanes_batch(struct moe_lanes *lanes, const struct moe_collective_call *call,
                                moe_lanes_enqueue enqueue, void *context, uint32_t count,
                                struct moe_lanes_times *out, struct moe_error *err) MOE_MUST_CHECK;

/* The hold behind which a batch is queued, for those who queue one themselves: first a hold on each
 * stream (streams[count] of lanes[count]), at the end opened, then waited for. */
enum moe_status moe_lanes_hold(struct moe_lanes *lanes, const struct moe_lane *lane, void *stream,
                               struct moe_error *err) MOE_MUST_CHECK;
/* After a wait: true when the hold ended by itself; then it is made anew. */
enum moe_status moe_lanes_late(struct moe_lanes *lanes, bool *late,
                               struct moe_error *err) MOE_MUST_CHECK;

#endif
