/* Experts and matrices: which series share weights, their points, their fits. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/calibration/fitter.h"

static bool is_gated(const struct moe_evidence_series *series)
{
    return strcmp(series->activation, "swiglu") == 0 || strcmp(series->activation, "geglu") == 0;
}

static bool same_shape(const struct moe_evidence_series *a, const struct moe_evidence_series *b)
{
    return a->kind == b->kind && a->hidden == b->hidden && a->inter == b->inter &&
           strcmp(a->dtype, b->dtype) == 0 && strcmp(a->backend, b->backend) == 0 &&
           is_gated(a) == is_gated(b);
}

static enum moe_status begin_shape(struct moe_fitter *fitter, uint32_t index, struct moe_error *err)
{
    static const char *const dtypes[] = { "bf16", "fp8", "fp4" };
    const struct moe_evidence *evidence = fitter->evidence;
    const struct moe_evidence_series *series = &evidence->series[index];
    struct moe_fitter_shape *out = &fitter->shapes[fitter->shape_count];
    uint32_t dtype = 0;
    while (dtype < MOE_DTYPE_COUNT && strcmp(series->dtype, dtypes[dtype]) != 0) {
        dtype++;
    }
    if (dtype == MOE_DTYPE_COUNT || series->hidden == 0 || series->inter == 0 ||
        series->backend[0] == '\0') {
        return moe_fail(err, MOE_RANGE,
                        "%s: table sample_series, row id %lld: %s is %ux%u in %.20s by '%.30s'; a "
                        "shape, one of bf16 fp8 fp4 and a backend are needed",
                        evidence->name, (long long) series->id, series->name, series->hidden,
                        series->inter, series->dtype, series->backend);
    }
    char *name = MOE_NEW(fitter->arena, char, MOE_FITTER_NAME_BYTES);
    if (name == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its shapes", evidence->name);
    }
    const bool expert = series->kind == MOE_EVIDENCE_EXPERT;
    (void) snprintf(name, MOE_FITTER_NAME_BYTES, "%s-%ux%u-%s%s%s-%.20s",
                    expert ? "expert" : "gemm", series->hidden, series->inter, dtypes[dtype],
                    expert ? "-" : "", expert ? series->activation : "", series->backend);
    *out = (struct moe_fitter_shape){
        .first_series = index,
        .shape = { .name = name,
                   .gpu_kind = fitter->gpu_kind,
                   .op = expert ? MOE_SERIES_EXPERT : MOE_SERIES_GEMM,
                   .hidden = series->hidden,
                   .expert_size = series->inter,
                   .gated = expert && is_gated(series),
                   .dtype = (enum moe_dtype) dtype,
                   .backend = series->backend,
                   .read_bytes_s = fitter->read_bytes_s,
                   .flop_s = dtype == MOE_DTYPE_FP8 ? fitter->fp8_flop_s : fitter->bf16_flop_s,
                   .sm_count = evidence->gpus[0].sm_count },
    };
    fitter->shape_of[index] = fitter->shape_count++;
    return MOE_OK;
}

enum moe_status moe_fitter_find_shapes(struct moe_fitter *fitter, struct moe_error *err)
{
    const struct moe_evidence *evidence = fitter->evidence;
    fitter->shape_of = MOE_NEW(fitter->arena, uint32_t, evidence->series_count + 1);
    fitter->shapes = MOE_NEW(fitter->arena, struct moe_fitter_shape, evidence->series_count + 1);
    if (fitter->shape_of == NULL || fitter->shapes == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its shapes", evidence->name);
    }
    for (uint32_t i = 0; i < evidence->series_count; i++) {
        const enum moe_evidence_kind kind = evidence->series[i].kind;
        fitter->shape_of[i] = MOE_FITTER_NONE;
        if (kind != MOE_EVIDENCE_EXPERT && kind != MOE_EVIDENCE_GEMM) {
            continue;
        }
        for (uint32_t s = 0; s < fitter->shape_count; s++) {
            if (same_shape(&evidence->series[fitter->shapes[s].first_series],
                           &evidence->series[i])) {
                fitter->shape_of[i] = s;
            }
        }
        if (fitter->shape_of[i] == MOE_FITTER_NONE) {
            MOE_TRY(begin_shape(fitter, i, err));
        }
    }
    return MOE_OK;
}

/* Every active expert has as many rows as the others, or one less. */
static bool is_even(const struct moe_evidence_point *point)
{
    return point->row_max == 0 || point->row_max <= ceil(point->tokens) + 1e-9;
}

