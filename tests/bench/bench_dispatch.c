/* Dispatch of DeepSeek-V3's size: every policy on 58 layers x 256 experts in 288 slots on 32 GPUs
 * and in 384 slots on 64 GPUs, 4096 assignments per source GPU and layer. The copies are EPLB's for
 * loads p ~ 1 / (rank + 2)^0.8; the step's own loads differ from them by a factor in [0.5, 2), so
 * that the plan is stale. Demand per source is drawn from counters: every run solves the same.
 * Prints processor time on one thread, of every layer the least of some passes (what the machine
 * does beside is no property of the layer): the mean and the slowest of the layers; and the mean
 * over layers of mean / max GPU load.
 * For comparison, on other machines: HiGHS needs 1.0 to 1.6 ms for lp's program, UltraEP states
 * under 100 us on the GPU at EP64 for its solver. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/eplb_solver.h"
#include "sim/base/random.h"
#include "tests/bench/bar.h"

enum { LAYERS = 58, EXPERTS = 256, GPUS = 64, SLOTS = 384, PASSES = 40, ASSIGNMENTS = 4096 };

struct bench {
    struct moe_placement_shape shape;
    struct moe_arena arena;
    struct moe_placement plan;
    uint32_t first_copy[LAYERS][EXPERTS + 1];
    uint16_t slot_of_copy[LAYERS][SLOTS];
    uint16_t gpu_of_copy[LAYERS][SLOTS];
    uint32_t demand[LAYERS][GPUS * EXPERTS];
    uint64_t total[LAYERS][EXPERTS];
    double planned[LAYERS * EXPERTS];
    double time_ns[GPUS * 2];
    uint32_t quota[GPUS * SLOTS];
};

static void draw_layer(struct bench *b, uint32_t layer)
{
    const uint64_t key = moe_random_key(1, MOE_RANDOM_TEST);
    const uint64_t counter = (uint64_t) layer << 40;
    double load[EXPERTS];
    double sum = 0.0;
    uint32_t rank[EXPERTS];
    for (uint32_t i = 0; i < EXPERTS; i++) {
        const uint64_t j = moe_random_below(key, counter + i, i + 1);
        rank[i] = i;
        rank[i] = rank[j];
        rank[j] = i;
    }
    for (uint32_t i = 0; i < EXPERTS; i++) {
        b->planned[layer * EXPERTS + i] = 4e5 / pow(rank[i] + 2.0, 0.8);
        load[i] = b->planned[layer * EXPERTS + i] *
                  exp2(2.0 * moe_random_uniform(key, counter + EXPERTS + i) - 1.0);
        sum += load[i];
    }
    memset(b->total[layer], 0, sizeof b->total[layer]);
    for (uint32_t gpu = 0; gpu < b->shape.gpu_count; gpu++) {
        for (uint32_t i = 0; i < EXPERTS; i++) {
            const double mean = ASSIGNMENTS * load[i] / sum;
            const double drawn = moe_random_uniform(key, counter + (UINT64_C(1) << 32) +
                                                             (uint64_t) gpu * EXPERTS + i);
            const uint32_t tokens = (uint32_t) (mean * (0.5 + drawn) + 0.5);
            b->demand[layer][gpu * EXPERTS + i] = tokens;
            b->total[layer][i] += tokens;
        }
    }
}

static void list_copies(struct bench *b, uint32_t layer)
{
    const uint16_t *expert_of_slot = moe_placement_layer(&b->plan, layer);
    uint32_t copy = 0;
    for (uint32_t expert = 0; expert < EXPERTS; expert++) {
        b->first_copy[layer][expert] = copy;
        for (uint32_t slot = 0; slot < b->shape.slot_count; slot++) {
            if (expert_of_slot[slot] == expert) {
                b->slot_of_copy[layer][copy] = (uint16_t) slot;
                b->gpu_of_copy[layer][copy++] =
                    (uint16_t) (slot / moe_placement_slots_per_gpu(&b->shape));
            }
        }
    }
    b->first_copy[layer][EXPERTS] = copy;
}

static int prepare(struct bench *b, uint32_t gpus, uint32_t slots)
{
    struct moe_arena scratch = { 0 };
    b->shape = (struct moe_placement_shape){ .layer_count = LAYERS,
                                             .expert_count = EXPERTS,
                                             .slot_count = slots,
                                             .gpu_count = gpus,
                                             .node_count = gpus / 8,
                                             .group_count = 1 };
    if (moe_arena_init(&b->arena, 1 << 22, NULL) != MOE_OK ||
        moe_arena_init(&scratch, 1 << 20, NULL) != MOE_OK ||
        moe_placement_init(&b->plan, &b->arena, &b->shape, NULL) != MOE_OK) {
        return 1;
    }
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        draw_layer(b, layer);
    }
    if (moe_eplb_place(&b->shape, b->planned, &scratch, &b->plan, NULL) != MOE_OK) {
        return 1;
    }
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        list_copies(b, layer);
    }
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        double *time = b->time_ns + (size_t) 2 * gpu;
        time[0] = 5000.0;
        time[1] = 5000.0 + 1e4 * (1.0 + 0.01 * (gpu % 7));
    }
    moe_arena_finish(&scratch);
    return 0;
}

static double balance(const struct bench *b, uint32_t layer)
{
    uint64_t load[GPUS] = { 0 };
    uint64_t sum = 0;
    uint64_t most = 0;
    const uint32_t copies = b->first_copy[layer][EXPERTS];
    for (uint32_t i = 0; i < b->shape.gpu_count * copies; i++) {
        load[b->gpu_of_copy[layer][i % copies]] += b->quota[i];
    }
    for (uint32_t gpu = 0; gpu < b->shape.gpu_count; gpu++) {
        sum += load[gpu];
        most = load[gpu] > most ? load[gpu] : most;
    }
    return (double) sum / b->shape.gpu_count / (double) most;
}

static int measure(struct bench *b, const struct moe_policy *policy,
                   const struct moe_policy *ultraep)
{
    static const double tokens[] = { 0.0, 1000.0 };
    const struct moe_policy_speed speed = { .point_count = 2,
                                            .tokens = tokens,
                                            .time_ns = b->time_ns };
    const struct moe_policy_topology topology = { .near_ns = 1.0, .far_ns = 9.0 };
    double values[MOE_POLICY_PARAMETER_LIMIT];
    void *state = NULL;
    double least[LAYERS];
    double sum = 0.0;
    double longest = 0.0;
    double balanced = 0.0;
    moe_policy_defaults(policy, values);
    const struct moe_place_view planning = {
        .shape = b->shape, .parameters = values, .speed = &speed, .topology = &topology, .seed = 1
    };
    if (policy->dispatch->init != NULL &&
        policy->dispatch->init(&planning, &b->plan, &b->arena, &state, NULL) != MOE_OK) {
        return 1;
    }
    for (int pass = 0; pass < PASSES; pass++) {
        balanced = 0.0;
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            const struct moe_dispatch_view view = {
                .shape = b->shape,
                .layer = layer,
                .copy_count = b->first_copy[layer][EXPERTS],
                .first_copy = b->first_copy[layer],
                .slot_of_copy = b->slot_of_copy[layer],
                .gpu_of_copy = b->gpu_of_copy[layer],
                .demand = b->demand[layer],
                .expert_total = b->total[layer],
                .speed = &speed,
                .topology = &topology,
                .parameters = values,
                .seed = 1,
            };
            memset(b->quota, 0, sizeof b->quota);
            const double begin = bar_seconds();
            if (policy->dispatch->split(state, &view, b->quota, NULL) != MOE_OK) {
                return 1;
            }
            const double took = bar_seconds() - begin;
            least[layer] = pass == 0 || took < least[layer] ? took : least[layer];
            balanced += balance(b, layer) / LAYERS;
        }
    }
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        sum += least[layer];
        longest = least[layer] > longest ? least[layer] : longest;
    }
    (void) printf("%2u GPUs  %-15s mean %6.1f us  longest %6.1f us per layer  balance %.4f\n",
                  b->shape.gpu_count, policy->name, sum / LAYERS * 1e6, longest * 1e6, balanced);
    return policy == ultraep && b->shape.gpu_count == GPUS
               ? bar_row("UltraEP solve, slowest layer, EP64", longest * 1e6, 100.0, "us",
                         "under 100 us on the GPU")
               : 0;
}

int main(void)
{
    static struct bench bench;
    static const uint32_t sizes[][2] = { { 32, 288 }, { 64, 384 } };
    size_t count = 0;
    int failed = 0;
    const struct moe_policy *ultraep = NULL;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    if (moe_policy_find(MOE_POLICY_DISPATCH, "ultraep", &ultraep, NULL) != MOE_OK) {
        return EXIT_FAILURE;
    }
    for (size_t size = 0; size < sizeof sizes / sizeof sizes[0]; size++) {
        if (prepare(&bench, sizes[size][0], sizes[size][1]) != 0) {
            return EXIT_FAILURE;
        }
        for (size_t i = 0; i < count; i++) {
            if (policies[i]->dispatch != NULL && !policies[i]->dispatch->in_turn) {
                failed += measure(&bench, policies[i], ultraep);
            }
        }
        moe_arena_finish(&bench.arena);
    }
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
