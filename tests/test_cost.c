/* The cost functions against values worked out by hand from tests/data/tiny-calibration.csv,
 * and the built-in table against the published figures that it is made of. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>

#include "sim/base/random.h"
#include "sim/cost/calibration.h"
#include "sim/cost/cost.h"
#include "sim/cost/fit.h"
#include "sim/cost/norm.h"

static const char tiny_path[] = MOE_SOURCE_ROOT "/tests/data/tiny-calibration.csv";
static const struct moe_gpu_factor one = { 1.0, 1.0, 1.0 };

static struct moe_arena arena;
static struct moe_model model;
static struct moe_cluster cluster;
static const struct moe_calibration *calibration;
static struct moe_cost *cost;

/* cost, from the tiny table for the current model and cluster. */
static void prepare(void)
{
    struct moe_error err = { 0 };
    moe_arena_reset(&arena);
    cr_assert_eq(
        moe_calibration_parse_file(&calibration, tiny_path, MOE_CALIBRATION_FITTED, &arena, &err),
        MOE_OK, "%s", err.text);
    cr_assert_eq(moe_cost_init(&cost, calibration, &model, &cluster, &arena, &err), MOE_OK, "%s",
                 err.text);
}

static void setup(void)
{
    cr_assert_eq(moe_arena_init(&arena, 4 << 20, NULL), MOE_OK);
    model = (struct moe_model){
        .name = "toy",
        .layer_count = 2,
        .moe_layer_count = 1,
        .hidden_size = 100,
        .vocabulary_size = 1000,
        .expert_count = 8,
        .top_k = 2,
        .group_count = 1,
        .group_limit = 1,
        .expert_size = 50,
        .dense_size = 200,
        .gated = true,
        .attention = MOE_ATTENTION_GQA,
        .head_count = 4,
        .kv_head_count = 2,
        .head_size = 25,
        .kv_layer_count = 2,
        .expert_bytes_per_weight = 1,
        .dense_bytes_per_weight = 1,
        .kv_bytes_per_value = 2,
    };
    cluster = (struct moe_cluster){ .node_count = 2, .gpus_per_node = 4, .gpu = "toy" };
    prepare();
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(cost, .init = setup, .fini = teardown);

static void expect(struct moe_duration got, double ns, enum moe_provenance provenance,
                   const char *what)
{
    cr_expect(fabs(got.ns - ns) <= 1e-12 * ns, "%s: %.17g ns, not %.17g", what, got.ns, ns);
    cr_expect_eq(got.provenance, provenance, "%s: %s, not %s", what,
                 moe_provenance_name(got.provenance), moe_provenance_name(provenance));
}

static struct moe_duration expert(double tokens, double active, double tiles)
{
    const struct moe_expert_work work = { tokens, active, tiles };
    return moe_cost_expert(cost, &work, &one);
}

/* The fit of toy-fp8: 1000 + |(15000 active, 12000 tiles)|. */
static double fitted(double active, double tiles)
{
    return 1000.0 + hypot(15000.0 * active, 12000.0 * tiles);
}

Test(cost, expert_meets_points_and_interpolates_the_ratio)
{
    cr_expect_eq(moe_cost_tile_tokens(cost), 4);
    expect(expert(0, 0, 0), 0.0, MOE_PROVENANCE_MEASURED, "nothing");
    expect(expert(8, 2, 2), 42000.0, MOE_PROVENANCE_MEASURED, "on a point");
    expect(expert(32, 8, 8), 160000.0, MOE_PROVENANCE_PUBLISHED, "on a published point");
    /* 2 tokens per active: half way in log2 between 1 and 4; one tile each as there. */
    expect(expert(4, 2, 2), 41000.0, MOE_PROVENANCE_INTERPOLATED, "between tokens");
    /* Active 4: half way in log2 between 2 and 8. */
    const double ratio = (42000.0 / fitted(2, 2) + 160000.0 / fitted(8, 8)) / 2.0;
    expect(expert(16, 4, 4), ratio * fitted(4, 4), MOE_PROVENANCE_PUBLISHED, "between rows");
    const double low = (40000.0 / fitted(2, 2) + 150000.0 / fitted(8, 8)) / 2.0;
    expect(expert(4, 4, 4), low * fitted(4, 4), MOE_PROVENANCE_INTERPOLATED, "measured rows");
    /* More padding than the points had costs tiles, not ratio. */
    expect(expert(8, 2, 3), 42000.0 / fitted(2, 2) * fitted(2, 3), MOE_PROVENANCE_MEASURED,
           "skewed");
}

Test(cost, expert_holds_the_ratio_outside_the_points_and_says_so)
{
    expect(expert(256, 2, 64), 420000.0 / fitted(2, 32) * fitted(2, 64),
           MOE_PROVENANCE_EXTRAPOLATED, "more tokens");
    expect(expert(256, 8, 64), 420000.0 / fitted(8, 32) * fitted(8, 64), MOE_PROVENANCE_ASSUMED,
           "more tokens than published");
    expect(expert(16, 16, 16), 150000.0 / fitted(8, 8) * fitted(16, 16),
           MOE_PROVENANCE_EXTRAPOLATED, "more active");
    expect(expert(64, 16, 16), 160000.0 / fitted(8, 8) * fitted(16, 16), MOE_PROVENANCE_ASSUMED,
           "more active than published");
    expect(expert(4, 1, 1), 42000.0 / fitted(2, 2) * fitted(1, 1), MOE_PROVENANCE_EXTRAPOLATED,
           "fewer active");
}

Test(cost, expert_factors_multiply_what_bounds_the_work)
{
    const struct moe_expert_work work = { 8, 2, 2 };
    const struct moe_gpu_factor factor = { .compute = 1.2, .memory = 1.1, .comm = 7.0 };
    expect(moe_cost_expert(cost, &work, &factor),
           42000.0 / fitted(2, 2) * (1000.0 + hypot(33000.0, 28800.0)), MOE_PROVENANCE_MEASURED,
           "factors");
}

Test(cost, expert_without_a_series_takes_the_generic_one_and_pays_its_permutation)
{
    model.expert_bytes_per_weight = 2;
    prepare();
    cr_expect_eq(moe_cost_tile_tokens(cost), 8);
    /* p = 1: 500 + 15000 + 24000; 3 assignments move 100 * (2*2 + 2*2) bytes at 1 B/ns. */
    expect(expert(3, 1, 1), 39500.0 + 2400.0, MOE_PROVENANCE_ASSUMED, "generic");
}

static struct moe_duration exchange(enum moe_cost_part part, double near_out, double near_in,
                                    double far_out, double far_in)
{
    const struct moe_exchange_work work = { near_out, near_in, far_out, far_in };
    return moe_cost_exchange(cost, part, &work, &one);
}

Test(cost, exchange_takes_the_longer_direction_of_the_longer_link)
{
    const enum moe_cost_part out = MOE_COST_DISPATCH;
    cr_expect_eq(moe_cost_exchange_bytes(cost, MOE_COST_DISPATCH), 104.0);
    cr_expect_eq(moe_cost_exchange_bytes(cost, MOE_COST_COMBINE), 204.0);
    expect(exchange(out, 0, 0, 0, 0), 0.0, MOE_PROVENANCE_MEASURED, "nothing");
    expect(exchange(out, 10, 5, 0, 0), 3040.0, MOE_PROVENANCE_MEASURED, "near out");
    expect(exchange(out, 5, 10, 0, 0), 3040.0, MOE_PROVENANCE_MEASURED, "near in");
    expect(exchange(out, 200, 5, 0, 0), 17400.0, MOE_PROVENANCE_PUBLISHED, "second segment");
    expect(exchange(out, 10, 5, 10, 0), 15400.0, MOE_PROVENANCE_PUBLISHED, "far");
    expect(exchange(out, 300, 5, 0, 1), 22600.0, MOE_PROVENANCE_PUBLISHED, "near beside far");
    expect(exchange(MOE_COST_COMBINE, 10, 5, 10, 0), 26400.0, MOE_PROVENANCE_PUBLISHED,
           "combine has its own far curve");
    expect(exchange(out, 10000, 0, 0, 0), 527000.0, MOE_PROVENANCE_ASSUMED, "beyond the curve");
    const struct moe_exchange_work work = { 10, 5, 0, 0 };
    const struct moe_gpu_factor slow = { 1.0, 1.0, 1.5 };
    expect(moe_cost_exchange(cost, out, &work, &slow), 4560.0, MOE_PROVENANCE_MEASURED, "factor");
}

Test(cost, exchange_prefers_the_curve_of_just_enough_ranks)
{
    cluster.gpus_per_node = 2;
    prepare();
    expect(exchange(MOE_COST_DISPATCH, 10, 0, 0, 0), 2040.0, MOE_PROVENANCE_MEASURED, "2 ranks");
    cluster.gpus_per_node = 3;
    prepare();
    expect(exchange(MOE_COST_DISPATCH, 10, 0, 0, 0), 3040.0, MOE_PROVENANCE_EXTRAPOLATED,
           "3 ranks");
    cluster.gpus_per_node = 8;
    prepare();
    expect(exchange(MOE_COST_DISPATCH, 10, 0, 0, 0), 3040.0, MOE_PROVENANCE_EXTRAPOLATED,
           "8 ranks");
}

Test(cost, exchange_with_another_bandwidth_keeps_the_least_latency_and_its_continuity)
{
    cluster.near_bytes_s = 1e9; /* half of what the curve ends with */
    cluster.far_bytes_s = 2e8;  /* twice */
    prepare();
    expect(exchange(MOE_COST_DISPATCH, 10, 0, 0, 0), 2000.0 + 2.0 * 1040.0, MOE_PROVENANCE_ASSUMED,
           "near, first segment");
    expect(exchange(MOE_COST_DISPATCH, 200, 0, 0, 0), 12000.0 + 20800.0, MOE_PROVENANCE_ASSUMED,
           "near, second segment: continuous at 10000 B");
    expect(exchange(MOE_COST_DISPATCH, 0, 0, 10, 0), 5000.0 + 5.0 * 1040.0, MOE_PROVENANCE_ASSUMED,
           "far");
}

/* One matrix of the fp8 series: p = 2, 1 B/ns, 20 FLOP/ns, rows in fours. */
static double fp8_matrix(double rows, double weights)
{
    return 200.0 + hypot(weights, rows * 2.0 * weights / 20.0);
}

Test(cost, dense_parts_read_their_matrices_once)
{
    /* 100x400 and 200x100; one launch; three rows of 200 bf16 values per token. */
    const double dense = fp8_matrix(8, 40000) + fp8_matrix(8, 20000) + 10.0 + 5.0 * 1200.0;
    expect(moe_cost_dense(cost, 5, &one), dense, MOE_PROVENANCE_ASSUMED, "dense");
    expect(moe_cost_dense(cost, 0, &one), 0.0, MOE_PROVENANCE_MEASURED, "no tokens");
    expect(moe_cost_shared(cost, 5, &one), 0.0, MOE_PROVENANCE_MEASURED, "no shared experts");
    model.shared_size = 200;
    model.dense_size = 0;
    prepare();
    expect(moe_cost_shared(cost, 5, &one), dense, MOE_PROVENANCE_ASSUMED, "shared");
    expect(moe_cost_dense(cost, 5, &one), 0.0, MOE_PROVENANCE_MEASURED, "no dense layers");
}

Test(cost, gate_head_and_host)
{
    /* Router 100x8 in bf16 (p = 1, 1 B/ns, 10 FLOP/ns): 100 + 1600 + 800. Two launches.
     * Of 2 picks among 8 GPUs 1.875 copies: 400 + 1.875 * (104 + 204) bytes per token. */
    expect(moe_cost_gate(cost, 5, &one), 2500.0 + 20.0 + 5.0 * 977.5, MOE_PROVENANCE_ASSUMED,
           "gate");
    /* 100x1000 in bf16 over 2 rows; logits 12 bytes each; 5 embeddings of 400 bytes. */
    const struct moe_token_work work = { .tokens = 5, .sampled = 2 };
    expect(moe_cost_head(cost, &work, &one), 100.0 + 200000 + 40000 + 10 + 24000 + 2000,
           MOE_PROVENANCE_ASSUMED, "head");
    const struct moe_token_work prefill = { .tokens = 5 };
    expect(moe_cost_head(cost, &prefill, &one), 2000.0, MOE_PROVENANCE_MEASURED, "no sampling");
    expect(moe_cost_host(cost), 5000.0, MOE_PROVENANCE_ASSUMED, "host");
    cr_expect_eq(moe_cost_memory_bytes(cost), 1e10);
    cluster.memory_bytes = 5e9;
    prepare();
    cr_expect_eq(moe_cost_memory_bytes(cost), 5e9);
}

Test(cost, attention_adds_projections_and_core)
{
    const struct moe_token_work work = {
        .tokens = 5, .kv_read = 50, .score_pairs = 60, .window_read = 20, .window_pairs = 30
    };
    /* QKV 100x200, output 100x100; three launches; 16 bytes per hidden value and token. */
    const double outside = fp8_matrix(8, 20000) + fp8_matrix(8, 10000) + 30.0 + 5.0 * 1600.0;
    /* Core, p = 1: 200 B of KV per token at 1 B/ns; 400 FLOP a pair at 10 FLOP/ns. */
    expect(moe_cost_attention(cost, &work, &one), outside + 10000.0 + 2400.0,
           MOE_PROVENANCE_ASSUMED, "all layers see everything");
    model.kv_layer_count = 1;
    model.window_layer_count = 1;
    model.window_size = 8;
    prepare();
    expect(moe_cost_attention(cost, &work, &one), outside + 6200.0 + 2600.0, MOE_PROVENANCE_ASSUMED,
           "half of them a window");
    model.window_layer_count = 0;
    model.linear_weights = 20000;
    prepare();
    const double linear = 2.0 * fp8_matrix(8, 10000) + 30.0 + 5.0 * 1600.0;
    expect(moe_cost_attention(cost, &work, &one), outside / 2.0 + linear / 2.0 + 6200.0,
           MOE_PROVENANCE_ASSUMED, "half of them linear");
    const struct moe_token_work nothing = { 0 };
    expect(moe_cost_attention(cost, &nothing, &one), 0.0, MOE_PROVENANCE_MEASURED, "nothing");
}

/* One layer of two sparse with an indexer, half of those: read and pairs that rows chose; keys of
 * 10 bytes per token, 2 heads * 10: 40 FLOP a pair, 8 / 4 bytes a score. */
Test(cost, sparse_attention_reads_what_was_chosen_and_scores_everything)
{
    const struct moe_token_work work = {
        .tokens = 5, .kv_read = 50, .score_pairs = 60, .sparse_read = 20, .sparse_pairs = 30
    };
    const double outside = fp8_matrix(8, 20000) + fp8_matrix(8, 10000) + 30.0 + 5.0 * 1600.0;
    model.sparse_layer_count = 2;
    model.sparse_entries = 4;
    model.sparse_ratio = 1;
    model.index_layer_count = 1;
    model.index_head_count = 2;
    model.index_head_size = 10;
    model.index_block = 4;
    model.index_bytes_per_value = 1;
    prepare();
    const double index =
        fp8_matrix(8, 2000) + fp8_matrix(8, 1200) + 30.0 + 50 * 10.0 + 60 * 4.0 + 60 * 2.0;
    expect(moe_cost_attention(cost, &work, &one), outside + 20 * 200.0 + 30 * 40.0 + index / 2,
           MOE_PROVENANCE_ASSUMED, "sparse");
}

/* MLA with 4 heads, latent 40, rope 10, K and V of 20: absorbed 2*4*90 = 720 FLOP a pair,
 * expanded 2*4*50 = 400, expanding a token 2*40*4*40 = 12800. */
Test(cost, mla_takes_the_cheaper_form)
{
    model.attention = MOE_ATTENTION_MLA;
    model.head_size = 20;
    model.value_head_size = 20;
    model.rope_head_size = 10;
    model.kv_lora_rank = 40;
    prepare();
    /* Query and latent 100x170, up 40x160, output 80x100. */
    const double few = fp8_matrix(4, 17000) + fp8_matrix(4, 6400) + fp8_matrix(4, 8000) + 30.0;
    const struct moe_token_work decode = { .tokens = 1, .kv_read = 50, .score_pairs = 50 };
    expect(moe_cost_attention(cost, &decode, &one), few + 1600.0 + 50 * 100.0 + 50 * 72.0,
           MOE_PROVENANCE_ASSUMED, "one row: absorbed");
    const struct moe_token_work mixed = {
        .tokens = 4, .kv_read = 60, .score_pairs = 9050, .decode_read = 50
    };
    expect(moe_cost_attention(cost, &mixed, &one),
           few + 4 * 1600.0 + 60 * 100.0 + 50 * 72.0 + 9000 * 40.0 + 6 * 1280.0,
           MOE_PROVENANCE_ASSUMED, "many rows: expanded");
}

Test(cost, jitter_is_the_inverse_of_the_stored_quantiles)
{
    const double at[] = { 0.0, 0.025, 0.05, 0.5, 0.6, 0.75, 0.97, 0.99, 0.9999 };
    const double value[] = { 0.8, 0.85, 0.9, 1.0, 1.016, 1.04, 1.15, 1.2, 1.2 };
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        cr_expect_float_eq(moe_cost_jitter(cost, MOE_JITTER_EXPERT, at[i]), value[i], 1e-12,
                           "at %g", at[i]);
    }
    cr_expect_float_eq(moe_cost_jitter(cost, MOE_JITTER_COMM, 0.95), 1.5, 1e-12);
    cr_expect_eq(moe_cost_drift(cost).phi, 0.9);
    cr_expect_eq(moe_cost_drift(cost).sigma, 0.01);
}

