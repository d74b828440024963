/*
 * Fitter: what the steps of `moesim fit` share. Internal to sim/calibration; the door is
 * fit_samples.h. Everything lives in one arena.
 *
 * Order of steps: observations; centres and shapes; what each sample would have taken at its
 * point's clock, since under a power cap the clock of a visit depends on what ran before it (in a
 * settled run the point's own median, which a run of such work meets; else one clock for all, since
 * the point's own is an accident); drift, levels of GPUs; centres and shapes again with all that taken off; exchanges, parameters,
 * noise; quality on the points that nothing of this has seen.
 */
#ifndef MOE_SIM_CALIBRATION_FITTER_H
#define MOE_SIM_CALIBRATION_FITTER_H

#include "sim/calibration/decode_fit.h"
#include "sim/calibration/drift_fit.h"
#include "sim/calibration/evidence.h"
#include "sim/calibration/observation.h"
#include "sim/calibration/segment_fit.h"
#include "sim/calibration/shape_fit.h"
#include "sim/calibration/table_builder.h"

enum { MOE_FITTER_NAME_BYTES = 64, MOE_FITTER_DIGITS = 7 };
#define MOE_FITTER_NONE UINT32_MAX

/* What anchors of uneven rows said of the fullest expert's weight. */
struct moe_fitter_fullest {
    uint32_t loads;       /* such anchors; 0: even rows alone decide, and the rest says nothing */
    double weight_before; /* by even rows */
    double rms_before;    /* log error over the anchors by that weight, */
    double rms_left_out;  /* and by one that is fitted to the others, each left out in turn */
    bool is_used;         /* the weight is theirs, as what was left out was foretold better */
};

/* An expert's or a matrix's weights with one backend, over all counts of local experts. */
struct moe_fitter_shape {
    struct moe_shape shape;
    struct moe_shape_fit fit;
    struct moe_fitter_fullest fullest;
    struct moe_curve curve;
    uint32_t first_series; /* the first of the evidence: names and backends go by it */
};

/* One operation between GPUs by its ranks, over all ordered pairs of a kind. */
struct moe_fitter_exchange {
    char name[MOE_FITTER_NAME_BYTES];
    enum moe_evidence_kind kind;
    uint32_t ranks;
    uint32_t first_series;
    struct moe_segment_fit fit;
    double spread;   /* between passes over one of its points, log, median; 0: none was repeated */
    uint32_t fitted; /* points */
};

/* What a roofline over bytes and FLOPs is enough for: attention's cores, permutations. */
struct moe_fitter_line {
    char name[MOE_FITTER_NAME_BYTES];
    enum moe_evidence_kind kind;
    uint32_t first_series; /* MOE_FITTER_NONE: of all series of the kind together */
    struct moe_roofline roofline;
    uint32_t fitted;
};

/* Decode attention of one shape. */
struct moe_fitter_decode {
    struct moe_calibration_decode row; /* but for provenance and source, as the points are */
    const struct moe_calibration_decode_point *points; /* [count] */
    uint32_t count;
    struct moe_decode decode;
    double left_out; /* mean error of left-out points: what slots were chosen by */
};

struct moe_fitter_gpu {
    double factor[MOE_FACTOR_COUNT]; /* of time; 1 where nothing is known */
    double low[MOE_FACTOR_COUNT];
    double high[MOE_FACTOR_COUNT];
    double run_sd[MOE_FACTOR_COUNT];
    uint32_t points[MOE_FACTOR_COUNT];
    uint32_t runs;
};

struct moe_fitter {
    const struct moe_evidence *evidence;
    struct moe_arena *arena;
    const char *gpu_kind;
    double read_bytes_s; /* ceilings of the kind */
    double copy_bytes_s;
    double bf16_flop_s;
    double fp8_flop_s;

    struct moe_observations seen;     /* as measured */
    struct moe_observations even;     /* at their points' clocks: what a fit can foretell */
    struct moe_observations level;    /* besides, less drift: what fits are made of */
    double reference_mhz;             /* of unsettled runs; 0: clocks are not known */
    double *clock_shift;              /* [sample_count], log of time over time at the clock */
    double *adjust;                   /* [sample_count], the same and drift */
    double *centre;                   /* [point_count], log ns; meaningless unless known */
    bool *known;                      /* [point_count], of points that may be fitted */
    double *mhz;                      /* [point_count], median; 0: not known */
    bool *is_settled;                 /* [point_count], a settled run visited it */
    double *share[MOE_FACTOR_COUNT];  /* [point_count], how much of the time follows the class */
    double *effect[MOE_FACTOR_COUNT]; /* [level.column_count], log */

    uint32_t *shape_of; /* [series_count], MOE_FITTER_NONE: none */
    struct moe_fitter_shape *shapes;
    uint32_t shape_count;
    uint32_t *exchange_of;
    struct moe_fitter_exchange *exchanges;
    uint32_t exchange_count;
    double one_way_saving; /* as sim/cost/cost.h has it; 0: not known */
    double own_bytes_s;
    bool own_is_measured; /* else a share of what the GPU can read */
    uint32_t *line_of;
    struct moe_fitter_line *lines;
    uint32_t line_count;
    uint32_t *decode_of; /* [series_count], MOE_FITTER_NONE: none; NULL: only lines are asked */
    struct moe_fitter_decode *decodes;
    uint32_t decode_count;

