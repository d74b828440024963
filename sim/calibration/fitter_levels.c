/* How GPUs differ, and how each wanders while it is measured. */
#include <assert.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/calibration/fitter.h"
#include "sim/calibration/level.h"

/* A point tells a class when so much of its time follows it. */
static const double dominant = 0.6;
/* Drift below this standard deviation is left in: taking it off would add the sentinel's noise. */
static const double least_drift = 0.002;
/* Half the interval of a factor that fewer points than this were seen of. */
enum { LEAST_POINTS = 6 };
static const double few_points = 0.05;

/* Cells of one class: rows are points, columns those of the observations. */
static uint32_t collect_cells(const struct moe_fitter *fitter, uint32_t class,
                              struct moe_level_cell *cells, uint32_t *row_count)
{
    uint32_t count = 0;
    *row_count = 0;
    for (uint32_t p = 0; p < fitter->evidence->point_count; p++) {
        if (!fitter->known[p] || fitter->share[class][p] < dominant) {
            continue;
        }
        const uint32_t begin = count;
        for (uint32_t i = fitter->level.first[p]; i < fitter->level.first[p + 1]; i++) {
            const struct moe_observation *item = &fitter->level.items[i];
            double value = item->log_ns;
            for (uint32_t other = 0; other < MOE_FACTOR_COUNT; other++) {
                if (other != class) {
                    value -= fitter->share[other][p] * fitter->effect[other][item->column];
                }
            }
            if (item->bad_flags == 0) {
                cells[count++] = (struct moe_level_cell){ *row_count, item->column, value,
                                                          fitter->share[class][p] };
            }
        }
        *row_count += count > begin ? 1 : 0;
    }
    return count;
}

/* Whether the point is a one-way copy to a peer that is long enough for its rate to show. */
static bool is_send(const struct moe_fitter *fitter, uint32_t index)
{
    const struct moe_evidence_point *point = &fitter->evidence->points[index];
    const enum moe_evidence_kind kind = fitter->evidence->series[point->series].kind;
    return (kind == MOE_EVIDENCE_P2P || kind == MOE_EVIDENCE_PEER_COPY) && fitter->known[index] &&
           point->bytes >= 16777216.0;
}

static bool is_twin(const struct moe_evidence *evidence, uint32_t a, uint32_t b)
{
    return evidence->points[a].bytes == evidence->points[b].bytes &&
           evidence->series[evidence->points[a].series].kind ==
               evidence->series[evidence->points[b].series].kind;
}

static bool has_earlier_twin(const struct moe_fitter *fitter, uint32_t index)
{
    for (uint32_t p = 0; p < index; p++) {
        if (is_send(fitter, p) && is_twin(fitter->evidence, index, p)) {
            return true;
        }
    }
    return false;
}

/* The column of the GPU that a pair's point was sent from, in the run of column. */
static uint32_t source_column(const struct moe_fitter *fitter, uint32_t point, uint32_t column)
{
    const struct moe_evidence *evidence = fitter->evidence;
    const uint32_t run = fitter->level.columns[column].run;
    const int32_t src = evidence->series[evidence->points[point].series].src;
    for (uint32_t s = 0; s < evidence->sample_count; s++) {
        const struct moe_evidence_sample *sample = &evidence->samples[s];
        if (sample->run != run || (int32_t) sample->gpu_rank != src) {
            continue;
        }
        for (uint32_t c = 0; c < fitter->level.column_count; c++) {
            if (fitter->level.columns[c].run == run &&
                fitter->level.columns[c].gpu == sample->gpu) {
                return c;
            }
        }
        return MOE_FITTER_NONE;
    }
    return MOE_FITTER_NONE;
}

/* What a run does to all of its GPUs alike (a soaked node, a warm day): the median of its columns
 * less their GPUs' effects. A run of one GPU cannot tell itself from its GPU: 0. */
static void level_runs(const struct moe_fitter *fitter, const double *effects, const bool *measured,
                       const double *gpu_effects, double *run_effects, double *scratch)
{
    for (uint32_t r = 0; r < fitter->evidence->run_count; r++) {
        uint32_t used = 0;
        for (uint32_t c = 0; c < fitter->level.column_count; c++) {
            if (measured[c] && fitter->level.columns[c].run == r) {
                scratch[used++] = effects[c] - gpu_effects[fitter->level.columns[c].gpu];
            }
        }
        run_effects[r] = used < 2 ? 0.0 : moe_median(scratch, used);
    }
}

/* Column effects to GPUs: the median over a GPU's columns, less their runs', less the median over
 * all GPUs; in turns, as a run's effect needs its GPUs'. run_effects[run_count] are filled too.
 * scratch has room for all columns and GPUs. */
