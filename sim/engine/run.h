/*
 * Run: one policy under one seed, from the first request to the last.
 *
 * The loop: serving plans a step -> the route counter turns its tokens into work -> cost
 * and hardware turn work into durations -> the timeline turns durations into waiting ->
 * the result collects. A step's phase is settled after its admissions:
 *   warm-up  until as many requests have finished as can run at once (GPUs x
 *            running_per_gpu): the start, when all prompts are read together, is over
 *   scored   while a request to score waits to be admitted
 *   drain    after that; the planning set, which no figure may hold, is replayed here
 * Every figure but the token accounts is of the scored phase: of its steps, of the first
 * tokens sampled in them (TTFT), and of the requests that ended in them (TPOT, end to end).
 */
#ifndef MOE_SIM_ENGINE_RUN_H
#define MOE_SIM_ENGINE_RUN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "policies/composition.h"
#include "sim/arrival/arrival.h"
#include "sim/base/arena.h"
#include "sim/cost/cost.h"
#include "sim/engine/bound_meter.h"
#include "sim/engine/fetcher.h"
#include "sim/engine/foresight.h"
#include "sim/engine/latency.h"
#include "sim/engine/memory.h"
#include "sim/engine/online/online.h"
#include "sim/engine/overlap/halves_step.h"
#include "sim/engine/planning.h"
#include "sim/engine/pools/handover.h"
#include "sim/engine/replay_map.h"
#include "sim/engine/request_log.h"
#include "sim/engine/sensitivity.h"
#include "sim/engine/step_profile.h"
#include "sim/engine/straggler.h"
#include "sim/engine/timeline.h"
#include "sim/scenario/scenario.h"

enum { MOE_RUN_WHY_BYTES = 320 };

enum moe_phase { MOE_PHASE_WARMUP, MOE_PHASE_SCORED, MOE_PHASE_DRAIN, MOE_PHASE_COUNT };

const char *moe_phase_name(enum moe_phase phase);

/* Where tokens went; over the phases they sum to what the trace holds. */
struct moe_token_account {
    uint64_t steps;
    uint64_t tokens; /* rows processed */
    uint64_t output_tokens;
    uint64_t requests;    /* finished */
    uint64_t assignments; /* (token, replayed layer, k), counted at combine */
    moe_time_ns time_ns;  /* of steps */
    moe_time_ns quiet_ns; /* between steps, when nobody was there */
};

struct moe_run_result {
    char policy[MOE_COMPOSITION_BYTES]; /* the composition's label */
    uint64_t seed;
    bool fits; /* false: no run was made; why says what would be needed */
    char why[MOE_RUN_WHY_BYTES];
    struct moe_memory memory;
    uint64_t moved_slots; /* against the contiguous placement */

    uint32_t layer_count;
    uint32_t gpu_count;
    uint32_t slot_count; /* without temporary ones */
    uint32_t expert_count;

    struct moe_token_account account[MOE_PHASE_COUNT];
    uint64_t served_rows; /* of all requests that came: prompt + output - 1 */
    uint64_t served_requests;
    struct moe_service service; /* arrivals over time only */
    uint64_t preemptions;       /* of all phases, as the next five */
    uint64_t recomputed_rows;   /* processed again after a preemption */
    uint64_t lost_rows;         /* processed for requests that died with a GPU, and again */
    uint64_t lost_requests;     /* that began anew elsewhere */
    uint32_t dead_gpus;
    uint64_t hit_rows;      /* not processed thanks to the prefix cache */
    uint64_t rejected_rows; /* of drafts */
    uint64_t repeated_rows; /* of requests longer than the trace's: routes repeated (assumed) */
    uint64_t padded_rows;   /* to the sizes of captured graphs */
    struct moe_online_account online;
    struct moe_fetch_account fetch;
    uint64_t unknown_assignments;
    uint64_t dropped_assignments; /* left without a copy by a dropping dispatch policy */
    struct moe_foresight_score foreseen_window; /* the loads planned on, against the scored ones */
    struct moe_foresight_score foreseen_steps;  /* predictions made step by step */

