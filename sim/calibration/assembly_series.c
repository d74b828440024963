/* The tables of experts, matrices and exchanges. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/calibration/assembly.h"

/* Mean of log time against the mean over the backends of the same shape, at points that all
 * of them have: what decides which backend stands first. */
struct rank {
    uint32_t shape;
    uint32_t family; /* the first shape of the same weights: families stand together */
    bool wanted;
    double log_time; /* over the family's common points; 0 when there are none */
};

static bool same_weights(const struct moe_shape *a, const struct moe_shape *b)
{
    return a->op == b->op && a->hidden == b->hidden && a->expert_size == b->expert_size &&
           a->gated == b->gated && a->dtype == b->dtype;
}

static const struct moe_shape_point *find_point(const struct moe_shape *shape,
                                                const struct moe_shape_point *wanted)
{
    for (uint32_t i = 0; i < shape->count; i++) {
        if (shape->points[i].active == wanted->active &&
            shape->points[i].tokens == wanted->tokens) {
            return &shape->points[i];
        }
    }
    return NULL;
}

static double common_time(const struct moe_fitter *fitter, uint32_t index)
{
    const struct moe_shape *shape = &fitter->shapes[index].shape;
    double sum = 0.0;
    uint32_t used = 0;
    for (uint32_t i = 0; i < shape->count; i++) {
        bool common = true;
        for (uint32_t s = 0; s < fitter->shape_count && common; s++) {
            const struct moe_shape *other = &fitter->shapes[s].shape;
            common = !same_weights(shape, other) || other->count == 0 ||
                     find_point(other, &shape->points[i]) != NULL;
        }
        if (common) {
            sum += log(shape->points[i].ns);
            used++;
        }
    }
    return used == 0 ? 0.0 : sum / used;
}

static int compare_ranks(const void *left, const void *right)
{
    const struct rank *a = left;
    const struct rank *b = right;
    if (a->family != b->family) {
        return a->family < b->family ? -1 : 1;
    }
    if (a->wanted != b->wanted) {
        return a->wanted ? -1 : 1;
    }
    if (a->log_time != b->log_time) {
        return a->log_time < b->log_time ? -1 : 1;
    }
    return (a->shape > b->shape) - (a->shape < b->shape);
}

static enum moe_status order_shapes(const struct moe_assembly *assembly, struct rank **out,
                                    struct moe_error *err)
{
    const struct moe_fitter *fitter = assembly->fitter;
    struct rank *ranks = MOE_NEW(fitter->arena, struct rank, fitter->shape_count + 1);
    if (ranks == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its shapes", fitter->evidence->name);
    }
    for (uint32_t i = 0; i < fitter->shape_count; i++) {
        const struct moe_shape *shape = &fitter->shapes[i].shape;
        uint32_t family = 0;
        while (!same_weights(shape, &fitter->shapes[family].shape)) {
            family++;
        }
        ranks[i] = (struct rank){
            .shape = i,
            .family = family,
            .wanted = assembly->backend != NULL && strcmp(shape->backend, assembly->backend) == 0,
            .log_time = common_time(fitter, i),
        };
    }
    if (fitter->shape_count > 0) {
        qsort(ranks, fitter->shape_count, sizeof ranks[0], compare_ranks);
    }
    *out = ranks;
    return MOE_OK;
}

static enum moe_status add_sustained(struct moe_assembly *assembly, uint32_t index,
                                     struct moe_error *err)
{
    const struct moe_fitter *fitter = assembly->fitter;
    const struct moe_evidence *evidence = fitter->evidence;
    const char *name = fitter->shapes[index].shape.name;
    for (uint32_t p = 0; p < evidence->point_count; p++) {
        const struct moe_evidence_point *point = &evidence->points[p];
        const struct moe_calibration *made = &assembly->builder->calibration;
        bool twice = false;
        double log_ns = 0.0;
        double mhz = 0.0;
        if (point->role != MOE_EVIDENCE_SUSTAINED || fitter->shape_of[point->series] != index ||
            point->tokens < 1.0 || !moe_fitter_as_measured(fitter, p, &log_ns, &mhz)) {
            continue;
        }
        for (uint32_t i = 0; i < made->sustained_count; i++) {
            const struct moe_calibration_sustained *row = &made->sustained_rows[i];
            twice = twice || (strcmp(row->series, name) == 0 && row->tokens == point->tokens &&
                              row->active == point->active);
        }
        if (twice) {
            continue; /* another count of local experts had it first */
        }
        MOE_ASSEMBLY_ROW(assembly, sustained, row)
        *row = (struct moe_calibration_sustained){
            .series = name,
            .tokens = point->tokens,
            .active = point->active,
            .median_ns = moe_round_digits(exp(log_ns), MOE_FITTER_DIGITS),
            .clock_hz = mhz * 1e6,
            .provenance = MOE_PROVENANCE_MEASURED,
            .source = assembly->source,
        };
    }
    return MOE_OK;
}

