/*
 * One policy of the JSON report (schema "moesim.report/1", report_json.c):
 *
 * name, fits, why (null when it fits), oracle,
 * mark         best, tie, oracle, baseline, behind, not ranked, does not fit
 * speedup      {mean, half_width} of the score (verdict.score) over the baseline, paired by
 *              seed
 * metrics      {NAME: {unit, higher_is_better, mean, half_width, seeds: [value]}}, the names
 *              of metric.def; null when it does not fit
 * plan         {NAME: {unit, mean, half_width, seeds}}: kv_tokens_per_gpu,
 *              largest_batch_per_gpu, replica_bytes, moved_bytes
 * time_ns      {PART: {PROVENANCE: ns}}: the scored time along the critical path, its zeros
 *              left out; null when it does not fit
 * stragglers   null when it does not fit; else
 *   idle_ns    GPU time waited at barriers: GPUs x (max - mean), summed
 *   gpu_time_ns, steps, barriers
 *   causes     {CAUSE: {idle_ns, without: {mean, half_width}}}: parts that sum to idle_ns,
 *              and output tokens/s without that cause over as it was; null without attribution
 *   layers     {max_over_mean: [layer], idle_ns: [layer]}
 *   ranks      {last: [gpu], lead_ns: [gpu]}
 *   experts    [{layer, expert, copies, tokens, share, lead_ns}], at most 20, worst first
 * runs         [{seed, fits, account: {warmup, scored, drain: {steps, tokens, output_tokens,
 *              requests, assignments, time_ns}}, unknown_assignments, dropped_assignments,
 *              served: {requests, rows, preemptions, recomputed_rows, hit_rows, rejected_rows,
 *              repeated_rows, padded_rows, lost_requests, lost_rows, dead_gpus},
 *              online: {considered, plans, moved_slots, moved_near_bytes, moved_far_bytes,
 *              moved_host_bytes, planner_ns, move_ns, stall_ns, scored_stall_ns, moving_steps,
 *              slowed_ns, gain_ns} (sim/engine/online/online.h),
 *              halves: null, or of the scored steps in two halves {steps, time_ns, one_piece_ns,
 *              exchange_ns, hidden_ns} (sim/engine/overlap/halves_step.h),
 *              pools: null, or {prefill: as runs, with time_ns as above and figures {NAME: value}
 *              of metric.def by that pool's own steps, handover: {count, bytes, place_ns,
 *              queue_ns, send_ns, beside_ns, longest_ns} (sim/engine/pools/handover.h)}; the run
 *              itself, and all above, is then the decode pool's,
 *              fetch: {slots, near_copies, far_copies, near_bytes, far_bytes, layer_steps,
 *              transfer_ns, exposed_ns, balance_without} (sim/engine/fetcher.h), null where the
 *              dispatch does not fetch; balance_without: the mean of the layers and steps,
 *              moved_slots, idle_ns, causes_ns: {CAUSE: ns} or null,
 *              predicted: {window, steps}: each null, or {scored, error_share, wrong_share,
 *              hit_rate} (policies/predict_score.h)}], in seed order
 */
#include <assert.h>

#include "sim/report/finding.h"
#include "sim/report/report_json.h"

enum { EXPERT_LIMIT = 20 };

static json_t *metrics_json(struct moe_json *json, const struct moe_policy_summary *policy)
{
    json_t *out = json_object();
    for (uint32_t i = 0; i < moe_metric_known_count(json->study->scenario); i++) {
        const enum moe_metric metric = (enum moe_metric) i;
        json_t *object = json_object();
        json_t *seeds = json_array();
        for (uint32_t seed = 0; seed < json->study->seed_count; seed++) {
            moe_json_push(json, seeds,
                          moe_json_real(moe_metric_value(metric, &policy->runs[seed])));
        }
        moe_json_put(json, object, "unit", json_string(moe_metric_unit(metric)));
        moe_json_put(json, object, "higher_is_better",
                     json_boolean(moe_metric_higher_is_better(metric)));
        moe_json_put(json, object, "mean", moe_json_real(policy->metric[i].mean));
        moe_json_put(json, object, "half_width", moe_json_real(policy->metric[i].half));
        moe_json_put(json, object, "seeds", seeds);
        moe_json_put(json, out, moe_metric_name(metric), object);
    }
    return out;
}

