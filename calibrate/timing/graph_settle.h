/*
 * Settling: a piece of work is run without gaps, in windows, until the clock of the SMs has become
 * its own (settle_rule.h). What a kernel takes depends otherwise on what ran before it, on an H200
 * by up to a third.
 */
#ifndef MOE_CALIBRATE_GRAPH_SETTLE_H
#define MOE_CALIBRATE_GRAPH_SETTLE_H

#include <stdbool.h>

#include "calibrate/timing/graph_timer.h"
#include "calibrate/timing/settle_rule.h"
#include "sim/base/error.h"

enum { MOE_SETTLE_WINDOW_LIMIT = 64 };

/* Runs work for seconds_most at most (0: not at all, and it counts as settled). A light one, which
 * memory or launches hold up, is looked at in windows half as long. *settled: whether its clock
 * held. What work had counted is kept. Errors: as moe_graph_window. */
enum moe_status moe_graph_settle(struct moe_graph_timer *timer, struct moe_graph_work *work,
                                 double boost_mhz, bool light, double seconds_most, bool *settled,
                                 struct moe_error *err) MOE_MUST_CHECK;

#endif
