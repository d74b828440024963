#include "sim/engine/pools/pools.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/engine/run_result.h"
#include "sim/engine/run_state.h"
#include "sim/scenario/deployment.h"

#include "sim/base/no_malloc.h"

/* Both pools of a run. */
struct moe_pools {
    const struct moe_run_input *input;
    struct moe_run_input part[MOE_POOL_COUNT];
    struct moe_run_state run[MOE_POOL_COUNT];
    struct moe_placement placement[MOE_POOL_COUNT];
    moe_time_ns next_ns[MOE_POOL_COUNT]; /* when the pool is looked at again; never: asleep */
    struct moe_handover handover;
    struct moe_arrival *list[MOE_POOL_COUNT]; /* [total] what arrives in each */
    uint64_t due;                             /* requests that will be handed over */
    struct moe_serving_moved moved;
};

static const moe_time_ns never = INT64_MAX;

struct moe_run_input moe_pools_part(const struct moe_run_input *input, enum moe_pool pool)
{
    struct moe_run_input part = input->pools->part[pool];
    part.arrivals = input->arrivals;
    part.longest_request =
        pool == MOE_POOL_PREFILL ? input->longest_prompt + 1 : input->longest_request;
    part.audit = input->audit;
    part.kv_limit = input->kv_limit;
    part.latencies_only = input->latencies_only;
    return part;
}

size_t moe_pools_bytes(const struct moe_run_input *input)
{
    const uint64_t total = input->arrivals->total;
    return moe_handover_bytes(total, moe_cluster_gpu_count(&input->scenario->cluster)) +
           (size_t) total * 2 * sizeof(struct moe_arrival) + sizeof(struct moe_pools) + 4096;
}

static enum moe_pool pool_of(const struct moe_run_state *run)
{
    return run == &run->pools->run[MOE_POOL_PREFILL] ? MOE_POOL_PREFILL : MOE_POOL_DECODE;
}

/* Something happens to a pool at at_ns: it is looked at no later. */
static void wake(struct moe_pools *p, enum moe_pool pool, moe_time_ns at_ns)
{
    const moe_time_ns now_ns = p->run[pool].now_ns;
    const moe_time_ns then_ns = at_ns > now_ns ? at_ns : now_ns;
    p->next_ns[pool] = then_ns < p->next_ns[pool] ? then_ns : p->next_ns[pool];
}

/* A seat in the decode pool: the cache sets out. */
static void seat(void *context, uint32_t rank, const struct moe_arrival *incoming,
                 moe_time_ns now_ns, moe_time_ns *ready_ns, moe_time_ns *first_token_ns)
{
    struct moe_pools *p = context;
    *ready_ns = moe_handover_begin(&p->handover, incoming->number, rank, now_ns);
    *first_token_ns = p->input->scenario->pools.first_token == MOE_POOL_FIRST_PREFILL
                          ? p->handover.items[incoming->number].read_ns
                          : *ready_ns;
    wake(p, MOE_POOL_PREFILL, *ready_ns);
}

/* The whole way of a request, into the log of the result. */
static void record(struct moe_pools *p, const struct moe_handover_item *item,
                   moe_time_ns first_token_ns, moe_time_ns finished_ns, uint32_t preemptions)
{
    moe_request_log_add(&p->run[MOE_POOL_DECODE].log,
                        &(struct moe_request_record){
                            .number = item->arrival.number,
                            .arrival_ns = item->arrival.arrival_ns,
                            .admitted_ns = item->admitted_ns,
                            .first_token_ns = first_token_ns,
                            .finished_ns = finished_ns,
                            .prompt_tokens = item->arrival.prompt_tokens,
                            .output_tokens = item->arrival.output_tokens,
                            .preemptions = preemptions,
                            .priority = item->arrival.priority,
                        });
}