/* Whether a held-out point lies at the same place of the same shape: then nothing there may be
 * fitted, whichever run or count of local experts it comes from. */
static bool is_held_out(const struct moe_fitter *fitter, uint32_t index)
{
    const struct moe_evidence *evidence = fitter->evidence;
    const struct moe_evidence_point *point = &evidence->points[index];
    const uint32_t shape = fitter->shape_of[point->series];
    for (uint32_t i = 0; i < evidence->point_count; i++) {
        const struct moe_evidence_point *other = &evidence->points[i];
        if (other->role == MOE_EVIDENCE_HELDOUT && fitter->shape_of[other->series] == shape &&
            other->active == point->active && other->tokens == point->tokens && is_even(other)) {
            return true;
        }
    }
    return false;
}

static int compare_points(const void *left, const void *right)
{
    const struct moe_shape_point *a = left;
    const struct moe_shape_point *b = right;
    if (a->active != b->active) {
        return a->active < b->active ? -1 : 1;
    }
    if (a->tokens != b->tokens) {
        return a->tokens < b->tokens ? -1 : 1;
    }
    return (a->ns > b->ns) - (a->ns < b->ns);
}

/* Several series have the same point: their median. points are sorted; gives how many are left. */
static uint32_t unite(struct moe_shape_point *points, uint32_t count)
{
    uint32_t kept = 0;
    for (uint32_t begin = 0; begin < count;) {
        uint32_t end = begin + 1;
        while (end < count && points[end].active == points[begin].active &&
               points[end].tokens == points[begin].tokens) {
            end++;
        }
        points[kept++] = points[begin + (end - begin - 1) / 2];
        begin = end;
    }
    return kept;
}

/* The points that may be fitted, into to; gives how many. */
static uint32_t collect(struct moe_fitter *fitter, uint32_t index, struct moe_shape_point *to)
{
    const struct moe_evidence *evidence = fitter->evidence;
    const struct moe_shape *shape = &fitter->shapes[index].shape;
    uint32_t count = 0;
    for (uint32_t p = 0; p < evidence->point_count; p++) {
        const struct moe_evidence_point *point = &evidence->points[p];
        if (!fitter->known[p] || fitter->shape_of[point->series] != index || point->tokens < 1.0) {
            continue;
        }
        if (!is_even(point)) {
            fitter->uneven++;
            continue;
        }
        if (is_held_out(fitter, p)) {
            fitter->held_back++;
            continue;
        }
        const double ns = exp(fitter->centre[p]);
        if (!moe_shape_is_physical(shape, point->tokens, point->active, ns)) {
            fitter->impossible_point =
                fitter->impossible++ == 0 ? point->id : fitter->impossible_point;
            continue;
        }
        to[count++] = (struct moe_shape_point){
            .tokens = point->tokens, .active = point->active, .ns = ns, .mhz = fitter->mhz[p]
        };
    }
    if (count > 0) {
        qsort(to, count, sizeof to[0], compare_points);
        count = unite(to, count);
    }
    return count;
}

/* How much of each point's time follows arithmetic and memory, by the fit. */
static void share_out(struct moe_fitter *fitter, uint32_t index)
{
    const struct moe_evidence *evidence = fitter->evidence;
    const struct moe_fitter_shape *shape = &fitter->shapes[index];
    const double weights = moe_shape_weights(&shape->shape);
    for (uint32_t p = 0; p < evidence->point_count; p++) {
        const struct moe_evidence_point *point = &evidence->points[p];
        if (fitter->shape_of[point->series] != index) {
            continue;
        }
        const double bytes = point->active * weights * moe_dtype_bytes(shape->shape.dtype);
        const struct moe_shape_work work = moe_fitter_work(fitter, p, shape->fit.tile_tokens);
        const double flops = moe_shape_flops(&shape->shape, &shape->fit, &work);
        const double clock = shape->fit.reference_mhz > 0.0 && fitter->mhz[p] > 0.0
                                 ? fitter->mhz[p] / shape->fit.reference_mhz
                                 : 1.0;
        fitter->share[MOE_FACTOR_COMPUTE][p] =
            moe_roofline_compute_share(&shape->fit.roofline, bytes, flops, clock);
        fitter->share[MOE_FACTOR_MEMORY][p] =
            moe_roofline_memory_share(&shape->fit.roofline, bytes, flops, clock);
    }
}

