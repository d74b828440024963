/*
 * Step: the prices and durations of one step, from counted work.
 *
 * The one place where cost, hardware and counts meet. Everything that a report or a
 * counterfactual needs about the step stays here until the next one.
 *
 * Durations are price times jitter, rounded up to whole ns once (moe_time_round_up):
 *   before  moe_before_ns of attention, dense and gate    after  head + host
 *   shared, dispatch, expert, combine                     as priced
 * What temporary copies of experts delay (fetcher.h) belongs to dispatch.
 * All-gather: see gather() in step.c; padded rows of graphs are gathered too.
 * Padded mode: every rank sends and receives, of each link class, what the largest of all
 * ranks' in and out is.
 */
#ifndef MOE_SIM_ENGINE_STEP_H
#define MOE_SIM_ENGINE_STEP_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/cost/cost.h"
#include "sim/engine/drafts.h"
#include "sim/engine/fetcher.h"
#include "sim/engine/hardware.h"
#include "sim/engine/route_counter.h"
#include "sim/engine/sensitivity.h"
#include "sim/engine/step_times.h"
#include "sim/engine/straggler.h"
#include "sim/engine/timeline.h"

/* A price on every GPU, with its GPU's factors and with factor 1. */
struct moe_price_pair {
    double *real;
    double *nominal;
};

/* What a GPU's token prices were made of. */
struct moe_priced_work {
    double tokens;
    double sampled;
    struct moe_gpu_factor factor;
};

struct moe_step {
    const struct moe_cost *cost;
    uint32_t layer_count; /* with those that draft */
    uint32_t gpu_count;
    uint32_t dense_layer_count;
    const struct moe_drafts *drafts; /* NULL: none */
    enum moe_exchange_mode exchange;
    const struct moe_fetcher *fetcher; /* NULL: nothing is fetched */
    struct moe_hardware hardware;
    struct moe_step_times times;
    struct moe_barrier *barriers;

    struct moe_expert_work *expert_work;     /* [layer][gpu] */
    struct moe_exchange_work *dispatch_work; /* [layer][gpu] */
    struct moe_token_prices *tokens;         /* [gpu] with the GPU's factors */
    struct moe_token_prices *tokens_nominal; /* [gpu] */
    struct moe_token_prices *drafted;        /* [gpu] likewise, of passes after the first */
    struct moe_token_prices *drafted_nominal;
    struct moe_price_pair before;   /* [gpu], of the layer in hand */
    struct moe_price_pair shared;   /* [gpu], likewise */
    struct moe_price_pair after;    /* [gpu] */
    struct moe_price_pair dispatch; /* [layer][gpu] */
    struct moe_price_pair expert;   /* [layer][gpu] */
    struct moe_price_pair combine;  /* [layer][gpu] */
    double *jitter;                 /* [layer + 1][stretch][gpu] */
    uint8_t *dispatch_source;       /* [layer][gpu] enum moe_provenance */
    uint8_t *expert_source;
    uint8_t *combine_source;
    moe_time_ns *clock;             /* [gpu] scratch */
    struct moe_priced_work *priced; /* [gpu] of `tokens`, in the step before */

    /* With a fetcher only: the step as if transfers took no time. */
    double *exchange_ns;              /* [layer][gpu] what of dispatch.real is tokens' */
    struct moe_step_times unhindered; /* shares every array with times but dispatch */
    struct moe_barrier *unhindered_barriers;
};

struct moe_step_options {
    const struct moe_cost *cost;
    const struct moe_serving *serving;
    uint32_t layer_count; /* of the model */
    uint32_t gpu_count;
    uint32_t dense_layer_count;
    const struct moe_drafts *drafts; /* outlives the step; NULL: none */
    uint64_t seed;
    bool noise;
    const struct moe_hardware_options *hardware; /* or NULL */
    uint32_t first_gpu;                          /* of the deployment (hardware.h) */
    const struct moe_fetcher *fetcher;           /* or NULL; outlives the step */
};

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_step_init(struct moe_step *step, const struct moe_step_options *options,
                              struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* Prices step number `number`, which begins at now_ns: own[gpu] and what the counter holds.
 * nominal: prices with factor 1 too. straggler NULL, or (with nominal) its layers are added
 * (begin_step is the caller's). */
void moe_step_price(struct moe_step *step, uint64_t number, moe_time_ns now_ns,
                    const struct moe_token_work *own, const struct moe_route_counter *counter,
                    bool nominal, struct moe_straggler *straggler);

/* Prices a part of the tokens of a step that was priced whole: on the same GPUs at the same moment,
 * with the whole's draws of noise. part was initialised as whole was. */
void moe_step_price_part(struct moe_step *part, const struct moe_step *whole,
                         const struct moe_token_work *own, const struct moe_route_counter *counter,
                         bool nominal);

/* The prices of one layer's stretches. */
struct moe_layer_prices {
    struct moe_stretch_prices before;
    struct moe_stretch_prices shared;
    struct moe_stretch_prices dispatch;
    struct moe_stretch_prices expert;
    struct moe_stretch_prices combine;
};

/* Of a step priced with nominal prices; valid until the next call. */
struct moe_layer_prices moe_step_layer_prices(struct moe_step *step, uint32_t layer);

/* Ends the straggler's step with the step's last stretch. */
void moe_step_end_straggler(const struct moe_step *step, struct moe_straggler *straggler);

/* Plays the priced step: barriers filled, length returned. */
moe_time_ns moe_step_play(struct moe_step *step);

/* The length of the step last played. */
static inline moe_time_ns moe_step_length(const struct moe_step *step)
{
    return step->barriers[(size_t) 2 * step->layer_count].open_ns;
}
/* By how much the played step would be shorter if what was fetched took no time; 0 without a
 * fetcher. */
moe_time_ns moe_step_fetch_exposed(struct moe_step *step, moe_time_ns step_ns);

struct moe_step_prices moe_step_prices(const struct moe_step *step);
struct moe_price_sources moe_step_sources(const struct moe_step *step);

#endif
