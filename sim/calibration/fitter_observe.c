/* Observations, centres and shares of the fitter: what all later steps start from. */
#include <math.h>
#include <string.h>

#include "sim/calibration/fitter.h"

bool moe_fitter_may_fit(const struct moe_evidence_point *point)
{
    return point->role == MOE_EVIDENCE_ANCHOR || point->role == MOE_EVIDENCE_REFINE ||
           point->role == MOE_EVIDENCE_SENTINEL;
}

static void count_bad(struct moe_fitter *fitter, const struct moe_observation *item)
{
    const struct moe_evidence *evidence = fitter->evidence;
    for (uint32_t i = 0; i < evidence->sample_count; i++) {
        const struct moe_evidence_sample *sample = &evidence->samples[i];
        if (sample->point != item->point || (sample->flags & item->bad_flags) == 0) {
            continue;
        }
        if ((sample->flags & MOE_EVIDENCE_WRONG) != 0) {
            fitter->wrong_sample = fitter->wrong++ == 0 ? sample->id : fitter->wrong_sample;
        } else {
            fitter->unphysical_sample =
                fitter->unphysical++ == 0 ? sample->id : fitter->unphysical_sample;
        }
    }
}

enum moe_status moe_fitter_observe(struct moe_fitter *fitter, struct moe_error *err)
{
    const struct moe_evidence *evidence = fitter->evidence;
    const uint32_t points = evidence->point_count;
    MOE_TRY(moe_observations_make(&fitter->seen, evidence, NULL, fitter->arena, err));
    fitter->level = fitter->seen;
    fitter->even = fitter->seen;
    fitter->clock_shift = MOE_NEW(fitter->arena, double, evidence->sample_count);
    fitter->gpus_at_clock = MOE_NEW(fitter->arena, struct moe_fitter_gpu, evidence->gpu_count);
    fitter->adjust = MOE_NEW(fitter->arena, double, evidence->sample_count);
    fitter->centre = MOE_NEW(fitter->arena, double, points + 1);
    fitter->mhz = MOE_NEW(fitter->arena, double, points + 1);
    fitter->known = MOE_NEW(fitter->arena, bool, points + 1);
    fitter->is_settled = MOE_NEW(fitter->arena, bool, points + 1);
    fitter->gpus = MOE_NEW(fitter->arena, struct moe_fitter_gpu, evidence->gpu_count);
    bool complete = fitter->adjust != NULL && fitter->centre != NULL && fitter->mhz != NULL &&
                    fitter->known != NULL && fitter->gpus != NULL && fitter->clock_shift != NULL &&
                    fitter->gpus_at_clock != NULL && fitter->is_settled != NULL;
    for (uint32_t i = 0; i < MOE_FACTOR_COUNT; i++) {
        fitter->share[i] = MOE_NEW(fitter->arena, double, points + 1);
        fitter->effect[i] = MOE_NEW(fitter->arena, double, fitter->seen.column_count);
        complete = complete && fitter->share[i] != NULL && fitter->effect[i] != NULL;
    }
    if (!complete) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its %u points", evidence->name, points);
    }
    for (uint32_t i = 0; i < evidence->sample_count; i++) {
        fitter->is_settled[evidence->samples[i].point] |=
            evidence->runs[evidence->samples[i].run].is_settled;
    }
    for (uint32_t g = 0; g < evidence->gpu_count; g++) {
        for (uint32_t i = 0; i < MOE_FACTOR_COUNT; i++) {
            fitter->gpus[g].factor[i] = fitter->gpus[g].low[i] = fitter->gpus[g].high[i] = 1.0;
        }
        fitter->gpus_at_clock[g] = fitter->gpus[g];
    }
    for (uint32_t i = 0; i < fitter->seen.count; i++) {
        if (fitter->seen.items[i].bad_flags != 0 &&
            (i == 0 || fitter->seen.items[i].point != fitter->seen.items[i - 1].point)) {
            count_bad(fitter, &fitter->seen.items[i]);
        }
    }
    return MOE_OK;
}

void moe_fitter_centre(struct moe_fitter *fitter)
{
    double values[256];
    double clocks[256];
    for (uint32_t p = 0; p < fitter->evidence->point_count; p++) {
        uint32_t used = 0;
        uint32_t clocked = 0;
        fitter->known[p] = false;
        for (uint32_t i = fitter->level.first[p]; i < fitter->level.first[p + 1]; i++) {
            const struct moe_observation *item = &fitter->level.items[i];
            if (item->bad_flags != 0 || used == sizeof values / sizeof values[0]) {
                continue;
            }
            double value = item->log_ns;
            for (uint32_t c = 0; c < MOE_FACTOR_COUNT; c++) {
                value -= fitter->share[c][p] * fitter->effect[c][item->column];
            }
            values[used++] = value;
            if (item->mhz > 0.0) {
                clocks[clocked++] = moe_fitter_clock_of(fitter, p, item->mhz);
            }
        }
        if (used > 0) {
            fitter->centre[p] = moe_median(values, used);
            fitter->mhz[p] = clocked == 0 ? 0.0 : moe_median(clocks, clocked);
            fitter->known[p] = moe_fitter_may_fit(&fitter->evidence->points[p]);
        }
    }
}

