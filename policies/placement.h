/*
 * Placement: which logical expert lies in which physical slot, layer by layer.
 *
 * Physical slots of a layer are numbered 0 .. slot_count-1; GPU g of gpu_count owns
 * the slots_per_gpu consecutive slots from g * slots_per_gpu, node n owns the
 * gpu_count / node_count consecutive GPUs. This is the numbering of DeepSeek's EPLB,
 * SGLang's physical_to_logical_map and TensorRT-LLM's slot lists.
 * A slot may be empty (a policy need not use its whole budget).
 */
#ifndef MOE_POLICIES_PLACEMENT_H
#define MOE_POLICIES_PLACEMENT_H

#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"

enum { MOE_SLOT_EMPTY = 0xffff };

/* The budget that a placement must keep. */
struct moe_placement_shape {
    uint32_t layer_count;
    uint32_t expert_count; /* logical experts of a layer, <= MOE_TRACE_EXPERT_LIMIT */
    uint32_t slot_count;   /* physical slots of a layer; a multiple of gpu_count, >= expert_count */
    uint32_t gpu_count;    /* a multiple of node_count */
    uint32_t node_count;
    uint32_t group_count; /* routing groups of consecutive experts; 1 = none */
};

struct moe_placement {
    struct moe_placement_shape shape;
    uint16_t *expert_of_slot; /* [layer_count][slot_count], expert id or MOE_SLOT_EMPTY */
};

static inline uint32_t moe_placement_slots_per_gpu(const struct moe_placement_shape *shape)
{
    return shape->slot_count / shape->gpu_count;
}

static inline uint16_t *moe_placement_layer(const struct moe_placement *placement, uint32_t layer)
{
    return placement->expert_of_slot + (size_t) layer * placement->shape.slot_count;
}

/* Checks a shape that came from outside. Errors: MOE_RANGE naming both numbers, for
 * example "288 slots do not divide over 7 GPUs". */
enum moe_status moe_placement_shape_check(const struct moe_placement_shape *shape,
                                          struct moe_error *err) MOE_MUST_CHECK;

/* All slots empty. Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_placement_init(struct moe_placement *placement, struct moe_arena *arena,
                                   const struct moe_placement_shape *shape,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* Every expert of every layer has at least one slot, and every slot holds an expert
 * or is empty. Errors: MOE_POLICY naming layer, slot or expert. */
enum moe_status moe_placement_check(const struct moe_placement *placement,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* copies[expert_count] of one layer. */
void moe_placement_count_copies(const struct moe_placement *placement, uint32_t layer,
                                uint32_t *copies);

/* Slots whose expert differs between two placements of one shape. */
uint64_t moe_placement_count_moves(const struct moe_placement *from,
                                   const struct moe_placement *to);

/* Load of every GPU in one layer when each expert's load[expert_count] is split evenly
 * over its copies: gpu_load[gpu_count]. */
void moe_placement_gpu_load(const struct moe_placement *placement, uint32_t layer,
                            const double *load, double *gpu_load);

/* Balancedness: mean over layers of (mean GPU load / max GPU load), in (0, 1]; a layer
 * without load counts as 1. load[layer_count][expert_count]. scratch has room for
 * gpu_count doubles (asserted). */
double moe_placement_balancedness(const struct moe_placement *placement, const double *load,
                                  struct moe_arena *scratch);

#endif
