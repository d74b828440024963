#include "sim/calibration/fit_report.h"

#include <math.h>
#include <string.h>

enum { COLUMNS = 13 }; /* of the widest table */

/* One row of cells: padded columns in a terminal, bars in Markdown. widths[count], negative for
 * text that stands left. */
static void print_row(FILE *out, bool markdown, const int *widths, const char (*cells)[80],
                      uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (markdown) {
            (void) fprintf(out, "%s%s%s", i == 0 ? "| " : "", cells[i],
                           i + 1 < count ? " | " : " |");
        } else {
            (void) fprintf(out, "%s%*s", i == 0 ? "" : " ", widths[i], cells[i]);
        }
    }
    (void) fputc('\n', out);
}

#define CELL(i, ...) ((void) snprintf(cells[i], sizeof cells[i], __VA_ARGS__))

/* What stands above the rows of a table: its title, and heads[count] of the columns, at most
 * COLUMNS. */
static void print_head(FILE *out, bool markdown, const char *title, const int *widths,
                       const char *const *heads, uint32_t count)
{
    char cells[COLUMNS][80];
    (void) fprintf(out, markdown ? "\n### %s\n\n" : "\n%s\n", title);
    for (uint32_t i = 0; i < count; i++) {
        CELL(i, "%s", heads[i]);
    }
    print_row(out, markdown, widths, (const char(*)[80]) cells, count);
    for (uint32_t i = 0; i < count && markdown; i++) {
        (void) fputs(i == 0 ? "|---|" : "---|", out);
    }
    if (markdown) {
        (void) fputc('\n', out);
    }
}

static void print_runs(const struct moe_evidence *evidence, bool markdown, FILE *out)
{
    static const int widths[] = { -20, 5, 8, -12, -8, -9, -8, 20 };
    char cells[8][80];
    static const char *const heads[] = { "run",  "GPUs",   "wall s", "driver",
                                         "CUDA", "cuBLAS", "NCCL",   "seed" };
    print_head(out, markdown, "Runs", widths, heads, 8);
    for (uint32_t i = 0; i < evidence->run_count; i++) {
        const struct moe_evidence_run *run = &evidence->runs[i];
        CELL(0, "%s", run->started_at);
        CELL(1, "%u", run->gpu_count);
        CELL(2, run->wall_s > 0.0 ? "%.0f" : "cut off", run->wall_s);
        CELL(3, "%s", run->driver);
        CELL(4, "%s", run->cuda);
        CELL(5, "%s", run->cublas);
        CELL(6, "%s", run->nccl[0] == '\0' ? "-" : run->nccl);
        CELL(7, "%lld", (long long) run->seed);
        print_row(out, markdown, widths, (const char(*)[80]) cells, 8);
    }
}

static void print_gpus(const struct moe_evidence *evidence, bool markdown, FILE *out)
{
    static const int widths[] = { -42, -8, 5, 8, 8, 8 };
    static const char *const heads[] = { "GPU", "kind", "SMs", "GB", "MHz", "samples" };
    char cells[6][80];
    print_head(out, markdown, "GPUs", widths, heads, 6);
    for (uint32_t g = 0; g < evidence->gpu_count; g++) {
        const struct moe_evidence_gpu *gpu = &evidence->gpus[g];
        uint32_t samples = 0;
        for (uint32_t s = 0; s < evidence->sample_count; s++) {
            samples += evidence->samples[s].gpu == g ? 1 : 0;
        }
        CELL(0, "%s", gpu->uuid);
        CELL(1, "%s", gpu->kind);
        CELL(2, "%u", gpu->sm_count);
        CELL(3, "%.0f", gpu->memory_bytes * 1e-9);
        CELL(4, "%.0f", gpu->boost_mhz);
        CELL(5, "%u", samples);
        print_row(out, markdown, widths, (const char(*)[80]) cells, 6);
    }
}

void moe_fit_report_evidence(const struct moe_evidence *evidence, bool markdown, FILE *out)
{
    (void) fprintf(out, "samples %016llx: %u series, %u points, %u samples\n",
                   (unsigned long long) evidence->hash, evidence->series_count,
                   evidence->point_count, evidence->sample_count);
    print_runs(evidence, markdown, out);
    print_gpus(evidence, markdown, out);
}

