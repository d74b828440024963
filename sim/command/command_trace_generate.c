/* `moesim trace generate` and `moesim trace fit`. */
#include <inttypes.h>
#include <stdio.h>

#include "sim/base/options.h"
#include "sim/command/command.h"
#include "sim/command/trace_command.h"
#include "traces/generate/generate.h"
#include "traces/generate/routing_model.h"

enum { USUAL_CLASSES = 128, USUAL_TOKENS = 100000 };

static void help(const struct moe_option *options, size_t option_count)
{
    size_t count = 0;
    const struct moe_generator *const *generators = moe_generators(&count);
    (void) fputs("usage: moesim trace generate WORKLOAD [OPTION ...] -o T.db\n", stdout);
    moe_options_print(stdout, options, option_count);
    (void) fputs("workloads:\n", stdout);
    for (size_t i = 0; i < count; i++) {
        (void) printf("  %-22s %s\n", generators[i]->name, generators[i]->summary);
    }
}

#define COUNT(name, field, value, words)                                                    \
    {                                                                                       \
        name, MOE_OPTION_COUNT, &generate.field, value, words, 0, (double) (UINT32_MAX - 1) \
    }

enum moe_status moe_trace_command_generate(int argc, char **argv, struct moe_error *err)
{
    const char *workload = NULL;
    const char *output = NULL;
    bool overwrite = false;
    struct moe_generate_options generate = { .seed = 1 };
    struct moe_generate_result result;
    const struct moe_generator *generator = NULL;
    const struct moe_option options[] = {
        { "o", MOE_OPTION_TEXT, &output, "T.db", "the trace store to write", 0, 0 },
        { "seed", MOE_OPTION_SEED, &generate.seed, "S", "of all that is drawn", 0, 0 },
        { "input", MOE_OPTION_TEXT, &generate.input, "FILE", "a dump of loads, or a fitted model",
          0, 0 },
        COUNT("requests", request_count, "N", "requests; of a fitted model, as many as it had"),
        COUNT("layers", layer_count, "N", "MoE layers"),
        COUNT("experts", expert_count, "N", "experts of a layer"),
        COUNT("top-k", top_k, "N", "experts that a token takes in a layer"),
        COUNT("groups", group_count, "N", "routing groups of consecutive experts; 0 = none"),
        COUNT("group-limit", group_limit, "N", "groups that a token may use; 0 = all"),
        COUNT("prompt-tokens", prompt_tokens, "N", "of each request; 0 = 256"),
        COUNT("output-tokens", output_tokens, "N", "of each request; 0 = 64"),
        COUNT("steps", step_count, "N", "of w0 to w7; 0 = 64"),
        COUNT("step-tokens", step_tokens, "N", "tokens of a step on all ranks; 0 = 4096"),
        COUNT("ranks", rank_count, "N", "source ranks and expert ranks; 0 = 8"),
        { "max-over-mean", MOE_OPTION_REAL, &generate.max_over_mean, "X",
          "of a layer's expert loads, for zipf", 0, 1e9 },
        { "heat", MOE_OPTION_REAL, &generate.heat, "X",
          "share of the choices that hot experts get; 0 = 0.5", 0, 1 },
        { "overwrite", MOE_OPTION_FLAG, &overwrite, NULL, "replace a trace store of other content",
          0, 0 },
    };
    const size_t option_count = sizeof options / sizeof options[0];
    struct moe_positionals inputs = { .items = &workload, .min = 1, .max = 1, .what = "WORKLOAD" };
    if (moe_command_wants_help(argc, argv)) {
        help(options, option_count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, option_count, &inputs, argc, argv, err));
    if (output == NULL) {
        return moe_fail(err, MOE_RANGE, "-o T.db is missing: where the trace store goes");
    }
    MOE_TRY(moe_generator_find(workload, &generator, err));
    MOE_TRY(moe_generate(generator, &generate, output, overwrite, stderr, &result, err));
    if (result.was_finished) {
        (void) printf("%s holds exactly this already; nothing was changed\n", output);
        return MOE_OK;
    }
    (void) printf("%s: %s, %" PRIu64 " requests, %" PRIu64
                  " tokens, %u layers of %u experts, top-%u, content %016" PRIx64 "\n",
                  output, result.model.name, result.request_count, result.row_count,
                  result.model.layer_count, result.model.expert_count, result.model.top_k,
                  result.hash);
    return MOE_OK;
}

enum moe_status moe_trace_command_fit(int argc, char **argv, struct moe_error *err)
{
    const char *input = NULL;
    const char *output = NULL;
    bool overwrite = false;
    uint32_t classes = USUAL_CLASSES;
    uint32_t tokens = USUAL_TOKENS;
    struct moe_routing_fit_options fit = { .seed = 1, .progress = stderr };
    struct moe_routing_model model = { 0 };
    struct moe_trace *trace = NULL;
    const struct moe_option options[] = {
        { "o", MOE_OPTION_TEXT, &output, "MODEL.json", "the model to write", 0, 0 },
        { "classes", MOE_OPTION_COUNT, &classes, "N", "kinds of tokens to tell apart", 1,
          MOE_ROUTING_CLASS_LIMIT },
        { "tokens", MOE_OPTION_COUNT, &tokens, "N",
          "tokens that classes are found on; popularity is counted on all", 1, 1e8 },
        { "seed", MOE_OPTION_SEED, &fit.seed, "S", "of the sample and of where the search begins",
          0, 0 },
        { "overwrite", MOE_OPTION_FLAG, &overwrite, NULL, "replace MODEL.json if it exists", 0, 0 },
    };
    const size_t option_count = sizeof options / sizeof options[0];
    struct moe_positionals inputs = { .items = &input, .min = 1, .max = 1, .what = "T.db" };
    if (moe_command_wants_help(argc, argv)) {
        (void) fputs("usage: moesim trace fit T.db -o MODEL.json\n", stdout);
        moe_options_print(stdout, options, option_count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, option_count, &inputs, argc, argv, err));
    if (output == NULL) {
        return moe_fail(err, MOE_RANGE, "-o MODEL.json is missing");
    }
    fit.class_count = classes;
    fit.token_limit = tokens;
    MOE_TRY(moe_trace_open(&trace, input, err));
    enum moe_status status = moe_routing_fit(&model, trace, &fit, err);
    moe_trace_close(trace);
    if (status == MOE_OK) {
        status = moe_routing_model_write(&model, output, overwrite, err);
    }
    if (status == MOE_OK) {
        uint32_t drifting = 0;
        for (uint32_t i = 0; i < model.class_count; i++) {
            drifting += model.class_drift[i] != 0.0;
        }
        (void) printf("%s: %u classes, %u of them drift; requests mix them with concentration "
                      "%.3g\n",
                      output, model.class_count, drifting, model.concentration);
    }
    moe_routing_model_finish(&model);
    return status;
}