static void unite_columns(const struct moe_fitter *fitter, const double *effects,
                          const bool *measured, double *gpu_effects, double *run_effects,
                          double *scratch)
{
    enum { ROUNDS = 8 };
    const struct moe_evidence *evidence = fitter->evidence;
    double *all = scratch + fitter->level.column_count;
    memset(gpu_effects, 0, evidence->gpu_count * sizeof gpu_effects[0]);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t gpus = 0;
        level_runs(fitter, effects, measured, gpu_effects, run_effects, scratch);
        for (uint32_t g = 0; g < evidence->gpu_count; g++) {
            uint32_t used = 0;
            for (uint32_t c = 0; c < fitter->level.column_count; c++) {
                if (measured[c] && fitter->level.columns[c].gpu == g) {
                    scratch[used++] = effects[c] - run_effects[fitter->level.columns[c].run];
                }
            }
            gpu_effects[g] = used == 0 ? 0.0 : moe_median(scratch, used);
            if (used > 0) {
                all[gpus++] = gpu_effects[g];
            }
        }
        const double middle = gpus == 0 ? 0.0 : moe_median(all, gpus);
        for (uint32_t g = 0; g < evidence->gpu_count; g++) {
            gpu_effects[g] -= middle;
        }
    }
}

/* How a GPU's columns differ from run to run, what the runs do to all of theirs taken off. */
static double run_spread(const struct moe_fitter *fitter, uint32_t gpu, const double *effects,
                         const bool *measured, const double *run_effects, double *scratch,
                         uint32_t *runs)
{
    uint32_t used = 0;
    for (uint32_t c = 0; c < fitter->level.column_count; c++) {
        if (measured[c] && fitter->level.columns[c].gpu == gpu) {
            scratch[used++] = effects[c] - run_effects[fitter->level.columns[c].run];
        }
    }
    *runs = used;
    return used > 1 ? gsl_stats_sd(scratch, 1, used) : 0.0;
}

/* What the levels of one class came to. */
struct class_levels {
    double *estimate;    /* [gpu_count], log */
    double *run_effects; /* [run_count], log */
    double *replicates;  /* [MOE_LEVEL_REPLICATES][gpu_count] */
    bool *measured;      /* [column_count] */
    uint32_t *points;    /* [gpu_count] */
    double *scratch;
};

static void store_class(const struct moe_fitter *fitter, struct moe_fitter_gpu *stored,
                        uint32_t class, const struct class_levels *levels)
{
    const double *estimate = levels->estimate;
    double *scratch = levels->scratch;
    const uint32_t gpus = fitter->evidence->gpu_count;
    for (uint32_t g = 0; g < gpus; g++) {
        struct moe_fitter_gpu *gpu = &stored[g];
        uint32_t runs = 0;
        const double spread = run_spread(fitter, g, fitter->effect[class], levels->measured,
                                         levels->run_effects, scratch, &runs);
        if (runs == 0) {
            continue;
        }
        for (uint32_t r = 0; r < MOE_LEVEL_REPLICATES; r++) {
            scratch[r] = levels->replicates[(size_t) r * gpus + g];
        }
        moe_sort(scratch, MOE_LEVEL_REPLICATES);
        /* Between runs of one GPU lies more than the points of one run can show. */
        const double between = 1.96 * spread / sqrt(runs);
        /* So few points cannot show how far they may lie from the rest. */
        const double blind = levels->points[g] < LEAST_POINTS ? few_points : 0.0;
        const double low = estimate[g] - moe_quantile_sorted(scratch, MOE_LEVEL_REPLICATES, 0.025);
        const double high = moe_quantile_sorted(scratch, MOE_LEVEL_REPLICATES, 0.975) - estimate[g];
        gpu->factor[class] = exp(estimate[g]);
        gpu->low[class] = exp(estimate[g] - hypot(fmax(low, blind), between));
        gpu->high[class] = exp(estimate[g] + hypot(fmax(high, blind), between));
        gpu->run_sd[class] = spread;
        gpu->points[class] = levels->points[g];
        gpu->runs = runs > gpu->runs ? runs : gpu->runs;
    }
}

/* Cells of what a GPU sends: rows are sizes of one-way copies to a peer, columns their source.
 * A pair's time is its slower end's. */