static enum moe_status add_measured(struct moe_assembly *assembly, struct moe_error *err)
{
    struct moe_fitter *fitter = assembly->fitter;
    struct rank *ranks = NULL;
    MOE_TRY(order_shapes(assembly, &ranks, err));
    for (uint32_t i = 0; i < fitter->shape_count; i++) {
        const struct moe_fitter_shape *shape = &fitter->shapes[ranks[i].shape];
        bool holds = false;
        if (shape->shape.count == 0) {
            continue;
        }
        MOE_TRY(moe_quality_shape_holds(&holds, fitter, ranks[i].shape, err));
        MOE_TRY(moe_shape_rows(assembly->builder, &shape->shape, &shape->fit,
                               holds ? MOE_PROVENANCE_MEASURED : MOE_PROVENANCE_EXTRAPOLATED,
                               assembly->source, err));
        MOE_TRY(add_sustained(assembly, ranks[i].shape, err));
    }
    return MOE_OK;
}

/* Whether a measured series serves what a series of the base would. */
static bool is_measured(const struct moe_calibration *made,
                        const struct moe_calibration_series *base)
{
    for (uint32_t i = 0; i < made->series_count; i++) {
        const struct moe_calibration_series *series = &made->series_rows[i];
        if (base->hidden != 0 && series->op == base->op && series->hidden == base->hidden &&
            series->expert_size == base->expert_size && series->dtype == base->dtype &&
            (series->op == MOE_SERIES_GEMM || series->gated == base->gated)) {
            return true;
        }
    }
    return false;
}

/* Rates that the new kind's ceilings do not allow are brought down to what is usual below them. */
static void fit_below_ceilings(const struct moe_fitter *fitter,
                               const struct moe_calibration_series *series,
                               struct moe_calibration_fit *fit)
{
    static const double usual = 0.9;
    const double flop_s = series->dtype == MOE_DTYPE_FP8 ? fitter->fp8_flop_s : fitter->bf16_flop_s;
    if (fit->bandwidth_bytes_s > fitter->read_bytes_s) {
        fit->bandwidth_bytes_s = usual * fitter->read_bytes_s;
        fit->provenance = MOE_PROVENANCE_ASSUMED;
    }
    if (fit->peak_flop_s > flop_s) {
        fit->peak_flop_s = usual * flop_s;
        fit->provenance = MOE_PROVENANCE_ASSUMED;
    }
}

static enum moe_status add_base_point(struct moe_assembly *assembly,
                                      const struct moe_calibration_series *series,
                                      const struct moe_calibration_point *base,
                                      struct moe_error *err)
{
    const struct moe_fitter *fitter = assembly->fitter;
    const struct moe_shape shape = {
        .op = (enum moe_series_op) series->op,
        .hidden = series->hidden,
        .expert_size = series->expert_size,
        .gated = series->gated != 0,
        .dtype = (enum moe_dtype) series->dtype,
        .read_bytes_s = fitter->read_bytes_s,
        .flop_s = series->dtype == MOE_DTYPE_FP8 ? fitter->fp8_flop_s : fitter->bf16_flop_s,
    };
    if (!moe_shape_is_physical(&shape, base->tokens, base->active, base->median_ns)) {
        return MOE_OK; /* published of a better card than was measured here */
    }
    MOE_ASSEMBLY_ROW(assembly, point, point)
    *point = *base;
    point->provenance = moe_assembly_provenance(assembly, point->provenance);
    point->source = moe_assembly_source(assembly, point->source);
    return MOE_OK;
}

static enum moe_status add_base_series(struct moe_assembly *assembly,
                                       const struct moe_calibration_series *base,
                                       struct moe_error *err)
{
    const struct moe_calibration *calibration = assembly->base;
    const struct moe_calibration_fit *fit = moe_calibration_find_fit(calibration, base->name);
    if (assembly->foreign && base->hidden != 0) {
        return MOE_OK; /* times of another kind's kernels say nothing here; generic rates do */
    }
    MOE_ASSEMBLY_ROW(assembly, series, series)
    *series = *base;
    series->gpu_kind = assembly->fitter->gpu_kind;
    series->provenance = moe_assembly_provenance(assembly, base->provenance);
    series->source = moe_assembly_source(assembly, base->source);
    MOE_ASSEMBLY_ROW(assembly, fit, row)
    *row = *fit;
    row->provenance = moe_assembly_provenance(assembly, fit->provenance);
    row->source = moe_assembly_source(assembly, fit->source);
    fit_below_ceilings(assembly->fitter, base, row);
    for (uint32_t i = 0; i < calibration->point_count; i++) {
        if (strcmp(calibration->point_rows[i].series, base->name) == 0) {
            MOE_TRY(add_base_point(assembly, base, &calibration->point_rows[i], err));
        }
    }
    return MOE_OK;
}