static json_t *plan_json(struct moe_json *json, uint32_t policy)
{
    const struct moe_study *s = json->study;
    json_t *out = json_object();
    for (uint32_t i = 0; i < MOE_PLAN_FIGURE_COUNT; i++) {
        const enum moe_plan_figure figure = (enum moe_plan_figure) i;
        const struct moe_estimate estimate = moe_plan_figure_estimate(s, policy, figure);
        json_t *object = json_object();
        json_t *seeds = json_array();
        for (uint32_t seed = 0; seed < s->seed_count; seed++) {
            moe_json_push(
                json, seeds,
                moe_json_real(moe_plan_figure_value(s, &s->policies[policy].runs[seed], figure)));
        }
        moe_json_put(json, object, "unit", json_string(moe_plan_figure_unit(figure)));
        moe_json_put(json, object, "mean", moe_json_real(estimate.mean));
        moe_json_put(json, object, "half_width", moe_json_real(estimate.half));
        moe_json_put(json, object, "seeds", seeds);
        moe_json_put(json, out, moe_plan_figure_name(figure), object);
    }
    return out;
}

static json_t *time_json(struct moe_json *json, const struct moe_critical_path *path)
{
    json_t *out = json_object();
    for (uint32_t part = 0; part < MOE_COST_PART_COUNT; part++) {
        json_t *object = json_object();
        for (uint32_t i = 0; i < MOE_PROVENANCE_COUNT; i++) {
            if (path->ns[part][i] != 0) {
                moe_json_put(json, object, moe_provenance_name((enum moe_provenance) i),
                             json_integer(path->ns[part][i]));
            }
        }
        moe_json_put(json, out, moe_cost_part_name((enum moe_cost_part) part), object);
    }
    return out;
}

static json_t *causes_json(struct moe_json *json, uint32_t policy,
                           const struct moe_finding_excess *excess)
{
    if (!json->study->policies[policy].runs[0].attributed) {
        return json_null();
    }
    json_t *out = json_object();
    for (uint32_t i = 0; i < MOE_CAUSE_COUNT; i++) {
        const struct moe_estimate without =
            moe_finding_without(json->study, policy, UINT32_C(1) << i);
        json_t *object = json_object();
        moe_json_put(json, object, "idle_ns", json_integer(excess->cause_ns[i]));
        moe_json_put(json, object, "without", moe_json_estimate(json, without));
        moe_json_put(json, out, moe_cause_name((enum moe_cause) i), object);
    }
    return out;
}

static json_t *layers_json(struct moe_json *json, uint32_t policy)
{
    json_t *out = json_object();
    json_t *ratio = json_array();
    json_t *idle = json_array();
    for (uint32_t i = 0; i < json->study->policies[policy].runs->layer_count; i++) {
        const struct moe_finding_layer layer = moe_finding_layer_of(json->study, policy, i);
        moe_json_push(json, ratio, moe_json_real(layer.imbalance));
        moe_json_push(json, idle, json_integer(layer.idle_ns));
    }
    moe_json_put(json, out, "max_over_mean", ratio);
    moe_json_put(json, out, "idle_ns", idle);
    return out;
}

static json_t *ranks_json(struct moe_json *json, uint32_t policy)
{
    json_t *out = json_object();
    json_t *last = json_array();
    json_t *lead = json_array();
    for (uint32_t i = 0; i < json->study->policies[policy].runs->gpu_count; i++) {
        const struct moe_finding_rank rank = moe_finding_rank_of(json->study, policy, i);
        moe_json_push(json, last, moe_json_count(rank.last));
        moe_json_push(json, lead, json_integer(rank.lead_ns));
    }
    moe_json_put(json, out, "last", last);
    moe_json_put(json, out, "lead_ns", lead);
    return out;
}