static void print_quality(const struct moe_calibration *calibration, bool markdown, FILE *out)
{
    static const int widths[] = { -44, -8, 6, 4, 7, 7, 7, 7, 9, -10, -1 };
    static const char *const heads[] = { "series", "points", "fitted", "n",      "MAPE %", "P95 %",
                                         "bias %", "worst",  "gate %", "status", "why" };
    static const char *const statuses[] = { "calibrated", "MISSED", "unchecked" };
    char cells[11][80];
    print_head(out, markdown, "Error on points that were not fitted", widths, heads, 11);
    for (uint32_t i = 0; i < calibration->fit_quality_count; i++) {
        const struct moe_calibration_fit_quality *row = &calibration->fit_quality_rows[i];
        CELL(0, "%s", row->series);
        CELL(1, "%s", row->points == MOE_FIT_HELDOUT ? "heldout" : "skew");
        CELL(2, "%u", row->fitted);
        CELL(3, "%u", row->checked);
        for (uint32_t c = 4; c < 8; c++) {
            const double values[] = { row->mape, row->p95, row->bias, row->worst };
            if (row->checked == 0) {
                CELL(c, "-");
            } else {
                CELL(c, "%.2f", 100.0 * values[c - 4]);
            }
        }
        if (row->gate_p95 < 1.0) {
            CELL(8, "%g / %g", 100.0 * row->gate_mape, 100.0 * row->gate_p95);
        } else {
            CELL(8, "%g", 100.0 * row->gate_mape);
        }
        CELL(9, "%s", statuses[row->status]);
        CELL(10, "%.79s", row->reason);
        print_row(out, markdown, widths, (const char(*)[80]) cells, 11);
    }
}

static uint32_t count_points(const struct moe_calibration *calibration, const char *series)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < calibration->decode_point_count; i++) {
        count += strcmp(calibration->decode_point_rows[i].series, series) == 0 ? 1 : 0;
    }
    return count;
}

static void print_decodes(const struct moe_calibration *calibration, bool markdown, FILE *out)
{
    static const int widths[] = { -30, 6, 6, 5, 7, 8, 7, 7, 5, 7, 8, 6, -12 };
    static const char *const heads[] = { "series",   "points",  "blocks",    "slots", "t0 us",
                                         "round us", "tile us", "GB/s",      "p",     "join us",
                                         "split ns", "row ns",  "provenance" };
    char cells[13][80];
    print_head(out, markdown,
               "Decode attention: blocks of a sequence, slots that the GPU runs at once", widths,
               heads, 13);
    for (uint32_t i = 0; i < calibration->decode_count; i++) {
        const struct moe_calibration_decode *row = &calibration->decode_rows[i];
        CELL(0, "%s", row->series);
        CELL(1, "%u", count_points(calibration, row->series));
        CELL(2, "%u", row->blocks);
        CELL(3, "%u", row->slots);
        CELL(4, "%.2f", row->t0_ns * 1e-3);
        CELL(5, "%.2f", row->round_ns * 1e-3);
        CELL(6, "%.3f", row->tile_ns * 1e-3);
        CELL(7, "%.0f", row->bandwidth_bytes_s * 1e-9);
        CELL(8, "%.2f", row->p);
        CELL(9, "%.2f", row->join_ns * 1e-3);
        CELL(10, "%.1f", row->split_ns);
        CELL(11, "%.2f", row->row_ns);
        CELL(12, "%s", moe_provenance_name((enum moe_provenance) row->provenance));
        print_row(out, markdown, widths, (const char(*)[80]) cells, 13);
    }
}

