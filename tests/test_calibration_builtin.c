/* The calibration that ships with the program, against the figures that it is made of. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

#include "sim/cost/calibration.h"
#include "sim/cost/cost.h"
#include "sim/cost/fit.h"

static const struct moe_gpu_factor one = { 1.0, 1.0, 1.0 };

static struct moe_arena arena;
static const struct moe_calibration *calibration;

static void setup(void)
{
    struct moe_error err = { 0 };
    cr_assert_eq(moe_arena_init(&arena, 16 << 20, NULL), MOE_OK);
    cr_assert_eq(moe_calibration_load(&calibration, "", &arena, &err), MOE_OK, "%s", err.text);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(calibration_builtin, .init = setup, .fini = teardown);

static const struct moe_cost *prepare(const char *card, uint32_t nodes, uint32_t gpus_per_node)
{
    const struct moe_cluster cluster = { .node_count = nodes,
                                         .gpus_per_node = gpus_per_node,
                                         .gpu = "H200" };
    struct moe_model model;
    struct moe_cost *cost = NULL;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_model_load(&model, card, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_cost_init(&cost, calibration, &model, &cluster, &arena, &err), MOE_OK, "%s",
                 err.text);
    return cost;
}

Test(calibration_builtin, every_row_is_published_or_assumed)
{
    uint32_t counts[MOE_PROVENANCE_COUNT];
    moe_calibration_count(calibration, counts);
    cr_expect_eq(counts[MOE_PROVENANCE_MEASURED], 0);
    cr_expect_eq(counts[MOE_PROVENANCE_INTERPOLATED], 0);
    cr_expect_eq(counts[MOE_PROVENANCE_EXTRAPOLATED], 0);
    cr_expect_gt(counts[MOE_PROVENANCE_PUBLISHED], counts[MOE_PROVENANCE_ASSUMED]);
}

Test(calibration_builtin, gives_each_expert_point_back)
{
    uint32_t seen = 0;
    for (uint32_t i = 0; i < calibration->point_count; i++) {
        const struct moe_calibration_point *point = &calibration->point_rows[i];
        const struct moe_calibration_series *series = NULL;
        for (uint32_t k = 0; k < calibration->series_count; k++) {
            if (strcmp(calibration->series_rows[k].name, point->series) == 0) {
                series = &calibration->series_rows[k];
            }
        }
        cr_assert_not_null(series);
        if (series->op != MOE_SERIES_EXPERT || series->permutation == 0) {
            continue; /* with permutation outside, the cost is more than the point */
        }
        const struct moe_cluster cluster = { .node_count = 1, .gpus_per_node = 8, .gpu = "H200" };
        struct moe_model model;
        struct moe_cost *cost = NULL;
        cr_assert_eq(moe_model_load(&model, "deepseek-v3", NULL), MOE_OK);
        model.hidden_size = series->hidden;
        model.expert_size = series->expert_size;
        model.gated = series->gated == 1;
        model.expert_bytes_per_weight = moe_dtype_bytes(series->dtype);
        cr_assert_eq(moe_cost_init(&cost, calibration, &model, &cluster, &arena, NULL), MOE_OK);
        const double tile = moe_cost_tile_tokens(cost);
        const struct moe_expert_work work = { point->tokens * point->active, point->active,
                                              point->active * ceil(point->tokens / tile),
                                              point->tokens };
        const struct moe_duration got = moe_cost_expert(cost, &work, &one);
        cr_expect(fabs(got.ns / point->median_ns - 1.0) < 1e-12, "%s: %g, published %g",
                  series->name, got.ns, point->median_ns);
        cr_expect_eq(got.provenance, point->provenance, "%s", series->name);
        seen++;
    }
    cr_expect_eq(seen, 16);
}

/* The rows of table fit must be those that `moesim cal fit` makes of the points; a choice by
 * hand is labelled assumed. */
Test(calibration_builtin, fits_are_not_stale)
{
    for (uint32_t i = 0; i < calibration->series_count; i++) {
        const struct moe_calibration_series *series = &calibration->series_rows[i];
        const struct moe_calibration_fit *fit = moe_calibration_find_fit(calibration, series->name);
        struct moe_fit_result again;
        if (fit->provenance == MOE_PROVENANCE_ASSUMED) {
            continue;
        }
        cr_assert_eq(moe_fit_series(&again, calibration, series, NULL), MOE_OK);
        cr_expect(fabs(again.fit.t0_ns / fit->t0_ns - 1.0) < 2e-3, "%s", series->name);
        cr_expect(fabs(again.fit.bandwidth_bytes_s / fit->bandwidth_bytes_s - 1.0) < 1e-3);
        cr_expect(fabs(again.fit.peak_flop_s / fit->peak_flop_s - 1.0) < 1e-3);
        cr_expect(fabs(again.fit.p / fit->p - 1.0) < 2e-3, "%s", series->name);
        cr_expect_lt(again.worst_error, 0.06, "%s misses a point by %g", series->name,
                     again.worst_error);
    }
}

