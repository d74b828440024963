/*
 * Shape fit: the roofline of one weight shape (an expert's FFN, or one matrix) with one
 * backend, from points at several counts of tokens and active experts.
 *
 * Rows are padded to a tile: the one by which what is left out is best foretold
 * (moe_shape_foretell), by the shape alone where it was measured at several counts of active
 * experts, else by all shapes of one backend together. Points at several counts also tell how
 * much the fullest expert adds (table fullest), since with few experts its tiles are not hidden
 * behind others'; where there are none that stays 0. The clock of the points, where it was
 * measured, enters the rate of arithmetic. What the roofline does not say, the ratio at each point
 * does (curve.h), so a point is met exactly and only what lies between is a prediction.
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
    uint32_t sm_count;                    /* 0: what the fullest expert adds is not asked for */
    const struct moe_shape_point *points; /* by rising (active, tokens), no two alike */
    uint32_t count;                       /* at least 1 */
};

struct moe_shape_fit {
    struct moe_roofline roofline; /* rounded to what is stored; its weight is table fullest's */
    uint32_t tile_tokens;
    double reference_mhz; /* at which the peak holds; 0: clocks are not known */
};

enum { MOE_SHAPE_TILES = 8, MOE_SHAPE_FORETELL_STARTS = 3 };
extern const uint32_t moe_shape_tiles[MOE_SHAPE_TILES]; /* that are tried, rising */

/* Rows of the fullest expert beyond these add nothing: its further tiles run beside the first
 * ones. Of caps 64, 128 and 192 the one that foretold left-out rows of H200 best. */
enum { MOE_SHAPE_FULLEST_ROWS = 128 };

/* errors[MOE_SHAPE_TILES]: sums over the shape's points, so that shapes can be added up. *by_rows
 * says whether they are of whole rows of one active count, each foretold from the others, as a
 * shape with many can say; else each point is foretold from its neighbours.
 * Errors: MOE_LIMIT without memory. */
enum moe_status moe_shape_foretell(double *errors, bool *by_rows, const struct moe_shape *shape,
                                   struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* starts: as roofline.h has them. Errors: MOE_LIMIT without memory. */
enum moe_status moe_shape_fit(struct moe_shape_fit *out, const struct moe_shape *shape,
                              uint32_t tile_tokens, uint32_t starts, struct moe_arena *arena,
                              struct moe_error *err) MOE_MUST_CHECK;

/* What the weight should be about: a tile goes through both products on one multiprocessor, 256
 * weight rows at a time, where even work has them all: half of that, since other tiles run beside
 * it. */
double moe_shape_expected_weight(const struct moe_shape *shape);

/* Measured over fitted at so many tokens per active expert, as the tables will have it: along the
 * rows on both sides of active, and linear in its log2 between them. */
double moe_shape_ratio(const struct moe_shape *shape, const struct moe_shape_fit *fit,
                       double tokens, double active);

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

/* One GPU's rows of an expert or matrix. */
struct moe_shape_work {
    double tokens; /* all rows */
    double active;
    double tiles;
    double fullest; /* rows of the fullest one */
};

/* moe_shape_ratio as uneven work has it (curve.h). */
double moe_shape_uneven_ratio(const struct moe_shape *shape, const struct moe_shape_fit *fit,
                              const struct moe_shape_work *work);

/* The cost model's time, with factors of memory and compute time. */
double moe_shape_ns(const struct moe_curve *curve, const struct moe_shape *shape,
                    const struct moe_shape_work *work, double memory, double compute);

/* FLOPs that it counts, and bytes that it reads. */
double moe_shape_flops(const struct moe_shape *shape, const struct moe_shape_fit *fit,
                       const struct moe_shape_work *work);

/* value with so many significant digits: what differs between machines in the last bits of a
 * logarithm does not reach the file. */
double moe_round_digits(double value, int digits);

#endif
