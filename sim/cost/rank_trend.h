/*
 * Rank trend: what the curve of an exchange becomes over more ranks of one node than it was
 * measured with.
 *
 * Two things change, as of the bytes that one rank sends: every further step of the operation
 * adds its latency, and a busier rank fills its links better,
 *
 *   t_n(bytes) = t_m(0) + step_ns * (steps(n) - steps(m))
 *              + (t_m(bytes) - t_m(0)) / (1 + gain * (1/m - 1/n))
 *
 * with steps(n) = 2 (n - 1) for a ring's all-reduce, else n - 1. With curves over two numbers of
 * ranks both numbers come from those (first alpha, last bandwidth). With one they are those of
 * published nccl-tests on H200, 2 against 8 ranks (aiconfigurator, NCCL 2.29.2: us at 1 KiB
 * 6.4 and 7.4, 5.1 and 10.3, 6.0 and 16.8 for all-to-all, all-gather, all-reduce; GB/s at 512 MiB
 * 298 and 311, 258 and 337, 315 and, without multicast, 370). What this was worth from two ranks
 * to four: results/calibrations/README.md and `moesim cal ranks`.
 */
#ifndef MOE_SIM_COST_RANK_TREND_H
#define MOE_SIM_COST_RANK_TREND_H

#include <stdint.h>

#include "sim/cost/calibration.h"

struct moe_rank_trend {
    double step_ns;
    double gain;
};

/* Of an operation with one curve; all zero for one that does not go by ranks. */
struct moe_rank_trend moe_rank_trend_published(enum moe_segment_op op);

/* A curve's ends: what a rank trend looks at. */
struct moe_rank_curve {
    uint32_t ranks;
    double first_alpha_ns;
    double last_ns_per_byte;
};

/* Between two curves of an operation, fewer->ranks < more->ranks. Neither number falls below 0:
 * more ranks are not thought to be quicker to begin or to fill links less. */
struct moe_rank_trend moe_rank_trend_between(enum moe_segment_op op,
                                             const struct moe_rank_curve *fewer,
                                             const struct moe_rank_curve *more);

/* alpha_ns[count] and ns_per_byte[count], a curve over `from` ranks, become those over `to`. */
void moe_rank_trend_extend(const struct moe_rank_trend *trend, enum moe_segment_op op,
                           uint32_t from, uint32_t to, double *alpha_ns, double *ns_per_byte,
                           uint32_t count);

#endif