/* NCCL all-to-all on 8 H200, us by message bytes, 7/8 of which leave the GPU. */
Test(calibration_builtin, near_exchange_meets_the_published_times)
{
    const struct moe_cost *cost = prepare("deepseek-v3", 1, 8);
    const double bytes[] = { 0x1p10, 0x1p16, 0x1p18, 0x1p20, 0x1p22, 0x1p24, 0x1p26, 0x1p29 };
    const double us[] = { 7.4, 12.1, 14.1, 16.2, 27, 73, 219, 1510 };
    for (size_t i = 0; i < sizeof us / sizeof us[0]; i++) {
        const double copies =
            bytes[i] * 7.0 / 8.0 / moe_cost_exchange_bytes(cost, MOE_COST_DISPATCH);
        const struct moe_exchange_work work = { copies, copies, 0, 0, 0 };
        const struct moe_duration got = moe_cost_exchange(cost, MOE_COST_DISPATCH, &work, &one);
        cr_expect(fabs(got.ns / (1e3 * us[i]) - 1.0) < 0.035, "%g B: %g ns, published %g us",
                  bytes[i], got.ns, us[i]);
        cr_expect_eq(got.provenance, MOE_PROVENANCE_PUBLISHED);
    }
}

/* DeepEP's low-latency kernels, 128 tokens x 8 copies, spread evenly over all ranks. */
Test(calibration_builtin, far_exchange_meets_the_published_times)
{
    const uint32_t ranks[] = { 16, 32, 64, 128, 256 };
    const double dispatch_us[] = { 118, 155, 173, 192, 194 };
    const double combine_us[] = { 195, 273, 314, 369, 360 };
    for (size_t i = 0; i < sizeof ranks / sizeof ranks[0]; i++) {
        const struct moe_cost *cost = prepare("deepseek-v3", ranks[i] / 8, 8);
        const double far = 1024.0 * (ranks[i] - 8.0) / ranks[i];
        const double near = 1024.0 * 7.0 / ranks[i];
        const struct moe_exchange_work work = { near, near, far, far, 0 };
        cr_expect_eq(moe_cost_exchange_bytes(cost, MOE_COST_DISPATCH), 7408.0);
        cr_expect_eq(moe_cost_exchange_bytes(cost, MOE_COST_COMBINE), 14352.0);
        const struct moe_duration out = moe_cost_exchange(cost, MOE_COST_DISPATCH, &work, &one);
        const struct moe_duration back = moe_cost_exchange(cost, MOE_COST_COMBINE, &work, &one);
        cr_expect(fabs(out.ns / (1e3 * dispatch_us[i]) - 1.0) < 0.035, "EP%u: %g", ranks[i],
                  out.ns);
        cr_expect(fabs(back.ns / (1e3 * combine_us[i]) - 1.0) < 0.035, "EP%u: %g", ranks[i],
                  back.ns);
        cr_expect_eq(back.provenance, MOE_PROVENANCE_PUBLISHED, "EP%u", ranks[i]);
    }
}

Test(calibration_builtin, exchange_never_gets_shorter_with_more_copies)
{
    const uint32_t sizes[][2] = { { 1, 2 }, { 1, 4 }, { 1, 8 }, { 2, 8 }, { 4, 8 }, { 32, 8 } };
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const struct moe_cost *cost = prepare("switch-base-128", sizes[i][0], sizes[i][1]);
        double before[2] = { 0.0, 0.0 };
        double copies = 1.0;
        for (int step = 0; step < 280; step++) {
            copies *= 1.05;
            const struct moe_exchange_work near = { copies, 0, 0, 0, 0 };
            const struct moe_exchange_work far = { 0, 0, copies, 0, 0 };
            const double ns[] = {
                moe_cost_exchange(cost, MOE_COST_DISPATCH, &near, &one).ns,
                sizes[i][0] == 1 ? 0.0 : moe_cost_exchange(cost, MOE_COST_DISPATCH, &far, &one).ns,
            };
            cr_assert(ns[0] >= before[0] && ns[1] >= before[1], "%u x %u, %g copies: %g after %g",
                      sizes[i][0], sizes[i][1], copies, ns[0], before[0]);
            before[0] = ns[0];
            before[1] = ns[1];
        }
    }
}

