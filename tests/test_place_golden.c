/* Figures that others published or measured with other programs, on recorded loads. All of it
 * needs ../shared and is skipped without. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "policies/policy.h"

enum { ARENA_BYTES = 32 << 20 };

static struct moe_arena plans;
static struct moe_arena scratch;

static void open_arenas(void)
{
    cr_assert_eq(moe_arena_init(&plans, ARENA_BYTES, NULL), MOE_OK);
    cr_assert_eq(moe_arena_init(&scratch, ARENA_BYTES, NULL), MOE_OK);
}

static void close_arenas(void)
{
    moe_arena_finish(&plans);
    moe_arena_finish(&scratch);
}

static struct moe_placement solve(const char *name, const struct moe_place_view *view)
{
    const struct moe_policy *policy = NULL;
    struct moe_placement plan;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, name, &policy, NULL), MOE_OK);
    cr_assert_eq(moe_placement_init(&plan, &plans, &view->shape, NULL), MOE_OK);
    moe_arena_reset(&scratch);
    cr_assert_eq(moe_policy_place(policy, view, &scratch, &plan, &err), MOE_OK, "%s", err.text);
    return plan;
}

/* --- DeepSeek-V3's loads as SGLang recorded them --------------------------------------------- */

enum { LAYERS = 58, DENSE = 3, EXPERTS = 256 };

static bool read_recorded(const char *name, double *load)
{
    char path[4096];
    json_error_t error;
    (void) snprintf(path, sizeof path, "%s/../shared/data/dsv3_expert_loads/%s.json",
                    MOE_SOURCE_ROOT, name);
    json_t *root = json_load_file(path, 0, &error);
    const json_t *rows = json_object_get(root, "logical_count");
    if (root == NULL) {
        return false;
    }
    for (size_t i = 0; i < (size_t) LAYERS * EXPERTS; i++) {
        load[i] = json_number_value(
            json_array_get(json_array_get(rows, DENSE + i / EXPERTS), i % EXPERTS));
    }
    json_decref(root);
    return true;
}

/* vLLM's own program, from the plan of prefill_in4096 to that of decode_in1000out1000: 16,517 of
 * 16,704 slots change, 16,099 when slots inside a GPU are preserved. */
Test(place_golden, vllm_preserves_as_many_slots_as_vllm)
{
    static double prefill[LAYERS * EXPERTS];
    static double decode[LAYERS * EXPERTS];
    static const double without[] = { 0.0 };
    if (!read_recorded("prefill_in4096", prefill) ||
        !read_recorded("decode_in1000out1000", decode)) {
        cr_skip_test("no ../shared");
    }
    open_arenas();
    struct moe_placement start;
    struct moe_place_view view = { .shape = { LAYERS, EXPERTS, 288, 32, 4, 1 },
                                   .parameters = without,
                                   .load = prefill,
                                   .previous = &start };
    cr_assert_eq(moe_placement_init(&start, &plans, &view.shape, NULL), MOE_OK);
    const struct moe_placement before = solve("eplb_vllm", &view);
    view.load = decode;
    view.previous = &before;
    const struct moe_placement naive = solve("eplb_vllm", &view);
    view.parameters = NULL;
    const struct moe_placement preserved = solve("eplb_vllm", &view);
    cr_expect_eq(moe_placement_count_moves(&before, &naive), 16517);
    cr_expect_eq(moe_placement_count_moves(&before, &preserved), 16099);
    close_arenas();
}

/* Balancedness of the programs' plans on the loads that they were made for, 288 slots, 32 GPUs,
 * 4 nodes, 8 groups: hierarchical, then global. */
Test(place_golden, balance_on_recorded_loads)
{
    static const struct {
        const char *policy;
        const char *loads;
        uint32_t groups;
        double balance;
    } rows[] = {
        { "contiguous", "decode_in1000out1000", 8, 0.523 },
        { "contiguous", "prefill_in4096", 8, 0.444 },
        { "eplb", "decode_in1000out1000", 8, 0.782 },
        { "eplb", "decode_in1000out1000", 1, 0.993 },
        { "eplb", "prefill_in4096", 8, 0.796 },
        { "eplb", "prefill_in4096", 1, 0.994 },
        { "eplb_trtllm", "decode_in1000out1000", 1, 0.993 },
        { "eplb_trtllm", "prefill_in4096", 1, 0.994 },
        { "eplb_vllm", "decode_in1000out1000", 8, 0.782 },
        { "eplb_vllm", "prefill_in4096", 1, 0.994 },
        { "eplb_sglang", "decode_in1000out1000", 8, 0.762 },
        { "eplb_sglang", "decode_in1000out1000", 1, 0.975 },
        { "eplb_sglang", "prefill_in4096", 8, 0.776 },
        { "eplb_sglang", "prefill_in4096", 1, 0.974 },
    };
    static double load[LAYERS * EXPERTS];
    static float batch[LAYERS * EXPERTS];
    open_arenas();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct moe_placement start;
        struct moe_place_view view = { .shape = { LAYERS, EXPERTS, 288, 32, 4, rows[i].groups },
                                       .load = load,
                                       .batch_count = 1,
                                       .batches = batch,
                                       .previous = &start };
        if (!read_recorded(rows[i].loads, load)) {
            cr_skip_test("no ../shared");
        }
        for (size_t j = 0; j < (size_t) LAYERS * EXPERTS; j++) {
            batch[j] = (float) load[j];
        }
        moe_arena_reset(&plans);
        cr_assert_eq(moe_placement_init(&start, &plans, &view.shape, NULL), MOE_OK);
        const struct moe_placement plan = solve(rows[i].policy, &view);
        moe_arena_reset(&scratch);
        const double got = moe_placement_balancedness(&plan, load, &scratch);
        cr_expect_float_eq(got, rows[i].balance, 0.0006, "%s %s %u: %.4f, not %.3f", rows[i].policy,
                           rows[i].loads, rows[i].groups, got, rows[i].balance);
    }
    close_arenas();
}

