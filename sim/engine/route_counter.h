/*
 * Route counter: from the routes of one step's tokens to what each GPU has to do.
 *
 * For every MoE layer it counts, exactly, the tokens of every physical slot and the token
 * copies that travel from every source GPU to every other. A token that several experts of
 * one GPU want travels there once (de-duplicated per destination GPU). The tokens of a
 * replicated expert take its copies in turn, in the order (rank, token): the copies of an
 * expert differ by at most one token in the long run, and the turn is carried from step to
 * step. Unknown ids are counted and skipped. With a split (route_split.h) a dispatch policy says
 * instead which copy takes which token, and the rows of a step are added twice: before
 * moe_route_split_solve and after it.
 *
 * The copies of an expert are taken in ascending order of their slots, the first first.
 *
 * This is the engine's innermost loop, so it is written for speed: a token block runs
 * through all layers while its rows are in cache, the turn is passed on without asking how
 * many copies there are (an expert's slots form a ring), and two kernels (top-1; a 64-bit mask of
 * destination GPUs) serve the usual shapes beside the general one. tests/ hold them to a
 * plain twin.
 */
#ifndef MOE_SIM_ENGINE_ROUTE_COUNTER_H
#define MOE_SIM_ENGINE_ROUTE_COUNTER_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/placement.h"
#include "sim/base/arena.h"
#include "sim/cost/cost.h"
#include "sim/engine/layer_sample.h"
#include "sim/engine/replay_map.h"
#include "sim/engine/route_split.h"

struct moe_route_counter {
    uint32_t layer_count;
    uint32_t trace_layer_count;
    uint32_t first_trace_layer; /* that layer 0 replays; 0, but for drafts (drafts.h) */
    uint32_t trace_expert_count;
    uint32_t top_k;
    uint32_t slot_count;
    uint32_t gpu_count;
    uint32_t gpus_per_node;
    uint32_t slots_per_gpu;
    uint16_t *turn;        /* [layer][trace expert] the slot that takes its next token */
    uint16_t *next_slot;   /* [layer][slot] the slot whose turn follows: a ring per expert */
    uint16_t *gpu_of_slot; /* [slot] */
    uint32_t *slot_tokens; /* [layer][slot], this step */
    uint32_t *pair_tokens; /* [layer][source GPU][destination GPU], this step */
    uint32_t *node_tokens; /* [layer][source GPU][node] tokens with a destination there, each
                              once; NULL unless nodes are counted */
    uint32_t *received;    /* [2][gpu] scratch of work */
    uint16_t *scratch;     /* [2][trace expert] of replan */
    uint64_t *stamp;       /* [gpu]: last token seen there (general kernel) */
    uint64_t *node_stamp;  /* [node]: likewise; NULL unless nodes are counted */
    uint64_t stamp_next;
    bool each_choice;                      /* a copy for every (token, expert): not de-duplicated */
    struct moe_route_split *split;         /* NULL: copies in turn */
    const struct moe_layer_sample *sample; /* whose layers alone are counted, and hold counts of
                                            * this step; NULL: all */
    uint64_t assignments;                  /* (token, layer, k) counted since init */
    uint64_t unknown; /* of them without an expert; split->dropped are further ones without a
                           * copy */
};

/* Looks the placement up once into tables. The placement may go afterwards.
 * Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_route_counter_init(struct moe_route_counter *counter,
                                       const struct moe_replay_map *map,
                                       const struct moe_placement *placement, uint32_t top_k,
                                       struct moe_arena *arena,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* The layer has another placement, of the same shape, from the next step on; the turns of its
 * copies begin anew. */
void moe_route_counter_replan(struct moe_route_counter *counter, const struct moe_replay_map *map,
                              const struct moe_placement *placement, uint32_t layer);

/* Counts (token, node) pairs too; moe_route_counter_work then gives the hierarchical
 * exchange. Before the first step. Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_route_counter_count_nodes(struct moe_route_counter *counter,
                                              struct moe_arena *arena,
                                              struct moe_error *err) MOE_MUST_CHECK;

/* Every (token, expert) is a copy of its own from here on, also where several experts of a token
 * share a GPU (DeepEP's low-latency mode). Before the first step, not with node counts. */
void moe_route_counter_count_choices(struct moe_route_counter *counter);

/* From here on the split says which copy takes which token. Before the first step; it outlives
 * the counter. */
void moe_route_counter_split_by(struct moe_route_counter *counter, struct moe_route_split *split);

/* Forgets the step's counts; the turns of the copies stay. */
void moe_route_counter_begin_step(struct moe_route_counter *counter);

/* Adds tokens of one source GPU (with a split, first to its demand, then to the counts): rows[i] is
 * expert[trace layer][k] of token i. */
void moe_route_counter_add(struct moe_route_counter *counter, uint32_t source_gpu,
                           const uint16_t *const *rows, uint32_t token_count);

/* What the counts mean for each GPU of one layer: expert[gpu], dispatch[gpu] (combine is
 * dispatch with in and out exchanged). tile_tokens: rows of a GEMM tile.
 * Without node counts every copy goes straight to its GPU. With them a copy for another node
 * is sent once, to the GPU there that has the sender's place in its node, and that GPU sends
 * it on to every other destination in its node. */
void moe_route_counter_work(const struct moe_route_counter *counter, uint32_t layer,
                            uint32_t tile_tokens, struct moe_expert_work *expert,
                            struct moe_exchange_work *dispatch);

static inline const uint32_t *moe_route_counter_slots(const struct moe_route_counter *counter,
                                                      uint32_t layer)
{
    return counter->slot_tokens + (size_t) layer * counter->slot_count;
}

#endif