    /* All of the scored phase. */
    struct moe_critical_path path; /* sums to the scored time */
    double balancedness_sum;       /* mean/max GPU load, summed over layer-steps; 1 without load */
    double imbalance_sum;          /* (max-mean)/mean (TensorRT-LLM); 0 without load */
    double mean_load_sum;          /* tokens */
    double max_load_sum;           /* tokens; their ratio is vLLM's balancedness */
    double no_copy_load_sum;       /* bound without copies: max(mean, hottest expert) */
    uint64_t layer_steps;
    struct moe_bound_sums bound; /* of every MOE_BOUND_STRIDE-th step, from the first on */
    double near_copies;          /* token copies dispatched to a GPU of the same node, with what
                              * padded mode adds */
    double far_copies;           /* to another node, likewise */
    double local_copies;         /* that stayed on their GPU */
    double dispatch_bytes;       /* of one copy, dispatch */
    double combine_bytes;        /* of one copy, combine */
    struct moe_latency step;     /* one per step */
    struct moe_latency ttft;     /* arrival (in a closed loop admission) to first token */
    struct moe_latency itl;      /* from the token before, of every token that is no first one */
    struct moe_latency tpot;     /* per request of two or more output tokens:
                              * (last - first token) / (output tokens - 1), rounded down */
    struct moe_latency e2e;      /* arrival (in a closed loop admission) to last token */

    struct moe_halves_account halves; /* steps that ran in two halves */
    struct moe_step_profile profile;  /* of the steps of all phases */

    moe_time_ns idle_ns; /* ranks x (max - mean), summed over barriers */
    uint64_t barriers;
    bool attributed;                               /* the next three are filled */
    moe_time_ns cause_idle_ns[MOE_CAUSE_COUNT];    /* sums to idle_ns exactly */
    moe_time_ns subset_time_ns[MOE_CAUSE_SUBSETS]; /* scored time with these causes only */
    moe_time_ns sensitivity_ns[MOE_SENSITIVITY_LANES];

    uint64_t *gpu_last;                /* [gpu] barriers at which it was the last */
    moe_time_ns *gpu_lead_ns;          /* [gpu] what that cost: its lead over the next, summed */
    struct moe_gpu_factor *gpu_factor; /* [gpu] */
    bool *gpu_in_tail;                 /* [gpu] its factors come from the prior's slow tail */
    uint64_t *gpu_layer_tokens;        /* [layer][gpu] */
    moe_time_ns *layer_idle_ns;        /* [layer] both barriers */
    double *layer_max_load;            /* [layer] summed over steps */
    double *layer_mean_load;           /* [layer] */
    uint64_t *expert_tokens;           /* [layer][expert] */
    moe_time_ns *expert_lead_ns; /* [layer][expert] lead of the last rank at the combine barrier,
                                  * charged to the expert of the slot with most tokens there (the
                                  * lowest of equal ones); to none when it had no tokens */
    uint16_t *expert_of_slot;    /* [layer][slot] the plan, the last one where it was made anew */

    /* With pools (pools/pools.h) all of the above is the decode pool's, but for service, which is
     * of the whole way. NULL: no pools. */
    const struct moe_run_result *prefill;
    struct moe_handover_account handover;
};

struct moe_run_pools;

/* What every run of a study shares; read-only while runs are made. */
struct moe_run_input {
    const struct moe_scenario *scenario;
    const struct moe_cost *cost;
    const struct moe_replay_map *map;
    const struct moe_planning *planning;
    const struct moe_arrival_source *arrivals;
    uint64_t longest_request; /* prompt + output tokens: what a KV pool must hold at least */
    uint64_t longest_prompt;  /* likewise, of a pool that reads prompts only */
    const struct moe_run_pools *pools; /* NULL: all GPUs do both; else scenario and cost are of the
                                        * deployment, planning is not read */
    bool audit;                        /* check what must hold after every step (audit.h) */
    uint64_t kv_limit;                 /* tokens of KV pool at most, for tests; 0: as memory says */
    bool latencies_only;   /* only result->service is asked for: a run may score no step */
    FILE *detail;          /* event log, or NULL */
    uint64_t detail_steps; /* steps to log */
};

/* What the runs of both pools share, as input: scenario, cost and planning of each; the rest is
 * taken from the whole one. */
struct moe_run_pools {
    struct moe_run_input part[MOE_POOL_COUNT];
};

/* Bytes that a run's result needs from its arena, and its working memory. */
size_t moe_run_result_bytes(const struct moe_run_input *input);
size_t moe_run_work_bytes(const struct moe_run_input *input, const struct moe_trace *trace);

/* Plans and runs. trace is this run's own handle. results must hold moe_run_result_bytes,
 * work moe_run_work_bytes. A placement that leaves no room for KV is an answer, not an error
 * (result->fits). Errors: MOE_POLICY from the policy; MOE_RANGE when no step is left to
 * score; as moe_trace_read. */
enum moe_status moe_run(const struct moe_run_input *input,
                        const struct moe_composition *composition, uint64_t seed,
                        struct moe_trace *trace, struct moe_arena *results, struct moe_arena *work,
                        struct moe_run_result *result, struct moe_error *err) MOE_MUST_CHECK;

#endif
