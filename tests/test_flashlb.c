/* FlashLB against its published example, against the plans of the program on a real time series
 * (skipped without ../shared), and what its risk term is for. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "sim/base/random.h"

enum { LAYERS = 12, EXPERTS = 60, STEPS = 10, SLOTS = 72, GPUS = 8, SCRATCH_BYTES = 4 << 20 };
enum { SERIES_CELLS = STEPS * LAYERS * EXPERTS };

/* flashlb's parameters in their order. */
enum { REPLICATE, Z, DEPTH, WIDTH, SAMPLES, FLOOR, KEEP_ABOVE, KEEP_RATIO, REALIGN, COUNT };

struct window {
    struct moe_arena arena;
    struct moe_arena scratch;
    struct moe_placement previous;
    struct moe_place_view view;
    const struct moe_policy *policy;
    double parameters[COUNT];
};

static void open_window(struct window *w, struct moe_placement_shape shape, const float *batches,
                        uint32_t batch_count)
{
    cr_assert_eq(moe_arena_init(&w->arena, 1 << 20, NULL), MOE_OK);
    cr_assert_eq(moe_arena_init(&w->scratch, SCRATCH_BYTES, NULL), MOE_OK);
    cr_assert_eq(moe_placement_init(&w->previous, &w->arena, &shape, NULL), MOE_OK);
    for (size_t i = 0; i < (size_t) shape.layer_count * shape.slot_count; i++) {
        w->previous.expert_of_slot[i] = (uint16_t) (i % shape.slot_count % shape.expert_count);
    }
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, "flashlb", &w->policy, NULL), MOE_OK);
    cr_assert_eq(w->policy->parameter_count, COUNT);
    moe_policy_defaults(w->policy, w->parameters);
    w->view = (struct moe_place_view){ .shape = shape,
                                       .parameters = w->parameters,
                                       .batch_count = batch_count,
                                       .batches = batches,
                                       .previous = &w->previous };
}

static void close_window(struct window *w)
{
    moe_arena_finish(&w->arena);
    moe_arena_finish(&w->scratch);
}

static struct moe_placement solve(struct window *w)
{
    struct moe_placement plan;
    struct moe_error err = { 0 };
    moe_arena_reset(&w->scratch);
    cr_assert_eq(moe_placement_init(&plan, &w->arena, &w->view.shape, NULL), MOE_OK);
    cr_assert_eq(moe_policy_place(w->policy, &w->view, &w->scratch, &plan, &err), MOE_OK, "%s",
                 err.text);
    moe_arena_reset(&w->scratch);
    return plan;
}

/* vllm-ascend pull request 3042: EPLB's fullest GPU carries 232, FlashLB's 205. */
Test(flashlb, published_example)
{
    static const float loads[8] = { 600, 560, 120, 120, 20, 10, 10, 10 };
    for (int replicate = 0; replicate < 2; replicate++) {
        struct window w;
        double load[8];
        double gpu_load[8];
        double max = 0.0;
        open_window(&w, (struct moe_placement_shape){ 1, 8, 16, 8, 1, 1 }, loads, 1);
        w.parameters[REPLICATE] = replicate;
        const struct moe_placement plan = solve(&w);
        for (int i = 0; i < 8; i++) {
            load[i] = (double) loads[i];
        }
        moe_placement_gpu_load(&plan, 0, load, gpu_load);
        for (int gpu = 0; gpu < 8; gpu++) {
            max = fmax(max, gpu_load[gpu]);
        }
        cr_expect_leq(max, 205.0 + 1e-9, "%d: %.17g", replicate, max);
        close_window(&w);
    }
}

/* Experts 0 and 1 peak together, 2 and 3 in the other steps. All means are equal, so that only
 * the covariances say who may share a GPU. */
Test(flashlb, what_peaks_together_is_kept_apart)
{
    static const float loads[4][4] = {
        { 20, 20, 0, 0 }, { 0, 0, 20, 20 }, { 20, 20, 0, 0 }, { 0, 0, 20, 20 }
    };
    struct window w;
    open_window(&w, (struct moe_placement_shape){ 1, 4, 4, 2, 1, 1 }, &loads[0][0], 4);
    w.parameters[REALIGN] = 0.0;
    const struct moe_placement plan = solve(&w);
    const uint16_t *slots = plan.expert_of_slot;
    cr_assert_neq(slots[0] / 2, slots[1] / 2, "experts %u and %u share a GPU", slots[0], slots[1]);
    cr_assert_neq(slots[2] / 2, slots[3] / 2, "experts %u and %u share a GPU", slots[2], slots[3]);
    close_window(&w);
}

