/*
 * Greedy steps in float64, which most placement policies are made of: order by load,
 * copies for the hottest, copies onto the least loaded GPU.
 *
 * The float32 twins, with the rounding of DeepSeek's program, are policies/packing and
 * policies/eplb_solver. Loads are finite and >= 0.
 */
#ifndef MOE_POLICIES_GREEDY_H
#define MOE_POLICIES_GREEDY_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/solve/load_tree.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"

struct moe_greedy {
    struct moe_load_node *tree; /* [2 * leaves of limit] */
    double *load;               /* [limit] */
    uint32_t *order;            /* [limit] */
    uint32_t *spare;            /* [limit] */
    uint32_t limit;
};

/* Scratch for up to limit >= 1 items, experts or GPUs. Errors: MOE_LIMIT when the arena is
 * full. */
enum moe_status moe_greedy_init(struct moe_greedy *greedy, struct moe_arena *arena, uint32_t limit,
                                struct moe_error *err) MOE_MUST_CHECK;

/* order[count]: indices by load descending, of equal loads the lower index first. spare has
 * room for count; neither may be part of load. */
void moe_greedy_sort(const double *load, uint32_t count, uint32_t *order, uint32_t *spare);

/* Gives copy_count copies to experts, one after another, each to the expert with the largest
 * load[expert] / copies[expert]; ties to the lowest index, or to the highest. copies[] holds
 * what each has before (>= 1). expert_of_copy[copy_count] says who got each; may be NULL. */
void moe_greedy_replicate(struct moe_greedy *greedy, const double *load, uint32_t expert_count,
                          uint32_t copy_count, bool highest_wins, uint32_t *copies,
                          uint32_t *expert_of_copy);

/* Items, heaviest first (of equal ones the lower index), each onto the GPU with the smallest
 * sum so far that has room (of equal ones the lowest). slot_of_item[item] = GPU * capacity +
 * how many the GPU held before. gpu_count * capacity >= item_count. */
void moe_greedy_pack(struct moe_greedy *greedy, const double *weight, uint32_t item_count,
                     uint32_t gpu_count, uint32_t capacity, uint32_t *slot_of_item);

#endif
