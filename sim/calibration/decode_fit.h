/*
 * Decode fit: the numbers of sim/cost/decode.h from measured points of one shape, by least squares
 * of log(fitted / measured), odd points counting less (soft-L1), with a weak prior for each.
 *
 * How many blocks an SM runs at once is not in the samples. The count by which left-out points
 * are best foretold is taken: all points of one number of sequences, or of one context, against
 * fit and correction of the others. Points need not make a full grid.
 */
#ifndef MOE_SIM_CALIBRATION_DECODE_FIT_H
#define MOE_SIM_CALIBRATION_DECODE_FIT_H

#include "sim/base/arena.h"
#include "sim/base/error.h"
#include "sim/cost/calibration.h"
#include "sim/cost/decode.h"

/* Fewer points do not tell eight numbers apart. */
enum { MOE_DECODE_FIT_LEAST_POINTS = 12 };

struct moe_decode_problem {
    const struct moe_calibration_decode_point *points; /* no two alike */
    uint32_t count;                                    /* at least 1 */
    double read_bytes_s;                               /* ceilings of the GPU kind */
    double flop_s;
    uint32_t sm_count;
};

/* Fills the times, bandwidth and p of *row, whose shape and slots are given, rounded as they are
 * stored. Errors: MOE_LIMIT. */
enum moe_status moe_decode_fit(struct moe_calibration_decode *row,
                               const struct moe_decode_problem *problem, struct moe_arena *arena,
                               struct moe_error *err) MOE_MUST_CHECK;

/* Mean of |log(foretold / measured)| over left-out points; INFINITY when there is nothing to leave
 * out. The search starts at the fit of *row. Errors: MOE_LIMIT. */
enum moe_status moe_decode_foretell(double *error, const struct moe_calibration_decode *row,
                                    const struct moe_decode_problem *problem,
                                    struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* Fills slots too; *error is that of the chosen one. Of equals the fewest slots.
 * Errors: MOE_LIMIT. */
enum moe_status moe_decode_choose(struct moe_calibration_decode *row, double *error,
                                  const struct moe_decode_problem *problem, struct moe_arena *arena,
                                  struct moe_error *err) MOE_MUST_CHECK;

#endif
