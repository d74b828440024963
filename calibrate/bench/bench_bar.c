#include "calibrate/bench/bench_bar.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "calibrate/bench/bench_plan.h"

static const double NOISE = 0.01;
enum { SMALL_TOKENS_MAX = 16, AROUND_TOKENS_MIN = 4096 };

const char *moe_bench_verdict_name(enum moe_bench_verdict verdict)
{
    static const char *const names[] = { "pass", "MISS", "not measured" };
    assert((size_t) verdict < sizeof names / sizeof names[0]);
    return names[verdict];
}

/* How one point stands to a bar: met from 1 on. */
struct stand {
    double score;
    char text[256];
};

/* "7168x2048x32 bf16, 64 rows" */
static const char *where(const struct moe_bench_row *row, char out[80])
{
    (void) snprintf(out, 80, "%dx%dx%d %s, %d rows", (int) row->shape.hidden,
                    (int) row->shape.inter, (int) row->shape.expert_count,
                    moe_expert_dtype_name(row->shape.dtype), (int) row->rows_per_expert);
    return out;
}

static void stand_to_ceiling(const struct moe_bench_run *run, const struct moe_bench_row *row,
                             double share, struct stand *out)
{
    char place[80];
    const struct moe_bench_cell *own = moe_bench_best(row, false);
    if (own == NULL) {
        out->score = 0.0;
        (void) snprintf(out->text, sizeof out->text, "%s: none of ours was measured",
                        where(row, place));
        return;
    }
    const double reached = (row->work.weight_bytes + row->work.row_bytes) / own->timing.median_us *
                           1e6 / run->ceilings.read_bytes_per_s;
    out->score = reached / share;
    (void) snprintf(out->text, sizeof out->text, "%s: %.1f us, %.1f %% of the read ceiling",
                    where(row, place), own->timing.median_us, 100.0 * reached);
}

static void stand_to_library(const struct moe_bench_row *row, bool ahead, struct stand *out)
{
    char place[80];
    const struct moe_bench_cell *own = moe_bench_best(row, false);
    const struct moe_bench_cell *library = moe_bench_best(row, true);
    if (own == NULL || library == NULL) {
        out->score = own == NULL ? 0.0 : INFINITY;
        (void) snprintf(out->text, sizeof out->text, "%s: %s", where(row, place),
                        own == NULL ? "none of ours was measured" : "the library refuses");
        return;
    }
    const double gain = library->timing.median_us / own->timing.median_us;
    const bool is_ahead = own->timing.high_us < library->timing.low_us;
    const bool is_level = gain >= 1.0 - NOISE || own->timing.low_us <= library->timing.high_us;
    if (ahead) {
        out->score = is_ahead ? gain : fmin(gain, 1.0 - 1e-9);
    } else {
        out->score = is_level ? fmax(gain, 1.0) : gain;
    }
    (void) snprintf(out->text, sizeof out->text,
                    "%s: %s %.1f us, %s %.1f us (%.3f times its speed)", where(row, place),
                    own->backend, own->timing.median_us, library->backend,
                    library->timing.median_us, gain);
}

static double tiled_floor_us(const struct moe_bench_run *run, const struct moe_bench_row *row,
                             const struct moe_bench_cell *cell)
{
    struct moe_expert_work work = row->work;
    const double padded = row->rows_per_expert <= 64 ? 64.0 * (double) row->load.tiles64
                                                     : 128.0 * (double) row->load.tiles128;
    work.flops *= padded / (double) row->load.row_count;
    return moe_expert_floor_us(&work, row->shape.dtype, run->ceilings.read_bytes_per_s,
                               run->sm_count, cell->mhz > 0.0 ? cell->mhz : run->fallback_mhz);
}

static const struct moe_bench_row *uniform_twin(const struct moe_bench_run *run,
                                                const struct moe_bench_row *row)
{
    for (size_t i = 0; i < run->row_count; i++) {
        const struct moe_bench_row *other = &run->rows[i];
        if (other->histogram == MOE_ROW_UNIFORM && other->cell_count > 0 &&
            other->rows_per_expert == row->rows_per_expert &&
            moe_bench_same_shape(&other->shape, &row->shape)) {
            return other;
        }
    }
    return NULL;
}

