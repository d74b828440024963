/*
 * JSON report, schema "moesim.report/1".
 *
 * The same study gives the same bytes: keys in the order below, two blanks of indent,
 * twelve significant digits, no wall time, no host, no path. A key that is listed is always
 * there; what does not apply is null. Keys may be added within version 1, never changed.
 * Half-widths are of 95 % intervals (Student's t over seeds), null with one seed; all times
 * are whole nanoseconds where the key ends in _ns; sums are over seeds unless under "runs".
 *
 * schema       "moesim.report/1"
 * asked
 *   scenario   name of the study
 *   model      name, source, layers, moe_layers, experts, top_k, hidden_size, expert_size,
 *              shared_size, expert_bytes, kv_bytes_per_token
 *   cluster    nodes, gpus_per_node, gpus, gpu, memory_bytes, reserve_bytes
 *   slots      physical slots per layer
 *   replicas   most copies beyond the first of each expert, all layers together; 0: no budget
 *   trace      name, hash, requests, tokens, layers, experts, top_k, mean_request_tokens
 *   replay     other_model (routing of one model with the sizes of another),
 *              repeated_layers (more layers than the trace has): both are assumptions
 *   serving    running_per_gpu, step_tokens, plan_share, passes, exchange, common_exit,
 *              shared_expert
 *   arrivals   null for a closed loop; else {kind, rate (null as recorded), recorded_rate (null
 *              when drawn), cv, file: {name, hash} or null, lengths, requests, last_s,
 *              prompt_tokens, output_tokens, hit_tokens (sums under the first seed),
 *              repeated_routes, slo: {ttft_ms, tpot_ms, share} or null}
 *   policies   [name], in the order of the array below
 *   baseline   name
 *   seeds      [seed]
 *   calibration  hash
 *   attribution, noise   on or off
 * account
 *   planned_requests, planned_tokens, scored_requests, scored_tokens, passes
 *   due_tokens what each run had to replay: planned_tokens + passes x scored_tokens
 *   complete   whether every run did, and counted each (token, layer, k) once
 * verdict
 *   baseline_fits
 *   best       name, or null when nothing can be ranked
 *   ties       [name]: their interval overlaps the best one's
 *   score      what speed-ups compare: output_rate, goodput or speed (of a request, 1 / mean
 *              end-to-end latency)
 *   bounds     null without a best; else
 *     perfect_balance    of the best policy: output_tokens_per_s, ratio (over as it was)
 *     no_copies          max_over_mean (the bound), best_max_over_mean, baseline_max_over_mean
 *     hindsight          policy, speedup; null when no oracle was run
 *   sensitivity
 *     tested   whether each cost part was moved by 20 %
 *     changes  [{part, scale, winner}]: where the verdict becomes another one
 *   provenance {measured: share, ...} of the best policy's time; null without a best
 *   tables     only of a calibration that was fitted: [{part, table, provenance, source, heldout,
 *              uneven}], the last two {status, mape, p95, gate_mape, gate_p95} or null
 * slow_gpus    [{seed, gpu, compute, memory, comm}]: drawn from the slow tail of the prior
 * overlay      only with --overlay: {hash, steps, policies: [{name, compared, left_out, bias,
 *              mape, p95, measured_ms, simulated_ms}]}
 * policies     [policy], see report_json_policy.c
 */
#include "sim/report/report_json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/report/figure.h"
#include "sim/report/finding.h"
#include "sim/report/report.h"

enum { JSON_FLAGS = JSON_INDENT(2) | JSON_REAL_PRECISION(12) };

void moe_json_put(struct moe_json *json, json_t *object, const char *key, json_t *value)
{
    json->failed = json_object_set_new(object, key, value) != 0 || json->failed;
}

void moe_json_push(struct moe_json *json, json_t *array, json_t *value)
{
    json->failed = json_array_append_new(array, value) != 0 || json->failed;
}