Test(cost, gpu_factors_follow_the_prior)
{
    enum { GPU_COUNT = 40000 };
    double sum[2] = { 0 };
    double squares[2] = { 0 };
    int tail = 0;
    for (uint32_t gpu = 0; gpu < GPU_COUNT; gpu++) {
        const struct moe_gpu_factor factor = moe_cost_gpu_factor(cost, 7, gpu);
        const struct moe_gpu_factor again = moe_cost_gpu_factor(cost, 7, gpu);
        cr_assert_eq(factor.compute, again.compute);
        if (moe_cost_gpu_in_tail(cost, 7, gpu)) {
            tail++;
            cr_assert(factor.compute >= 1.1 && factor.compute <= 1.5);
            cr_assert_eq(factor.compute, factor.memory);
            continue;
        }
        const double logs[] = { log(factor.compute), log(factor.comm) };
        for (int i = 0; i < 2; i++) {
            sum[i] += logs[i];
            squares[i] += logs[i] * logs[i];
        }
    }
    const double n = GPU_COUNT - tail;
    /* Five standard errors. */
    cr_expect(fabs(tail - 400.0) < 5.0 * sqrt(396.0), "%d in the tail", tail);
    cr_expect(fabs(sum[0] / n) < 5.0 * 0.03 / sqrt(n));
    cr_expect(fabs(sqrt(squares[0] / n) / 0.03 - 1.0) < 5.0 / sqrt(2.0 * n));
    cr_expect(fabs(sqrt(squares[1] / n) / 0.01 - 1.0) < 5.0 / sqrt(2.0 * n));
    cr_expect_neq(moe_cost_gpu_factor(cost, 7, 0).compute, moe_cost_gpu_factor(cost, 8, 0).compute);
}