/* A layer that is balanced well enough stays; the new plan of one that is not is relabelled such
 * that fewer experts move. */
Test(flashlb, good_layers_stay)
{
    static const float loads[8] = { 10, 9, 10, 9, 10, 9, 10, 9 };
    static const float skewed[8] = { 90, 90, 1, 1, 1, 1, 1, 1 };
    struct window w;
    open_window(&w, (struct moe_placement_shape){ 1, 8, 8, 4, 1, 1 }, loads, 1);
    struct moe_placement plan = solve(&w);
    cr_assert_eq(moe_placement_count_moves(&w.previous, &plan), 0);
    w.view.batches = skewed;
    plan = solve(&w);
    w.parameters[REALIGN] = 0.0;
    const struct moe_placement unaligned = solve(&w);
    cr_assert_lt(moe_placement_count_moves(&w.previous, &plan),
                 moe_placement_count_moves(&w.previous, &unaligned));
    close_window(&w);
}

/* Rows [iteration][layer] of one data set from the recorded series. */
static void read_series(FILE *file, const char *set, double *test)
{
    char line[4096];
    size_t rows = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        char name[32];
        char *rest = line;
        (void) strtol(rest, &rest, 10);
        int used = 0;
        if (sscanf(rest, ",%31[a-z0-9],%n", name, &used) != 1 || strcmp(name, set) != 0) {
            continue;
        }
        rest += used;
        const long iteration = strtol(rest, &rest, 10);
        const long layer = strtol(rest + 1, &rest, 10);
        for (int expert = 0; expert < EXPERTS && iteration >= STEPS; expert++) {
            cr_assert_eq(*rest, ',');
            test[((size_t) (iteration - STEPS) * LAYERS + (size_t) layer) * EXPERTS +
                 (size_t) expert] = strtod(rest + 1, &rest);
            rows++;
        }
    }
    cr_assert_eq(rows, SERIES_CELLS, "%s: %zu", set, rows);
}

static double balance_on(struct window *w, const struct moe_placement *plan, const double *test)
{
    double sum = 0.0;
    for (size_t step = 0; step < STEPS; step++) {
        moe_arena_reset(&w->scratch);
        sum += moe_placement_balancedness(plan, test + step * LAYERS * EXPERTS, &w->scratch);
    }
    return sum / STEPS;
}

static void expect_case(const char *set, const json_t *vector, FILE *series)
{
    static float train[SERIES_CELLS];
    static double test[SERIES_CELLS];
    const json_t *rows = json_object_get(vector, "train");
    const json_t *balance = json_object_get(vector, "test_bal");
    for (size_t i = 0; i < SERIES_CELLS; i++) {
        train[i] = (float) json_number_value(json_array_get(
            json_array_get(json_array_get(rows, i / EXPERTS / LAYERS), i / EXPERTS % LAYERS),
            i % EXPERTS));
    }
    rewind(series);
    read_series(series, set, test);
    struct window w;
    open_window(&w, (struct moe_placement_shape){ LAYERS, EXPERTS, SLOTS, GPUS, 1, 1 }, train,
                STEPS);
    w.parameters[KEEP_ABOVE] = 1.0; /* all layers anew, as the vectors */
    const struct moe_placement plan = solve(&w);
    const double got = balance_on(&w, &plan, test);
    const double wanted = json_real_value(json_object_get(balance, "flashlb"));
    cr_expect_float_eq(got, wanted, 0.002, "%s: %.4f, the program's plan %.4f", set, got, wanted);
    close_window(&w);
}

Test(flashlb, real_series_balances_like_the_program)
{
    json_error_t error;
    json_t *root = json_load_file(
        MOE_SOURCE_ROOT "/../shared/oracles/qwen60_timeseries_flashlb.json", 0, &error);
    FILE *series = fopen(MOE_SOURCE_ROOT "/../shared/data/harmoeny_expert_freq/"
                                         "expert_freq_qwen_policy_datasets.csv",
                         "r");
    if (root == NULL || series == NULL) {
        cr_skip_test("no ../shared");
    }
    const char *set;
    json_t *vector;
    json_object_foreach(json_object_get(root, "cases"), set, vector)
    {
        expect_case(set, vector, series);
    }
    (void) fclose(series);
    json_decref(root);
}
