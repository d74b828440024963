/* CRAFT's solver against a slow twin, brute force and the loads that HarMoEny recorded. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policies/solve/craft_solver.h"
#include "sim/base/random.h"

enum { ARENA_BYTES = 64 << 20 };

static struct moe_arena arena;

static void open_arena(void)
{
    cr_assert_eq(moe_arena_init(&arena, ARENA_BYTES, NULL), MOE_OK);
}

static void close_arena(void)
{
    moe_arena_finish(&arena);
}

TestSuite(craft, .init = open_arena, .fini = close_arena);

static uint64_t counter;

static uint32_t below(uint32_t bound)
{
    return (uint32_t) moe_random_below(moe_random_key(7, MOE_RANDOM_TEST), counter++, bound);
}

/* Positive, unequal, a few of them hot: (almost surely) without ties in any sum. */
static float drawn_load(void)
{
    return (float) ((1.0 + below(1000)) * (below(8) == 0 ? 37.0 : 1.0) + below(997) / 1009.0);
}

struct instance {
    struct moe_placement_shape shape;
    uint32_t batch_count;
    float *batches; /* [batch][layer][expert] */
    double *load;   /* [layer][expert] */
    struct moe_craft craft;
    double *balance; /* [layer][option] */
};

static void sum_loads(struct instance *in)
{
    const size_t cells = (size_t) in->shape.layer_count * in->shape.expert_count;
    memset(in->load, 0, cells * sizeof *in->load);
    for (size_t i = 0; i < in->batch_count * cells; i++) {
        in->load[i % cells] += (double) in->batches[i];
    }
}

static void estimate(struct instance *in)
{
    const uint32_t experts = in->shape.expert_count;
    cr_assert_eq(moe_craft_init(&in->craft, &arena, &in->shape, NULL), MOE_OK);
    in->balance = MOE_NEW(&arena, double, (size_t) in->shape.layer_count * in->craft.option_count);
    for (uint32_t layer = 0; layer < in->shape.layer_count; layer++) {
        const size_t first = (size_t) layer * experts;
        moe_craft_estimate(&in->craft, in->load + first, in->batches + first,
                           (size_t) in->shape.layer_count * experts, in->batch_count,
                           in->balance + (size_t) layer * in->craft.option_count);
    }
}

static struct instance draw_instance(uint32_t layers, uint32_t batch_limit)
{
    struct instance in = { .shape = { .layer_count = layers, .group_count = 1 } };
    in.shape.node_count = 1 + below(3);
    in.shape.gpu_count = in.shape.node_count * (1 + below(6));
    in.shape.expert_count = 1 + below(40);
    const uint32_t least = (in.shape.expert_count - 1) / in.shape.gpu_count + 1;
    in.shape.slot_count = in.shape.gpu_count * (least + below(3));
    in.batch_count = 1 + below(batch_limit);
    const size_t cells = (size_t) layers * in.shape.expert_count;
    in.batches = MOE_NEW(&arena, float, in.batch_count *cells);
    in.load = MOE_NEW(&arena, double, cells);
    for (size_t i = 0; i < in.batch_count * cells; i++) {
        in.batches[i] = drawn_load();
    }
    sum_loads(&in);
    estimate(&in);
    return in;
}

