#include "sim/scenario/scenario.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policies/placement.h"
#include "policies/policy.h"
#include "sim/base/text_file.h"
#include "sim/scenario/scenario_check.h"
#include "sim/settings/settings.h"

enum { SCENARIO_FILE_BYTES = 1 << 20, WHERE_BYTES = 160 };

static const char *const exchange_names[] = { "exact",       "padded",     "hierarchical",
                                              "low_latency", "all_gather", NULL };
static const char *const arrival_names[] = { "closed", "trace",   "file",   "poisson",
                                             "gamma",  "weibull", "bursts", NULL };
static const char *const lengths_names[] = { "recorded", "trace", "lognormal", NULL };
static const char *const shared_names[] = { "overlapped", "serial", NULL };
static const char *const overlap_names[] = { "none", "two_batch", NULL };
static const char *const clock_names[] = { "burst", "sustained", NULL };
static const char *const online_mode_names[] = { "stall", "layers", "prefetch", NULL };
static const char *const online_source_names[] = { "peers", "host", NULL };
static const char *const transfer_names[] = { "after", "layered", NULL };
static const char *const first_token_names[] = { "decode", "prefill", NULL };
static const char *const kv_names[] = { "reserve", "pages", NULL };
static const char *const order_names[] = { "decode_first", "prefill_first", NULL };
static const char *const preempt_names[] = { "last_admitted", "least_output", NULL };

#define AT(field) .offset = offsetof(struct moe_scenario, field)
#define COUNT(key, field, low, high, text)                                                \
    {                                                                                     \
        .path = (key), .kind = MOE_SETTING_COUNT, AT(field), .min = (low), .max = (high), \
        .help = (text)                                                                    \
    }
#define REAL(key, field, low, high, factor, text)                                        \
    {                                                                                    \
        .path = (key), .kind = MOE_SETTING_REAL, AT(field), .min = (low), .max = (high), \
        .scale = (factor), .help = (text)                                                \
    }
#define TEXT(key, field, shortest, words)                                         \
    {                                                                             \
        .path = (key), .kind = MOE_SETTING_TEXT, AT(field), .min = (shortest),    \
        .text_bytes = sizeof(((struct moe_scenario *) 0)->field), .help = (words) \
    }
#define FLAG(key, field, text)                                             \
    {                                                                      \
        .path = (key), .kind = MOE_SETTING_FLAG, AT(field), .help = (text) \
    }
#define CHOICE(key, field, names, text)                                                          \
    {                                                                                            \
        .path = (key), .kind = MOE_SETTING_CHOICE, AT(field), .choices = (names), .help = (text) \
    }
#define ITEMS(array) (int) (sizeof(array) / sizeof((array)[0]))
#define LIST(key, field, counter, text)                                        \
    {                                                                          \
        .path = (key), .kind = MOE_SETTING_LIST, AT(field), .min = 0,          \
        .max = ITEMS(((struct moe_scenario *) 0)->field),                      \
        .text_bytes = sizeof(((struct moe_scenario *) 0)->field[0]),           \
        .count_offset = offsetof(struct moe_scenario, counter), .help = (text) \
    }

