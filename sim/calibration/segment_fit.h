/*
 * Segment fit: time of an exchange by its bytes as at most six lines alpha + bytes/bandwidth,
 * with jumps where the library changes its protocol.
 *
 * The breakpoints are the best there are (dynamic programming over all of them) for the sum of
 * squared relative errors; one more segment must pay for its three numbers (Bayesian
 * information criterion, over the noise of the points, 0.3 % at least). Between the last point of a
 * segment and the first of the next the lines' crossing divides. Where they do not cross there, a
 * switch does: libraries switch at round sizes, so right after the last point if that is round,
 * else at the geometric mean.
 *
 * NCCL's rings take up to 2 us less for a size that is a power of two than for its neighbours,
 * which end in a round that is not full. Messages of tokens rarely are such sizes, so the lines are
 * those of the others; where a segment has at least two points of both sorts, what the round ones
 * gain is a number of its own (constant within the segment), if it pays for itself likewise.
 * Source: calibration.md 3 and 5.6 (five segments: 1.2 % median error, one: 10.8 %); the gain and
 * the rule for switches were chosen on a run of two H200, results/calibrations/README.md.
 */
#ifndef MOE_SIM_CALIBRATION_SEGMENT_FIT_H
#define MOE_SIM_CALIBRATION_SEGMENT_FIT_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"

enum { MOE_SEGMENT_FIT_LIMIT = 6 };

struct moe_segment_point {
    double bytes; /* > 0 */
    double ns;    /* > 0 */
    bool is_round;
};

struct moe_segment_line {
    double from_bytes;
    double to_bytes;
    double alpha_ns;      /* >= 0 */
    double ns_per_byte;   /* > 0 */
    double round_gain_ns; /* >= 0: what a round size takes less; 0 where none is known */
    uint32_t point_count; /* that it was fitted to */
};

struct moe_segment_fit {
    struct moe_segment_line lines[MOE_SEGMENT_FIT_LIMIT];
    uint32_t count;
};

/* points[count] by rising bytes, no two alike; count >= 1. At most `most` lines (1 ..
 * MOE_SEGMENT_FIT_LIMIT). noise: of a point, relative, as far as that is known; else 0. Errors:
 * MOE_LIMIT. */
enum moe_status moe_segment_fit(struct moe_segment_fit *out, const struct moe_segment_point *points,
                                uint32_t count, uint32_t most, double noise,
                                struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* Of a size that is not round. Beyond the last line's end it goes on. */
double moe_segment_fit_ns(const struct moe_segment_fit *fit, double bytes);

#endif