json_t *moe_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *moe_json_count(uint64_t value)
{
    if (value <= INT64_MAX) {
        return json_integer((json_int_t) value);
    }
    char digits[24];
    (void) snprintf(digits, sizeof digits, "%llu", (unsigned long long) value);
    return json_string(digits);
}

json_t *moe_json_estimate(struct moe_json *json, struct moe_estimate estimate)
{
    json_t *object = json_object();
    moe_json_put(json, object, "mean", moe_json_real(estimate.mean));
    moe_json_put(json, object, "half_width", moe_json_real(estimate.half));
    return object;
}

static json_t *name_of(const struct moe_json *json, uint32_t policy)
{
    return policy < json->study->policy_count
               ? json_string(json->study->policies[policy].composition.label)
               : json_null();
}

static json_t *model_json(struct moe_json *json)
{
    const struct moe_model *m = &json->study->scenario->model;
    json_t *out = json_object();
    moe_json_put(json, out, "name", json_string(m->name));
    moe_json_put(json, out, "source", json_string(m->source));
    moe_json_put(json, out, "layers", json_integer(m->layer_count));
    moe_json_put(json, out, "moe_layers", json_integer(m->moe_layer_count));
    moe_json_put(json, out, "experts", json_integer(m->expert_count));
    moe_json_put(json, out, "top_k", json_integer(m->top_k));
    moe_json_put(json, out, "hidden_size", json_integer(m->hidden_size));
    moe_json_put(json, out, "expert_size", json_integer(m->expert_size));
    moe_json_put(json, out, "shared_size", json_integer(m->shared_size));
    moe_json_put(json, out, "expert_bytes", moe_json_real(moe_model_expert_bytes(m)));
    moe_json_put(json, out, "kv_bytes_per_token", moe_json_real(moe_model_kv_bytes_per_token(m)));
    return out;
}

static json_t *cluster_json(struct moe_json *json)
{
    const struct moe_cluster *c = &json->study->scenario->cluster;
    json_t *out = json_object();
    moe_json_put(json, out, "nodes", json_integer(c->node_count));
    moe_json_put(json, out, "gpus_per_node", json_integer(c->gpus_per_node));
    moe_json_put(json, out, "gpus", json_integer(moe_cluster_gpu_count(c)));
    moe_json_put(json, out, "gpu", json_string(c->gpu));
    moe_json_put(json, out, "memory_bytes",
                 moe_json_real(json->study->policies[0].runs[0].memory.gpu_bytes));
    moe_json_put(json, out, "reserve_bytes", moe_json_real(c->reserve_bytes));
    return out;
}

static json_t *trace_json(struct moe_json *json)
{
    const struct moe_study *s = json->study;
    json_t *out = json_object();
    moe_json_put(json, out, "name", json_string(s->trace_model.name));
    moe_json_put(json, out, "hash", json_string(moe_figure_hash(s->trace_hash).text));
    moe_json_put(json, out, "requests", moe_json_count(s->trace_requests));
    moe_json_put(json, out, "tokens", moe_json_count(s->trace_tokens));
    moe_json_put(json, out, "layers", json_integer(s->trace_model.layer_count));
    moe_json_put(json, out, "experts", json_integer(s->trace_model.expert_count));
    moe_json_put(json, out, "top_k", json_integer(s->trace_model.top_k));
    moe_json_put(json, out, "mean_request_tokens", moe_json_real(s->mean_request_tokens));
    return out;
}

static const char *const exchange_names[] = {
    [MOE_EXCHANGE_EXACT] = "exact",
    [MOE_EXCHANGE_PADDED] = "padded",
    [MOE_EXCHANGE_HIERARCHICAL] = "hierarchical",
    [MOE_EXCHANGE_LOW_LATENCY] = "low_latency",
    [MOE_EXCHANGE_ALL_GATHER] = "all_gather",
};

