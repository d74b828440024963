/* EPLB against the vectors of tests/oracles: every plan equal, slot for slot. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <math.h>

#include "policies/policy.h"
#include "policies/solve/eplb_solver.h"

static json_t *load_vectors(const char *name)
{
    char path[4096];
    json_error_t error;
    (void) snprintf(path, sizeof path, "%s/tests/oracles/%s", MOE_SOURCE_ROOT, name);
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    cr_assert_not_null(root, "%s: %s", path, error.text);
    return root;
}

static uint32_t count_of(const json_t *vector, const char *key)
{
    return (uint32_t) json_integer_value(json_object_get(vector, key));
}

static struct moe_placement_shape shape_of(const json_t *weight, const json_t *vector)
{
    return (struct moe_placement_shape){
        .layer_count = (uint32_t) json_array_size(weight),
        .expert_count = (uint32_t) json_array_size(json_array_get(weight, 0)),
        .slot_count = count_of(vector, "num_replicas"),
        .gpu_count = count_of(vector, "num_gpus"),
        .node_count = count_of(vector, "num_nodes"),
        .group_count = count_of(vector, "num_groups"),
    };
}

static double *loads_of(const json_t *weight, const struct moe_placement_shape *shape)
{
    double *load = calloc((size_t) shape->layer_count * shape->expert_count, sizeof *load);
    for (size_t i = 0; i < (size_t) shape->layer_count * shape->expert_count; i++) {
        load[i] = json_number_value(json_array_get(json_array_get(weight, i / shape->expert_count),
                                                   i % shape->expert_count));
    }
    return load;
}

static void expect_row(const char *name, const char *what, size_t layer, const json_t *expected,
                       const uint16_t *got, size_t count)
{
    cr_assert_eq(json_array_size(expected), count, "%s, layer %zu: %s", name, layer, what);
    for (size_t i = 0; i < count; i++) {
        cr_assert_eq(json_integer_value(json_array_get(expected, i)), got[i],
                     "%s, layer %zu: %s[%zu] is %u", name, layer, what, i, got[i]);
    }
}

/* log2phy in order of creation; rows may be padded with -1. */
static void expect_log2phy(const char *name, size_t layer, const json_t *expected,
                           const struct moe_eplb_layer *got,
                           const struct moe_placement_shape *shape)
{
    uint32_t limit = 1;
    for (uint32_t i = 0; i < shape->expert_count; i++) {
        limit = got->copies[i] > limit ? got->copies[i] : limit;
    }
    cr_assert_gt(shape->expert_count, 0);
    int32_t *slots = calloc((size_t) shape->expert_count * limit, sizeof *slots);
    moe_eplb_layer_list_slots(got, shape, limit, slots);
    for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
        const json_t *row = json_array_get(expected, expert);
        for (uint32_t copy = 0; copy < limit; copy++) {
            const json_t *slot = json_array_get(row, copy);
            cr_assert_eq(slot == NULL ? -1 : json_integer_value(slot), slots[expert * limit + copy],
                         "%s, layer %zu: log2phy[%u][%u]", name, layer, expert, copy);
        }
        cr_assert(json_array_size(row) <= limit ||
                  json_integer_value(json_array_get(row, limit)) == -1);
    }
    free(slots);
}

static void expect_solver(const char *name, const json_t *vector, const double *load,
                          const struct moe_placement_shape *shape, struct moe_arena *arena)
{
    struct moe_eplb_solver solver;
    const struct moe_eplb_layer got = {
        .expert_of_slot = MOE_NEW(arena, uint16_t, shape->slot_count),
        .rank_of_slot = MOE_NEW(arena, uint16_t, shape->slot_count),
        .copies = MOE_NEW(arena, uint16_t, shape->expert_count),
    };
    cr_assert_eq(moe_eplb_solver_init(&solver, arena, shape, NULL), MOE_OK);
    for (size_t layer = 0; layer < shape->layer_count; layer++) {
        moe_eplb_solver_run(&solver, load + layer * shape->expert_count, &got);
        expect_row(name, "phy2log", layer,
                   json_array_get(json_object_get(vector, "phy2log"), layer), got.expert_of_slot,
                   shape->slot_count);
        expect_row(name, "logcnt", layer, json_array_get(json_object_get(vector, "logcnt"), layer),
                   got.copies, shape->expert_count);
        expect_log2phy(name, layer, json_array_get(json_object_get(vector, "log2phy"), layer), &got,
                       shape);
    }
}