static void print_factors(const struct moe_calibration *calibration, bool markdown, FILE *out)
{
    static const char *const classes[] = { "compute", "memory", "comm" };
    static const int widths[] = { -42, -8, 8, 17, 7, 5, 9 };
    static const char *const heads[] = { "GPU",    "class", "factor",  "95 % interval",
                                         "points", "runs",  "run sd %" };
    char cells[7][80];
    print_head(out, markdown,
               "GPUs against their median (factors of time, as far as they are sure)", widths,
               heads, 7);
    for (uint32_t i = 0; i < calibration->gpu_interval_count; i++) {
        const struct moe_calibration_gpu_interval *row = &calibration->gpu_interval_rows[i];
        double factor = 0.0;
        for (uint32_t g = 0; g < calibration->gpu_count; g++) {
            const struct moe_calibration_gpu *gpu = &calibration->gpu_rows[g];
            const double factors[] = { gpu->compute, gpu->memory, gpu->comm };
            factor = strcmp(gpu->uuid, row->uuid) == 0 ? factors[row->class] : factor;
        }
        CELL(0, "%s", row->uuid);
        CELL(1, "%s", classes[row->class]);
        CELL(2, "%.4f", factor);
        CELL(3, "%.4f to %.4f", row->low, row->high);
        CELL(4, "%u", row->points);
        CELL(5, "%u", row->runs);
        CELL(6, row->runs > 1 ? "%.2f" : "-", 100.0 * row->run_sd);
        print_row(out, markdown, widths, (const char(*)[80]) cells, 7);
    }
}

void moe_fit_report_tables(const struct moe_calibration *calibration, bool markdown, FILE *out)
{
    if (calibration->fit_quality_count > 0) {
        print_quality(calibration, markdown, out);
    }
    if (calibration->decode_count > 0) {
        print_decodes(calibration, markdown, out);
    }
    if (calibration->gpu_interval_count > 0) {
        print_factors(calibration, markdown, out);
    }
}

static const int rows_widths[] = { -44, 7, 8, 7, 8, 7, 8 };

struct tally {
    double sum;
    uint32_t count;
};

static enum moe_status print_by_gpu(struct moe_sample_fit *fit, bool markdown, FILE *out,
                                    struct moe_error *err)
{
    static const int widths[] = { -42, 7, 8, 7, 8 };
    static const char *const heads[] = { "GPU", "experts", "MAPE %", "others", "MAPE %" };
    struct moe_fitter *fitter = &fit->fitter;
    const struct moe_evidence *evidence = fitter->evidence;
    const size_t count = (size_t) fitter->seen.count + 1;
    double *errors = MOE_NEW(fitter->arena, double, count);
    uint32_t *points = MOE_NEW(fitter->arena, uint32_t, count);
    uint32_t *gpus = MOE_NEW(fitter->arena, uint32_t, count);
    struct tally *tallies = MOE_NEW(fitter->arena, struct tally, 2 * (size_t) evidence->gpu_count);
    char cells[5][80];
    if (errors == NULL || points == NULL || gpus == NULL || tallies == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its errors", evidence->name);
    }
    for (uint32_t s = 0; s < evidence->series_count; s++) {
        const uint32_t other = evidence->series[s].kind == MOE_EVIDENCE_EXPERT ? 0 : 1;
        const uint32_t n = moe_quality_errors(fitter, s, MOE_FIT_HELDOUT, errors, points, gpus);
        for (uint32_t i = 0; i < n; i++) {
            if (gpus[i] != MOE_OBSERVATION_NO_GPU) {
                tallies[2 * gpus[i] + other].sum += fabs(errors[i]);
                tallies[2 * gpus[i] + other].count++;
            }
        }
    }
    print_head(out, markdown, "Held-out error by GPU", widths, heads, 5);
    for (uint32_t g = 0; g < evidence->gpu_count; g++) {
        CELL(0, "%s", evidence->gpus[g].uuid);
        for (uint32_t k = 0; k < 2; k++) {
            const struct tally *tally = &tallies[2 * g + k];
            CELL(1 + 2 * k, "%u", tally->count);
            CELL(2 + 2 * k, tally->count > 0 ? "%.2f" : "-", 100.0 * tally->sum / tally->count);
        }
        print_row(out, markdown, widths, (const char(*)[80]) cells, 5);
    }
    return MOE_OK;
}