static uint32_t collect_sends(const struct moe_fitter *fitter, struct moe_level_cell *cells,
                              uint32_t limit, uint32_t *row_count)
{
    const struct moe_evidence *evidence = fitter->evidence;
    uint32_t count = 0;
    *row_count = 0;
    for (uint32_t first = 0; first < evidence->point_count; first++) {
        const uint32_t begin = count;
        if (!is_send(fitter, first) || has_earlier_twin(fitter, first)) {
            continue;
        }
        for (uint32_t p = first; p < evidence->point_count; p++) {
            if (!is_send(fitter, p) || !is_twin(evidence, first, p)) {
                continue;
            }
            for (uint32_t i = fitter->level.first[p]; i < fitter->level.first[p + 1]; i++) {
                const struct moe_observation *item = &fitter->level.items[i];
                const uint32_t column = source_column(fitter, p, item->column);
                if (column != MOE_FITTER_NONE && count < limit) {
                    cells[count++] =
                        (struct moe_level_cell){ *row_count, column, item->log_ns, 1.0 };
                }
            }
        }
        *row_count += count > begin ? 1 : 0;
    }
    return count;
}

static enum moe_status fit_class(struct moe_fitter *fitter, struct moe_fitter_gpu *stored,
                                 uint32_t class, struct moe_error *err)
{
    const uint32_t gpus = fitter->evidence->gpu_count;
    const uint32_t columns = fitter->level.column_count;
    const size_t replicate_cells = (size_t) MOE_LEVEL_REPLICATES * (columns + gpus);
    struct moe_level_cell *cells =
        MOE_NEW(fitter->arena, struct moe_level_cell, fitter->level.count + 1);
    double *replicates = MOE_NEW(fitter->arena, double, replicate_cells);
    const struct class_levels levels = {
        .estimate = MOE_NEW(fitter->arena, double, gpus),
        .run_effects = MOE_NEW(fitter->arena, double, fitter->evidence->run_count),
        .replicates =
            replicates == NULL ? NULL : replicates + (size_t) MOE_LEVEL_REPLICATES * columns,
        .measured = MOE_NEW(fitter->arena, bool, columns),
        .points = MOE_NEW(fitter->arena, uint32_t, gpus),
        .scratch = MOE_NEW(fitter->arena, double, MOE_LEVEL_REPLICATES + columns + gpus),
    };
    if (cells == NULL || replicates == NULL || levels.scratch == NULL || levels.estimate == NULL ||
        levels.measured == NULL || levels.points == NULL || levels.run_effects == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its GPUs", fitter->evidence->name);
    }
    struct moe_level_problem problem = { .cells = cells, .column_count = columns };
    problem.count = class == MOE_FACTOR_COMM
                        ? collect_sends(fitter, cells, fitter->level.count, &problem.row_count)
                        : collect_cells(fitter, class, cells, &problem.row_count);
    for (uint32_t i = 0; i < problem.count; i++) {
        const uint32_t gpu = fitter->level.columns[cells[i].column].gpu;
        if (gpu != MOE_OBSERVATION_NO_GPU) {
            levels.measured[cells[i].column] = true;
            levels.points[gpu]++;
        }
    }
    if (problem.count == 0) {
        return MOE_OK;
    }
    MOE_TRY(moe_level_fit(fitter->effect[class], &problem, fitter->arena, err));
    MOE_TRY(moe_level_bootstrap(replicates, &problem, class, fitter->arena, err));
    for (uint32_t r = 0; r < MOE_LEVEL_REPLICATES; r++) {
        unite_columns(fitter, replicates + (size_t) r * columns, levels.measured,
                      levels.replicates + (size_t) r * gpus, levels.run_effects, levels.scratch);
    }
    unite_columns(fitter, fitter->effect[class], levels.measured, levels.estimate,
                  levels.run_effects, levels.scratch);
    store_class(fitter, stored, class, &levels);
    return MOE_OK;
}

enum moe_status moe_fitter_fit_levels(struct moe_fitter *fitter, struct moe_fitter_gpu *gpus,
                                      struct moe_error *err)
{
    /* Memory first: what is bound by arithmetic still reads, and takes its effect off. */
    MOE_TRY(fit_class(fitter, gpus, MOE_FACTOR_MEMORY, err));
    MOE_TRY(fit_class(fitter, gpus, MOE_FACTOR_COMPUTE, err));
    return fit_class(fitter, gpus, MOE_FACTOR_COMM, err);
}

struct visit {
    uint32_t run;
    uint32_t gpu;
    uint32_t point;
    uint32_t sample;
    double t_s;
};

static int compare_visits(const void *left, const void *right)
{
    const struct visit *a = left;
    const struct visit *b = right;
    const uint32_t of_a[] = { a->run, a->gpu, a->point };
    const uint32_t of_b[] = { b->run, b->gpu, b->point };
    for (int i = 0; i < 3; i++) {
        if (of_a[i] != of_b[i]) {
            return of_a[i] < of_b[i] ? -1 : 1;
        }
    }
    if (a->t_s != b->t_s) {
        return a->t_s < b->t_s ? -1 : 1;
    }
    return (a->sample > b->sample) - (a->sample < b->sample);
}