/* Every shipped model can be priced, and a step of 32 decoding requests on each of 32 GPUs
 * lands where deployments are: DeepSeek-V3 takes tens of milliseconds. */
Test(calibration_builtin, every_card_has_a_plausible_decode_step)
{
    uint32_t count = 0;
    const char *const *cards = moe_model_card_names(&count);
    cr_assert_gt(count, 10);
    for (uint32_t i = 0; i < count; i++) {
        struct moe_model model;
        cr_assert_eq(moe_model_load(&model, cards[i], NULL), MOE_OK);
        const struct moe_cost *cost = prepare(cards[i], 4, 8);
        const struct moe_token_work tokens = { .tokens = 32,
                                               .sampled = 32,
                                               .kv_read = 64000,
                                               .score_pairs = 64000,
                                               .window_read = 4096,
                                               .window_pairs = 4096,
                                               .decode_read = 64000,
                                               .sparse_read = 64000,
                                               .sparse_pairs = 64000,
                                               .sparse_decode = 64000 };
        const double slots = model.expert_count / 32.0 < 1.0 ? 1.0 : model.expert_count / 32.0;
        const double each = 32.0 * model.top_k;
        const struct moe_expert_work expert = { each, slots, slots * ceil(each / slots / 8.0),
                                                each / slots };
        const struct moe_exchange_work exchange = { each / 4, each / 4, each, each, 0 };
        const double layer = moe_cost_attention(cost, &tokens, &one).ns +
                             moe_cost_gate(cost, 32, &one).ns +
                             moe_cost_exchange(cost, MOE_COST_DISPATCH, &exchange, &one).ns +
                             moe_cost_expert(cost, &expert, &one).ns +
                             moe_cost_exchange(cost, MOE_COST_COMBINE, &exchange, &one).ns;
        const double step = layer * model.layer_count + moe_cost_head(cost, &tokens, &one).ns +
                            moe_cost_host(cost).ns;
        cr_expect(step > 1e6 && step < 200e6, "%s: %g ms", cards[i], step * 1e-6);
        if (strcmp(cards[i], "deepseek-v3") == 0) {
            cr_expect(step > 15e6 && step < 60e6, "%s: %g ms", cards[i], step * 1e-6);
        }
    }
}

/* Attention of all layers for eight requests that decode after so many tokens, in ms. */
static double attention_ms(const char *card, double context)
{
    struct moe_model model;
    cr_assert_eq(moe_model_load(&model, card, NULL), MOE_OK);
    const double window = fmin(context, model.window_size);
    const double span = fmin(context, (double) moe_model_sparse_tokens(&model));
    const struct moe_token_work work = { .tokens = 8,
                                         .sampled = 8,
                                         .kv_read = 8 * context,
                                         .score_pairs = 8 * context,
                                         .decode_read = 8 * context,
                                         .window_read = 8 * window,
                                         .window_pairs = 8 * window,
                                         .sparse_read = 8 * span,
                                         .sparse_pairs = 8 * span,
                                         .sparse_decode = 8 * span };
    return moe_cost_attention(prepare(card, 4, 8), &work, &one).ns * model.layer_count * 1e-6;
}

/* As DeepSeek reports: V3.2 is ahead of V3 at long contexts and not far behind at short ones, and
 * V4-Pro, with more weights, ahead of V3.2 at a million tokens. */
Test(calibration_builtin, sparse_attention_pays_at_long_contexts)
{
    const double full[2] = { attention_ms("deepseek-v3", 2e3), attention_ms("deepseek-v3", 128e3) };
    const double sparse[2] = { attention_ms("deepseek-v3.2", 2e3),
                               attention_ms("deepseek-v3.2", 128e3) };
    cr_expect(sparse[0] > full[0] && sparse[0] < 1.6 * full[0], "%g %g", sparse[0], full[0]);
    cr_expect(sparse[1] < 0.7 * full[1] && sparse[1] > 0.1 * full[1], "%g %g", sparse[1], full[1]);
    const double long_sparse = attention_ms("deepseek-v3.2", 1e6);
    const double compressed = attention_ms("deepseek-v4-pro", 1e6);
    cr_expect(compressed < 0.7 * long_sparse && compressed > 0.1 * long_sparse, "%g %g", compressed,
              long_sparse);
}