static const struct moe_setting items[] = {
    TEXT("name", name, 1, "name of the study, for the report"),
    TEXT("trace", trace_path, 0, "trace store; relative to the scenario file"),
    TEXT("model", model_ref, 0, "model card, or path of a .yaml card or HuggingFace .json"),
    TEXT("calibration", calibration_path, 0, "calibration database; empty = the built-in table"),
    COUNT("cluster.nodes", cluster.node_count, 1, 512, "nodes"),
    COUNT("cluster.gpus_per_node", cluster.gpus_per_node, 1, 72, "GPUs of a node"),
    TEXT("cluster.gpu", cluster.gpu, 1, "kind of GPU, as the calibration names it"),
    REAL("cluster.memory_gb", cluster.memory_bytes, 0, 10000, 1e9,
         "memory of a GPU in 10^9 bytes; 0 = as the calibration says"),
    REAL("cluster.reserve_gb", cluster.reserve_bytes, 0, 10000, 1e9,
         "of it kept for workspace, graphs and communication, in 10^9 bytes"),
    REAL("cluster.near_gb_s", cluster.near_bytes_s, 0, 100000, 1e9,
         "one-way bandwidth of a GPU inside its node in 10^9 bytes/s; 0 = as calibrated"),
    REAL("cluster.far_gb_s", cluster.far_bytes_s, 0, 100000, 1e9,
         "the same between nodes; 0 = as calibrated"),
    COUNT("slots", slot_count, 0, MOE_SLOT_EMPTY - 1,
          "physical expert slots per layer; 0 = one redundant slot per GPU"),
    COUNT("replicas", replica_budget, 0, 1U << 30,
          "most copies beyond the first of each expert, all layers together; 0 = the slots decide"),
    COUNT("serving.running_per_gpu", serving.running_per_gpu, 1, 65536,
          "requests kept running on each GPU (closed loop)"),
    COUNT("serving.step_tokens", serving.step_tokens, 1, 1 << 20,
          "most tokens that a GPU takes into one step"),
    REAL("serving.plan_share", serving.plan_share, 0.01, 0.9, 1,
         "share of the requests that policies plan on; the others are scored"),
    COUNT("serving.passes", serving.passes, 1, 10000, "times the scored requests are replayed"),
    CHOICE("serving.exchange", serving.exchange, exchange_names,
           "what the all-to-all moves, and how"),
    FLAG("serving.common_exit", serving.common_exit, "all ranks leave a collective together"),
    CHOICE("serving.shared_expert", serving.shared, shared_names,
           "shared experts beside the dispatch or after it"),
    CHOICE("serving.kv", serving.kv, kv_names,
           "KV cache: for the whole length at admission, or page by page with preemption"),
    COUNT("serving.page_tokens", serving.page_tokens, 1, 65536, "tokens of a KV page (kv: pages)"),
    CHOICE("serving.order", serving.order, order_names,
           "chunks of prompts beside who decodes (vLLM), or prompts alone and first (SGLang)"),
    CHOICE("serving.preempt", serving.preempt, preempt_names,
           "who gives way when pages run out: last admitted (vLLM), least output (SGLang)"),
    REAL("serving.output_reserve", serving.output_reserve, 0, 1, 1,
         "share of the outputs to come that admission keeps free (kv: pages); 0 as vLLM"),
    TEXT("serving.graph_sizes", serving.graph_sizes_text, 0,
         "token counts of captured graphs, parted by spaces: decode batches are padded to them"),
    CHOICE("serving.overlap", serving.overlap, overlap_names,
           "steps in one piece, or in two halves: each exchanges while the other computes"),
    COUNT("serving.overlap_tokens", serving.overlap_tokens, 2, 1 << 20,
          "tokens that every rank must have for a step to run in halves"),
    REAL("serving.overlap_compute", serving.overlap_compute, 0, 100, 1,
         "how much longer arithmetic takes beside an exchange; 0 = as calibrated, else 1"),
    REAL("serving.overlap_comm", serving.overlap_comm, 0, 100, 1,
         "how much longer an exchange takes beside arithmetic; 0 = as calibrated, else 1"),
    COUNT(
        "serving.attention_ranks", serving.attention_ranks, 1, 72,
        "GPUs that share one attention, tensor parallel, and what one GPU runs; 1 = data parallel"),
    COUNT("serving.drafts", serving.drafts, 0, MOE_SCENARIO_DRAFT_LIMIT,
          "tokens that a decoding request drafts beyond the next (multi-token prediction)"),
    REAL("serving.acceptance", serving.acceptance, 0, 1, 1,
         "probability that a draft is accepted when those before it were"),
    TEXT("serving.acceptances", serving.acceptances_text, 0,
         "the same by position, parted by spaces; those beyond them as the last"),
    COUNT("serving.draft_layers", serving.draft_layers, 0, 8,
          "MoE layers that drafting one token runs; 0 = drafts cost nothing"),
    CHOICE("arrivals.kind", arrivals.kind, arrival_names,
           "when requests come: closed loop, at recorded times, or drawn"),
    TEXT("arrivals.file", arrivals.file, 0,
         "store of arrivals (`moesim trace import`), for kind file; relative to the scenario file"),
    REAL("arrivals.rate", arrivals.rate, 0, 1e9, 1,
         "requests per second; recorded times are scaled to it, 0 = as recorded"),
    REAL("arrivals.cv", arrivals.cv, 0.05, 20, 1,
         "coefficient of variation of gamma and weibull gaps; 1 = as poisson"),
    REAL("arrivals.burst_on_s", arrivals.burst_on_s, 1e-3, 1e6, 1, "mean length of a burst in s"),
    REAL("arrivals.burst_off_s", arrivals.burst_off_s, 1e-3, 1e6, 1,
         "mean time between bursts in s"),
    REAL("arrivals.burst_share", arrivals.burst_share, 0, 1, 1,
         "share of the requests that come in bursts; 1 = silence between them"),
    LIST("arrivals.schedule", arrivals.schedule, arrivals.schedule_count,
         "SECONDS FACTOR: the rate over time as rate x factor, linear between points; drawn kinds"),
    COUNT("arrivals.requests", arrivals.requests, 0, 1U << 30,
          "requests that come; 0 = serving.passes times those of file or trace"),
    REAL("arrivals.duration_s", arrivals.duration_s, 0, 1e8, 1,
         "none comes from then on, in s; 0 = no limit"),
    CHOICE("arrivals.lengths", arrivals.lengths, lengths_names,
           "lengths of file or trace, of the trace, or drawn; routes are repeated to reach them"),
    REAL("arrivals.prompt_tokens", arrivals.prompt_tokens, 1, 1e7, 1, "lognormal: mean prompt"),
    REAL("arrivals.prompt_cv", arrivals.prompt_cv, 0, 20, 1,
         "its coefficient of variation; 0 = all the same"),
    REAL("arrivals.output_tokens", arrivals.output_tokens, 1, 1e7, 1, "lognormal: mean output"),
    REAL("arrivals.output_cv", arrivals.output_cv, 0, 20, 1, "its coefficient of variation"),
    COUNT("arrivals.longest_tokens", arrivals.longest_tokens, 1, 1U << 24,
          "drawn prompts and outputs are cut to it"),
    LIST("arrivals.drift", arrivals.drift, arrivals.drift_count,
         "SECONDS DOMAIN=WEIGHT ...: what the requests are about over time, linear between points"),
    LIST("arrivals.priorities", arrivals.priorities, arrivals.priority_count,
         "shares of the priority classes; the first is served first"),
    REAL("slo.ttft_ms", slo.ttft_ms, 0, 1e9, 1,
         "longest time from arrival to first token of a request served well, in ms; 0 = any"),
    REAL("slo.tpot_ms", slo.tpot_ms, 0, 1e9, 1,
         "longest mean time per output token after the first, in ms; 0 = any"),
    REAL("slo.share", slo.share, 0.01, 1, 1, "share of the requests that must meet the SLO"),
    LIST("hardware.events", hardware.events, hardware.event_count,
         "what if: 'slow gpu=N by=FACTOR', likewise 'clock' and 'link', 'dead gpu=N'; at=, for= "
         "seconds"),
    CHOICE("hardware.clock", hardware.clock, clock_names,
           "arithmetic as in bursts of milliseconds, or as under load that lasts"),
    REAL("hardware.sustained_factor", hardware.sustained_factor, 0, 10, 1,
         "how much longer it takes then; 0 = as calibrated"),
    REAL("hardware.recovery_s", hardware.recovery_s, 0, 1e6, 1,
         "how long serving stands still when a GPU dies, in s (a parameter)"),
    COUNT("online.every_steps", online.every_steps, 0, 1 << 30,
          "steps after which a placement is made anew from what they counted; 0 = never"),
    REAL("online.max_balance", online.max_balance, 0, 1, 1,
         "only when mean/max GPU load of those steps was below this; 1 = always"),
    CHOICE("online.mode", online.mode, online_mode_names,
           "serving stops, or weights move beside it layer by layer, or during the step before"),
    CHOICE("online.source", online.source, online_source_names,
           "weights come from GPUs that hold them, or from host memory"),
    REAL("online.planner_ms", online.planner_ms, 0, 1e7, 1,
         "time of one plan in ms (a parameter; engines: 10 to 100)"),
    REAL("online.layer_ms", online.layer_ms, 0, 1e6, 1,
         "fixed time per layer moved in ms (a parameter; engines: 1 to 20)"),
    COUNT("online.layers_per_step", online.layers_per_step, 1, 65536,
          "mode layers: most layers that change places in one step"),
    REAL("online.link_share", online.link_share, 0.01, 0.95, 1,
         "mode layers: share of the links that weights take from tokens"),
    REAL("online.host_gb_s", online.host_bytes_s, 0, 100000, 1e9,
         "host memory to one GPU in 10^9 bytes/s; 0 = as calibrated"),
    COUNT("pools.prefill_gpus", pools.prefill_gpus, 0, MOE_SCENARIO_GPU_LIMIT,
          "GPUs that only read prompts, the others only decode: whole nodes, or part of one; 0 = "
          "all do both"),
    COUNT("pools.prefill_slots", pools.slots[0], 0, MOE_SLOT_EMPTY - 1,
          "expert slots per layer of the prefill pool; 0 = one redundant slot per GPU"),
    COUNT("pools.decode_slots", pools.slots[1], 0, MOE_SLOT_EMPTY - 1, "the same of decode"),
    COUNT("pools.prefill_tokens", pools.tokens[0], 0, 1 << 20,
          "most tokens that a prefill GPU takes into a step; 0 = serving.step_tokens"),
    COUNT("pools.decode_tokens", pools.tokens[1], 0, 1 << 20, "the same of decode"),
    COUNT("pools.prefill_running", pools.running[0], 0, 65536,
          "requests on each prefill GPU; 0 = serving.running_per_gpu"),
    COUNT("pools.decode_running", pools.running[1], 0, 65536, "the same of decode"),
    CHOICE("pools.transfer", pools.transfer, transfer_names,
           "a prompt's KV cache goes over when it was read, or layer by layer meanwhile"),
    CHOICE("pools.first_token", pools.first_token, first_token_names,
           "who sends the first token: decode, with the cache, or prefill, before it"),
    COUNT("fetch.slots", fetch.slots, 0, 1024,
          "temporary slots of a GPU, for dispatch policies that fetch experts; 0 = none"),
    REAL("fetch.overlap", fetch.overlap, 0, 1, 1,
         "share of the time of such transfers that is hidden behind other work"),
    FLAG("fetch.relay", fetch.relay, "who gets a temporary copy passes it on while it comes"),
    { .path = "policies",
      .kind = MOE_SETTING_LIST,
      AT(policies),
      .min = 1,
      .max = MOE_SCENARIO_POLICY_LIMIT,
      .text_bytes = sizeof(((struct moe_scenario *) 0)->policies[0]),
      .count_offset = offsetof(struct moe_scenario, policy_count),
      .help = "policies to compare, each as PLACE[:name=value...][+dispatch=NAME...]..." },
    TEXT("baseline", baseline, 1, "policy that the others are compared against"),
    COUNT("seeds", seed_count, 1, 100, "runs per policy, each with its own hardware and noise"),
    { .path = "first_seed",
      .kind = MOE_SETTING_SEED,
      AT(first_seed),
      .help = "seed of the first run; the others follow" },
    FLAG("attribution", attribution, "split the straggler excess; test the verdict at +-20 %"),
    FLAG("noise", noise, "hardware factors and jitter"),
    COUNT("counted_layers", counted_layers, 0, 65535,
          "for speed: layers whose routes are counted in each step, a sample; 0 = all"),
};