Test(cost, measured_gpus_are_drawn_before_the_prior)
{
    static const char rows[] = "table,gpu,uuid,gpu_kind,compute,memory,comm,provenance,source\n"
                               "gpu,A,toy,1.25,1,1,measured,x\ngpu,B,toy,0.75,1,1,measured,x\n";
    static char text[1 << 16];
    FILE *file = fopen(tiny_path, "rb");
    cr_assert_not_null(file);
    size_t bytes = fread(text, 1, sizeof text - sizeof rows, file);
    (void) fclose(file);
    memcpy(text + bytes, rows, sizeof rows - 1);
    bytes += sizeof rows - 1;
    cr_assert_eq(moe_calibration_parse(&calibration, text, bytes, "tiny", MOE_CALIBRATION_FITTED,
                                       &arena, NULL),
                 MOE_OK);
    cr_assert_eq(moe_cost_init(&cost, calibration, &model, &cluster, &arena, NULL), MOE_OK);
    int slow = 0;
    for (uint32_t gpu = 0; gpu < 1000; gpu++) {
        const double compute = moe_cost_gpu_factor(cost, 3, gpu).compute;
        cr_assert(compute == 1.25 || compute == 0.75);
        cr_assert_not(moe_cost_gpu_in_tail(cost, 3, gpu));
        slow += compute == 1.25;
    }
    cr_expect(slow > 400 && slow < 600, "%d of 1000", slow);
}

