/*
 * Hand-over: how prompts' caches come from the prefill pool to the decode pool.
 *
 * A prompt that was read (its first token is sampled with it) waits in the prefill rank's memory
 * until the decode pool has a seat and pages for it; seats are given when a decode step is
 * planned. Then its cache goes over: each of the rank's GPUs sends its part of the bytes
 * (moe_model_kv_bytes of the prompt, cut by attention_ranks; a prefix that was cached goes too) to
 * a GPU of the decode rank, over the links between nodes, or inside the only node. A rank sends,
 * and a rank receives, one cache after the other in the order of the seats; tokens on the same
 * links are not slowed, nor do they slow it. The request decodes from the first step on that
 * begins when its cache is there, and only then the prefill rank's memory is free.
 *
 *   begin   = max(seat, prefill rank's link free, decode rank's link free)
 *   ready   = begin + what is left to send
 *   left    = all of it; layered: what did not fit beside the prefill, all - (read - admitted),
 *             but at least one layer's part, all / cache layers
 *
 * Durations are rounded up to whole ns. A preempted decode request reads its prompt again in the
 * decode pool. Requests of one output token end in the prefill pool.
 */
#ifndef MOE_SIM_ENGINE_POOLS_HANDOVER_H
#define MOE_SIM_ENGINE_POOLS_HANDOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/arrival/arrival.h"
#include "sim/base/arena.h"
#include "sim/base/time.h"
#include "sim/cost/cost.h"
#include "sim/engine/request_log.h"
#include "sim/scenario/scenario.h"

/* What one request was in the prefill pool. */
struct moe_handover_item {
    struct moe_arrival arrival; /* as it came */
    moe_time_ns admitted_ns;
    moe_time_ns read_ns; /* its prompt, with the first token */
    moe_time_ns seat_ns; /* in the decode pool */
    uint64_t index;      /* how many were read before it */
    uint64_t kv_held;    /* in the prefill rank's memory */
    uint32_t rank;       /* of the prefill pool */
    uint32_t preemptions;
};

/* A cache that a prefill rank holds until then. */
struct moe_handover_release {
    moe_time_ns ready_ns;
    uint64_t kv_tokens;
    uint32_t rank;
};

/* All requests that were handed over. Sums of ns. */
struct moe_handover_account {
    uint64_t count;
    double bytes;
    moe_time_ns place_ns;       /* read to seat */
    moe_time_ns queue_ns;       /* seat to begin */
    moe_time_ns send_ns;        /* begin to ready */
    moe_time_ns beside_ns;      /* sent while the prompt was read (layered) */
    moe_time_ns longest_ns;     /* read to ready */
    enum moe_provenance source; /* worst of the transfers' costs */
    struct moe_service waiting; /* of the decode pool: arrival is read, admission the seat */
};

struct moe_handover {
    const struct moe_scenario *scenario;   /* of the deployment */
    const struct moe_cost *cost;           /* likewise */
    double layers;                         /* that hold a cache */
    uint64_t total;                        /* requests that come */
    struct moe_handover_item *items;       /* [total] by number */
    moe_time_ns *sender_free;              /* [prefill rank] */
    moe_time_ns *receiver_free;            /* [decode rank] */
    struct moe_handover_release *releases; /* [release_count], room for total */
    uint64_t release_count;
    struct moe_handover_account account;
};

struct moe_handover_setup {
    const struct moe_scenario *scenario;
    const struct moe_cost *cost;
    uint32_t prefill_ranks;
    uint32_t decode_ranks;
    uint64_t total;
};

size_t moe_handover_bytes(uint64_t total, uint32_t rank_count);

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_handover_init(struct moe_handover *handover,
                                  const struct moe_handover_setup *setup, struct moe_arena *arena,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* Time that a prompt's cache takes over an idle link. */
struct moe_duration moe_handover_price(const struct moe_handover *handover, uint32_t prompt_tokens);

/* Request `number`, which was read, takes a seat of decode rank `rank` at now_ns: when its cache is
 * there. */
moe_time_ns moe_handover_begin(struct moe_handover *handover, uint64_t number, uint32_t rank,
                               moe_time_ns now_ns);

/* When the next cache leaves; false when none is under way. */
bool moe_handover_next_release(const struct moe_handover *handover, moe_time_ns *ready_ns);

/* Takes one of those that have left by now_ns; false when there is none. */
bool moe_handover_take_release(struct moe_handover *handover, moe_time_ns now_ns,
                               struct moe_handover_release *release);

#endif