/* What the benefit estimation says, written down as the paper does, in float64. */
static double slow_balance(const struct instance *in, uint32_t layer, uint32_t extra)
{
    const uint32_t experts = in->shape.expert_count;
    const uint32_t gpus = in->shape.gpu_count;
    const double *load = in->load + (size_t) layer * experts;
    uint32_t copies[64] = { 0 };
    uint32_t left[64];
    uint32_t room[32] = { 0 };
    double gpu_load[32] = { 0 };
    double share[32][64] = { { 0 } }; /* [gpu][expert] of an expert's load */
    for (uint32_t e = 0; e < experts; e++) {
        copies[e] = 1;
    }
    for (uint32_t i = 0; i < extra; i++) {
        uint32_t hottest = 0;
        for (uint32_t e = 1; e < experts; e++) {
            hottest = load[e] / copies[e] > load[hottest] / copies[hottest] ? e : hottest;
        }
        copies[hottest]++;
    }
    memcpy(left, copies, sizeof left);
    for (uint32_t g = 0; g < gpus; g++) {
        room[g] = (experts + extra) / gpus + (g < (experts + extra) % gpus);
    }
    for (uint32_t i = 0; i < experts + extra; i++) {
        uint32_t e = UINT32_MAX;
        uint32_t to = UINT32_MAX;
        for (uint32_t c = 0; c < experts; c++) {
            if (left[c] > 0 && (e == UINT32_MAX || load[c] / copies[c] > load[e] / copies[e])) {
                e = c;
            }
        }
        for (uint32_t g = 0; g < gpus; g++) {
            if (room[g] > 0 && (to == UINT32_MAX || gpu_load[g] < gpu_load[to])) {
                to = g;
            }
        }
        cr_assert(e < experts && to < gpus);
        left[e]--;
        room[to]--;
        gpu_load[to] += load[e] / copies[e];
        share[to][e] += 1.0 / copies[e];
    }
    double sum = 0.0;
    for (uint32_t b = 0; b < in->batch_count; b++) {
        const float *row = in->batches + ((size_t) b * in->shape.layer_count + layer) * experts;
        double total = 0.0;
        double fullest = 0.0;
        for (uint32_t g = 0; g < gpus; g++) {
            double mine = 0.0;
            for (uint32_t e = 0; e < experts; e++) {
                mine += share[g][e] * (double) row[e];
            }
            total += mine;
            fullest = mine > fullest ? mine : fullest;
        }
        sum += total / gpus / fullest;
    }
    return sum / in->batch_count;
}

Test(craft, benefits_are_those_of_the_twin)
{
    for (int i = 0; i < 300; i++) {
        moe_arena_reset(&arena);
        const struct instance in = draw_instance(1 + below(3), i % 10 == 0 ? 300 : 6);
        for (uint32_t layer = 0; layer < in.shape.layer_count; layer++) {
            for (uint32_t k = 0; k < in.craft.option_count; k++) {
                const double fast = in.balance[layer * in.craft.option_count + k];
                const double slow = slow_balance(&in, layer, in.craft.option[k]);
                cr_assert_float_eq(fast, slow, 2e-5, "case %d, layer %u, %u copies: %g, twin %g", i,
                                   layer, in.craft.option[k], fast, slow);
            }
        }
    }
}

/* The best of all ways to give every layer an option; *least its copies. */
static double try_all(const struct instance *in, uint32_t layer, uint32_t budget)
{
    if (layer == in->shape.layer_count) {
        return 0.0;
    }
    const double *row = in->balance + (size_t) layer * in->craft.option_count;
    double best = -INFINITY;
    for (uint32_t k = 0; k < in->craft.option_count && in->craft.option[k] <= budget; k++) {
        const double sum = row[k] - row[0] + try_all(in, layer + 1, budget - in->craft.option[k]);
        best = sum > best ? sum : best;
    }
    return best;
}

Test(craft, knapsack_is_the_best_and_more_budget_never_hurts)
{
    for (int i = 0; i < 200; i++) {
        moe_arena_reset(&arena);
        const struct instance in = draw_instance(1 + below(4), 3);
        const uint32_t budget = below(24);
        const uint32_t options = in.craft.option_count;
        double gain[25];
        uint8_t choice[4 * 25];
        uint32_t copies[4] = { 0 };
        moe_craft_allocate(&in.craft, in.balance, budget, gain, choice);
        for (uint32_t b = 0; b <= budget; b++) {
            cr_assert_float_eq(gain[b], try_all(&in, 0, b), 1e-12, "case %d, budget %u", i, b);
            cr_assert(b == 0 || gain[b] >= gain[b - 1]);
            moe_craft_backtrack(&in.craft, choice, budget, b, copies);
            uint32_t used = 0;
            double sum = 0.0;
            for (uint32_t layer = 0; layer < in.shape.layer_count; layer++) {
                uint32_t k = 0;
                while (in.craft.option[k] != copies[layer]) {
                    k++;
                }
                used += copies[layer];
                sum +=
                    in.balance[(size_t) layer * options + k] - in.balance[(size_t) layer * options];
            }
            cr_assert_leq(used, b);
            cr_assert_float_eq(sum, gain[b], 1e-12);
        }
    }
}

