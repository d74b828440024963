/* The min-max split alone, as a layer grows: experts x slots on GPUs, copies dealt at random,
 * loads p ~ 1 / (rank + 2)^0.8, 4096 assignments per GPU. Prints the best and the longest
 * processor time of some layers on one thread, with looking the hosts up, and how far an even
 * split over the copies is above the optimum. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "policies/solve/split.h"
#include "sim/base/random.h"
#include "tests/bench/bar.h"

enum { EXPERTS = 896, SLOTS = 2048, LAYERS = 32 };

struct layer {
    uint32_t first_copy[EXPERTS + 1];
    uint16_t gpu_of_copy[SLOTS];
    int64_t load[EXPERTS];
};

/* Every expert once, the other slots to experts by lot, all slots shuffled. */
static void draw(struct layer *layer, const struct moe_placement_shape *shape, uint64_t seed)
{
    static uint16_t expert_of_slot[SLOTS];
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_TEST);
    const uint32_t slots_per_gpu = shape->slot_count / shape->gpu_count;
    double sum = 0.0;
    for (uint32_t slot = 0; slot < shape->slot_count; slot++) {
        expert_of_slot[slot] = slot < shape->expert_count
                                   ? (uint16_t) slot
                                   : (uint16_t) moe_random_below(key, slot, shape->expert_count);
    }
    for (uint32_t left = shape->slot_count; left > 1; left--) {
        const uint64_t drawn = moe_random_below(key, (UINT64_C(1) << 32) + left, left);
        const uint16_t swap = expert_of_slot[left - 1];
        expert_of_slot[left - 1] = expert_of_slot[drawn];
        expert_of_slot[drawn] = swap;
    }
    uint32_t copy = 0;
    for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
        layer->first_copy[expert] = copy;
        for (uint32_t slot = 0; slot < shape->slot_count; slot++) {
            if (expert_of_slot[slot] == expert) {
                layer->gpu_of_copy[copy++] = (uint16_t) (slot / slots_per_gpu);
            }
        }
        sum += 1.0 / pow(expert + 2.0, 0.8);
    }
    layer->first_copy[shape->expert_count] = copy;
    for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
        layer->load[expert] = (int64_t) (4096.0 * shape->gpu_count / pow(expert + 2.0, 0.8) / sum);
    }
}

static double even_max(const struct layer *layer, const struct moe_placement_shape *shape)
{
    static double load[SLOTS];
    double most = 0.0;
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        load[gpu] = 0.0;
    }
    for (uint32_t expert = 0; expert < shape->expert_count; expert++) {
        const uint32_t begin = layer->first_copy[expert];
        const uint32_t end = layer->first_copy[expert + 1];
        for (uint32_t copy = begin; copy < end; copy++) {
            load[layer->gpu_of_copy[copy]] += (double) layer->load[expert] / (end - begin);
        }
    }
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        most = load[gpu] > most ? load[gpu] : most;
    }
    return most;
}

static int measure(uint32_t experts, uint32_t slots, uint32_t gpus, double bar_us)
{
    static struct layer layer;
    const struct moe_placement_shape shape = { .layer_count = 1,
                                               .expert_count = experts,
                                               .slot_count = slots,
                                               .gpu_count = gpus,
                                               .node_count = 1,
                                               .group_count = 1 };
    struct moe_arena arena = { 0 };
    struct moe_hosts hosts;
    struct moe_split split;
    double best = INFINITY;
    double longest = 0.0;
    double even = 0.0;
    if (moe_arena_init(&arena, 1 << 20, NULL) != MOE_OK ||
        moe_hosts_init(&hosts, &arena, &shape, NULL) != MOE_OK ||
        moe_split_init(&split, &arena, &shape, NULL) != MOE_OK) {
        return 1;
    }
    for (uint32_t i = 0; i < LAYERS; i++) {
        double took = INFINITY;
        int64_t level = 1;
        draw(&layer, &shape, i);
        for (int pass = 0; pass < 3; pass++) {
            const double begin = bar_seconds();
            moe_hosts_build(&hosts, layer.first_copy, layer.gpu_of_copy);
            moe_split_begin(&split, &hosts, layer.load);
            level = moe_split_level(&split);
            const double now = bar_seconds() - begin;
            took = now < took ? now : took;
        }
        best = took < best ? took : best;
        longest = took > longest ? took : longest;
        even += even_max(&layer, &shape) / (double) level / LAYERS;
    }
    (void) printf("%4u experts in %4u slots on %4u GPUs  best %7.1f us  longest %7.1f us  even "
                  "split %.3f of the optimum\n",
                  experts, slots, gpus, best * 1e6, longest * 1e6, even);
    moe_arena_finish(&arena);
    char what[96];
    (void) snprintf(what, sizeof what, "LP split, slowest layer, %u experts in %u slots, %u GPUs",
                    experts, slots, gpus);
    return bar_row(what, longest * 1e6, bar_us, "us",
                   gpus == 32 ? "HiGHS 1,000 to 1,600 us" : "none");
}

int main(void)
{
    static const uint32_t sizes[][3] = {
        { 128, 144, 8 }, { 256, 288, 32 }, { 256, 384, 64 }, { 384, 512, 256 }, { 896, 2048, 1024 },
    };
    int missed = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        missed += measure(sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][2] < 1024 ? 100.0 : 0.0);
    }
    return missed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
