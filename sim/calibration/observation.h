/*
 * Observations: samples reduced to one log time per point and column.
 *
 * A sample's time is one figure (moe_sample_us) wherever samples are used: fits, held-out errors,
 * repeats, comparisons.
 *
 * A column is one GPU in one run, or for what several GPUs do together one run. Passes over a
 * point become their median; of a collective the slowest rank counts, since its exit is what
 * the others wait for.
 *
 * log t(point, column) = centre(point) + share(point) * effect(column, class) + noise
 *
 * where share says how much of a point's time follows its class (see level.h).
 */
#ifndef MOE_SIM_CALIBRATION_OBSERVATION_H
#define MOE_SIM_CALIBRATION_OBSERVATION_H

#include "sim/calibration/evidence.h"

#define MOE_OBSERVATION_NO_GPU UINT32_MAX

struct moe_observation_column {
    uint32_t run;
    uint32_t gpu; /* MOE_OBSERVATION_NO_GPU: all of the run's together */
};

struct moe_observation {
    uint32_t point;
    uint32_t column;
    double log_ns;
    double mhz;         /* median over the passes; 0: not known */
    uint32_t repeats;   /* later passes */
    double spread;      /* largest less least log time of the passes; 0 for one */
    uint32_t bad_flags; /* wrong or unphysical: of any of its samples */
};

struct moe_observations {
    const struct moe_observation_column *columns;
    uint32_t column_count;
    const struct moe_observation *items; /* sorted by point, then column */
    uint32_t count;
    const uint32_t *first; /* [point_count + 1]: items of point i begin at first[i] */
};

/* A sample's time in us: its median, but where its middle half is wider than 5 % (p75 / p25) the
 * mean of its middle 90 %. A layer sums such operations, so that of a kernel with two modes it
 * meets the mean, and the median jumps from one mode to the other as their shares pass one half:
 * of 71 points of four H200 with such modes 43 repeated by the median and 55 by this mean. The tails
 * stay out, since of n = 20 to 200 times the outermost are chance; quantiles are all that is stored
 * of most samples, so the mean is theirs by trapezoids. A sample without quantiles: its median. */
double moe_sample_us(const struct moe_evidence_sample *sample);

/* adjust[sample_count], or NULL for none, is subtracted from the log times (drift). The
 * result lives in the arena. Errors: MOE_LIMIT when it is full. */
enum moe_status moe_observations_make(struct moe_observations *out,
                                      const struct moe_evidence *evidence, const double *adjust,
                                      struct moe_arena *arena,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* The median of values[count], which are sorted by this; count >= 1. The mean of the middle
 * two of an even count. */
double moe_median(double *values, uint32_t count);

/* The share-quantile by linear interpolation of sorted values[count]; count >= 1. */
double moe_quantile_sorted(const double *values, uint32_t count, double share);
void moe_sort(double *values, uint32_t count);

#endif
