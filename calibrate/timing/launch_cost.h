/*
 * Launch cost: what one kernel costs that does next to nothing.
 */
#ifndef MOE_CALIBRATE_LAUNCH_COST_H
#define MOE_CALIBRATE_LAUNCH_COST_H

#include "calibrate/timing/graph_timer.h"
#include "sim/base/error.h"

struct moe_launch_cost {
    double graph_node_ns; /* one more node of a graph, one after the other */
    double launch_ns;     /* one more launch on a stream, not waited for: the host's pace */
};

/* On the current device. Errors: MOE_DEVICE, MOE_LIMIT. */
enum moe_status moe_launch_cost_measure(struct moe_graph_timer *timer, struct moe_launch_cost *out,
                                        struct moe_error *err) MOE_MUST_CHECK;

#endif