static const struct moe_settings settings = {
    .noun = "scenario",
    .items = items,
    .count = sizeof items / sizeof items[0],
};

void moe_scenario_defaults(struct moe_scenario *scenario)
{
    static const char *const policies[] = { "contiguous", "round_robin", "random",
                                            "lpt",        "eplb",        "hindsight" };
    *scenario = (struct moe_scenario){
        .name = "study",
        .cluster = { .node_count = 4, .gpus_per_node = 8, .gpu = "H200", .reserve_bytes = 8e9 },
        .serving = { .running_per_gpu = 32,
                     .step_tokens = 8192,
                     .plan_share = 0.2,
                     .passes = 1,
                     .exchange = MOE_EXCHANGE_HIERARCHICAL,
                     .page_tokens = 16,
                     .overlap_tokens = 2,
                     .attention_ranks = 1,
                     .acceptance = 0.8,
                     .draft_layers = 1 },
        .hardware = { .recovery_s = 5.0 },
        .online = { .max_balance = 1.0,
                    .planner_ms = 50.0,
                    .layer_ms = 5.0,
                    .layers_per_step = 1,
                    .link_share = 0.5 },
        .fetch = { .slots = 2 },
        .policy_count = sizeof policies / sizeof policies[0],
        .baseline = "contiguous",
        .seed_count = 5,
        .first_seed = 1,
        .attribution = true,
        .noise = true,
        .slo = { .share = 0.99 },
    };
    moe_arrival_options_default(&scenario->arrivals);
    for (uint32_t i = 0; i < scenario->policy_count; i++) {
        (void) snprintf(scenario->policies[i], sizeof scenario->policies[i], "%s", policies[i]);
    }
}

