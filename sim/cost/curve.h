/*
 * Curve: one series of the calibration, made ready for the hot path.
 *
 *   t = ratio * (t0 + (m^p + c^p)^(1/p))
 *
 * m is the time to read what the work reads, c the time to compute it, both at the fit's
 * rates; c is over the rows of all tiles and, weighted, those of the fullest expert. ratio corrects
 * the fit to the points: at a point it is measured / fitted; along the tokens per active unit it is
 * linear in their log2 between the points of one active count, and between two active counts linear
 * in log2 of those. Outside, it is held at the border. A series without points has ratio 1.
 * Source: calibration.md 5.6; p-norm plus ratio had the least error of six models there.
 */
#ifndef MOE_SIM_COST_CURVE_H
#define MOE_SIM_COST_CURVE_H

#include "sim/base/arena.h"
#include "sim/base/error.h"
#include "sim/cost/calibration.h"

/* The points of one active count, by rising tokens. */
struct moe_curve_row {
    double active;
    double log_active;
    uint32_t count;
    const double *log_tokens;              /* [count] */
    const double *ratio;                   /* [count] */
    const double *uneven;                  /* [count], averaged around it; NULL: as ratio */
    const enum moe_provenance *provenance; /* [count] */
};

struct moe_curve {
    const struct moe_calibration_series *series; /* of the calibration */
    double t0_ns;
    double ns_per_byte;
    double ns_per_flop;
    double p;
    double inverse_p;
    double tile_tokens;
    double fullest_weight; /* table fullest; 0: none */
    double fullest_rows;
    bool permutation_inside;
    bool exact;                 /* of the very shape, not generic */
    enum moe_provenance beyond; /* of the fit, where there are no points */
    enum moe_provenance least;  /* what lies between points is no better than this */
    uint32_t row_count;
    const struct moe_curve_row *rows; /* by rising active */
};

/* What is looked for. gated matters for experts only. */
struct moe_curve_key {
    const char *gpu_kind;
    enum moe_series_op op;
    uint32_t hidden;
    uint32_t expert_size;
    bool gated;
    enum moe_dtype dtype;
};

/* The first series of this shape, else the generic one of op and dtype.
 * Errors: MOE_RANGE when there is neither; MOE_LIMIT when the arena is full. */
enum moe_status moe_curve_init(struct moe_curve *curve, const struct moe_calibration *calibration,
                               const struct moe_curve_key *key, struct moe_arena *arena,
                               struct moe_error *err) MOE_MUST_CHECK;

/* One series by its row, without points: what a fit alone says. fullest may be NULL. */
void moe_curve_from_fit(struct moe_curve *curve, const struct moe_calibration_series *series,
                        const struct moe_calibration_fit *fit,
                        const struct moe_calibration_fullest *fullest);

/* Rows that tiles and the fullest expert of so many rows are computed as. */
static inline double moe_curve_rows(const struct moe_curve *curve, double tiles, double fullest)
{
    return tiles * curve->tile_tokens +
           curve->fullest_weight * (fullest < curve->fullest_rows ? fullest : curve->fullest_rows);
}

/* The fit without its correction. */
double moe_curve_fitted_ns(const struct moe_curve *curve, double memory_ns, double compute_ns);

/* The correction, and where it comes from. tokens_per_active and active are positive. */
double moe_curve_ratio(const struct moe_curve *curve, double tokens_per_active, double active,
                       enum moe_provenance *provenance);

/* The same for work whose fullest unit has fullest tokens. */
double moe_curve_uneven_ratio(const struct moe_curve *curve, double tokens_per_active,
                              double active, double fullest, enum moe_provenance *provenance);

/* The places around a mean that its ratio is averaged over: factors, and their log2. */
enum { MOE_CURVE_PLACES = 5 };
extern const double moe_curve_places[MOE_CURVE_PLACES];
extern const double moe_curve_log_places[MOE_CURVE_PLACES];

/* How far work counts as uneven: 0 to 1. */
static inline double moe_curve_unevenness(double tokens_per_active, double fullest)
{
    if (fullest < tokens_per_active + 1.0) {
        return 0.0;
    }
    const double beyond = 4.0 * (fullest / tokens_per_active - 1.0);
    return beyond < 1.0 ? beyond : 1.0;
}

/* What becomes of a provenance when its figure is used outside the range it stands for. */
static inline enum moe_provenance moe_provenance_outside(enum moe_provenance provenance)
{
    return provenance <= MOE_PROVENANCE_EXTRAPOLATED ? MOE_PROVENANCE_EXTRAPOLATED
                                                     : MOE_PROVENANCE_ASSUMED;
}

/* The worse of two: what a sum of both may claim. */
static inline enum moe_provenance moe_provenance_worse(enum moe_provenance a, enum moe_provenance b)
{
    return a > b ? a : b;
}

#endif