/* One vector through the solver and through the registered policy. */
static void expect_vector(const char *file, const json_t *weight, const json_t *vector)
{
    const char *name = json_string_value(json_object_get(vector, "name"));
    const struct moe_placement_shape shape = shape_of(weight, vector);
    const struct moe_policy *policy = NULL;
    struct moe_arena arena;
    struct moe_arena scratch;
    struct moe_placement plan;
    struct moe_error err = { 0 };
    double *load = loads_of(weight, &shape);
    const struct moe_place_view view = { .shape = shape, .load = load };
    cr_assert_eq(moe_arena_init(&arena, 4 << 20, NULL), MOE_OK);
    cr_assert_eq(moe_arena_init(&scratch, 4 << 20, NULL), MOE_OK);
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, "eplb", &policy, NULL), MOE_OK);
    cr_assert_eq(moe_placement_init(&plan, &arena, &shape, NULL), MOE_OK);
    if (json_object_get(vector, "error") != NULL) {
        cr_assert_eq(moe_placement_shape_check(&shape, &err), MOE_RANGE, "%s: %s", file, name);
        cr_assert_eq(moe_policy_place(policy, &view, &scratch, &plan, &err), MOE_POLICY);
    } else {
        cr_assert_eq(moe_policy_place(policy, &view, &scratch, &plan, &err), MOE_OK, "%s: %s", name,
                     err.text);
        for (uint32_t layer = 0; layer < shape.layer_count; layer++) {
            expect_row(name, "policy", layer,
                       json_array_get(json_object_get(vector, "phy2log"), layer),
                       moe_placement_layer(&plan, layer), shape.slot_count);
        }
        expect_solver(name, vector, load, &shape, &arena);
        const json_t *balance =
            json_object_get(json_object_get(vector, "balancedness"), "bal_mean_layers");
        moe_arena_reset(&scratch);
        cr_assert(balance == NULL || fabs(moe_placement_balancedness(&plan, load, &scratch) -
                                          json_real_value(balance)) < 1e-12,
                  "%s", name);
    }
    moe_arena_finish(&arena);
    moe_arena_finish(&scratch);
    free(load);
}

Test(eplb_oracles, small_vectors)
{
    json_t *root = load_vectors("eplb_small_vectors.json");
    size_t refused = 0;
    cr_assert_eq(json_array_size(root), 17);
    for (size_t i = 0; i < json_array_size(root); i++) {
        const json_t *vector = json_array_get(root, i);
        refused += json_object_get(vector, "error") != NULL;
        expect_vector("small", json_object_get(vector, "weight"), vector);
    }
    cr_assert_eq(refused, 2);
    json_decref(root);
}

static void expect_zipf(const char *file)
{
    json_t *root = load_vectors(file);
    const json_t *vectors = json_object_get(root, "cases");
    cr_assert_eq(json_array_size(vectors), 2);
    for (size_t i = 0; i < json_array_size(vectors); i++) {
        expect_vector(file, json_object_get(root, "weight"), json_array_get(vectors, i));
    }
    json_decref(root);
}

Test(eplb_oracles, zipf_counts_with_ties)
{
    expect_zipf("eplb_zipf08_int.json");
}

Test(eplb_oracles, zipf_fractions)
{
    expect_zipf("eplb_zipf08_float.json");
}