bool moe_fitter_as_measured(const struct moe_fitter *fitter, uint32_t index, double *log_ns,
                            double *mhz)
{
    enum { LIMIT = 256 };
    double values[LIMIT];
    double clocks[LIMIT];
    uint32_t used = 0;
    uint32_t clocked = 0;
    for (uint32_t i = fitter->seen.first[index]; i < fitter->seen.first[index + 1]; i++) {
        const struct moe_observation *item = &fitter->seen.items[i];
        if (used < LIMIT && item->bad_flags == 0) {
            values[used++] = item->log_ns;
            clocks[clocked] = item->mhz;
            clocked += item->mhz > 0.0 ? 1 : 0;
        }
    }
    if (used == 0) {
        return false;
    }
    *log_ns = moe_median(values, used);
    *mhz = clocked == 0 ? 0.0 : moe_median(clocks, clocked);
    return true;
}

struct moe_shape_work moe_fitter_work(const struct moe_fitter *fitter, uint32_t index, double tile)
{
    const struct moe_evidence_point *point = &fitter->evidence->points[index];
    const size_t experts = point->rows_bytes / sizeof(int32_t);
    struct moe_shape_work work = {
        .tokens = point->tokens * point->active,
        .active = point->active,
        .fullest = fmax(point->row_max, ceil(point->tokens)),
    };
    if (point->rows == NULL || experts == 0) {
        work.tiles = tile == 64.0 && point->tiles64 > 0.0 ? point->tiles64
                     : tile == 128.0 && point->tiles128 > 0.0
                         ? point->tiles128
                         : point->active * ceil(point->tokens / tile);
        return work;
    }
    for (size_t e = 0; e < experts; e++) {
        int32_t rows = 0;
        memcpy(&rows, point->rows + e * sizeof rows, sizeof rows);
        work.tiles += rows > 0 ? ceil(rows / tile) : 0.0;
    }
    return work;
}

static double factor_of(const struct moe_fitter *fitter, uint32_t gpu, uint32_t class)
{
    return gpu == MOE_OBSERVATION_NO_GPU ? 1.0 : fitter->gpus_at_clock[gpu].factor[class];
}

bool moe_fitter_predict(const struct moe_fitter *fitter, uint32_t index, uint32_t gpu, double *ns)
{
    const struct moe_evidence_point *point = &fitter->evidence->points[index];
    const uint32_t series = point->series;
    const double memory = factor_of(fitter, gpu, MOE_FACTOR_MEMORY);
    const double compute = factor_of(fitter, gpu, MOE_FACTOR_COMPUTE);
    if (fitter->shape_of[series] != MOE_FITTER_NONE) {
        const struct moe_fitter_shape *shape = &fitter->shapes[fitter->shape_of[series]];
        if (shape->shape.count == 0) {
            return false;
        }
        const struct moe_shape_work work = moe_fitter_work(fitter, index, shape->fit.tile_tokens);
        *ns = moe_shape_ns(&shape->curve, &shape->shape, &work, memory, compute);
        return true;
    }
    if (fitter->exchange_of[series] != MOE_FITTER_NONE) {
        const struct moe_fitter_exchange *exchange =
            &fitter->exchanges[fitter->exchange_of[series]];
        *ns = exchange->fitted == 0 ? 0.0
              : fitter->evidence->series[series].kind == MOE_EVIDENCE_ALL_TO_ALL_V
                  ? moe_fitter_uneven_ns(fitter, index, &exchange->fit)
                  : moe_segment_fit_ns(&exchange->fit, point->bytes);
        return exchange->fitted > 0;
    }
    const struct moe_fitter_decode *decode = moe_fitter_decode_of(fitter, series);
    if (decode != NULL && point->tokens > 0.0 && point->context > 0.0) {
        enum moe_provenance provenance = MOE_PROVENANCE_MEASURED;
        *ns = moe_decode_ns(&decode->decode, point->tokens, point->context, memory, compute,
                            &provenance);
        return true;
    }
    if (fitter->line_of[series] != MOE_FITTER_NONE) {
        const struct moe_fitter_line *line = &fitter->lines[fitter->line_of[series]];
        *ns = line->fitted == 0 ? 0.0
                                : moe_roofline_ns(&line->roofline, point->bytes * memory,
                                                  point->flops * compute, 1.0);
        return line->fitted > 0;
    }
    return false;
}
