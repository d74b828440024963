/*
 * Fetcher: temporary copies of experts, which a dispatch policy names layer by layer and step by
 * step, after the gate: whose they are, from whom they come, and what their way costs.
 *
 * Every GPU has fetch.slots temporary slots behind its lasting ones, the same memory for all layers
 * one after the other: in the wide placement a GPU's lasting slots are followed by its temporary
 * ones, empty but for what was fetched for the layer in this step.
 *
 * A copy comes from a GPU that holds the expert lastingly: of the receiver's node if there is one,
 * else of another; of several the one that sends least so far in this layer, of equal ones the
 * lowest GPU. With fetch.relay those who were to get the expert earlier in the policy's answer
 * count among the holders: they pass on what they have while the rest is coming, so a GPU's time
 * is that of the larger of what it sends and gets. A GPU's transfers of a layer take
 * moe_cost_bulk_copy of that, over the links of each class, times its factor for communication;
 * 1 - fetch.overlap of it is exposed and stands before the GPU's dispatch, over the same links.
 *
 * The account is of scored steps. Without fetching a layer's balance would have been that of every
 * expert's tokens shared evenly by its lasting copies (dispatch even).
 */
#ifndef MOE_SIM_ENGINE_FETCHER_H
#define MOE_SIM_ENGINE_FETCHER_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/composition.h"
#include "policies/copy_index.h"
#include "policies/placement.h"
#include "sim/base/arena.h"
#include "sim/base/time.h"
#include "sim/cost/cost.h"
#include "sim/scenario/scenario.h"

/* Sums over the scored steps. */
struct moe_fetch_account {
    uint32_t slots; /* temporary ones of a GPU; 0: the policy does not fetch */
    uint64_t near_copies;
    uint64_t far_copies;
    double expert_bytes;
    uint64_t layer_steps;   /* in which something was fetched */
    double transfer_ns;     /* of the GPU whose transfers take longest, nominally, hidden or not */
    moe_time_ns exposed_ns; /* by which steps were longer than if transfers took no time */
    double even_balance;    /* mean/max GPU load without fetching, summed over layer-steps */
};

struct moe_fetcher {
    uint32_t limit; /* temporary slots of a GPU; 0: nobody fetches, all else is unused */
    bool relay;
    double exposed; /* share */
    const struct moe_cost *cost;
    uint32_t lasting_slots;            /* of a GPU */
    struct moe_placement wide;         /* this step's, with what was fetched */
    uint32_t *count;                   /* [layer] copies fetched in this step */
    uint32_t *near_count;              /* [layer] of them from the same node */
    struct moe_exchange_work *traffic; /* [layer][gpu] experts sent and received */
    double *even_balance;              /* [layer] */
    struct moe_dispatch_fetch *answer; /* [gpu * limit] of the layer in hand */
    uint32_t *used;                    /* [gpu] */
    double *gpu_load;                  /* [gpu] */
    struct moe_fetch_account account;
};

/* Whether the composition's dispatch fetches where there are slots. */
bool moe_fetcher_is_wanted(const struct moe_scenario *scenario,
                           const struct moe_composition *composition);

/* Bytes of memory that a GPU's temporary slots take; 0 when they are not wanted. */
double moe_fetcher_buffer_bytes(const struct moe_scenario *scenario,
                                const struct moe_composition *composition);

size_t moe_fetcher_bytes(const struct moe_scenario *scenario);

/* limit 0 unless it is wanted. cost outlives the fetcher. Errors: MOE_RANGE when there are more
 * slots than can be numbered; MOE_LIMIT when the arena is full. */
enum moe_status moe_fetcher_init(struct moe_fetcher *fetcher, const struct moe_scenario *scenario,
                                 const struct moe_composition *composition,
                                 const struct moe_placement *lasting, const struct moe_cost *cost,
                                 struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* Empties the layer's temporary slots and asks the policy, which sees view (of the lasting
 * copies): its copies then stand in fetcher->wide. index is the layer's, of the lasting copies on
 * entry, of all afterwards. Errors: as moe_policy_fetch. */
enum moe_status moe_fetcher_ask(struct moe_fetcher *fetcher, const struct moe_policy *policy,
                                void *state, const struct moe_dispatch_view *view,
                                struct moe_copy_index *index, struct moe_error *err) MOE_MUST_CHECK;

/* Takes the layer's temporary copies away; index is then of the lasting ones again. True when
 * there were any. */
bool moe_fetcher_clear(struct moe_fetcher *fetcher, uint32_t layer, struct moe_copy_index *index);

/* How long a GPU's transfers in a layer delay its dispatch, with such a factor. */
struct moe_duration moe_fetcher_exposed(const struct moe_fetcher *fetcher, uint32_t layer,
                                        uint32_t gpu, const struct moe_gpu_factor *factor);

/* A scored step is over; its length is exposed_ns more than it would be with free transfers. */
void moe_fetcher_account(struct moe_fetcher *fetcher, moe_time_ns exposed_ns);

#endif