static json_t *serving_json(struct moe_json *json)
{
    const struct moe_serving *v = &json->study->scenario->serving;
    json_t *out = json_object();
    moe_json_put(json, out, "running_per_gpu", json_integer(v->running_per_gpu));
    moe_json_put(json, out, "step_tokens", json_integer(v->step_tokens));
    moe_json_put(json, out, "plan_share", moe_json_real(v->plan_share));
    moe_json_put(json, out, "passes", json_integer(v->passes));
    moe_json_put(json, out, "exchange", json_string(exchange_names[v->exchange]));
    moe_json_put(json, out, "common_exit", json_boolean(v->common_exit));
    moe_json_put(json, out, "shared_expert",
                 json_string(v->shared == MOE_SHARED_SERIAL ? "serial" : "overlapped"));
    return out;
}

static json_t *asked_json(struct moe_json *json)
{
    const struct moe_study *s = json->study;
    const struct moe_scenario *scenario = s->scenario;
    json_t *out = json_object();
    json_t *replay = json_object();
    json_t *policies = json_array();
    json_t *seeds = json_array();
    json_t *calibration = json_object();
    moe_json_put(json, replay, "other_model",
                 json_boolean(strcmp(scenario->model.name, s->trace_model.name) != 0));
    moe_json_put(json, replay, "repeated_layers",
                 json_boolean(scenario->model.moe_layer_count > s->trace_model.layer_count));
    for (uint32_t i = 0; i < s->policy_count; i++) {
        moe_json_push(json, policies, name_of(json, i));
    }
    for (uint32_t i = 0; i < s->seed_count; i++) {
        moe_json_push(json, seeds, moe_json_count(scenario->first_seed + i));
    }
    moe_json_put(json, calibration, "hash", json_string(moe_figure_hash(s->calibration_hash).text));
    moe_json_put(json, out, "scenario", json_string(scenario->name));
    moe_json_put(json, out, "model", model_json(json));
    moe_json_put(json, out, "cluster", cluster_json(json));
    moe_json_put(json, out, "slots", json_integer(scenario->slot_count));
    moe_json_put(json, out, "replicas", json_integer(scenario->replica_budget));
    moe_json_put(json, out, "trace", trace_json(json));
    moe_json_put(json, out, "replay", replay);
    moe_json_put(json, out, "serving", serving_json(json));
    moe_json_put(json, out, "arrivals", moe_json_arrivals(json));
    moe_json_put(json, out, "policies", policies);
    moe_json_put(json, out, "baseline", name_of(json, s->baseline));
    moe_json_put(json, out, "seeds", seeds);
    moe_json_put(json, out, "calibration", calibration);
    moe_json_put(json, out, "attribution", json_boolean(scenario->attribution));
    moe_json_put(json, out, "noise", json_boolean(scenario->noise));
    return out;
}

static json_t *account_json(struct moe_json *json)
{
    const struct moe_study *s = json->study;
    json_t *out = json_object();
    moe_json_put(json, out, "planned_requests", moe_json_count(s->planned_requests));
    moe_json_put(json, out, "planned_tokens", moe_json_count(s->planned_tokens));
    moe_json_put(json, out, "scored_requests",
                 moe_json_count(s->trace_requests - s->planned_requests));
    moe_json_put(json, out, "scored_tokens", moe_json_count(s->trace_tokens - s->planned_tokens));
    moe_json_put(json, out, "passes", json_integer(s->scenario->serving.passes));
    moe_json_put(json, out, "due_tokens", moe_json_count(moe_finding_tokens_due(s)));
    moe_json_put(json, out, "complete", json_boolean(moe_finding_all_accounted(s)));
    return out;
}

static json_t *perfect_json(struct moe_json *json)
{
    const struct moe_study *s = json->study;
    const struct moe_policy_summary *best = &s->policies[s->best];
    if (!best->runs[0].attributed) {
        return json_null();
    }
    const struct moe_estimate ratio =
        moe_finding_without(s, s->best, UINT32_C(1) << MOE_CAUSE_ROUTING);
    json_t *out = json_object();
    moe_json_put(json, out, "output_tokens_per_s",
                 moe_json_real(best->metric[MOE_METRIC_OUTPUT_RATE].mean * ratio.mean));
    moe_json_put(json, out, "ratio", moe_json_estimate(json, ratio));
    return out;
}