/* A prompt was read. */
static void hand_over(struct moe_pools *p, struct moe_handover_item *item,
                      const struct moe_finished *f)
{
    struct moe_intake *intake = &p->run[MOE_POOL_DECODE].intake;
    item->admitted_ns = f->admitted_ns;
    item->read_ns = f->finished_ns;
    item->rank = f->rank;
    item->kv_held = f->kv_held;
    item->preemptions = f->preemptions;
    if (item->arrival.output_tokens == 1) {
        record(p, item, f->first_token_ns, f->finished_ns, f->preemptions);
        return;
    }
    moe_serving_keep(&p->run[MOE_POOL_PREFILL].serving, f->rank, f->kv_held);
    item->index = intake->count;
    struct moe_arrival *next = &p->list[MOE_POOL_DECODE][intake->count++];
    *next = item->arrival;
    next->arrival_ns = f->finished_ns;
    next->hit_tokens = next->prompt_tokens;
    wake(p, MOE_POOL_DECODE, f->finished_ns);
}

void moe_pools_finish(struct moe_run_state *run, const struct moe_finished *f)
{
    struct moe_pools *p = run->pools;
    struct moe_handover_item *item = &p->handover.items[f->arrival->number];
    if (pool_of(run) == MOE_POOL_PREFILL) {
        hand_over(p, item, f);
        return;
    }
    record(p, item, f->first_token_ns, f->finished_ns, item->preemptions + f->preemptions);
    /* The prefill pool's log holds what the decode pool has waiting. */
    moe_request_log_add(&p->run[MOE_POOL_PREFILL].log,
                        &(struct moe_request_record){
                            .number = item->index,
                            .arrival_ns = item->read_ns,
                            .admitted_ns = item->seat_ns,
                            .first_token_ns = f->finished_ns,
                            .finished_ns = f->finished_ns,
                            .prompt_tokens = item->arrival.prompt_tokens,
                            .output_tokens = item->arrival.output_tokens,
                        });
}

bool moe_pools_scores_next(const struct moe_run_state *run)
{
    const struct moe_pools *p = run->pools;
    const uint64_t due = pool_of(run) == MOE_POOL_PREFILL ? p->handover.total : p->due;
    return run->serving.admissions < due;
}

/* Every arrival of the run, as it comes and as a prompt. */
static enum moe_status list_arrivals(struct moe_pools *p, struct moe_arena *work,
                                     struct moe_error *err)
{
    struct moe_arrival_stream *stream = &p->run[MOE_POOL_PREFILL].arrivals;
    const uint64_t room = p->input->arrivals->total;
    uint64_t total = 0;
    p->list[MOE_POOL_PREFILL] = MOE_NEW(work, struct moe_arrival, room);
    p->list[MOE_POOL_DECODE] = MOE_NEW(work, struct moe_arrival, room);
    if (p->list[MOE_POOL_PREFILL] == NULL || p->list[MOE_POOL_DECODE] == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for %" PRIu64 " requests", room);
    }
    for (const struct moe_arrival *next; (next = moe_arrival_peek(stream)) != NULL;
         moe_arrival_take(stream)) {
        assert(total < room);
        assert(next->number == total);
        p->handover.items[total].arrival = *next;
        p->list[MOE_POOL_PREFILL][total] = *next;
        p->list[MOE_POOL_PREFILL][total].output_tokens = 1;
        p->due += next->output_tokens > 1;
        total++;
    }
    p->handover.total = total;
    for (uint32_t pool = 0; pool < MOE_POOL_COUNT; pool++) {
        p->run[pool].intake.stream = NULL;
        p->run[pool].intake.list = p->list[pool];
        p->run[pool].intake.count = pool == MOE_POOL_PREFILL ? total : 0;
    }
    return MOE_OK;
}

/* Plans of both; in result why one does not fit. */
static enum moe_status plan_both(struct moe_pools *p, const struct moe_composition *composition,
                                 uint64_t seed, struct moe_arena *work, struct moe_error *err)
{
    struct moe_run_result *result = p->run[MOE_POOL_DECODE].result;
    for (uint32_t pool = 0; pool < MOE_POOL_COUNT; pool++) {
        MOE_TRY(moe_run_plan(&p->run[pool], composition, seed, work, &p->placement[pool], err));
    }
    for (uint32_t pool = 0; pool < MOE_POOL_COUNT; pool++) {
        const struct moe_run_result *own = p->run[pool].result;
        if (!own->fits) {
            char why[MOE_RUN_WHY_BYTES];
            (void) snprintf(why, sizeof why, "%s pool: %.*s", moe_pool_name((enum moe_pool) pool),
                            MOE_RUN_WHY_BYTES - 20, own->why);
            memcpy(result->why, why, sizeof why);
            result->fits = false;
            return MOE_OK;
        }
    }
    return MOE_OK;
}