Test(cost, refuses_a_gpu_kind_that_the_calibration_lacks)
{
    struct moe_error err = { 0 };
    (void) snprintf(cluster.gpu, sizeof cluster.gpu, "H300");
    cr_expect_eq(moe_cost_init(&cost, calibration, &model, &cluster, &arena, &err), MOE_RANGE);
    cr_expect(strstr(err.text, "no GPU kind 'H300'; this calibration has: toy") != NULL, "%s",
              err.text);
}

Test(cost, names_of_provenance_and_parts)
{
    cr_expect_str_eq(moe_provenance_name(MOE_PROVENANCE_MEASURED), "measured");
    cr_expect_str_eq(moe_provenance_name(MOE_PROVENANCE_ASSUMED), "assumed");
    cr_expect_str_eq(moe_cost_part_name(MOE_COST_ATTENTION), "attention");
    cr_expect_str_eq(moe_cost_part_name(MOE_COST_HOST), "host");
}

Test(cost, norm_and_its_table_agree_with_the_c_library)
{
    const double powers[] = { 1.0, 1.14, 1.519, 2.0, 2.5, 3.7, 5.0, 5.01, 16.0 };
    for (size_t k = 0; k < sizeof powers / sizeof powers[0]; k++) {
        const double p = powers[k];
        /* r^p carries p times the error of log r. */
        const long double tolerance = 1e-15L * fmax(1.0, p / 4.0);
        struct moe_norm_table table;
        moe_arena_reset(&arena);
        cr_assert_eq(moe_norm_table_init(&table, p, &arena, NULL), MOE_OK);
        const uint64_t key = moe_random_key(k, MOE_RANDOM_TEST);
        for (uint64_t i = 0; i < 20000; i++) {
            const double a = 1e3 * exp2(20.0 * moe_random_uniform(key, 2 * i));
            const double b = a * exp2(60.0 * moe_random_uniform(key, 2 * i + 1) - 30.0);
            const long double want = powl(powl(a, p) + powl(b, p), 1.0L / p);
            const double plain = moe_norm(a, b, p, 1.0 / p);
            const double quick = moe_norm_table_apply(&table, a, b);
            cr_assert(fabsl(plain / want - 1.0L) < tolerance, "p %g: %a %a", p, a, b);
            cr_assert(fabsl(quick / want - 1.0L) < tolerance, "p %g: %a %a", p, a, b);
        }
        cr_expect_eq(moe_norm_table_apply(&table, 0.0, 0.0), 0.0);
        cr_expect_eq(moe_norm_table_apply(&table, 0.0, 5.0), 5.0);
    }
    double x = 1e-300;
    for (int i = 0; i < 2600; i++) {
        const double y = -900.0 + 0.69 * i;
        cr_assert(fabs(moe_log2(x) - log2(x)) <= 4e-16 * fmax(1.0, fabs(log2(x))), "%a", x);
        cr_assert(fabs(moe_exp2(y) / exp2(y) - 1.0) < 5e-16, "%a", y);
        x *= 1.7;
    }
}