static bool same_sequence(const struct visit *a, const struct visit *b)
{
    return a->run == b->run && a->gpu == b->gpu && a->point == b->point;
}

static double visit_log(const struct moe_fitter *fitter, const struct visit *visit)
{
    return log(moe_sample_us(&fitter->evidence->samples[visit->sample]) * 1e3) -
           fitter->clock_shift[visit->sample];
}

/* The class that a point's time follows most. */
static uint32_t point_class(const struct moe_fitter *fitter, uint32_t point)
{
    return fitter->share[MOE_FACTOR_COMPUTE][point] >= fitter->share[MOE_FACTOR_MEMORY][point]
               ? MOE_FACTOR_COMPUTE
               : MOE_FACTOR_MEMORY;
}

/* The sequence's deviation from its median at t: linear between visits, held at the ends. */
static double deviation(const struct moe_fitter *fitter, const struct visit *visits, uint32_t count,
                        double middle, double t_s)
{
    uint32_t i = 0;
    while (i < count && visits[i].t_s < t_s) {
        i++;
    }
    if (i == 0 || i == count) {
        return visit_log(fitter, &visits[i == 0 ? 0 : count - 1]) - middle;
    }
    const double from = visit_log(fitter, &visits[i - 1]) - middle;
    const double to = visit_log(fitter, &visits[i]) - middle;
    return from + (to - from) * (t_s - visits[i - 1].t_s) / (visits[i].t_s - visits[i - 1].t_s);
}

/* Takes one sequence's drift off the samples of its GPU and run, as far as they follow the
 * class of its point. */
static void adjust_samples(struct moe_fitter *fitter, const struct visit *visits, uint32_t count,
                           double *scratch)
{
    const uint32_t class = point_class(fitter, visits[0].point);
    const double own = fitter->share[class][visits[0].point];
    for (uint32_t i = 0; i < count; i++) {
        scratch[i] = visit_log(fitter, &visits[i]);
    }
    const double middle = moe_median(scratch, count);
    for (uint32_t s = 0; s < fitter->evidence->sample_count && own >= dominant; s++) {
        const struct moe_evidence_sample *sample = &fitter->evidence->samples[s];
        const double share = fitter->share[class][sample->point];
        if (sample->run == visits[0].run && sample->gpu == visits[0].gpu && share > 0.0) {
            fitter->adjust[s] +=
                share / own * deviation(fitter, visits, count, middle, sample->begin_s);
        }
    }
}

static uint32_t list_visits(const struct moe_fitter *fitter, struct visit *visits)
{
    const struct moe_evidence *evidence = fitter->evidence;
    uint32_t count = 0;
    for (uint32_t s = 0; s < evidence->sample_count; s++) {
        const struct moe_evidence_sample *sample = &evidence->samples[s];
        if (evidence->points[sample->point].role == MOE_EVIDENCE_SENTINEL) {
            visits[count++] =
                (struct visit){ sample->run, sample->gpu, sample->point, s, sample->begin_s };
        }
    }
    qsort(visits, count, sizeof visits[0], compare_visits);
    return count;
}

enum moe_status moe_fitter_fit_drift(struct moe_fitter *fitter, struct moe_error *err)
{
    const uint32_t total = fitter->evidence->sample_count;
    struct visit *visits = MOE_NEW(fitter->arena, struct visit, total);
    struct moe_drift_visit *drift = MOE_NEW(fitter->arena, struct moe_drift_visit, total);
    double *scratch = MOE_NEW(fitter->arena, double, total);
    if (visits == NULL || drift == NULL || scratch == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its sentinels", fitter->evidence->name);
    }
    const uint32_t count = list_visits(fitter, visits);
    uint32_t sequence = 0;
    for (uint32_t i = 0; i < count; i++) {
        sequence += i > 0 && !same_sequence(&visits[i], &visits[i - 1]) ? 1 : 0;
        drift[i] =
            (struct moe_drift_visit){ sequence, visits[i].t_s, visit_log(fitter, &visits[i]) };
    }
    fitter->sentinel_visits = count;
    if (count < MOE_DRIFT_LEAST_VISITS || count < 3 * (sequence + 1)) {
        return MOE_OK;
    }
    MOE_TRY(moe_drift_fit(&fitter->drift, drift, count, err));
    if (!fitter->drift.found || fitter->drift.sigma < least_drift) {
        return MOE_OK;
    }
    for (uint32_t begin = 0; begin < count;) {
        uint32_t end = begin + 1;
        while (end < count && same_sequence(&visits[end], &visits[begin])) {
            end++;
        }
        adjust_samples(fitter, &visits[begin], end - begin, scratch);
        begin = end;
    }
    return moe_observations_make(&fitter->level, fitter->evidence, fitter->adjust, fitter->arena,
                                 err);
}