/* Experts' kernels cut rows alike in all dtypes; which of a library's is chosen depends on them. */
static bool same_kernel(const struct moe_shape *a, const struct moe_shape *b)
{
    return a->op == b->op && (a->dtype == b->dtype || a->op == MOE_SERIES_EXPERT) &&
           strcmp(a->backend, b->backend) == 0;
}

/* What a shape says of tiles, and how good a witness it is. */
struct vote {
    enum { BY_NEIGHBOURS, BY_ROWS, BY_UNEVEN } witness;
    double errors[MOE_SHAPE_TILES];
};

/* How well tile t does for all shapes of the kernel of one, by the best witnesses among them: uneven
 * rows, whose tiles differ while ratios cannot hide it; else rows of one active count left out; else
 * points by their neighbours. */
static double tile_error(const struct moe_fitter *fitter, uint32_t index, uint32_t t,
                         const struct vote *votes)
{
    uint32_t best = BY_NEIGHBOURS;
    double sum = 0.0;
    for (int turn = 0; turn < 2; turn++) {
        for (uint32_t other = 0; other < fitter->shape_count; other++) {
            if (!same_kernel(&fitter->shapes[index].shape, &fitter->shapes[other].shape)) {
                continue;
            }
            best = votes[other].witness > best ? votes[other].witness : best;
            sum += turn == 1 && votes[other].witness == best ? votes[other].errors[t] : 0.0;
        }
    }
    return sum;
}

/* The tile of every shape: of all shapes of its backend together. Each shape by itself was tried:
 * what it gains on even rows it loses on uneven ones, as few rows left out do not decide it. */
static enum moe_status choose_tiles(struct moe_fitter *fitter, struct moe_error *err)
{
    struct vote *votes = MOE_NEW(fitter->arena, struct vote, (size_t) fitter->shape_count + 1);
    if (votes == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its shapes", fitter->evidence->name);
    }
    for (uint32_t i = 0; i < fitter->shape_count; i++) {
        bool by_uneven = false;
        bool by_rows = false;
        MOE_TRY(moe_fitter_foretell_uneven(votes[i].errors, &by_uneven, fitter, i, err));
        if (!by_uneven && fitter->shapes[i].shape.count > 0) {
            MOE_TRY(moe_shape_foretell(votes[i].errors, &by_rows, &fitter->shapes[i].shape,
                                       fitter->arena, err));
        }
        votes[i].witness = by_uneven ? BY_UNEVEN : by_rows ? BY_ROWS : BY_NEIGHBOURS;
    }
    for (uint32_t i = 0; i < fitter->shape_count; i++) {
        double least = INFINITY;
        for (uint32_t t = 0; t < MOE_SHAPE_TILES; t++) {
            const double sum = tile_error(fitter, i, t, votes);
            /* The smallest of those that are alike. */
            if (sum < least * (1.0 - 1e-3)) {
                least = sum;
                fitter->shapes[i].fit.tile_tokens = moe_shape_tiles[t];
            }
        }
        if (least == 0.0) {
            fitter->shapes[i].fit.tile_tokens = moe_shape_tiles[0];
        }
    }
    return MOE_OK;
}

enum moe_status moe_fitter_fit_shapes(struct moe_fitter *fitter, struct moe_error *err)
{
    fitter->held_back = 0;
    fitter->uneven = 0;
    fitter->impossible = 0;
    for (uint32_t i = 0; i < fitter->shape_count; i++) {
        struct moe_fitter_shape *shape = &fitter->shapes[i];
        struct moe_shape_point *points =
            MOE_NEW(fitter->arena, struct moe_shape_point, fitter->evidence->point_count + 1);
        if (points == NULL) {
            return moe_fail(err, MOE_LIMIT, "%s: no memory for its shapes", fitter->evidence->name);
        }
        shape->shape.points = points;
        shape->shape.count = collect(fitter, i, points);
    }
    MOE_TRY(choose_tiles(fitter, err));
    for (uint32_t i = 0; i < fitter->shape_count; i++) {
        struct moe_fitter_shape *shape = &fitter->shapes[i];
        if (shape->shape.count > 0) {
            MOE_TRY(moe_shape_fit(&shape->fit, &shape->shape, shape->fit.tile_tokens,
                                  MOE_ROOFLINE_STARTS, fitter->arena, err));
            MOE_TRY(moe_fitter_fit_fullest(fitter, i, err));
            MOE_TRY(moe_shape_curve(&shape->curve, &shape->shape, &shape->fit, fitter->arena, err));
            share_out(fitter, i);
        }
    }
    return MOE_OK;
}