static void stand_to_prediction(const struct moe_bench_run *run, const struct moe_bench_row *row,
                                struct stand *out)
{
    char place[80];
    const struct moe_bench_row *even = uniform_twin(run, row);
    const struct moe_bench_cell *own = moe_bench_best(row, false);
    const struct moe_bench_cell *even_own = even == NULL ? NULL : moe_bench_best(even, false);
    if (own == NULL || even_own == NULL) {
        out->score = own == NULL ? 0.0 : INFINITY;
        (void) snprintf(out->text, sizeof out->text, "%s: no uniform point to predict from",
                        where(row, place));
        return;
    }
    const double predicted_us = even_own->timing.median_us * tiled_floor_us(run, row, even_own) /
                                tiled_floor_us(run, even, even_own);
    const double ratio = own->timing.median_us / predicted_us;
    out->score = 1.05 / ratio;
    (void) snprintf(out->text, sizeof out->text,
                    "%s: %.1f us, predicted %.1f (even %.1f): %.3f times that", where(row, place),
                    own->timing.median_us, predicted_us, even_own->timing.median_us, ratio);
}

enum bar_kind { TO_CEILING, BEHIND_NONE, AHEAD, HOT, COPY, PERMUTE, COMBINE };

struct bar {
    const char *name;
    enum bar_kind kind;
    bool large; /* of rows: which points it is about */
    bool small;
    enum moe_expert_dtype dtype;
    int32_t least_rows;
    int32_t most_rows;
    double share; /* of the ceiling */
};

static const struct bar bars_known[MOE_BENCH_BAR_COUNT] = {
    { .name = "large experts, bf16, 1 row each: 95 % of the read ceiling",
      .kind = TO_CEILING,
      .large = true,
      .dtype = MOE_EXPERT_BF16,
      .least_rows = 1,
      .most_rows = 1,
      .share = 0.95 },
    { .name = "large experts, bf16, 1 to 1024 rows each: never behind the library",
      .kind = BEHIND_NONE,
      .large = true,
      .dtype = MOE_EXPERT_BF16,
      .least_rows = 1,
      .most_rows = 1024 },
    { .name = "large experts, bf16, 16 to 512 rows each: ahead of the library",
      .kind = AHEAD,
      .large = true,
      .dtype = MOE_EXPERT_BF16,
      .least_rows = 16,
      .most_rows = 512 },
    { .name = "large experts, bf16, one 8 times hotter: within 5 % of its tiles' prediction",
      .kind = HOT,
      .large = true,
      .dtype = MOE_EXPERT_BF16,
      .least_rows = 1,
      .most_rows = 65536 },
    { .name = "small experts, bf16, 1 to 16 rows each: 80 % of the read ceiling",
      .kind = TO_CEILING,
      .small = true,
      .dtype = MOE_EXPERT_BF16,
      .least_rows = 1,
      .most_rows = SMALL_TOKENS_MAX,
      .share = 0.80 },
    { .name = "small experts, bf16, 1 to 16 rows each: ahead of the library",
      .kind = AHEAD,
      .small = true,
      .dtype = MOE_EXPERT_BF16,
      .least_rows = 1,
      .most_rows = SMALL_TOKENS_MAX },
    { .name = "all experts, fp8: never behind the library",
      .kind = BEHIND_NONE,
      .dtype = MOE_EXPERT_FP8,
      .least_rows = 1,
      .most_rows = 65536 },
    { .name = "large experts, fp8, 1 and 2 rows each: 85 % of the read ceiling",
      .kind = TO_CEILING,
      .large = true,
      .dtype = MOE_EXPERT_FP8,
      .least_rows = 1,
      .most_rows = 2,
      .share = 0.85 },
    { .name = "copy at least as fast as cudaMemcpyAsync", .kind = COPY },
    { .name = "permute from 4096 tokens: 85 % of the copy ceiling",
      .kind = PERMUTE,
      .share = 0.85 },
    { .name = "combine from 4096 tokens: 85 % of the copy ceiling",
      .kind = COMBINE,
      .share = 0.85 },
};

