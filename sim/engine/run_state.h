/*
 * Run state: one run's moving parts, for the files that make up the run (run.c and run_*.c).
 */
#ifndef MOE_SIM_ENGINE_RUN_STATE_H
#define MOE_SIM_ENGINE_RUN_STATE_H

#include "sim/engine/audit.h"
#include "sim/engine/fetcher.h"
#include "sim/engine/online/online.h"
#include "sim/engine/request_log.h"
#include "sim/engine/route_counter.h"
#include "sim/engine/route_split.h"
#include "sim/engine/run.h"
#include "sim/engine/serving/serving.h"
#include "sim/engine/serving/waiting_room.h"
#include "sim/engine/step.h"
#include "sim/engine/timeline.h"

struct moe_run_state {
    const struct moe_run_input *input;
    struct moe_run_result *result;
    struct moe_arrival_stream arrivals;
    struct moe_intake intake;
    struct moe_serving_state serving;
    struct moe_route_counter counter;
    struct moe_drafts drafts;       /* layer_count 0: nothing is drafted at a cost */
    struct moe_layer_sample sample; /* with counted_layers only */
    struct moe_step step;
    struct moe_bound_meter meter;
    struct moe_halves_step halves; /* steps in two halves; not active: none are */
    struct moe_straggler straggler;
    struct moe_sensitivity sensitivity;
    struct moe_event_player player; /* with --detail only */
    struct moe_barrier *event_barriers;
    struct moe_planning_run shown;
    struct moe_placement start;     /* what was in force before the plan */
    struct moe_arena state;         /* memory of dispatch and group policies */
    struct moe_route_split split;   /* where a dispatch policy decides */
    struct moe_fetcher fetcher;     /* limit 0: nothing is fetched */
    struct moe_foresight foresight; /* part NULL: nobody predicts step by step */
    uint64_t *foresight_total;      /* [expert] scratch of it */
    struct moe_waiting_room room;   /* where a group policy decides */
    struct moe_token_work *rank;    /* [rank] work as serving plans it */
    struct moe_token_work *own;     /* [gpu] the same for each GPU of its rank */
    uint32_t *expert_scratch;       /* [expert] */
    moe_time_ns now_ns;
    uint64_t step_number;
    uint64_t finished;        /* requests */
    uint64_t warmup_requests; /* that must finish first: as many as run at once */
    enum moe_phase phase;
    struct moe_online online;    /* placements made anew */
    bool *dead;                  /* [gpu]; NULL: nobody dies */
    uint32_t *fetched;           /* [gpu] experts, scratch */
    struct moe_placement living; /* the placement of those that live */
    struct moe_audit audit;      /* its sums always, its checks with input->audit only */
    struct moe_arena *spare;     /* the run's working memory, for the end of an audit */
    struct moe_request_log log;  /* arrivals over time only */
    struct moe_pools *pools;     /* this is the run of one of two pools; NULL: of all GPUs */
};

/* The composition's plan into placement, checked, and priced in memory (result->fits). Errors: as
 * moe_run. */
enum moe_status moe_run_plan(struct moe_run_state *run, const struct moe_composition *composition,
                             uint64_t seed, struct moe_arena *work, struct moe_placement *placement,
                             struct moe_error *err) MOE_MUST_CHECK;

/* Everything that serves. Errors: as moe_run. */
enum moe_status moe_run_init(struct moe_run_state *run, const struct moe_composition *composition,
                             const struct moe_placement *placement, struct moe_trace *trace,
                             uint64_t seed, struct moe_arena *work,
                             struct moe_error *err) MOE_MUST_CHECK;

/* Makes and times the planned step, and goes on to its end. Errors: as moe_run. */
enum moe_status moe_run_step(struct moe_run_state *run, uint64_t tokens,
                             struct moe_error *err) MOE_MUST_CHECK;

/* Nothing runs: on to at_ns, when that is later. */
void moe_run_wait(struct moe_run_state *run, moe_time_ns at_ns);

/* What the run has counted, into its result; everything has been served. */
void moe_run_collect(struct moe_run_state *run);

/* Releases what moe_run_init took. */
void moe_run_finish(struct moe_run_state *run);

/* Steps in two halves, where the scenario asks for them. options: those of run->step. Errors:
 * MOE_LIMIT when the arena is full; MOE_UNSUPPORTED with an event log. */
enum moe_status moe_run_init_halves(struct moe_run_state *run,
                                    const struct moe_step_options *options, struct moe_arena *work,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* The routes of the planned step into the counter, where it runs in halves half by half. Errors:
 * as moe_trace_read. */
enum moe_status moe_run_route(struct moe_run_state *run, struct moe_error *err) MOE_MUST_CHECK;

/* Prices and plays the counted step, in halves or in one piece, with its causes of waiting where
 * attribute says so. Errors: MOE_LIMIT from the audit. */
enum moe_status moe_run_time_step(struct moe_run_state *run, bool attribute, moe_time_ns *step_ns,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* For scenarios in which GPUs die. Errors: MOE_POLICY when the dispatch policy cannot go on;
 * MOE_LIMIT. */
enum moe_status moe_run_init_death(struct moe_run_state *run, const struct moe_placement *placement,
                                   struct moe_arena *work, struct moe_error *err) MOE_MUST_CHECK;

/* Between two steps: whose time has come is gone from here on. Its rank takes nobody any more; its
 * requests begin anew elsewhere, before those that wait; experts that only it had are placed anew
 * (eviction.h); serving stands still for hardware.recovery_s, and for the weights from host memory
 * where its rate is known. At the barriers it still counts, as one that waits. Errors: MOE_POLICY
 * when the others cannot go on. */
enum moe_status moe_run_meet_death(struct moe_run_state *run, struct moe_error *err) MOE_MUST_CHECK;

#endif