enum moe_status moe_assembly_series(struct moe_assembly *assembly, struct moe_error *err)
{
    MOE_TRY(add_measured(assembly, err));
    for (uint32_t i = 0; i < assembly->base->series_count; i++) {
        const struct moe_calibration_series *base = &assembly->base->series_rows[i];
        if (strcmp(base->gpu_kind, assembly->base_kind) == 0 &&
            !is_measured(&assembly->builder->calibration, base)) {
            MOE_TRY(add_base_series(assembly, base, err));
        }
    }
    return MOE_OK;
}

/* The table's name of a measured operation; MOE_SEGMENT_OP_COUNT where it has none. */
static enum moe_segment_op segment_op(enum moe_evidence_kind kind)
{
    static const struct {
        enum moe_evidence_kind kind;
        enum moe_segment_op op;
    } ops[] = {
        { MOE_EVIDENCE_ALL_TO_ALL, MOE_SEGMENT_ALL_TO_ALL },
        { MOE_EVIDENCE_ALL_GATHER, MOE_SEGMENT_ALL_GATHER },
        { MOE_EVIDENCE_REDUCE_SCATTER, MOE_SEGMENT_REDUCE_SCATTER },
        { MOE_EVIDENCE_ALL_REDUCE, MOE_SEGMENT_ALL_REDUCE },
        { MOE_EVIDENCE_P2P, MOE_SEGMENT_P2P },
        { MOE_EVIDENCE_P2P_BOTH, MOE_SEGMENT_P2P_BOTH },
        { MOE_EVIDENCE_PEER_COPY, MOE_SEGMENT_PEER_COPY },
        { MOE_EVIDENCE_HOST_TO_DEVICE, MOE_SEGMENT_HOST_TO_DEVICE },
    };
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        if (ops[i].kind == kind) {
            return ops[i].op;
        }
    }
    return MOE_SEGMENT_OP_COUNT;
}

/* Whether the held-out points of every series that the exchange is made of bear it out; what
 * nobody could check does not. */
static bool exchange_holds(const struct moe_assembly *assembly, uint32_t exchange)
{
    bool holds = false;
    bool missed = false;
    for (uint32_t i = 0; i < assembly->quality_count; i++) {
        const struct moe_quality *quality = &assembly->quality[i];
        if (assembly->fitter->exchange_of[quality->series] == exchange &&
            quality->points == MOE_FIT_HELDOUT) {
            holds = holds || quality->status == MOE_FIT_CALIBRATED;
            missed = missed || quality->status == MOE_FIT_MISSED;
        }
    }
    return holds && !missed;
}

static enum moe_status add_exchange(struct moe_assembly *assembly, uint32_t index,
                                    enum moe_provenance provenance, struct moe_error *err)
{
    const struct moe_fitter_exchange *exchange = &assembly->fitter->exchanges[index];
    for (uint32_t i = 0; i < exchange->fit.count; i++) {
        const struct moe_segment_line *line = &exchange->fit.lines[i];
        MOE_ASSEMBLY_ROW(assembly, segment, row)
        *row = (struct moe_calibration_segment){
            .gpu_kind = assembly->fitter->gpu_kind,
            .op = segment_op(exchange->kind),
            .link = MOE_LINK_NEAR,
            .ranks = exchange->ranks,
            .from_bytes = line->from_bytes,
            .to_bytes = line->to_bytes,
            .alpha_ns = line->alpha_ns,
            .bandwidth_bytes_s = moe_round_digits(1e9 / line->ns_per_byte, MOE_FITTER_DIGITS),
            .provenance = provenance,
            .source = assembly->source,
        };
    }
    return MOE_OK;
}

enum moe_status moe_assembly_segments(struct moe_assembly *assembly, struct moe_error *err)
{
    const struct moe_fitter *fitter = assembly->fitter;
    for (uint32_t i = 0; i < fitter->exchange_count; i++) {
        if (fitter->exchanges[i].fitted > 0 &&
            segment_op(fitter->exchanges[i].kind) != MOE_SEGMENT_OP_COUNT) {
            MOE_TRY(add_exchange(assembly, i,
                                 exchange_holds(assembly, i) ? MOE_PROVENANCE_MEASURED
                                                             : MOE_PROVENANCE_EXTRAPOLATED,
                                 err));
        }
    }
    for (uint32_t i = 0; i < assembly->base->segment_count; i++) {
        const struct moe_calibration_segment *base = &assembly->base->segment_rows[i];
        bool measured = strcmp(base->gpu_kind, assembly->base_kind) != 0;
        for (uint32_t x = 0; x < fitter->exchange_count; x++) {
            measured =
                measured || (fitter->exchanges[x].fitted > 0 && base->link == MOE_LINK_NEAR &&
                             base->op == segment_op(fitter->exchanges[x].kind) &&
                             base->ranks == fitter->exchanges[x].ranks);
        }
        if (!measured) {
            MOE_ASSEMBLY_ROW(assembly, segment, row)
            *row = *base;
            row->gpu_kind = fitter->gpu_kind;
            row->provenance = moe_assembly_provenance(assembly, base->provenance);
            row->source = moe_assembly_source(assembly, base->source);
        }
    }
    return MOE_OK;
}
