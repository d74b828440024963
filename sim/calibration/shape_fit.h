/*
 * Shape fit: the roofline of one weight shape (an expert's FFN, or one matrix) with one
 * backend, from points at several counts of tokens and active experts.
 *
 * Rows are padded to a tile, which is the kernel's and not the shape's: for all shapes of one
 * backend together it is the one by which each point is best foretold from its neighbours,
 * itself left out (moe_shape_foretell). The clock of
 * the points, where it was measured, enters the rate of arithmetic. What the roofline does not
 * say, the ratio at each point does (curve.h), so a point is met exactly and only what lies
 * between is a prediction.
 */
#ifndef MOE_SIM_CALIBRATION_SHAPE_FIT_H
#define MOE_SIM_CALIBRATION_SHAPE_FIT_H

#include "sim/base/arena.h"
#include "sim/base/error.h"
#include "sim/calibration/table_builder.h"
#include "sim/cost/calibration.h"
#include "sim/cost/curve.h"
#include "sim/cost/roofline.h"

struct moe_shape_point {
    double tokens; /* rows per active expert; of a matrix: rows */
    uint32_t active;
    double ns;
    double mhz; /* 0: not known */
};

struct moe_shape {
    const char *name;
    const char *gpu_kind;
    enum moe_series_op op;
    uint32_t hidden;
    uint32_t expert_size;
    bool gated;
    enum moe_dtype dtype;
    const char *backend;
    bool permutation_inside;        /* the times include moving tokens to expert order */
    enum moe_provenance provenance; /* of the points */
    double read_bytes_s;            /* ceilings of the GPU kind */
    double flop_s;
    const struct moe_shape_point *points; /* by rising (active, tokens), no two alike */
    uint32_t count;                       /* at least 1 */
};

struct moe_shape_fit {
    struct moe_roofline roofline; /* rounded to what is stored */
    uint32_t tile_tokens;
    double reference_mhz; /* at which the peak holds; 0: clocks are not known */
};

enum { MOE_SHAPE_TILES = 8 };
extern const uint32_t moe_shape_tiles[MOE_SHAPE_TILES]; /* that are tried, rising */

/* errors[MOE_SHAPE_TILES]: sums over the shape's points, so that shapes can be added up.
 * Errors: MOE_LIMIT without memory. */
enum moe_status moe_shape_foretell(double *errors, const struct moe_shape *shape,
                                   struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* Errors: MOE_LIMIT without memory. */
enum moe_status moe_shape_fit(struct moe_shape_fit *out, const struct moe_shape *shape,
                              uint32_t tile_tokens, struct moe_arena *arena,
                              struct moe_error *err) MOE_MUST_CHECK;

/* Whether no ceiling of the kind forbids the time (reading by 2 %, arithmetic by 5 %, as
 * calibration_check.h allows). */
bool moe_shape_is_physical(const struct moe_shape *shape, double tokens, uint32_t active,
                           double ns);

/* Adds rows to series, fit, point and clock. provenance is the series' and the fit's: measured,
 * or extrapolated when the series missed its gate. Besides the measured points, rows of few
 * active experts get extrapolated ones at the tokens that only the fullest row has.
 * Errors: MOE_LIMIT. */
enum moe_status moe_shape_rows(struct moe_table_builder *builder, const struct moe_shape *shape,
                               const struct moe_shape_fit *fit, enum moe_provenance provenance,
                               const char *source, struct moe_error *err) MOE_MUST_CHECK;

/* What the cost model would make of these rows. Errors: MOE_LIMIT. */
enum moe_status moe_shape_curve(struct moe_curve *curve, const struct moe_shape *shape,
                                const struct moe_shape_fit *fit, struct moe_arena *arena,
                                struct moe_error *err) MOE_MUST_CHECK;

/* Weights of one expert or matrix, and bytes of one. */
double moe_shape_weights(const struct moe_shape *shape);

/* The cost model's time for tokens rows on active experts in tiles tiles, with factors of
 * memory and compute time. */
double moe_shape_ns(const struct moe_curve *curve, const struct moe_shape *shape, double tokens,
                    double active, double tiles, double memory, double compute);

/* value with so many significant digits: what differs between machines in the last bits of a
 * logarithm does not reach the file. */
double moe_round_digits(double value, int digits);

#endif
