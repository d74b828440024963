/* `moesim compare T.db --model M --gpus N`: a study without a scenario file. What is not
 * given is chosen, and the report says what was. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sim/arrival/workload.h"
#include "sim/command/command.h"
#include "sim/command/compare_loads.h"
#include "sim/command/study_command.h"

enum {
    OWN_OPTION_COUNT = 6,
    OVERRIDE_LIMIT = MOE_OPTION_LIST_LIMIT + 16,
    OVERRIDE_BYTES = MOE_SCENARIO_PATH_BYTES + 16,
    GPUS_PER_NODE = 8,      /* of the usual server */
    SCORED_PER_RUNNING = 8, /* so that the loop is in its steady state for most of the time */
    PASS_LIMIT = 10000,     /* as serving.passes allows */
    CHOSEN_BYTES = 1024,
};

struct compare_request {
    struct moe_study_command study;
    const char *trace;
    const char *model;
    const char *policies;
    const char *baseline;
    uint32_t gpus;
    uint32_t nodes; /* 0: chosen */
    uint32_t slots; /* 0: chosen */
    char chosen[CHOSEN_BYTES];
};

/* Overrides in the making: our own, then the user's. */
struct overrides {
    char text[16][OVERRIDE_BYTES];
    const char *items[OVERRIDE_LIMIT];
    uint32_t count;
};

static enum moe_status add(struct overrides *overrides, const char *key, const char *value,
                           struct moe_error *err)
{
    char *text = overrides->text[overrides->count];
    if ((size_t) snprintf(text, OVERRIDE_BYTES, "%s=%s", key, value) >= OVERRIDE_BYTES) {
        return moe_fail(err, MOE_RANGE, "%s: a text of %zu bytes; at most %d are allowed", key,
                        strlen(value), MOE_SCENARIO_PATH_BYTES - 1);
    }
    overrides->items[overrides->count++] = text;
    return MOE_OK;
}

static enum moe_status add_count(struct overrides *overrides, const char *key, uint32_t value,
                                 struct moe_error *err)
{
    char digits[16];
    (void) snprintf(digits, sizeof digits, "%u", value);
    return add(overrides, key, digits, err);
}