/* Weights of the fullest expert that uneven anchors had a say in. */
static void print_fullest(const struct moe_fitter *fitter, FILE *out)
{
    for (uint32_t i = 0; i < fitter->shape_count; i++) {
        const struct moe_fitter_shape *shape = &fitter->shapes[i];
        const struct moe_fitter_fullest *fullest = &shape->fullest;
        if (fullest->rms_before > 0.0) {
            (void) fprintf(
                out,
                "%s: the fullest expert counts %.3g times by even rows, RMS %.2f %% over "
                "%u uneven anchors; %.2f %% left out one by one: %s %.3g times\n",
                shape->shape.name, fullest->weight_before, 100.0 * fullest->rms_before,
                fullest->loads, 100.0 * fullest->rms_left_out,
                fullest->is_used ? "fitted," : "stays", shape->fit.roofline.weight);
        }
    }
}

static void print_left_out(const struct moe_fitter *fitter, FILE *out)
{
    if (fitter->wrong > 0) {
        (void) fprintf(out,
                       "%u samples have a wrong output (first: id %lld); their points are not "
                       "fitted\n",
                       fitter->wrong, (long long) fitter->wrong_sample);
    }
    if (fitter->unphysical > 0) {
        (void) fprintf(out,
                       "%u samples are flagged unphysical (first: id %lld); their points are "
                       "not fitted\n",
                       fitter->unphysical, (long long) fitter->unphysical_sample);
    }
    if (fitter->impossible > 0) {
        (void) fprintf(out,
                       "%u points are faster than the ceilings (first: point %lld) and not "
                       "fitted\n",
                       fitter->impossible, (long long) fitter->impossible_point);
    }
    (void) fprintf(out,
                   "%u points are not fitted since a held-out point lies at their place, %u "
                   "since their rows are uneven\n",
                   fitter->held_back, fitter->uneven);
}

/* How an expert point's rows lie. */
enum rows_kind { ROWS_UNIFORM, ROWS_SOME, ROWS_RANDOM, ROWS_KINDS };

static enum rows_kind rows_kind_of(const struct moe_evidence_point *point)
{
    if (strcmp(point->histogram, "uniform") == 0) {
        return ROWS_UNIFORM;
    }
    return strncmp(point->histogram, "random", 6) == 0 ? ROWS_RANDOM : ROWS_SOME;
}

static void print_rows_row(const char *name, const struct tally *tallies, bool markdown, FILE *out)
{
    char cells[7][80];
    CELL(0, "%s", name);
    for (uint32_t k = 0; k < ROWS_KINDS; k++) {
        CELL(1 + 2 * k, "%u", tallies[k].count);
        CELL(2 + 2 * k, tallies[k].count > 0 ? "%.2f" : "-",
             100.0 * tallies[k].sum / tallies[k].count);
    }
    print_row(out, markdown, rows_widths, (const char(*)[80]) cells, 7);
}

/* Held-out errors of experts by how rows lie; gates are on all of them together. */
static enum moe_status print_by_rows(struct moe_sample_fit *fit, bool markdown, FILE *out,
                                     struct moe_error *err)
{
    static const char *const heads[] = { "experts held out", "uniform", "MAPE %", "some",
                                         "MAPE %",           "random",  "MAPE %" };
    struct moe_fitter *fitter = &fit->fitter;
    const struct moe_evidence *evidence = fitter->evidence;
    const size_t count = (size_t) fitter->seen.count + 1;
    double *errors = MOE_NEW(fitter->arena, double, count);
    uint32_t *points = MOE_NEW(fitter->arena, uint32_t, count);
    uint32_t *gpus = MOE_NEW(fitter->arena, uint32_t, count);
    struct tally all[ROWS_KINDS] = { 0 };
    if (errors == NULL || points == NULL || gpus == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its errors", evidence->name);
    }
    print_head(out, markdown,
               "Held-out error of experts by their rows: all alike, some experts without any, "
               "drawn at random",
               rows_widths, heads, 7);
    for (uint32_t i = 0; i < fitter->shape_count; i++) {
        struct tally tallies[ROWS_KINDS] = { 0 };
        for (uint32_t s = 0; s < evidence->series_count; s++) {
            const uint32_t n =
                fitter->shape_of[s] == i && evidence->series[s].kind == MOE_EVIDENCE_EXPERT
                    ? moe_quality_errors(fitter, s, MOE_FIT_HELDOUT, errors, points, gpus)
                    : 0;
            for (uint32_t e = 0; e < n; e++) {
                const enum rows_kind kind = rows_kind_of(&evidence->points[points[e]]);
                tallies[kind].sum += fabs(errors[e]);
                tallies[kind].count++;
                all[kind].sum += fabs(errors[e]);
                all[kind].count++;
            }
        }
        if (tallies[ROWS_UNIFORM].count + tallies[ROWS_SOME].count + tallies[ROWS_RANDOM].count >
            0) {
            print_rows_row(fitter->shapes[i].shape.name, tallies, markdown, out);
        }
    }
    print_rows_row("all", all, markdown, out);
    return MOE_OK;
}