/* Six copies' worth per layer, then nothing: chord from 0 to the end, knee at the bend. */
Test(craft, knee_by_hand)
{
    const double gain[9] = { 0.0, 0.1, 0.4, 0.45, 0.5, 0.52, 0.54, 0.55, 0.56 };
    /* Two GPUs: 0, 0.4, 0.5, 0.54, 0.56 at R = 0..4; the chord's slope is 0.14. */
    cr_assert_eq(moe_craft_knee(gain, 2, 4, 1.0), 1);
    cr_assert_eq(moe_craft_knee(gain, 2, 4, 0.5), 2);
    cr_assert_eq(moe_craft_knee(gain, 2, 4, 0.01), 4);
    cr_assert_eq(moe_craft_knee(gain, 2, 4, 3.0), 0);
    cr_assert_eq(moe_craft_knee((const double[]){ 0, 0, 0 }, 1, 2, 1.0), 0);
}

Test(craft, slots_are_dealt_evenly)
{
    enum { GPUS = 18, LAYERS = 5 };
    uint32_t slots[LAYERS * GPUS];
    uint32_t order[LAYERS * GPUS];
    uint32_t total[GPUS];
    for (int i = 0; i < 500; i++) {
        const uint32_t nodes = 1 + below(3);
        const uint32_t gpus = nodes * (1 + below(6));
        const uint32_t base = below(4);
        const uint32_t rest = below(gpus);
        const struct moe_placement_shape shape = { .layer_count = LAYERS,
                                                   .expert_count = base * gpus + rest,
                                                   .slot_count = (base + 2) * gpus,
                                                   .gpu_count = gpus,
                                                   .node_count = nodes,
                                                   .group_count = 1 };
        uint32_t copies[LAYERS];
        uint32_t sum = 0;
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            copies[layer] = below(gpus + 1);
            sum += copies[layer] + rest;
        }
        moe_craft_deal_slots(&shape, copies, slots, order, total);
        for (uint32_t gpu = 0; gpu < gpus; gpu++) {
            cr_assert(total[gpu] == sum / gpus || total[gpu] == (sum + gpus - 1) / gpus);
        }
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            const uint32_t *mine = slots + (size_t) layer * gpus;
            uint32_t in_layer = 0;
            for (uint32_t gpu = 0; gpu < gpus; gpu++) {
                in_layer += mine[gpu];
                const uint32_t least = (shape.expert_count + copies[layer]) / gpus;
                cr_assert(mine[gpu] == least || mine[gpu] == least + 1);
                cr_assert(gpu == 0 ||
                          mine[order[layer * gpus + gpu - 1]] >= mine[order[layer * gpus + gpu]]);
            }
            cr_assert_eq(in_layer, shape.expert_count + copies[layer]);
        }
    }
    /* Two nodes of three GPUs: three copies go to node 0, node 1, node 0; then on. */
    const struct moe_placement_shape two = { 2, 6, 18, 6, 2, 1 };
    moe_craft_deal_slots(&two, (const uint32_t[]){ 3, 2 }, slots, order, total);
    const uint32_t expected[12] = { 2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 2, 1 };
    cr_assert_arr_eq(slots, expected, sizeof expected);
}