/* One more chosen default, for the report. */
static void choose(struct compare_request *request, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void choose(struct compare_request *request, const char *format, ...)
{
    const size_t used = strlen(request->chosen);
    int length = snprintf(request->chosen + used, CHOSEN_BYTES - used, "%s", used == 0 ? "" : "; ");
    va_list arguments;
    va_start(arguments, format);
    (void) vsnprintf(request->chosen + used + length, CHOSEN_BYTES - used - (size_t) length, format,
                     arguments);
    va_end(arguments);
}

/* Whether the user set that key by --set. */
static bool is_set(const struct compare_request *request, const char *key)
{
    const size_t length = strlen(key);
    for (size_t i = 0; i < request->study.sets.count; i++) {
        const char *item = request->study.sets.items[i];
        if (strncmp(item, key, length) == 0 && item[length] == '=') {
            return true;
        }
    }
    return false;
}

static enum moe_status choose_cluster(struct compare_request *request, struct overrides *overrides,
                                      struct moe_error *err)
{
    uint32_t nodes = request->nodes;
    if (nodes == 0) {
        nodes = request->gpus > GPUS_PER_NODE && request->gpus % GPUS_PER_NODE == 0
                    ? request->gpus / GPUS_PER_NODE
                    : 1;
        choose(request, "%u node%s of %u GPUs", nodes, nodes == 1 ? "" : "s",
               request->gpus / nodes);
    }
    if (request->gpus % nodes != 0) {
        return moe_fail(err, MOE_RANGE, "--gpus %u do not divide over --nodes %u", request->gpus,
                        nodes);
    }
    MOE_TRY(add_count(overrides, "cluster.nodes", nodes, err));
    return add_count(overrides, "cluster.gpus_per_node", request->gpus / nodes, err);
}

/* Whether list, parted by commas, names item. */
static bool names(const char *list, const char *item)
{
    const size_t length = strlen(item);
    for (const char *p = list; p != NULL; p = strchr(p, ',')) {
        p += strspn(p, ", ");
        if (strncmp(p, item, length) == 0 && strchr(", ", p[length]) != NULL) {
            return true;
        }
    }
    return false;
}

static enum moe_status choose_policies(struct compare_request *request, struct overrides *overrides,
                                       struct moe_error *err)
{
    if (request->policies != NULL) {
        MOE_TRY(add(overrides, "policies", request->policies, err));
    }
    if (request->baseline != NULL) {
        return add(overrides, "baseline", request->baseline, err);
    }
    if (request->policies == NULL || names(request->policies, "contiguous") ||
        is_set(request, "baseline")) {
        return MOE_OK;
    }
    char first[MOE_COMPOSITION_BYTES];
    const char *list = request->policies + strspn(request->policies, ", ");
    (void) snprintf(first, sizeof first, "%.*s", (int) strcspn(list, ", "), list);
    choose(request, "%s is the baseline", first);
    return add(overrides, "baseline", first, err);
}

/* Everything but the passes, which need the trace. */
static enum moe_status load(struct compare_request *request, struct moe_error *err)
{
    struct overrides overrides = { 0 };
    struct moe_scenario *scenario = &request->study.scenario;
    MOE_TRY(add(&overrides, "name", "compare", err));
    MOE_TRY(add(&overrides, "trace", request->trace, err));
    MOE_TRY(add(&overrides, "model", request->model, err));
    MOE_TRY(add_count(&overrides, "slots", request->slots, err));
    MOE_TRY(choose_cluster(request, &overrides, err));
    MOE_TRY(choose_policies(request, &overrides, err));
    for (size_t i = 0; i < request->study.sets.count; i++) {
        overrides.items[overrides.count++] = request->study.sets.items[i];
    }
    MOE_TRY(moe_scenario_load(scenario, NULL, overrides.items, overrides.count, err));
    if (moe_cluster_gpu_count(&scenario->cluster) != request->gpus) {
        return moe_fail(err, MOE_RANGE, "--gpus %u, but --set makes it %u nodes of %u GPUs",
                        request->gpus, scenario->cluster.node_count,
                        scenario->cluster.gpus_per_node);
    }
    if (request->slots != 0 && scenario->slot_count != request->slots) {
        return moe_fail(err, MOE_RANGE, "--slots %u, but --set slots=%u", request->slots,
                        scenario->slot_count);
    }
    if (request->slots == 0 && !is_set(request, "slots")) {
        choose(request, "%u slots, a redundant one for each GPU", scenario->slot_count);
    }
    if (!is_set(request, "cluster.gpu")) {
        choose(request, "%s GPUs", scenario->cluster.gpu);
    }
    if (!is_set(request, "serving.running_per_gpu")) {
        choose(request, "%u requests running per GPU", scenario->serving.running_per_gpu);
    }
    if (!is_set(request, "serving.plan_share")) {
        choose(request, "planning on %g of the requests", scenario->serving.plan_share);
    }
    if (!is_set(request, "seeds")) {
        choose(request, "%u seeds", scenario->seed_count);
    }
    return MOE_OK;
}

/* Enough passes that the start and the end of the loop matter little. */
static enum moe_status choose_passes(struct compare_request *request, struct moe_error *err)
{
    struct moe_scenario *scenario = &request->study.scenario;
    struct moe_trace *trace = NULL;
    if (is_set(request, "serving.passes")) {
        return MOE_OK;
    }
    MOE_TRY(moe_trace_open(&trace, scenario->trace_path, err));
    const uint64_t requests = moe_trace_request_count(trace);
    moe_trace_close(trace);
    if (requests < 2 || requests >= UINT32_MAX) {
        return moe_fail(err, MOE_RANGE, "%.200s: has %" PRIu64 " requests; 2 to %u can be replayed",
                        scenario->trace_path, requests, UINT32_MAX - 1);
    }
    const uint64_t scored =
        requests - moe_workload_planned_count((uint32_t) requests, scenario->serving.plan_share);
    const uint64_t running = (uint64_t) scenario->serving.running_per_gpu * request->gpus;
    const uint64_t passes = (SCORED_PER_RUNNING * running + scored - 1) / scored;
    if (passes > PASS_LIMIT) {
        return moe_fail(err, MOE_RANGE,
                        "%.200s: %" PRIu64 " requests to score are too few for %" PRIu64
                        " running ones (%" PRIu64 " passes, at most %d); lower --gpus or --set "
                        "serving.running_per_gpu=N",
                        scenario->trace_path, scored, running, passes, PASS_LIMIT);
    }
    scenario->serving.passes = (uint32_t) passes;
    choose(request,
           "%" PRIu64 " pass%s over the scored requests, so that %d follow each running one",
           passes, passes == 1 ? "" : "es", SCORED_PER_RUNNING);
    return MOE_OK;
}

static enum moe_status parse(struct compare_request *request, int argc, char **argv, bool help,
                             struct moe_error *err)
{
    const struct moe_option own[OWN_OPTION_COUNT] = {
        { "model", MOE_OPTION_TEXT, &request->model, "NAME",
          "card (`moesim models`), .yaml card or HuggingFace .json; needed", 0, 0 },
        { "gpus", MOE_OPTION_COUNT, &request->gpus, "N", "GPUs in all; needed", 1,
          MOE_SCENARIO_GPU_LIMIT },
        { "nodes", MOE_OPTION_COUNT, &request->nodes, "N",
          "nodes; 0 = of 8 GPUs each when they divide, else one", 0, 512 },
        { "slots", MOE_OPTION_COUNT, &request->slots, "N",
          "physical expert slots per layer; 0 = one redundant slot per GPU", 0, 65534 },
        { "policies", MOE_OPTION_TEXT, &request->policies, "A,B,...",
          "policies to compare (`moesim policies`); ./F.so is a plug-in, ./F a plan file", 0, 0 },
        { "baseline", MOE_OPTION_TEXT, &request->baseline, "NAME",
          "policy to compare against: contiguous, or the first that is named", 0, 0 },
    };
    struct moe_option options[OWN_OPTION_COUNT + MOE_STUDY_OPTION_COUNT];
    struct moe_positionals inputs = {
        .items = &request->trace, .min = 1, .max = 1, .what = "T.db"
    };
    const size_t count = sizeof options / sizeof options[0];
    memcpy(options, own, sizeof own);
    moe_study_command_options(&request->study, options + OWN_OPTION_COUNT);
    if (help) {
        (void) puts("usage: moesim compare T.db --model NAME --gpus N [OPTION ...]\n"
                    "       moesim compare --loads DUMP --gpus N [OPTION ...]    (balance only; "
                    "--loads --help)");
        moe_options_print(stdout, options, count);
        moe_study_command_print_forms();
        (void) puts("keys of --set:");
        moe_scenario_print_keys(stdout);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, count, &inputs, argc, argv, err));
    if (request->model == NULL || request->gpus == 0) {
        return moe_fail(err, MOE_RANGE, "%s is needed; `moesim compare --help` says what it is",
                        request->model == NULL ? "--model" : "--gpus");
    }
    return moe_study_command_settle(&request->study, err);
}

static enum moe_status run(int argc, char **argv, struct moe_error *err)
{
    static struct compare_request request; /* 20 KiB */
    const bool help = moe_command_wants_help(argc, argv);
    if (moe_compare_loads_is_wanted(argc, argv)) {
        return moe_compare_loads(argc, argv, err);
    }
    request = (struct compare_request){ 0 };
    moe_study_command_init(&request.study);
    MOE_TRY(parse(&request, argc, argv, help, err));
    if (help) {
        return MOE_OK;
    }
    MOE_TRY(load(&request, err));
    MOE_TRY(choose_passes(&request, err));
    request.study.report.chosen = request.chosen;
    return moe_study_command_run(&request.study, err);
}

const struct moe_command moe_command_compare = {
    .name = "compare",
    .summary = "the same without a scenario file: a trace, a model, a number of GPUs",
    .run = run,
};