/* Puts folder (with its slash) before a relative path. */
static enum moe_status resolve(char *path, const char *folder, size_t folder_length,
                               const char *name, const char *key, struct moe_error *err)
{
    char joined[MOE_SCENARIO_PATH_BYTES];
    if (path[0] == '\0' || path[0] == '/' || folder_length == 0) {
        return MOE_OK;
    }
    const int length = snprintf(joined, sizeof joined, "%.*s%s", (int) folder_length, folder, path);
    if (length < 0 || (size_t) length >= sizeof joined) {
        return moe_fail(err, MOE_RANGE,
                        "%.160s: %s: the path has %d bytes with its folder, at "
                        "most %d are allowed",
                        name, key, length, MOE_SCENARIO_PATH_BYTES - 1);
    }
    memcpy(path, joined, (size_t) length + 1);
    return MOE_OK;
}

/* The same for the plug-ins of a composition. */
static enum moe_status resolve_policy(char *text, const char *path, size_t folder_length,
                                      const char *key, struct moe_error *err)
{
    char folder[MOE_SCENARIO_PATH_BYTES];
    char resolved[MOE_COMPOSITION_BYTES];
    struct moe_error reason = { 0 };
    if (folder_length == 0 || strchr(text, '/') == NULL) {
        return MOE_OK;
    }
    (void) snprintf(folder, sizeof folder, "%.*s", (int) folder_length, path);
    const enum moe_status status = moe_composition_resolve(text, folder, resolved, &reason);
    if (status != MOE_OK) {
        return moe_fail(err, status, "%.160s: %s: %s", path, key, reason.text);
    }
    memcpy(text, resolved, strlen(resolved) + 1);
    return MOE_OK;
}

