/*
 * Roofline: t = t0 + ((bytes/bandwidth)^p + (flops/(peak * clock))^p)^(1/p), and its fit to
 * measured times by least squares of log(fitted / measured).
 *
 * The rate of arithmetic follows the GPU's clock, that of memory does not; clock is relative
 * to the one at which `peak` is stated. Few points cannot tell four parameters apart, so each
 * parameter also has a prior, worth a fraction of one point. Residuals beyond `soft` count
 * linearly and not squared (soft-L1), so that a single odd point does not bend the curve.
 * The search begins at several fixed places and the least cost wins, the first of equals.
 * Source: calibration.md 5.6 (p-norm had the least error of six models there).
 */
#ifndef MOE_SIM_COST_ROOFLINE_H
#define MOE_SIM_COST_ROOFLINE_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/error.h"

struct moe_roofline {
    double t0_ns;
    double bandwidth_bytes_s;
    double peak_flop_s;
    double p;
    double weight; /* of what points call weighted; 0: nothing */
};

struct moe_roofline_point {
    double bytes;          /* >= 0; bytes and flops are not both 0 */
    double flops;          /* >= 0 */
    double weighted_flops; /* >= 0; weight times these are FLOPs besides */
    double ns;             /* > 0 */
    double clock;          /* relative to the reference; 1 when it is not known */
};

enum { MOE_ROOFLINE_PARAMETERS = 5 };

/* Of log t0, logit of bandwidth and of peak over their ceilings, log(p - 1), log weight. */
struct moe_roofline_prior {
    double mean[MOE_ROOFLINE_PARAMETERS];
    double sd[MOE_ROOFLINE_PARAMETERS];
    double weight; /* 1 sd of the prior counts as much as this relative error of one point */
};

struct moe_roofline_problem {
    const struct moe_roofline_point *points;
    uint32_t count; /* at least 1 */
    double bandwidth_ceiling;
    double peak_ceiling;
    struct moe_roofline_prior prior;
    bool is_weighted; /* the weight is fitted too; else it is 0 */
    double soft;      /* 0: plain least squares */
    uint32_t starts;  /* 1: from the prior's mean alone; at most MOE_ROOFLINE_STARTS */
};

enum { MOE_ROOFLINE_STARTS = 9 };

/* logit(share) for the prior of a rate; 0 < share < 1. */
double moe_roofline_logit(double share);

double moe_roofline_ns(const struct moe_roofline *roofline, double bytes, double flops,
                       double clock);

/* Share of the time that follows the clock (1 - share of t0 and memory): d log t / d log c. */
double moe_roofline_compute_share(const struct moe_roofline *roofline, double bytes, double flops,
                                  double clock);
double moe_roofline_memory_share(const struct moe_roofline *roofline, double bytes, double flops,
                                 double clock);

/* cost, which may be NULL, is what was minimised, to compare problems over the same points.
 * Errors: MOE_LIMIT without memory. */
enum moe_status moe_roofline_fit(struct moe_roofline *out, double *cost,
                                 const struct moe_roofline_problem *problem,
                                 struct moe_error *err) MOE_MUST_CHECK;

#endif
