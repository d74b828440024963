/* The EPLB variants against the plans of the programs that they follow: tests/oracles. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "policies/policy.h"

enum { LAYERS = 58, EXPERTS = 256, SLOTS = 288, GPUS = 32, SCRATCH_BYTES = 8 << 20 };

static json_t *read_json(const char *name)
{
    char path[4096];
    json_error_t error;
    (void) snprintf(path, sizeof path, "%s/tests/oracles/%s", MOE_SOURCE_ROOT, name);
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    cr_assert_not_null(root, "%s: %s", path, error.text);
    return root;
}

/* Everything that an EPLB variant asks for, of one window. */
struct window {
    struct moe_placement_shape shape;
    struct moe_arena arena;
    struct moe_arena scratch;
    double *load;
    float *batch; /* the same as one batch */
    struct moe_placement previous;
};

static void open_window(struct window *w, const json_t *weight, struct moe_placement_shape shape)
{
    const size_t cells = (size_t) shape.layer_count * shape.expert_count;
    w->shape = shape;
    cr_assert_eq(moe_arena_init(&w->arena, 4 << 20, NULL), MOE_OK);
    cr_assert_eq(moe_arena_init(&w->scratch, SCRATCH_BYTES, NULL), MOE_OK);
    w->load = MOE_NEW(&w->arena, double, cells);
    w->batch = MOE_NEW(&w->arena, float, cells);
    for (size_t i = 0; i < cells; i++) {
        /* The programs were given float32. */
        w->batch[i] = (float) json_number_value(
            json_array_get(json_array_get(weight, i / shape.expert_count), i % shape.expert_count));
        w->load[i] = (double) w->batch[i];
    }
    cr_assert_eq(moe_placement_init(&w->previous, &w->arena, &shape, NULL), MOE_OK);
    for (size_t i = 0; i < (size_t) shape.layer_count * shape.slot_count; i++) {
        w->previous.expert_of_slot[i] = (uint16_t) (i % shape.slot_count % shape.expert_count);
    }
}

static void close_window(struct window *w)
{
    moe_arena_finish(&w->arena);
    moe_arena_finish(&w->scratch);
}

static struct moe_placement solve(struct window *w, const char *name, const double *parameters)
{
    const struct moe_policy *policy = NULL;
    struct moe_placement plan;
    struct moe_error err = { 0 };
    const struct moe_place_view view = { .shape = w->shape,
                                         .parameters = parameters,
                                         .load = w->load,
                                         .batch_count = 1,
                                         .batches = w->batch,
                                         .previous = &w->previous };
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, name, &policy, NULL), MOE_OK);
    cr_assert_eq(moe_placement_init(&plan, &w->arena, &w->shape, NULL), MOE_OK);
    moe_arena_reset(&w->scratch);
    cr_assert_eq(moe_policy_place(policy, &view, &w->scratch, &plan, &err), MOE_OK, "%s", err.text);
    return plan;
}

static struct moe_placement read_plan(struct window *w, const json_t *rows)
{
    struct moe_placement plan;
    cr_assert_eq(json_array_size(rows), w->shape.layer_count);
    cr_assert_eq(moe_placement_init(&plan, &w->arena, &w->shape, NULL), MOE_OK);
    for (size_t layer = 0; layer < w->shape.layer_count; layer++) {
        const json_t *row = json_array_get(rows, layer);
        cr_assert_eq(json_array_size(row), w->shape.slot_count);
        for (size_t slot = 0; slot < w->shape.slot_count; slot++) {
            moe_placement_layer(&plan, (uint32_t) layer)[slot] =
                (uint16_t) json_integer_value(json_array_get(row, slot));
        }
    }
    cr_assert_eq(moe_placement_check(&plan, NULL), MOE_OK);
    return plan;
}

static uint32_t count_equal_layers(const struct moe_placement *a, const struct moe_placement *b)
{
    uint32_t equal = 0;
    for (uint32_t layer = 0; layer < a->shape.layer_count; layer++) {
        equal += memcmp(moe_placement_layer(a, layer), moe_placement_layer(b, layer),
                        a->shape.slot_count * sizeof(uint16_t)) == 0;
    }
    return equal;
}

static double balance(struct window *w, const struct moe_placement *plan)
{
    moe_arena_reset(&w->scratch);
    return moe_placement_balancedness(plan, w->load, &w->scratch);
}