static enum moe_status resolve_paths(struct moe_scenario *scenario, const char *path,
                                     struct moe_error *err)
{
    const char *slash = strrchr(path, '/');
    const size_t length = slash == NULL ? 0 : (size_t) (slash - path) + 1;
    MOE_TRY(resolve(scenario->trace_path, path, length, path, "trace", err));
    MOE_TRY(resolve(scenario->calibration_path, path, length, path, "calibration", err));
    MOE_TRY(resolve(scenario->arrivals.file, path, length, path, "arrivals.file", err));
    if (moe_model_ref_is_path(scenario->model_ref)) {
        MOE_TRY(resolve(scenario->model_ref, path, length, path, "model", err));
    }
    for (uint32_t i = 0; i < scenario->policy_count; i++) {
        MOE_TRY(resolve_policy(scenario->policies[i], path, length, "policies", err));
    }
    return resolve_policy(scenario->baseline, path, length, "baseline", err);
}

struct moe_placement_shape moe_scenario_shape(const struct moe_scenario *scenario)
{
    return (struct moe_placement_shape){
        .layer_count = scenario->model.moe_layer_count,
        .expert_count = scenario->model.expert_count,
        .slot_count = scenario->slot_count,
        .gpu_count = moe_cluster_gpu_count(&scenario->cluster),
        .node_count = scenario->cluster.node_count,
        .group_count = scenario->model.group_count,
    };
}