static enum moe_status begin(struct moe_pools *p, const struct moe_composition *composition,
                             uint64_t seed, struct moe_trace *trace, struct moe_arena *work,
                             struct moe_error *err)
{
    for (uint32_t pool = 0; pool < MOE_POOL_COUNT; pool++) {
        MOE_TRY(
            moe_run_init(&p->run[pool], composition, &p->placement[pool], trace, seed, work, err));
    }
    const struct moe_handover_setup setup = {
        .scenario = p->input->scenario,
        .cost = p->input->cost,
        .prefill_ranks = p->run[MOE_POOL_PREFILL].serving.setup.rank_count,
        .decode_ranks = p->run[MOE_POOL_DECODE].serving.setup.rank_count,
        .total = p->input->arrivals->total,
    };
    MOE_TRY(moe_handover_init(&p->handover, &setup, work, err));
    MOE_TRY(list_arrivals(p, work, err));
    p->moved = (struct moe_serving_moved){ p, seat };
    p->run[MOE_POOL_DECODE].serving.setup.moved = &p->moved;
    p->next_ns[MOE_POOL_PREFILL] = 0;
    p->next_ns[MOE_POOL_DECODE] = never;
    return MOE_OK;
}

/* When a pool that has nothing to run is looked at again. */
static moe_time_ns next_event(const struct moe_pools *p, enum moe_pool pool)
{
    const struct moe_run_state *run = &p->run[pool];
    moe_time_ns next_ns = never;
    moe_time_ns event_ns = 0;
    if (moe_serving_next_arrival(&run->serving, &event_ns) && event_ns > run->now_ns) {
        next_ns = event_ns;
    }
    const bool moves = pool == MOE_POOL_PREFILL ? moe_handover_next_release(&p->handover, &event_ns)
                                                : moe_serving_next_ready(&run->serving, &event_ns);
    return moves && event_ns > run->now_ns && event_ns < next_ns ? event_ns : next_ns;
}

/* The pool is looked at: a step, or sleep. */
static enum moe_status turn(struct moe_pools *p, enum moe_pool pool, struct moe_error *err)
{
    struct moe_run_state *run = &p->run[pool];
    struct moe_handover_release release;
    uint64_t tokens = 0;
    moe_run_wait(run, p->next_ns[pool]);
    while (pool == MOE_POOL_PREFILL &&
           moe_handover_take_release(&p->handover, run->now_ns, &release)) {
        moe_serving_release(&run->serving, release.rank, release.kv_tokens);
    }
    MOE_TRY(moe_serving_plan_step(&run->serving, run->now_ns, run->rank, &tokens, err));
    if (tokens == 0) {
        p->next_ns[pool] = next_event(p, pool);
        return MOE_OK;
    }
    p->next_ns[pool] = never; /* what happens during the step may not look at it before */
    MOE_TRY(moe_run_step(run, tokens, err));
    p->next_ns[pool] = run->now_ns;
    return MOE_OK;
}

/* Presence of what arrived in a pool, and everything else that must hold at its end. */
static enum moe_status audit(const struct moe_pools *p, enum moe_pool pool, struct moe_error *err)
{
    const struct moe_run_state *run = &p->run[pool];
    const uint64_t count = run->intake.count;
    uint64_t come_ns = 0;
    for (uint64_t i = 0; i < count; i++) {
        come_ns += (uint64_t) (run->audit.now_ns - p->list[pool][i].arrival_ns);
    }
    for (uint32_t rank = 0; rank < run->serving.setup.rank_count; rank++) {
        if (run->serving.leaving[rank] != 0 || run->serving.arriving[rank] != 0) {
            return moe_fail(err, MOE_LIMIT,
                            "audit: please report this: a cache never left or came to rank %u of "
                            "the %s pool",
                            rank, moe_pool_name(pool));
        }
    }
    return moe_audit_close(&run->audit, &run->serving, count, come_ns, err);
}

