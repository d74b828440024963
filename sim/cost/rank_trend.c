#include "sim/cost/rank_trend.h"

#include <assert.h>

static double steps(enum moe_segment_op op, uint32_t ranks)
{
    return (op == MOE_SEGMENT_ALL_REDUCE ? 2.0 : 1.0) * (ranks - 1.0);
}

static double parts(uint32_t fewer, uint32_t more)
{
    return 1.0 / fewer - 1.0 / more;
}

struct moe_rank_trend moe_rank_trend_published(enum moe_segment_op op)
{
    static const struct moe_rank_trend trends[MOE_SEGMENT_OP_COUNT] = {
        [MOE_SEGMENT_ALL_TO_ALL] = { 1e3 / 6.0, (311.0 / 298.0 - 1.0) / 0.375 },
        [MOE_SEGMENT_DISPATCH] = { 1e3 / 6.0, (311.0 / 298.0 - 1.0) / 0.375 },
        [MOE_SEGMENT_COMBINE] = { 1e3 / 6.0, (311.0 / 298.0 - 1.0) / 0.375 },
        [MOE_SEGMENT_ALL_GATHER] = { 5.2e3 / 6.0, (337.0 / 258.0 - 1.0) / 0.375 },
        [MOE_SEGMENT_REDUCE_SCATTER] = { 5.2e3 / 6.0, (337.0 / 258.0 - 1.0) / 0.375 },
        [MOE_SEGMENT_ALL_REDUCE] = { 10.8e3 / 12.0, (370.0 / 315.0 - 1.0) / 0.375 },
    };
    assert(op < MOE_SEGMENT_OP_COUNT);
    return trends[op];
}

struct moe_rank_trend moe_rank_trend_between(enum moe_segment_op op,
                                             const struct moe_rank_curve *fewer,
                                             const struct moe_rank_curve *more)
{
    const double latency_ns = more->first_alpha_ns - fewer->first_alpha_ns;
    const double faster = fewer->last_ns_per_byte / more->last_ns_per_byte - 1.0;
    assert(fewer->ranks < more->ranks);
    return (struct moe_rank_trend){
        .step_ns = latency_ns > 0.0
                       ? latency_ns / (steps(op, more->ranks) - steps(op, fewer->ranks))
                       : 0.0,
        .gain = faster > 0.0 ? faster / parts(fewer->ranks, more->ranks) : 0.0,
    };
}

void moe_rank_trend_extend(const struct moe_rank_trend *trend, enum moe_segment_op op,
                           uint32_t from, uint32_t to, double *alpha_ns, double *ns_per_byte,
                           uint32_t count)
{
    assert(count > 0);
    assert(from < to);
    const double first = alpha_ns[0];
    const double later = first + trend->step_ns * (steps(op, to) - steps(op, from));
    const double scale = 1.0 / (1.0 + trend->gain * parts(from, to));
    for (uint32_t i = 0; i < count; i++) {
        alpha_ns[i] = later + (alpha_ns[i] - first) * scale;
        ns_per_byte[i] *= scale;
    }
}