static json_t *experts_json(struct moe_json *json, uint32_t policy)
{
    struct moe_finding_expert worst[EXPERT_LIMIT];
    const uint32_t count = moe_finding_worst_experts(json->study, policy, worst, EXPERT_LIMIT);
    json_t *out = json_array();
    for (uint32_t i = 0; i < count; i++) {
        json_t *object = json_object();
        moe_json_put(json, object, "layer", json_integer(worst[i].layer));
        moe_json_put(json, object, "expert", json_integer(worst[i].expert));
        moe_json_put(json, object, "copies", json_integer(worst[i].copies));
        moe_json_put(json, object, "tokens", moe_json_count(worst[i].tokens));
        moe_json_put(json, object, "share", moe_json_real(worst[i].share));
        moe_json_put(json, object, "lead_ns", json_integer(worst[i].lead_ns));
        moe_json_push(json, out, object);
    }
    return out;
}

static json_t *stragglers_json(struct moe_json *json, uint32_t policy)
{
    const struct moe_finding_excess excess = moe_finding_excess(json->study, policy);
    json_t *out = json_object();
    moe_json_put(json, out, "idle_ns", json_integer(excess.idle_ns));
    moe_json_put(json, out, "gpu_time_ns", json_integer(excess.time_ns));
    moe_json_put(json, out, "steps", moe_json_count(excess.steps));
    moe_json_put(json, out, "barriers", moe_json_count(excess.barriers));
    moe_json_put(json, out, "causes", causes_json(json, policy, &excess));
    moe_json_put(json, out, "layers", layers_json(json, policy));
    moe_json_put(json, out, "ranks", ranks_json(json, policy));
    moe_json_put(json, out, "experts", experts_json(json, policy));
    return out;
}

static json_t *phase_json(struct moe_json *json, const struct moe_token_account *account)
{
    json_t *out = json_object();
    moe_json_put(json, out, "steps", moe_json_count(account->steps));
    moe_json_put(json, out, "tokens", moe_json_count(account->tokens));
    moe_json_put(json, out, "output_tokens", moe_json_count(account->output_tokens));
    moe_json_put(json, out, "requests", moe_json_count(account->requests));
    moe_json_put(json, out, "assignments", moe_json_count(account->assignments));
    moe_json_put(json, out, "time_ns", json_integer(account->time_ns));
    return out;
}

static json_t *score_json(struct moe_json *json, const struct moe_foresight_score *score)
{
    if (score->scored == 0) {
        return json_null();
    }
    json_t *out = json_object();
    moe_json_put(json, out, "scored", moe_json_count(score->scored));
    moe_json_put(json, out, "error_share", moe_json_real(score->error_share));
    moe_json_put(json, out, "wrong_share", moe_json_real(score->wrong_share));
    moe_json_put(json, out, "hit_rate", moe_json_real(score->hit_rate));
    return out;
}

/* How requests were served, all phases. */
static json_t *served_json(struct moe_json *json, const struct moe_run_result *run)
{
    json_t *out = json_object();
    moe_json_put(json, out, "requests", moe_json_count(run->served_requests));
    moe_json_put(json, out, "rows", moe_json_count(run->served_rows));
    moe_json_put(json, out, "preemptions", moe_json_count(run->preemptions));
    moe_json_put(json, out, "recomputed_rows", moe_json_count(run->recomputed_rows));
    moe_json_put(json, out, "hit_rows", moe_json_count(run->hit_rows));
    moe_json_put(json, out, "rejected_rows", moe_json_count(run->rejected_rows));
    moe_json_put(json, out, "repeated_rows", moe_json_count(run->repeated_rows));
    moe_json_put(json, out, "padded_rows", moe_json_count(run->padded_rows));
    moe_json_put(json, out, "lost_requests", moe_json_count(run->lost_requests));
    moe_json_put(json, out, "lost_rows", moe_json_count(run->lost_rows));
    moe_json_put(json, out, "dead_gpus", moe_json_count(run->dead_gpus));
    return out;
}