static enum moe_status close(struct moe_pools *p, struct moe_error *err)
{
    struct moe_run_state *decode = &p->run[MOE_POOL_DECODE];
    struct moe_run_state *prefill = &p->run[MOE_POOL_PREFILL];
    struct moe_run_result *result = decode->result;
    for (uint32_t pool = 0; pool < MOE_POOL_COUNT; pool++) {
        moe_run_collect(&p->run[pool]);
        if (p->input->audit) {
            MOE_TRY(audit(p, (enum moe_pool) pool, err));
        }
        if (p->run[pool].result->account[MOE_PHASE_SCORED].steps == 0 &&
            !p->input->latencies_only) {
            return moe_fail(err, MOE_RANGE,
                            "no step of the %s pool is left to score: the last of its %" PRIu64
                            " requests had come before %" PRIu64
                            " had finished (the warm-up); use more arrivals.requests, a lower "
                            "arrivals.rate or longer outputs",
                            moe_pool_name((enum moe_pool) pool), p->run[pool].intake.count,
                            p->run[pool].warmup_requests);
        }
    }
    moe_request_log_measure(&decode->log, &p->input->scenario->slo, &result->service);
    result->handover = p->handover.account;
    if (prefill->log.count > 0) {
        const struct moe_slo any = { .share = 1.0 };
        moe_request_log_measure(&prefill->log, &any, &result->handover.waiting);
    }
    result->prefill = prefill->result;
    return MOE_OK;
}

static enum moe_status serve(struct moe_pools *p, struct moe_error *err)
{
    for (;;) {
        const enum moe_pool pool = p->next_ns[MOE_POOL_DECODE] <= p->next_ns[MOE_POOL_PREFILL]
                                       ? MOE_POOL_DECODE
                                       : MOE_POOL_PREFILL;
        if (p->next_ns[pool] == never) {
            break;
        }
        MOE_TRY(turn(p, pool, err));
    }
    if (p->run[MOE_POOL_DECODE].log.count != p->handover.total) {
        return moe_fail(err, MOE_LIMIT,
                        "pools: %" PRIu64 " of %" PRIu64
                        " requests ended, and nothing runs any more: please report this",
                        p->run[MOE_POOL_DECODE].log.count, p->handover.total);
    }
    return close(p, err);
}

enum moe_status moe_pools_run(const struct moe_run_input *input,
                              const struct moe_composition *composition, uint64_t seed,
                              struct moe_trace *trace, struct moe_arena *results,
                              struct moe_arena *work, struct moe_run_result *result,
                              struct moe_error *err)
{
    struct moe_pools *p = MOE_NEW(work, struct moe_pools, 1);
    struct moe_run_result *prefill = MOE_NEW(results, struct moe_run_result, 1);
    if (p == NULL || prefill == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for two pools");
    }
    if (input->detail != NULL) {
        return moe_fail(err, MOE_UNSUPPORTED,
                        "--detail follows one cluster; set pools.prefill_gpus to 0");
    }
    p->input = input;
    for (uint32_t pool = 0; pool < MOE_POOL_COUNT; pool++) {
        struct moe_run_result *own = pool == MOE_POOL_DECODE ? result : prefill;
        p->part[pool] = moe_pools_part(input, (enum moe_pool) pool);
        const struct moe_placement_shape shape = moe_scenario_shape(p->part[pool].scenario);
        p->run[pool] = (struct moe_run_state){ .input = &p->part[pool], .result = own, .pools = p };
        MOE_TRY(moe_run_result_init(own, &shape, results, err));
        (void) snprintf(own->policy, sizeof own->policy, "%s", composition->label);
        own->seed = seed;
    }
    MOE_TRY(plan_both(p, composition, seed, work, err));
    if (!result->fits) {
        return MOE_OK;
    }
    enum moe_status status = begin(p, composition, seed, trace, work, err);
    if (status == MOE_OK) {
        status = serve(p, err);
    }
    for (uint32_t pool = 0; pool < MOE_POOL_COUNT; pool++) {
        moe_run_finish(&p->run[pool]);
    }
    return status;
}
