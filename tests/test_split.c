/* The min-max split against what theory says of it: the optimum is the largest, over all sets of
 * GPUs, of the load that has nowhere else to go divided by the size of the set. */
#include <criterion/criterion.h>
#include <jansson.h>
#include <unistd.h>

#include "policies/solve/split.h"
#include "tests/split_case.h"

enum { CASES = 4000, TWIN_GPUS = 8 };

static struct moe_arena arena;
static struct moe_hosts hosts;
static struct moe_split split;

static void teardown(void)
{
    moe_arena_finish(&arena);
}

static void prepare(const struct moe_placement_shape *shape)
{
    if (arena.base == NULL) {
        cr_assert_eq(moe_arena_init(&arena, 1 << 20, NULL), MOE_OK);
    }
    moe_arena_reset(&arena);
    cr_assert_eq(moe_hosts_init(&hosts, &arena, shape, NULL), MOE_OK);
    cr_assert_eq(moe_split_init(&split, &arena, shape, NULL), MOE_OK);
}

TestSuite(split, .fini = teardown);

/* The densest set, as a fraction; load of experts that have no host outside it. */
static void densest(const struct split_case *c, int64_t *held, int64_t *holders)
{
    *held = 0;
    *holders = 1;
    for (uint32_t set = 1; set < 1u << c->shape.gpu_count; set++) {
        int64_t inside = 0;
        for (uint32_t expert = 0; expert < c->shape.expert_count; expert++) {
            uint32_t mask = 0;
            for (uint32_t i = c->first_copy[expert]; i < c->first_copy[expert + 1]; i++) {
                mask |= 1u << c->gpu_of_copy[i];
            }
            inside += (mask & ~set) == 0 ? (int64_t) c->total[expert] : 0;
        }
        const int64_t size = __builtin_popcount(set);
        if (inside * *holders > *held * size) {
            *held = inside;
            *holders = size;
        }
    }
}

/* Every item's flows sum to its load, none is negative, and the loads follow from them. */
static void expect_conserved(const struct split_case *c)
{
    int64_t load[CASE_GPUS] = { 0 };
    for (uint32_t expert = 0; expert < c->shape.expert_count; expert++) {
        if (hosts.first_host[expert + 1] - hosts.first_host[expert] == 1) {
            load[hosts.gpu_of_host[hosts.first_host[expert]]] += (int64_t) c->total[expert];
        }
    }
    for (uint32_t item = 0; item < split.item_count; item++) {
        int64_t sum = 0;
        for (uint32_t edge = split.first_edge[item]; edge < split.first_edge[item + 1]; edge++) {
            cr_assert_geq(split.flow[edge], 0);
            sum += split.flow[edge];
            load[split.edge_gpu[edge]] += split.flow[edge];
        }
        cr_assert_eq(sum, (int64_t) c->total[split.item_expert[item]]);
    }
    cr_assert_arr_eq(load, split.load, c->shape.gpu_count * sizeof *load);
}

Test(split, level_is_the_densest_set_rounded_up)
{
    static struct split_case c;
    for (uint64_t index = 0; index < CASES; index++) {
        int64_t load[CASE_EXPERTS];
        double real[CASE_EXPERTS];
        int64_t held;
        int64_t holders;
        int64_t fullest = 0;
        split_case_draw(&c, index, TWIN_GPUS);
        prepare(&c.shape);
        moe_hosts_build(&hosts, c.first_copy, c.gpu_of_copy);
        for (uint32_t expert = 0; expert < c.shape.expert_count; expert++) {
            load[expert] = (int64_t) c.total[expert];
            real[expert] = 0.37 * (double) c.total[expert];
        }
        densest(&c, &held, &holders);
        moe_split_begin(&split, &hosts, load);
        cr_assert_eq(moe_split_level(&split), (held + holders - 1) / holders, "case %lu",
                     (unsigned long) index);
        for (uint32_t gpu = 0; gpu < c.shape.gpu_count; gpu++) {
            fullest = split.load[gpu] > fullest ? split.load[gpu] : fullest;
        }
        cr_assert_eq(fullest, (held + holders - 1) / holders, "case %lu", (unsigned long) index);
        expect_conserved(&c);
        const double optimum = 0.37 * (double) held / (double) holders;
        cr_assert_float_eq(moe_split_bound(&split, &hosts, real, load), optimum, 1e-12 * optimum,
                           "case %lu", (unsigned long) index);
    }
}

