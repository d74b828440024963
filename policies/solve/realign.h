/*
 * Realignment: the same plan under other labels, so that fewer weights have to move.
 *
 * Which of a GPU's slots holds an expert, and (where all GPUs are alike) which GPU holds a
 * set of experts, changes no load. Both freedoms are spent on keeping what lies where it lies.
 * Rows are one layer: expert_of_slot[gpu_count * capacity], MOE_SLOT_EMPTY where empty.
 * Sources: vLLM's preserve_intragpu_slots (slots); vllm-ascend's FlashLB, which matches ranks
 * by the Hungarian method (GPUs).
 */
#ifndef MOE_POLICIES_REALIGN_H
#define MOE_POLICIES_REALIGN_H

#include <stdint.h>

#include "policies/solve/matching.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"

/* Up to so many GPUs the matching is exact; beyond, greedy. It takes time cubic in the GPUs. */
enum { MOE_REALIGN_EXACT_GPUS = 256 };

struct moe_realign {
    uint32_t gpu_count;
    uint32_t capacity;
    uint16_t *row;    /* [gpu_count * capacity] the plan on its way */
    uint32_t *gpu_of; /* [gpu_count] the old GPU that takes a new GPU's experts */
    uint32_t *kept;   /* [new GPU][old GPU] experts in common */
    uint32_t expert_count;
    uint32_t *first; /* [expert_count + 1] into host */
    uint32_t *host;  /* [gpu_count * capacity] new GPUs of every expert, ascending */
    uint8_t *held;   /* [expert_count] copies on one GPU */
    uint8_t *taken;  /* [gpu_count] */
    uint8_t *seen;   /* [capacity + 1] numbers that occur in kept */
    struct moe_matching matching;
};

/* expert_count bounds the ids in the rows; capacity <= 255. Errors: MOE_LIMIT when the arena is
 * full, MOE_POLICY when a GPU has more slots. */
enum moe_status moe_realign_init(struct moe_realign *realign, struct moe_arena *arena,
                                 uint32_t gpu_count, uint32_t capacity, uint32_t expert_count,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* Slot by slot in ascending order, an expert that the same slot held before stays in it; the
 * rest fills the free slots in the order of plan, empty ones last. */
void moe_realign_slots(struct moe_realign *realign, const uint16_t *before, uint16_t *plan);

/* Gives every GPU the new set of experts such that most stay where they are over all GPUs, then
 * aligns the slots. GPUs swap roles only inside blocks of block_gpus consecutive ones (a node,
 * or all; divides gpu_count). Ties: exact matching, which is deterministic; greedy: the lowest
 * old, then the lowest new GPU. */
void moe_realign_gpus(struct moe_realign *realign, const uint16_t *before, uint16_t *plan,
                      uint32_t block_gpus);

/* Slots of the row that hold an expert which they did not hold before. */
uint32_t moe_realign_count_moves(const uint16_t *before, const uint16_t *plan, uint32_t slots);

#endif