static json_t *online_json(struct moe_json *json, const struct moe_online_account *a)
{
    json_t *out = json_object();
    moe_json_put(json, out, "considered", moe_json_count(a->considered));
    moe_json_put(json, out, "plans", moe_json_count(a->plans));
    moe_json_put(json, out, "moved_slots", moe_json_count(a->moved_slots));
    moe_json_put(json, out, "moved_near_bytes", moe_json_real(a->moved_near_bytes));
    moe_json_put(json, out, "moved_far_bytes", moe_json_real(a->moved_far_bytes));
    moe_json_put(json, out, "moved_host_bytes", moe_json_real(a->moved_host_bytes));
    moe_json_put(json, out, "planner_ns", json_integer(a->planner_ns));
    moe_json_put(json, out, "move_ns", json_integer(a->move_ns));
    moe_json_put(json, out, "stall_ns", json_integer(a->stall_ns));
    moe_json_put(json, out, "scored_stall_ns", json_integer(a->scored_stall_ns));
    moe_json_put(json, out, "moving_steps", moe_json_count(a->moving_steps));
    moe_json_put(json, out, "slowed_ns", json_integer(a->slowed_ns));
    moe_json_put(json, out, "gain_ns", moe_json_real(a->gain_ns));
    return out;
}

static json_t *halves_json(struct moe_json *json, const struct moe_halves_account *a)
{
    if (a->steps == 0) {
        return json_null();
    }
    json_t *out = json_object();
    moe_json_put(json, out, "steps", moe_json_count(a->steps));
    moe_json_put(json, out, "time_ns", json_integer(a->time_ns));
    moe_json_put(json, out, "one_piece_ns", json_integer(a->one_piece_ns));
    moe_json_put(json, out, "exchange_ns", json_integer(a->use.exchange_ns));
    moe_json_put(json, out, "hidden_ns", json_integer(a->use.hidden_ns));
    return out;
}

static json_t *handover_json(struct moe_json *json, const struct moe_handover_account *a)
{
    json_t *out = json_object();
    moe_json_put(json, out, "count", moe_json_count(a->count));
    moe_json_put(json, out, "bytes", moe_json_real(a->bytes));
    moe_json_put(json, out, "place_ns", json_integer(a->place_ns));
    moe_json_put(json, out, "queue_ns", json_integer(a->queue_ns));
    moe_json_put(json, out, "send_ns", json_integer(a->send_ns));
    moe_json_put(json, out, "beside_ns", json_integer(a->beside_ns));
    moe_json_put(json, out, "longest_ns", json_integer(a->longest_ns));
    return out;
}

static json_t *fetch_json(struct moe_json *json, const struct moe_run_result *run)
{
    const struct moe_fetch_account *a = &run->fetch;
    if (a->slots == 0) {
        return json_null();
    }
    json_t *out = json_object();
    const double without = a->even_balance / (double) run->layer_steps;
    moe_json_put(json, out, "slots", moe_json_count(a->slots));
    moe_json_put(json, out, "near_copies", moe_json_count(a->near_copies));
    moe_json_put(json, out, "far_copies", moe_json_count(a->far_copies));
    moe_json_put(json, out, "near_bytes", moe_json_real((double) a->near_copies * a->expert_bytes));
    moe_json_put(json, out, "far_bytes", moe_json_real((double) a->far_copies * a->expert_bytes));
    moe_json_put(json, out, "layer_steps", moe_json_count(a->layer_steps));
    moe_json_put(json, out, "transfer_ns", moe_json_real(a->transfer_ns));
    moe_json_put(json, out, "exposed_ns", json_integer(a->exposed_ns));
    moe_json_put(json, out, "balance_without", moe_json_real(without));
    return out;
}