    struct moe_fitter_gpu *gpus; /* [gpu_count], as they are, each at the clock that it reaches */
    struct moe_fitter_gpu *gpus_at_clock; /* each at its points' clocks */
    struct moe_drift_fit drift;
    uint32_t sentinel_visits;

    uint32_t held_back;  /* anchors left out since a held-out point lies at their place */
    uint32_t uneven;     /* anchors left out since their rows are not even */
    uint32_t impossible; /* points left out as faster than the ceilings, and the first one */
    int64_t impossible_point;
    uint32_t unphysical; /* samples that moecal flagged so, and the first one */
    int64_t unphysical_sample;
    uint32_t wrong;
    int64_t wrong_sample;
};

/* Steps, each over all of the evidence. Errors: MOE_LIMIT, and MOE_RANGE where said. */
enum moe_status moe_fitter_observe(struct moe_fitter *fitter, struct moe_error *err) MOE_MUST_CHECK;
void moe_fitter_centre(struct moe_fitter *fitter);
enum moe_status moe_fitter_find_shapes(struct moe_fitter *fitter,
                                       struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_fitter_fit_shapes(struct moe_fitter *fitter,
                                      struct moe_error *err) MOE_MUST_CHECK;
/* The weight of the fullest expert of a fitted shape by its anchors of uneven rows, one parameter
 * by least squares of log errors; kept only when it foretells anchors left out better than the
 * weight that even rows chose. Without three such anchors nothing changes. */
enum moe_status moe_fitter_fit_fullest(struct moe_fitter *fitter, uint32_t index,
                                       struct moe_error *err) MOE_MUST_CHECK;
/* How badly each tile foretells those anchors, each left out of the weight's fit, as
 * moe_shape_foretell does by even ones: errors[MOE_SHAPE_TILES]. Without three such anchors *can
 * is false, and errors stay as they are. */
enum moe_status moe_fitter_foretell_uneven(double *errors, bool *can,
                                           const struct moe_fitter *fitter, uint32_t index,
                                           struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_fitter_fit_lines(struct moe_fitter *fitter,
                                     struct moe_error *err) MOE_MUST_CHECK;
/* Attention's cores by shape, after all that their points' centres depend on. */
enum moe_status moe_fitter_fit_decodes(struct moe_fitter *fitter,
                                       struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_fitter_fit_clock(struct moe_fitter *fitter,
                                     struct moe_error *err) MOE_MUST_CHECK;
/* The clock that a point stands at after that, by a sample of it at mhz. */
double moe_fitter_clock_of(const struct moe_fitter *fitter, uint32_t point, double mhz);
/* Of the observations fitter->level. */
enum moe_status moe_fitter_fit_levels(struct moe_fitter *fitter, struct moe_fitter_gpu *gpus,
                                      struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_fitter_fit_drift(struct moe_fitter *fitter,
                                     struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_fitter_fit_exchanges(struct moe_fitter *fitter,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* Of exchanges that were fitted: what uneven ones take less or more. */
enum moe_status moe_fitter_fit_uneven(struct moe_fitter *fitter,
                                      struct moe_error *err) MOE_MUST_CHECK;
/* An uneven all-to-all by its matrix, the last rank; even is the curve of even ones. */
double moe_fitter_uneven_ns(const struct moe_fitter *fitter, uint32_t index,
                            const struct moe_segment_fit *even);
/* Bytes that its busiest rank sends or receives, whichever is more; the point's own bytes where no
 * matrix is stored. */
double moe_fitter_busiest(const struct moe_fitter *fitter, uint32_t index);

/* Whether the point's role allows fitting it. */
bool moe_fitter_may_fit(const struct moe_evidence_point *point);

/* What the tables say of a point on a GPU (MOE_OBSERVATION_NO_GPU: on a GPU like the others) at
 * its point's clock. false when they say nothing. */
bool moe_fitter_predict(const struct moe_fitter *fitter, uint32_t index, uint32_t gpu, double *ns);

/* The median of a point's log times as they were measured, and of their clocks (0: not known);
 * false when nobody measured it. */
bool moe_fitter_as_measured(const struct moe_fitter *fitter, uint32_t index, double *log_ns,
                            double *mhz);

/* The table of decode attention that a series has; NULL: none. */
static inline const struct moe_fitter_decode *moe_fitter_decode_of(const struct moe_fitter *fitter,
                                                                   uint32_t series)
{
    return fitter->decode_of == NULL || fitter->decode_of[series] == MOE_FITTER_NONE
               ? NULL
               : &fitter->decodes[fitter->decode_of[series]];
}

/* What an expert point computes in tiles of tile rows, exactly where its rows are stored. */
struct moe_shape_work moe_fitter_work(const struct moe_fitter *fitter, uint32_t index, double tile);

#endif