static void fill_repeats(char (*cells)[80], const char *what, const struct moe_repeats *repeats)
{
    CELL(0, "%s", what);
    CELL(1, "%u", repeats->count);
    CELL(2, "%.1f", 100.0 * repeats->agreeing / repeats->count);
    CELL(3, "%.1f", 100.0 * repeats->in_cycles / repeats->count);
}

void moe_fit_report_repeats(const struct moe_repeats *kinds, const struct moe_repeats *all,
                            bool markdown, FILE *out)
{
    static const int widths[] = { -15, 7, 15, 18 };
    static const char *const heads[] = { "kind", "repeats", "us % (90 asked)", "cycles at cap %" };
    char cells[4][80];
    if (all->count == 0) {
        (void) fputs("\nrepeats: none was measured\n", out);
        return;
    }
    print_head(out, markdown,
               "Repeats in a later pass within 1.5 %: as measured, and with cycles compared "
               "where both ran at the power cap and a floor of 0.1 us",
               widths, heads, 4);
    for (uint32_t kind = 0; kind < MOE_EVIDENCE_KIND_COUNT; kind++) {
        if (kinds[kind].count > 0) {
            fill_repeats(cells, moe_evidence_kind_name((enum moe_evidence_kind) kind),
                         &kinds[kind]);
            print_row(out, markdown, widths, (const char(*)[80]) cells, 4);
        }
    }
    fill_repeats(cells, "all", all);
    print_row(out, markdown, widths, (const char(*)[80]) cells, 4);
    (void) fputc('\n', out);
}

enum moe_status moe_fit_report_details(struct moe_sample_fit *fit, bool markdown, FILE *out,
                                       struct moe_error *err)
{
    const struct moe_fitter *fitter = &fit->fitter;
    const struct moe_evidence *evidence = fitter->evidence;
    struct moe_repeats kinds[MOE_EVIDENCE_KIND_COUNT];
    struct moe_repeats *series =
        MOE_NEW(fitter->arena, struct moe_repeats, (size_t) evidence->series_count + 1);
    if (series == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its repeats", evidence->name);
    }
    MOE_TRY(print_by_gpu(fit, markdown, out, err));
    MOE_TRY(print_by_rows(fit, markdown, out, err));
    MOE_TRY(moe_repeats_count(series, evidence, fitter->arena, err));
    const struct moe_repeats all = moe_repeats_by_kind(kinds, series, evidence);
    moe_fit_report_repeats(kinds, &all, markdown, out);
    if (fitter->drift.found) {
        (void) fprintf(out,
                       "drift: %.2f %% sd, time constant %.0f s, noise %.2f %%, from %u "
                       "sentinels\n",
                       100.0 * fitter->drift.sigma, fitter->drift.tau_s,
                       100.0 * fitter->drift.noise, fitter->sentinel_visits);
    } else {
        (void) fprintf(out, "drift: none beyond noise in %u sentinels\n", fitter->sentinel_visits);
    }
    print_fullest(fitter, out);
    print_left_out(fitter, out);
    for (uint32_t i = 0; i < fitter->decode_count; i++) {
        (void) fprintf(out, "%s: points that were left out are foretold within %.2f %%, mean\n",
                       fitter->decodes[i].row.series, 100.0 * fitter->decodes[i].left_out);
    }
    (void) fprintf(out, "%u of %u rows calibrated, %u missed their gate, %u unchecked\n",
                   fit->quality_count - fit->missed - fit->unchecked, fit->quality_count,
                   fit->missed, fit->unchecked);
    return MOE_OK;
}