/* Of one run, or of one pool's. */
static json_t *plain_run_json(struct moe_json *json, const struct moe_run_result *run)
{
    json_t *out = json_object();
    json_t *account = json_object();
    json_t *causes = run->attributed ? json_object() : json_null();
    for (uint32_t i = 0; i < MOE_PHASE_COUNT; i++) {
        moe_json_put(json, account, moe_phase_name((enum moe_phase) i),
                     phase_json(json, &run->account[i]));
    }
    for (uint32_t i = 0; run->attributed && i < MOE_CAUSE_COUNT; i++) {
        moe_json_put(json, causes, moe_cause_name((enum moe_cause) i),
                     json_integer(run->cause_idle_ns[i]));
    }
    moe_json_put(json, out, "seed", moe_json_count(run->seed));
    moe_json_put(json, out, "fits", json_boolean(run->fits));
    moe_json_put(json, out, "account", account);
    moe_json_put(json, out, "unknown_assignments", moe_json_count(run->unknown_assignments));
    moe_json_put(json, out, "dropped_assignments", moe_json_count(run->dropped_assignments));
    moe_json_put(json, out, "moved_slots", moe_json_count(run->moved_slots));
    moe_json_put(json, out, "idle_ns", json_integer(run->idle_ns));
    moe_json_put(json, out, "causes_ns", causes);
    json_t *predicted = json_object();
    moe_json_put(json, predicted, "window", score_json(json, &run->foreseen_window));
    moe_json_put(json, predicted, "steps", score_json(json, &run->foreseen_steps));
    moe_json_put(json, out, "predicted", predicted);
    moe_json_put(json, out, "served", served_json(json, run));
    moe_json_put(json, out, "online", online_json(json, &run->online));
    moe_json_put(json, out, "fetch", fetch_json(json, run));
    moe_json_put(json, out, "halves", halves_json(json, &run->halves));
    return out;
}

/* The prefill pool's run, with what a policy's summary has of the decode pool only. */
static json_t *prefill_json(struct moe_json *json, const struct moe_run_result *prefill)
{
    json_t *out = plain_run_json(json, prefill);
    json_t *figures = json_object();
    for (uint32_t i = 0; i < MOE_METRIC_EVERY_COUNT; i++) {
        const enum moe_metric metric = (enum moe_metric) i;
        moe_json_put(json, figures, moe_metric_name(metric),
                     moe_json_real(moe_metric_value(metric, prefill)));
    }
    moe_json_put(json, out, "figures", figures);
    moe_json_put(json, out, "time_ns", time_json(json, &prefill->path));
    return out;
}

static json_t *run_json(struct moe_json *json, const struct moe_run_result *run)
{
    json_t *out = plain_run_json(json, run);
    json_t *pools = run->prefill != NULL ? json_object() : json_null();
    if (run->prefill != NULL) {
        moe_json_put(json, pools, "prefill", prefill_json(json, run->prefill));
        moe_json_put(json, pools, "handover", handover_json(json, &run->handover));
    }
    moe_json_put(json, out, "pools", pools);
    return out;
}

json_t *moe_json_policy(struct moe_json *json, uint32_t policy)
{
    const struct moe_study *s = json->study;
    const struct moe_policy_summary *p = &s->policies[policy];
    const bool compared = p->fits && s->policies[s->baseline].fits;
    const struct moe_critical_path path = moe_finding_path(s, policy);
    json_t *out = json_object();
    json_t *runs = json_array();
    for (uint32_t i = 0; i < s->seed_count; i++) {
        moe_json_push(json, runs, run_json(json, &p->runs[i]));
    }
    moe_json_put(json, out, "name", json_string(p->composition.label));
    moe_json_put(json, out, "fits", json_boolean(p->fits));
    moe_json_put(json, out, "why", p->fits ? json_null() : json_string(moe_finding_why(s, policy)));
    moe_json_put(json, out, "oracle", json_boolean(p->oracle));
    moe_json_put(json, out, "mark", json_string(moe_finding_mark(s, policy)));
    moe_json_put(json, out, "speedup",
                 compared ? moe_json_estimate(json, p->speedup) : json_null());
    moe_json_put(json, out, "metrics", p->fits ? metrics_json(json, p) : json_null());
    moe_json_put(json, out, "plan", plan_json(json, policy));
    moe_json_put(json, out, "time_ns", p->fits ? time_json(json, &path) : json_null());
    moe_json_put(json, out, "stragglers", p->fits ? stragglers_json(json, policy) : json_null());
    moe_json_put(json, out, "runs", runs);
    return out;
}