/* The plan's own balance on the batches, as placement.h measures it. */
static double measure_layer(const struct instance *in, struct moe_placement *plan, uint32_t layer)
{
    double sum = 0.0;
    for (uint32_t b = 0; b < in->batch_count; b++) {
        double load[64];
        double gpu_load[64];
        double total = 0.0;
        double fullest = 0.0;
        for (uint32_t e = 0; e < in->shape.expert_count; e++) {
            load[e] = (double) in->batches[((size_t) b * in->shape.layer_count + layer) *
                                               in->shape.expert_count +
                                           e];
        }
        moe_placement_gpu_load(plan, layer, load, gpu_load);
        for (uint32_t g = 0; g < in->shape.gpu_count; g++) {
            total += gpu_load[g];
            fullest = gpu_load[g] > fullest ? gpu_load[g] : fullest;
        }
        sum += total / in->shape.gpu_count / fullest;
    }
    return sum / in->batch_count;
}

static struct moe_placement place(struct instance *in, const uint32_t *copies)
{
    const size_t cells = (size_t) in->shape.layer_count * in->shape.gpu_count;
    uint32_t *slots = MOE_NEW(&arena, uint32_t, cells);
    uint32_t *order = MOE_NEW(&arena, uint32_t, cells);
    uint32_t *total = MOE_NEW(&arena, uint32_t, in->shape.gpu_count);
    struct moe_placement plan;
    cr_assert_eq(moe_placement_init(&plan, &arena, &in->shape, NULL), MOE_OK);
    moe_craft_deal_slots(&in->shape, copies, slots, order, total);
    for (uint32_t layer = 0; layer < in->shape.layer_count; layer++) {
        const size_t first = (size_t) layer * in->shape.gpu_count;
        moe_craft_place_layer(&in->craft, in->load + (size_t) layer * in->shape.expert_count,
                              copies[layer], 0.0, UINT32_MAX, slots + first, order + first,
                              moe_placement_layer(&plan, layer));
    }
    cr_assert_eq(moe_placement_check(&plan, NULL), MOE_OK);
    return plan;
}

/* Whatever GPUs the slots fell to, the plan is as good as its estimate; and experts that
 * trade names trade places, no more. */
Test(craft, plans_keep_what_the_estimate_promised)
{
    for (int i = 0; i < 200; i++) {
        moe_arena_reset(&arena);
        struct instance in = draw_instance(3, 4);
        const uint32_t experts = in.shape.expert_count;
        uint32_t option[3];
        uint32_t copies[3] = { 0 };
        for (uint32_t layer = 0; layer < 3; layer++) {
            option[layer] = below(in.craft.option_count);
            copies[layer] = in.craft.option[option[layer]];
        }
        struct moe_placement plan = place(&in, copies);
        for (uint32_t layer = 0; layer < 3; layer++) {
            cr_assert_float_eq(measure_layer(&in, &plan, layer),
                               in.balance[layer * in.craft.option_count + option[layer]], 1e-5,
                               "case %d, layer %u", i, layer);
        }
        struct instance turned = in;
        turned.load = MOE_NEW(&arena, double, 3 * (size_t) experts);
        const uint32_t shift = below(experts);
        for (uint32_t c = 0; c < 3 * experts; c++) {
            turned.load[c / experts * experts + (c + shift) % experts] = in.load[c];
        }
        const struct moe_placement other = place(&turned, copies);
        for (uint32_t s = 0; s < 3 * in.shape.slot_count; s++) {
            const uint16_t expert = plan.expert_of_slot[s];
            const uint32_t expected =
                expert == MOE_SLOT_EMPTY ? MOE_SLOT_EMPTY : (expert + shift) % experts;
            cr_assert_eq(other.expert_of_slot[s], expected, "case %d, slot %u", i, s);
        }
    }
}

enum { QWEN_LAYERS = 24, QWEN_EXPERTS = 60, QWEN_RANKS = 6 };