static bool is_about(const struct bar *bar, const struct moe_bench_row *row)
{
    const enum moe_row_histogram spread = bar->kind == HOT ? MOE_ROW_HOT8X : MOE_ROW_UNIFORM;
    return row->cell_count > 0 && row->histogram == spread && row->shape.dtype == bar->dtype &&
           row->rows_per_expert >= bar->least_rows && row->rows_per_expert <= bar->most_rows &&
           (!bar->large || moe_bench_is_large(&row->shape)) &&
           (!bar->small || moe_bench_is_small(&row->shape));
}

static void add(struct moe_bench_bar *out, const struct stand *stand, double *worst)
{
    out->count++;
    out->met += stand->score >= 1.0;
    if (out->count == 1 || stand->score < *worst) {
        *worst = stand->score;
        memcpy(out->worst, stand->text, sizeof out->worst);
    }
}

static void judge_rows(const struct moe_bench_run *run, const struct bar *bar,
                       struct moe_bench_bar *out)
{
    double worst = 0.0;
    for (size_t i = 0; i < run->row_count; i++) {
        const struct moe_bench_row *row = &run->rows[i];
        struct stand stand = { 0 };
        if (!is_about(bar, row)) {
            continue;
        }
        if (bar->kind == TO_CEILING) {
            stand_to_ceiling(run, row, bar->share, &stand);
        } else if (bar->kind == HOT) {
            stand_to_prediction(run, row, &stand);
        } else {
            stand_to_library(row, bar->kind == AHEAD, &stand);
        }
        add(out, &stand, &worst);
    }
}

static void judge_copy(const struct moe_bench_run *run, struct moe_bench_bar *out)
{
    const struct moe_bench_move *own = moe_bench_move_best(run->moves, "copy", NULL, false);
    const struct moe_bench_move *library = moe_bench_move_best(run->moves, "copy", NULL, true);
    struct stand stand = { 0 };
    double worst = 0.0;
    if (own == NULL || library == NULL) {
        return;
    }
    stand.score = own->timing.low_us <= library->timing.high_us
                      ? 1.0
                      : moe_bench_move_rate(own) / moe_bench_move_rate(library);
    (void) snprintf(stand.text, sizeof stand.text, "%s %.3f TB/s, cudaMemcpyAsync %.3f TB/s",
                    own->variant, moe_bench_move_rate(own) / 1e12,
                    moe_bench_move_rate(library) / 1e12);
    add(out, &stand, &worst);
}

/* Each number of tokens once, by the fastest version. */
static void judge_family(const struct moe_bench_run *run, const char *family, double share,
                         struct moe_bench_bar *out)
{
    double worst = 0.0;
    for (uint32_t i = 0; i < run->moves->count; i++) {
        const struct moe_bench_move *move = &run->moves->items[i];
        struct stand stand = { 0 };
        if (strcmp(move->family, family) != 0 || move->tokens < AROUND_TOKENS_MIN ||
            moe_bench_move_best(run->moves, family, move->size, false) != move) {
            continue;
        }
        const double reached = moe_bench_move_rate(move) / run->ceilings.copy_bytes_per_s;
        stand.score = reached / share;
        (void) snprintf(stand.text, sizeof stand.text,
                        "%s, %s, %s: %.1f us, %.1f %% of the copy ceiling", family, move->size,
                        move->variant, move->timing.median_us, 100.0 * reached);
        add(out, &stand, &worst);
    }
}

void moe_bench_bars_judge(const struct moe_bench_run *run,
                          struct moe_bench_bar bars[MOE_BENCH_BAR_COUNT])
{
    for (int i = 0; i < MOE_BENCH_BAR_COUNT; i++) {
        const struct bar *bar = &bars_known[i];
        bars[i] = (struct moe_bench_bar){ .name = bar->name };
        if (bar->kind == COPY) {
            judge_copy(run, &bars[i]);
        } else if (bar->kind == PERMUTE) {
            judge_family(run, "permute bf16", bar->share, &bars[i]);
        } else if (bar->kind == COMBINE) {
            judge_family(run, "combine", bar->share, &bars[i]);
        } else {
            judge_rows(run, bar, &bars[i]);
        }
        if (bars[i].count == 0) {
            bars[i].verdict = MOE_BENCH_UNMEASURED;
        } else {
            bars[i].verdict = bars[i].met == bars[i].count ? MOE_BENCH_PASS : MOE_BENCH_MISS;
        }
    }
}