/* Two GPUs of different capacities and one expert on both, one stuck on the first. */
Test(split, fit_says_which_gpus_are_too_full)
{
    const struct moe_placement_shape shape = { .layer_count = 1,
                                               .expert_count = 2,
                                               .slot_count = 6,
                                               .gpu_count = 3,
                                               .node_count = 1,
                                               .group_count = 1 };
    const uint32_t first_copy[] = { 0, 2, 3 };
    const uint16_t gpu_of_copy[] = { 0, 1, 0 };
    const int64_t load[] = { 10, 4 };
    prepare(&shape);
    moe_hosts_build(&hosts, first_copy, gpu_of_copy);
    moe_split_begin(&split, &hosts, load);
    split.capacity[0] = 5;
    split.capacity[1] = 9;
    split.capacity[2] = 0;
    cr_assert(moe_split_fit(&split));
    cr_assert_eq(split.load[0], 5);
    cr_assert_eq(split.load[1], 9);
    split.capacity[1] = 8;
    split.capacity[2] = 100;
    cr_assert_not(moe_split_fit(&split));
    cr_assert(split.reached[0]);
    cr_assert(split.reached[1]);
    cr_assert_not(split.reached[2]);
}

Test(split, no_load_is_level_zero)
{
    static struct split_case c;
    const int64_t none[CASE_EXPERTS] = { 0 };
    const double zero[CASE_EXPERTS] = { 0 };
    int64_t scaled[CASE_EXPERTS];
    split_case_draw(&c, 1, CASE_GPUS);
    prepare(&c.shape);
    moe_hosts_build(&hosts, c.first_copy, c.gpu_of_copy);
    moe_split_begin(&split, &hosts, none);
    cr_assert_eq(moe_split_level(&split), 0);
    cr_assert_eq(moe_split_bound(&split, &hosts, zero, scaled), 0.0);
}

/* The optima that HiGHS found for real DeepSeek-V3 loads, fresh and stale plans. */
static json_t *load_shared(const char *folder, const char *name)
{
    char path[4096];
    (void) snprintf(path, sizeof path, "%s/../shared/%s/%s", MOE_SOURCE_ROOT, folder, name);
    if (access(path, R_OK) != 0) {
        cr_skip_test("no %s here", path);
    }
    json_t *root = json_load_file(path, 0, NULL);
    cr_assert_not_null(root, "%s", path);
    return root;
}

Test(split, equals_the_linear_programs_of_the_oracle)
{
    static struct moe_placement_shape shape = { .layer_count = 1,
                                                .expert_count = 256,
                                                .slot_count = 288,
                                                .gpu_count = 32,
                                                .node_count = 4,
                                                .group_count = 8 };
    json_t *oracle = load_shared("oracles", "dsv3_lp_split.json");
    const char *name;
    json_t *wanted;
    prepare(&shape);
    json_object_foreach(oracle, name, wanted)
    {
        /* PLAN__EVALUATED__MODE; the loads are those of the middle name. */
        char file[256];
        const char *begin = strstr(name, "__") + 2;
        (void) snprintf(file, sizeof file, "%.*s.json", (int) (strstr(begin, "__") - begin), begin);
        json_t *loads = load_shared("data/dsv3_expert_loads", file);
        /* The model's first three layers are dense. */
        json_t *counts = json_object_get(loads, "logical_count");
        for (size_t layer = 0; layer < 58; layer++) {
            const json_t *plan = json_array_get(json_object_get(wanted, "phy2log"), layer);
            const double lp =
                json_number_value(json_array_get(json_object_get(wanted, "lp_max"), layer));
            uint32_t first_copy[257];
            uint16_t gpu_of_copy[288];
            double load[256];
            int64_t scaled[256];
            uint32_t copy = 0;
            for (uint32_t expert = 0; expert < 256; expert++) {
                first_copy[expert] = copy;
                for (uint32_t slot = 0; slot < 288; slot++) {
                    if (json_integer_value(json_array_get(plan, slot)) == expert) {
                        gpu_of_copy[copy++] = (uint16_t) (slot / 9);
                    }
                }
                load[expert] =
                    json_number_value(json_array_get(json_array_get(counts, layer + 3), expert));
            }
            first_copy[256] = copy;
            moe_hosts_build(&hosts, first_copy, gpu_of_copy);
            const double got = moe_split_bound(&split, &hosts, load, scaled);
            cr_assert_float_eq(got, lp, 1e-6 * lp, "%s, layer %zu: %.3f, HiGHS %.3f", name, layer,
                               got, lp);
        }
        json_decref(loads);
    }
    json_decref(oracle);
}
