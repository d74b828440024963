/*
 * Comparison of two sets of samples: what changed between two machines, two drivers, two days.
 *
 * Points that both have (series by name, and all that makes a point unique but its role) give
 * a log ratio of times each, second over first. A series' ratio is their median with a 95 %
 * interval (bootstrap over points, seeded), and a two-sided sign test whose p-values are
 * adjusted over all series (Holm): a change is significant below 5 %.
 */
#ifndef MOE_SIM_CALIBRATION_SAMPLE_COMPARE_H
#define MOE_SIM_CALIBRATION_SAMPLE_COMPARE_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/calibration/evidence.h"

struct moe_sample_comparison_row {
    const char *name; /* of the series, or of a class: its kind */
    bool is_class;
    uint32_t points;
    double ratio; /* median of second / first */
    double low;
    double high;
    double p; /* adjusted; 1 with fewer than 6 points, which can show nothing */
    bool significant;
};

struct moe_sample_comparison {
    struct moe_sample_comparison_row *rows; /* series by name, then classes; in the arena */
    uint32_t count;
    uint32_t only_first; /* points that the other does not have */
    uint32_t only_second;
};

/* Errors: MOE_RANGE when no point is in both; MOE_LIMIT. */
enum moe_status moe_sample_compare(struct moe_sample_comparison *out,
                                   const struct moe_evidence *first,
                                   const struct moe_evidence *second, struct moe_arena *arena,
                                   struct moe_error *err) MOE_MUST_CHECK;

#endif
