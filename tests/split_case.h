/* Random layers for the tests of everything that divides tokens over copies: copies laid out as
 * a dispatch view numbers them. */
#ifndef MOE_TESTS_SPLIT_CASE_H
#define MOE_TESTS_SPLIT_CASE_H

#include <assert.h>
#include <math.h>
#include <stdint.h>

#include "policies/placement.h"
#include "sim/base/random.h"

enum { CASE_EXPERTS = 40, CASE_SLOTS = 96, CASE_GPUS = 12 };

struct split_case {
    struct moe_placement_shape shape;
    uint16_t expert_of_slot[CASE_SLOTS];
    uint32_t first_copy[CASE_EXPERTS + 1];
    uint16_t slot_of_copy[CASE_SLOTS];
    uint16_t gpu_of_copy[CASE_SLOTS];
    uint32_t copy_count;
    uint32_t demand[CASE_GPUS * CASE_EXPERTS]; /* [source][expert] */
    uint64_t total[CASE_EXPERTS];
};

/* The copies of expert_of_slot, expert by expert. */
static inline void split_case_list_copies(struct split_case *c)
{
    assert(c->shape.gpu_count > 0);
    const uint32_t slots_per_gpu = c->shape.slot_count / c->shape.gpu_count;
    c->copy_count = 0;
    for (uint32_t expert = 0; expert < c->shape.expert_count; expert++) {
        c->first_copy[expert] = c->copy_count;
        for (uint32_t slot = 0; slot < c->shape.slot_count; slot++) {
            if (c->expert_of_slot[slot] == expert) {
                c->slot_of_copy[c->copy_count] = (uint16_t) slot;
                c->gpu_of_copy[c->copy_count++] = (uint16_t) (slot / slots_per_gpu);
            }
        }
    }
    c->first_copy[c->shape.expert_count] = c->copy_count;
}

/* Shapes small and odd, loads skewed, many zeros, some slots empty; a function of index. */
static inline void split_case_draw(struct split_case *c, uint64_t index, uint32_t gpu_limit)
{
    const uint64_t key = moe_random_key(index, MOE_RANDOM_TEST);
    uint64_t n = 0;
    const uint32_t nodes = 1 + (uint32_t) moe_random_below(key, n++, 3);
    uint32_t gpus = nodes * (1 + (uint32_t) moe_random_below(key, n++, gpu_limit / nodes));
    const uint32_t per_gpu = 1 + (uint32_t) moe_random_below(key, n++, 8);
    const uint32_t slots = gpus * per_gpu;
    const uint32_t most = slots < CASE_EXPERTS ? slots : CASE_EXPERTS;
    const uint32_t experts = 1 + (uint32_t) moe_random_below(key, n++, most);
    const double skew = 4.0 * moe_random_uniform(key, n++);
    const uint32_t scale = 1u << moe_random_below(key, n++, 12);
    c->shape = (struct moe_placement_shape){ .layer_count = 1,
                                             .expert_count = experts,
                                             .slot_count = slots,
                                             .gpu_count = gpus,
                                             .node_count = nodes,
                                             .group_count = 1 };
    for (uint32_t slot = 0; slot < slots; slot++) {
        const uint64_t drawn = moe_random_below(key, n++, experts + experts / 4 + 1);
        c->expert_of_slot[slot] = drawn < experts ? (uint16_t) drawn : MOE_SLOT_EMPTY;
    }
    for (uint32_t expert = 0; expert < experts; expert++) { /* one slot each, anywhere */
        const uint32_t other = expert + (uint32_t) moe_random_below(key, n++, slots - expert);
        c->expert_of_slot[other] = c->expert_of_slot[expert];
        c->expert_of_slot[expert] = (uint16_t) expert;
    }
    for (uint32_t slot = slots - 1; slot > 0; slot--) {
        const uint32_t other = (uint32_t) moe_random_below(key, n++, slot + 1);
        const uint16_t swap = c->expert_of_slot[slot];
        c->expert_of_slot[slot] = c->expert_of_slot[other];
        c->expert_of_slot[other] = swap;
    }
    split_case_list_copies(c);
    for (uint32_t expert = 0; expert < experts; expert++) {
        const double heat = pow(moe_random_uniform(key, n++), skew);
        c->total[expert] = 0;
        for (uint32_t gpu = 0; gpu < gpus; gpu++) {
            const double drawn = heat * scale * (moe_random_uniform(key, n++) - 0.2);
            const uint32_t tokens = drawn > 0.0 ? (uint32_t) drawn : 0;
            c->demand[gpu * experts + expert] = tokens;
            c->total[expert] += tokens;
        }
    }
}

#endif
