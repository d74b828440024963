/*
 * Segment fit: time of an exchange by its bytes as at most five lines alpha + bytes/bandwidth,
 * with jumps where the library changes its protocol.
 *
 * The breakpoints are the best there are (dynamic programming over all of them) for the sum of
 * squared relative errors; one more segment must pay for its three numbers (Bayesian
 * information criterion, over a noise floor of 0.3 %). Between the last point of a segment and
 * the first of the next the lines' crossing divides, or where they do not cross there the
 * geometric mean.
 * Source: calibration.md 3 and 5.6 (five segments: 1.2 % median error, one: 10.8 %).
 */
#ifndef MOE_SIM_CALIBRATION_SEGMENT_FIT_H
#define MOE_SIM_CALIBRATION_SEGMENT_FIT_H

#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"

enum { MOE_SEGMENT_FIT_LIMIT = 5 };

struct moe_segment_point {
    double bytes; /* > 0 */
    double ns;    /* > 0 */
};

struct moe_segment_line {
    double from_bytes;
    double to_bytes;
    double alpha_ns;      /* >= 0 */
    double ns_per_byte;   /* > 0 */
    uint32_t point_count; /* that it was fitted to */
};

struct moe_segment_fit {
    struct moe_segment_line lines[MOE_SEGMENT_FIT_LIMIT];
    uint32_t count;
};

/* points[count] by rising bytes, no two alike; count >= 1. Errors: MOE_LIMIT. */
enum moe_status moe_segment_fit(struct moe_segment_fit *out, const struct moe_segment_point *points,
                                uint32_t count, struct moe_arena *arena,
                                struct moe_error *err) MOE_MUST_CHECK;

/* Beyond the last line's end it goes on. */
double moe_segment_fit_ns(const struct moe_segment_fit *fit, double bytes);

#endif