static json_t *bounds_json(struct moe_json *json)
{
    const struct moe_study *s = json->study;
    const uint32_t oracle = moe_finding_oracle(s);
    json_t *out = json_object();
    json_t *copies = json_object();
    json_t *hindsight = json_null();
    moe_json_put(json, copies, "max_over_mean",
                 moe_json_real(moe_finding_no_copy_imbalance(s, s->best)));
    moe_json_put(json, copies, "best_max_over_mean",
                 moe_json_real(moe_finding_imbalance(s, s->best)));
    moe_json_put(json, copies, "baseline_max_over_mean",
                 moe_json_real(moe_finding_imbalance(s, s->baseline)));
    if (oracle < s->policy_count) {
        hindsight = json_object();
        moe_json_put(json, hindsight, "policy", name_of(json, oracle));
        moe_json_put(json, hindsight, "speedup",
                     moe_json_estimate(json, s->policies[oracle].speedup));
    }
    moe_json_put(json, out, "perfect_balance", perfect_json(json));
    moe_json_put(json, out, "no_copies", copies);
    moe_json_put(json, out, "hindsight", hindsight);
    return out;
}

static json_t *sensitivity_json(struct moe_json *json)
{
    const struct moe_study *s = json->study;
    json_t *out = json_object();
    json_t *changes = json_array();
    for (uint32_t i = 0; i < s->flip_count; i++) {
        json_t *flip = json_object();
        moe_json_put(json, flip, "part", json_string(moe_cost_part_name(s->flips[i].part)));
        moe_json_put(json, flip, "scale", moe_json_real(s->flips[i].scale));
        moe_json_put(json, flip, "winner", name_of(json, s->flips[i].winner));
        moe_json_push(json, changes, flip);
    }
    moe_json_put(json, out, "tested", json_boolean(s->sensitivity_known));
    moe_json_put(json, out, "changes", changes);
    return out;
}

static json_t *provenance_json(struct moe_json *json)
{
    const struct moe_critical_path path = moe_finding_path(json->study, json->study->best);
    const double all = (double) moe_finding_path_ns(&path);
    json_t *out = json_object();
    for (uint32_t i = 0; i < MOE_PROVENANCE_COUNT; i++) {
        const enum moe_provenance source = (enum moe_provenance) i;
        moe_json_put(json, out, moe_provenance_name(source),
                     moe_json_real((double) moe_finding_provenance_ns(&path, source) / all));
    }
    return out;
}

static json_t *quality_json(struct moe_json *json, const struct moe_calibration_fit_quality *row)
{
    static const char *const statuses[] = { "calibrated", "missed", "unchecked" };
    if (row == NULL) {
        return json_null();
    }
    json_t *out = json_object();
    moe_json_put(json, out, "status", json_string(statuses[row->status]));
    moe_json_put(json, out, "mape", moe_json_real(row->mape));
    moe_json_put(json, out, "p95", moe_json_real(row->p95));
    moe_json_put(json, out, "gate_mape", moe_json_real(row->gate_mape));
    moe_json_put(json, out, "gate_p95", moe_json_real(row->gate_p95));
    return out;
}

static json_t *tables_json(struct moe_json *json)
{
    json_t *out = json_array();
    for (uint32_t i = 0; i < json->study->source_count; i++) {
        const struct moe_cost_source *source = &json->study->sources[i];
        json_t *table = json_object();
        moe_json_put(json, table, "part", json_string(moe_cost_part_name(source->part)));
        moe_json_put(json, table, "table", json_string(source->table));
        moe_json_put(json, table, "provenance",
                     json_string(moe_provenance_name(source->provenance)));
        moe_json_put(json, table, "source", json_string(source->source));
        moe_json_put(json, table, "heldout", quality_json(json, source->heldout));
        moe_json_put(json, table, "uneven", quality_json(json, source->skew));
        moe_json_push(json, out, table);
    }
    return out;
}