/* --- Qwen1.5-MoE: planned on iteration 0, scored on iteration 1 ------------------------------ */

enum { QWEN_EXPERTS = 60, QWEN_GPUS = 6, QWEN_LAYERS = 24 };

/* Adds the counts of one source rank and layer: both iterations. */
static bool read_rank(uint32_t rank, uint32_t layer, double *plan, double *score)
{
    char path[4096];
    char line[8192];
    uint32_t iteration = 0;
    (void) snprintf(path, sizeof path,
                    "%s/../shared/data/harmoeny_raw_trace/qwen/%u/moe_layer-%u.csv",
                    MOE_SOURCE_ROOT, rank, layer);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return false;
    }
    cr_assert_not_null(fgets(line, sizeof line, file));
    for (; iteration < 2 && fgets(line, sizeof line, file) != NULL; iteration++) {
        char *rest = strchr(line, '[');
        cr_assert_not_null(rest);
        for (int expert = 0; expert < QWEN_EXPERTS; expert++) {
            (iteration == 0 ? plan : score)[expert] += strtod(rest + 1, &rest);
        }
        cr_assert_eq(*rest, ']');
    }
    (void) fclose(file);
    return iteration == 2;
}

static double imbalance_of(const char *policy, uint32_t slots, const double *planned,
                           const double *scored)
{
    const struct moe_place_view view = { .shape = { 1, QWEN_EXPERTS, slots, QWEN_GPUS, 1, 1 },
                                         .load = planned };
    moe_arena_reset(&plans);
    const struct moe_placement plan = solve(policy, &view);
    moe_arena_reset(&scratch);
    return 1.0 / moe_placement_balancedness(&plan, scored, &scratch);
}

Test(place_golden, qwen_rows)
{
    static const struct {
        uint32_t layer;
        double contiguous;
        double lpt;
        double eplb_6;
        double eplb_12;
    } rows[] = {
        { 0, 1.269, 1.008, 1.017, 1.016 },  { 5, 2.002, 1.245, 1.051, 1.020 },
        { 12, 3.070, 2.906, 1.073, 1.058 }, { 17, 2.250, 2.236, 1.118, 1.057 },
        { 20, 3.934, 2.440, 1.046, 1.062 }, { 22, 4.042, 1.629, 1.112, 1.093 },
    };
    double balance[2] = { 0.0, 0.0 };
    open_arenas();
    for (uint32_t layer = 0, row = 0; layer < QWEN_LAYERS; layer++) {
        double plan[QWEN_EXPERTS] = { 0.0 };
        double score[QWEN_EXPERTS] = { 0.0 };
        for (uint32_t rank = 0; rank < QWEN_GPUS; rank++) {
            if (!read_rank(rank, layer, plan, score)) {
                cr_skip_test("no ../shared");
            }
        }
        const double contiguous = imbalance_of("contiguous", QWEN_EXPERTS, plan, score);
        const double lpt = imbalance_of("lpt", QWEN_EXPERTS, plan, score);
        balance[0] += 1.0 / contiguous / QWEN_LAYERS;
        balance[1] += 1.0 / lpt / QWEN_LAYERS;
        if (row < sizeof rows / sizeof rows[0] && rows[row].layer == layer) {
            cr_expect_float_eq(contiguous, rows[row].contiguous, 6e-4, "layer %u: %.4f", layer,
                               contiguous);
            cr_expect_float_eq(lpt, rows[row].lpt, 6e-4, "layer %u: %.4f", layer, lpt);
            cr_expect_float_eq(imbalance_of("eplb", 66, plan, score), rows[row].eplb_6, 6e-4);
            cr_expect_float_eq(imbalance_of("eplb", 72, plan, score), rows[row].eplb_12, 6e-4);
            row++;
        }
    }
    cr_expect_float_eq(balance[0], 0.532, 6e-4, "%.4f", balance[0]);
    cr_expect_float_eq(balance[1], 0.761, 6e-4, "%.4f", balance[1]);
    close_arenas();
}