/* Slot for slot in at least so many of the 58 layers, and as well balanced. */
static void expect_program(const char *kind, const char *plan_name, const char *policy,
                           const double *parameters, uint32_t groups, uint32_t layers,
                           double tolerance)
{
    char name[64];
    struct window w;
    (void) snprintf(name, sizeof name, "eplb_zipf08_%s.json", kind);
    json_t *loads = read_json(name);
    (void) snprintf(name, sizeof name, "eplb_programs_zipf08_%s.json", kind);
    json_t *plans = read_json(name);
    open_window(&w, json_object_get(loads, "weight"),
                (struct moe_placement_shape){ LAYERS, EXPERTS, SLOTS, GPUS, 4, groups });
    const struct moe_placement expected = read_plan(&w, json_object_get(plans, plan_name));
    const struct moe_placement got = solve(&w, policy, parameters);
    const uint32_t equal = count_equal_layers(&expected, &got);
    const double difference = fabs(balance(&w, &expected) - balance(&w, &got));
    cr_assert_geq(equal, layers, "%s %s: %u of %d layers are equal", kind, plan_name, equal,
                  LAYERS);
    cr_assert_leq(difference, tolerance, "%s %s: %g", kind, plan_name, difference);
    close_window(&w);
    json_decref(loads);
    json_decref(plans);
}

Test(eplb_programs, trtllm_is_equal)
{
    expect_program("int", "trtllm_cpp", "eplb_trtllm", NULL, 1, LAYERS, 1e-12);
    expect_program("float", "trtllm_cpp", "eplb_trtllm", NULL, 1, LAYERS, 1e-12);
}

/* Without the preservation of slots: the vectors come from one planning. Its sort is unstable,
 * so that tied integers give other plans of the same balance. */
Test(eplb_programs, vllm_is_equal_where_its_sort_is_defined)
{
    static const double no_previous[] = { 0.0 };
    expect_program("float", "vllm_numpy_global", "eplb_vllm", no_previous, 1, 57, 1e-5);
    expect_program("float", "vllm_numpy_hier", "eplb_vllm", no_previous, 8, 57, 1e-5);
    expect_program("int", "vllm_numpy_global", "eplb_vllm", no_previous, 1, 0, 1e-5);
    expect_program("int", "vllm_numpy_hier", "eplb_vllm", no_previous, 8, 0, 1e-5);
}

Test(eplb_programs, sglang_vec_balances_alike)
{
    static const double never[] = { 2.0 };
    expect_program("float", "sglang_vec_global", "eplb_sglang", never, 8, 57, 0.002);
    expect_program("float", "sglang_vec_hier", "eplb_sglang", NULL, 8, 57, 0.002);
    expect_program("int", "sglang_vec_global", "eplb_sglang", never, 8, 0, 0.002);
    expect_program("int", "sglang_vec_hier", "eplb_sglang", NULL, 8, 0, 0.002);
}

Test(eplb_programs, trtllm_equals_the_small_vectors)
{
    json_t *root = read_json("eplb_small_vectors.json");
    size_t compared = 0;
    for (size_t i = 0; i < json_array_size(root); i++) {
        const json_t *vector = json_array_get(root, i);
        const json_t *weight = json_object_get(vector, "weight");
        const json_t *plan = json_object_get(vector, "trtllm_phy2log");
        struct window w;
        if (json_object_get(vector, "error") != NULL) {
            continue;
        }
        cr_assert_not_null(plan);
        open_window(
            &w, weight,
            (struct moe_placement_shape){
                .layer_count = (uint32_t) json_array_size(weight),
                .expert_count = (uint32_t) json_array_size(json_array_get(weight, 0)),
                .slot_count =
                    (uint32_t) json_integer_value(json_object_get(vector, "num_replicas")),
                .gpu_count = (uint32_t) json_integer_value(json_object_get(vector, "num_gpus")),
                .node_count = 1,
                .group_count = 1,
            });
        const struct moe_placement expected = read_plan(&w, plan);
        const struct moe_placement got = solve(&w, "eplb_trtllm", NULL);
        cr_assert_eq(count_equal_layers(&expected, &got), w.shape.layer_count, "%s",
                     json_string_value(json_object_get(vector, "name")));
        compared++;
        close_window(&w);
    }
    cr_assert_eq(compared, 15);
    json_decref(root);
}