static const char *const score_names[] = {
    [MOE_SCORE_OUTPUT_RATE] = "output_rate",
    [MOE_SCORE_GOODPUT] = "goodput",
    [MOE_SCORE_SPEED] = "speed",
};

static json_t *verdict_json(struct moe_json *json)
{
    const struct moe_study *s = json->study;
    const bool ranked = s->best < s->policy_count;
    json_t *out = json_object();
    json_t *ties = json_array();
    for (uint32_t i = 0; i < s->policy_count; i++) {
        if (s->policies[i].tie) {
            moe_json_push(json, ties, name_of(json, i));
        }
    }
    moe_json_put(json, out, "baseline_fits", json_boolean(s->policies[s->baseline].fits));
    moe_json_put(json, out, "best", name_of(json, s->best));
    moe_json_put(json, out, "ties", ties);
    moe_json_put(json, out, "score", json_string(score_names[s->score]));
    moe_json_put(json, out, "bounds", ranked ? bounds_json(json) : json_null());
    moe_json_put(json, out, "sensitivity", sensitivity_json(json));
    moe_json_put(json, out, "provenance", ranked ? provenance_json(json) : json_null());
    if (s->is_fitted) {
        moe_json_put(json, out, "tables", tables_json(json));
    }
    return out;
}

static json_t *slow_gpus_json(struct moe_json *json)
{
    const struct moe_study *s = json->study;
    json_t *out = json_array();
    for (uint32_t i = 0; i < s->seed_count; i++) {
        const struct moe_run_result *run = moe_finding_run_of_seed(s, i);
        for (uint32_t gpu = 0; run != NULL && gpu < run->gpu_count; gpu++) {
            if (run->gpu_in_tail[gpu]) {
                json_t *slow = json_object();
                moe_json_put(json, slow, "seed", moe_json_count(run->seed));
                moe_json_put(json, slow, "gpu", json_integer(gpu));
                moe_json_put(json, slow, "compute", moe_json_real(run->gpu_factor[gpu].compute));
                moe_json_put(json, slow, "memory", moe_json_real(run->gpu_factor[gpu].memory));
                moe_json_put(json, slow, "comm", moe_json_real(run->gpu_factor[gpu].comm));
                moe_json_push(json, out, slow);
            }
        }
    }
    return out;
}

static enum moe_status make_text(const struct moe_study *study, const struct moe_overlay *overlay,
                                 char **text, struct moe_error *err)
{
    struct moe_json json = { .study = study };
    json_t *root = json_object();
    json_t *policies = json_array();
    for (uint32_t i = 0; i < study->policy_count; i++) {
        moe_json_push(&json, policies, moe_json_policy(&json, i));
    }
    moe_json_put(&json, root, "schema", json_string("moesim.report/1"));
    moe_json_put(&json, root, "asked", asked_json(&json));
    moe_json_put(&json, root, "account", account_json(&json));
    moe_json_put(&json, root, "verdict", verdict_json(&json));
    moe_json_put(&json, root, "slow_gpus", slow_gpus_json(&json));
    if (overlay != NULL) {
        moe_json_put(&json, root, "overlay", moe_json_overlay(&json, overlay));
    }
    moe_json_put(&json, root, "policies", policies);
    char *dumped = json.failed ? NULL : json_dumps(root, JSON_FLAGS);
    json_decref(root);
    if (dumped == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for the JSON report");
    }
    *text = dumped;
    return MOE_OK;
}

enum moe_status moe_report_json_text(const struct moe_study *study, char **text,
                                     struct moe_error *err)
{
    return make_text(study, NULL, text, err);
}

static enum moe_status write(const struct moe_study *study,
                             const struct moe_report_options *options, FILE *out,
                             struct moe_error *err)
{
    char *text = NULL;
    MOE_TRY(make_text(study, options->overlay, &text, err));
    (void) fputs(text, out);
    (void) fputc('\n', out);
    free(text);
    return moe_report_stream_status(out, err);
}

const struct moe_report moe_report_json = {
    .name = "json",
    .summary = "for programs: everything, schema moesim.report/1",
    .write = write,
};