/* Adds one rank's counts of a layer to load[iteration][layer][expert]; false without the file. */
static bool add_recorded(float *load, uint32_t rank, uint32_t layer)
{
    char path[512];
    char line[4096];
    (void) snprintf(path, sizeof path,
                    MOE_SOURCE_ROOT "/../shared/data/harmoeny_raw_trace/qwen/%u/moe_layer-%u.csv",
                    rank, layer);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return false;
    }
    cr_assert_not_null(fgets(line, sizeof line, file));
    for (uint32_t iteration = 0; iteration < 2; iteration++) {
        cr_assert_not_null(fgets(line, sizeof line, file));
        const char *at = strchr(line, '[');
        cr_assert_not_null(at);
        for (uint32_t expert = 0; expert < QWEN_EXPERTS; expert++) {
            char *end = NULL;
            load[(iteration * QWEN_LAYERS + layer) * QWEN_EXPERTS + expert] +=
                (float) strtol(at + 1, &end, 10);
            at = end;
        }
        cr_assert_eq(*at, ']');
    }
    (void) fclose(file);
    return true;
}

/* Recorded counts of 24 layers, planned on the first iteration, scored on the second. The
 * balance expected is a re-computation by another program; R = 0 is placement alone. */
Test(craft, recorded_loads_give_the_known_balance)
{
    static float load[2 * QWEN_LAYERS * QWEN_EXPERTS];
    for (uint32_t layer = 0; layer < QWEN_LAYERS; layer++) {
        for (uint32_t rank = 0; rank < QWEN_RANKS; rank++) {
            if (!add_recorded(load, rank, layer)) {
                cr_skip_test("the recorded counts are not here");
            }
        }
    }
    struct instance in = { .shape = { QWEN_LAYERS, QWEN_EXPERTS, 96, QWEN_RANKS, 1, 1 },
                           .batch_count = 1,
                           .batches = load };
    in.load = MOE_NEW(&arena, double, (size_t) QWEN_LAYERS *QWEN_EXPERTS);
    sum_loads(&in);
    estimate(&in);
    struct instance scored = in;
    scored.batches = load + (size_t) QWEN_LAYERS * QWEN_EXPERTS;
    enum { BUDGET = 24 * QWEN_RANKS };
    double gain[BUDGET + 1];
    static uint8_t choice[QWEN_LAYERS * (BUDGET + 1)];
    moe_craft_allocate(&in.craft, in.balance, BUDGET, gain, choice);
    const struct {
        uint32_t slots_per_gpu;
        double balance;
    } known[] = { { 0, 0.761 }, { 1, 0.840 }, { 2, 0.899 },
                  { 4, 0.932 }, { 8, 0.937 }, { 16, 0.940 } };
    uint32_t copies[QWEN_LAYERS] = { 0 };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        moe_craft_backtrack(&in.craft, choice, BUDGET, known[i].slots_per_gpu * QWEN_RANKS, copies);
        struct moe_placement plan = place(&in, copies);
        double sum = 0.0;
        uint32_t bare = 0;
        for (uint32_t layer = 0; layer < QWEN_LAYERS; layer++) {
            sum += measure_layer(&scored, &plan, layer) / QWEN_LAYERS;
            bare += copies[layer] == 0;
        }
        cr_assert_float_eq(sum, known[i].balance, 0.005, "R=%u: %g", known[i].slots_per_gpu, sum);
        cr_assert(known[i].slots_per_gpu != 4 || bare == 10, "%u layers without copies", bare);
    }
    const uint32_t knee = moe_craft_knee(gain, QWEN_RANKS, QWEN_LAYERS, 1.0);
    cr_assert(knee >= 3 && knee <= 5, "knee at %u", knee);
    for (uint32_t layer = 0; layer < QWEN_LAYERS; layer++) {
        copies[layer] = QWEN_RANKS; /* EPLB's: one slot per layer and GPU */
    }
    struct moe_placement plan = place(&in, copies);
    double sum = 0.0;
    for (uint32_t layer = 0; layer < QWEN_LAYERS; layer++) {
        sum += measure_layer(&scored, &plan, layer) / QWEN_LAYERS;
    }
    cr_assert_float_eq(sum, 0.944, 0.005, "a copy per layer and GPU: %g", sum);
}