/* Completed, with the file in front of what is refused. */
static enum moe_status complete_from(struct moe_scenario *scenario, const char *name,
                                     struct moe_error *err)
{
    struct moe_error reason = { 0 };
    const enum moe_status status = moe_scenario_complete(scenario, &reason);
    if (status == MOE_OK || name == NULL) {
        if (status != MOE_OK && err != NULL) {
            *err = reason;
        }
        return status;
    }
    const size_t length = strlen(name);
    return moe_fail(err, status, "%s: %s",
                    length > WHERE_BYTES ? name + length - WHERE_BYTES : name, reason.text);
}

enum moe_status moe_scenario_load(struct moe_scenario *scenario, const char *path,
                                  const char *const *overrides, uint32_t override_count,
                                  struct moe_error *err)
{
    struct moe_scenario read;
    moe_scenario_defaults(&read);
    if (path != NULL) {
        char *text = NULL;
        size_t bytes = 0;
        MOE_TRY(moe_text_file_read(path, SCENARIO_FILE_BYTES, &text, &bytes, err));
        const enum moe_status status = moe_settings_read(&settings, &read, text, bytes, path, err);
        free(text);
        MOE_TRY(status);
        MOE_TRY(resolve_paths(&read, path, err));
    }
    for (uint32_t i = 0; i < override_count; i++) {
        MOE_TRY(moe_settings_override(&settings, &read, overrides[i], err));
    }
    MOE_TRY(complete_from(&read, path, err));
    *scenario = read;
    return MOE_OK;
}

enum moe_status moe_scenario_parse(struct moe_scenario *scenario, const char *text,
                                   const char *name, struct moe_error *err)
{
    struct moe_scenario read;
    moe_scenario_defaults(&read);
    MOE_TRY(moe_settings_read(&settings, &read, text, strlen(text), name, err));
    MOE_TRY(complete_from(&read, name, err));
    *scenario = read;
    return MOE_OK;
}

void moe_scenario_write(const struct moe_scenario *scenario, char *text, uint32_t text_bytes)
{
    (void) moe_settings_write(&settings, scenario, text, text_bytes);
}

void moe_scenario_print_keys(FILE *out)
{
    struct moe_scenario defaults;
    moe_scenario_defaults(&defaults);
    moe_settings_print(out, &settings, &defaults);
}

enum moe_status moe_scenario_check_trace(const struct moe_scenario *scenario,
                                         uint32_t trace_experts, uint32_t trace_top_k,
                                         struct moe_error *err)
{
    const struct moe_model *model = &scenario->model;
    if (trace_experts == model->expert_count && trace_top_k == model->top_k) {
        return MOE_OK;
    }
    return moe_fail(err, MOE_RANGE,
                    "trace %.160s has %u experts and top-%u, model %s has %u and top-%u: both "
                    "must be equal to replay one with the sizes of the other",
                    scenario->trace_path, trace_experts, trace_top_k, model->name,
                    model->expert_count, model->top_k);
}
