/* `moesim plan export`, `moesim plan import`, and what they share with `moesim plan`. */
#include "sim/command/plan_command.h"

#include <stdio.h>

#include "sim/command/command.h"
#include "sim/report/run_plan.h"
#include "traces/trace_store.h"

enum moe_status moe_plan_output_settle(struct moe_plan_output *output, struct moe_error *err)
{
    struct moe_error reason = { 0 };
    if (output->name == NULL) {
        return output->path == NULL ? MOE_OK : moe_fail(err, MOE_RANGE, "-o needs --export FORMAT");
    }
    return moe_plan_format_find(output->name, &output->format, &reason) == MOE_OK
               ? MOE_OK
               : moe_fail(err, MOE_RANGE, "--export: %s", reason.text);
}

void moe_plan_output_print_formats(void)
{
    size_t count = 0;
    const struct moe_plan_format *const *formats = moe_plan_formats(&count);
    (void) puts("formats of plans:");
    for (size_t i = 0; i < count; i++) {
        (void) printf("  %-12s %s\n", formats[i]->name, formats[i]->summary);
    }
}

enum moe_status moe_plan_output_write(const struct moe_plan_output *output,
                                      const struct moe_plan *plan, struct moe_error *err)
{
    return moe_plan_write(plan, output->format, output->path, output->overwrite, err);
}

enum moe_status moe_plan_output_fill_and_write(const struct moe_plan_output *output,
                                               struct moe_plan *plan, struct moe_error *err)
{
    uint64_t filled = 0;
    if (!output->format->takes_empty) {
        MOE_TRY(moe_plan_fill(&plan->placement, &filled, err));
    }
    MOE_TRY(moe_plan_output_write(output, plan, err));
    if (filled > 0) {
        (void) fprintf(stderr,
                       "%llu empty slot(s) repeat an expert of the same GPU, because %s needs one "
                       "in every slot; no GPU's load changes\n",
                       (unsigned long long) filled, output->format->name);
    }
    return MOE_OK;
}

/* On standard error, since the plan may go to standard output. */
static void describe(const struct moe_plan *plan, const char *from, const char *what)
{
    const struct moe_placement_shape *shape = &plan->placement.shape;
    const size_t cells = (size_t) shape->layer_count * shape->slot_count;
    uint64_t used = 0;
    for (size_t i = 0; i < cells; i++) {
        used += plan->placement.expert_of_slot[i] != MOE_SLOT_EMPTY;
    }
    (void) fprintf(stderr, "%s: %s, %u layers of %u experts in %u slots", from, what,
                   shape->layer_count, shape->expert_count, shape->slot_count);
    if (plan->gpus_stated) {
        (void) fprintf(stderr, " on %u GPUs", shape->gpu_count);
    }
    (void) fprintf(stderr, ", %.1f redundant copies per layer\n",
                   (double) used / shape->layer_count - shape->expert_count);
    if (plan->note[0] != '\0') {
        (void) fprintf(stderr, "note: %s\n", plan->note);
    }
}

/* What numbers the layers of a plan that does not state them, or states others. */
struct numbering {
    const char *first; /* NULL: not said */
    uint32_t step;
};

static enum moe_status number(struct moe_plan *plan, const struct numbering *numbering,
                              struct moe_error *err)
{
    uint64_t first = 0;
    if (numbering->first == NULL) {
        return MOE_OK;
    }
    MOE_TRY(moe_parse_count(numbering->first, "--first-layer", 0, MOE_TRACE_LAYER_LIMIT - 1, &first,
                            err));
    return plan->lists_dense ? moe_plan_keep(plan, (uint32_t) first, numbering->step, err)
                             : moe_plan_number(plan, (uint32_t) first, numbering->step, err);
}

#define NUMBERING_OPTIONS(numbering)                                                          \
    { "first-layer",                                                                          \
      MOE_OPTION_TEXT,                                                                        \
      &(numbering).first,                                                                     \
      "N",                                                                                    \
      "number of the first MoE layer among the model's layers, for engines that number them", \
      0,                                                                                      \
      0 },                                                                                    \
    {                                                                                         \
        "layer-step", MOE_OPTION_COUNT, &(numbering).step, "N",                               \
            "from one MoE layer's number "                                                    \
            "to the next one's",                                                              \
            1, MOE_TRACE_LAYER_LIMIT - 1                                                      \
    }

enum moe_status moe_plan_command_export(int argc, char **argv, struct moe_error *err)
{
    struct moe_plan_output output = { .name = "sglang" };
    struct numbering numbering = { .step = 1 };
    struct moe_run_plan_choice choice = { 0 };
    struct moe_run_plan_found found;
    struct moe_plan plan = { 0 };
    const char *run_path = NULL;
    const char *seed = NULL;
    const struct moe_option options[] = {
        { "run", MOE_OPTION_TEXT, &run_path, "RUN.db", "what `moesim run -o RUN.db` wrote", 0, 0 },
        { "policy", MOE_OPTION_TEXT, &choice.policy, "NAME",
          "whose plan, as the report names it; without it the best one's", 0, 0 },
        { "seed", MOE_OPTION_TEXT, &seed, "S", "of which seed; without it the first one's", 0, 0 },
        NUMBERING_OPTIONS(numbering),
        MOE_PLAN_OUTPUT_OPTIONS(output),
    };
    const size_t count = sizeof options / sizeof options[0];
    struct moe_positionals none = { 0 };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim plan export --run RUN.db [OPTION ...]");
        moe_options_print(stdout, options, count);
        moe_plan_output_print_formats();
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, count, &none, argc, argv, err));
    if (run_path == NULL) {
        return moe_fail(err, MOE_RANGE,
                        "--run is needed; `moesim plan export --help` says what it "
                        "is");
    }
    MOE_TRY(moe_plan_output_settle(&output, err));
    if (seed != NULL) {
        choice.seed_is_given = true;
        MOE_TRY(moe_parse_count(seed, "--seed", 0, UINT64_MAX, &choice.seed, err));
    }
    MOE_TRY(moe_run_plan_read(&plan, &found, run_path, &choice, err));
    enum moe_status status = number(&plan, &numbering, err);
    if (status == MOE_OK) {
        status = moe_plan_output_fill_and_write(&output, &plan, err);
    }
    if (status == MOE_OK) {
        describe(&plan, run_path, found.policy);
        if (found.dense_layers > 0 && numbering.first == NULL) {
            (void) fprintf(stderr,
                           "assumed: the model's %u dense layers come first; --first-layer and "
                           "--layer-step say otherwise\n",
                           found.dense_layers);
        }
    }
    moe_plan_finish(&plan);
    return status;
}

/* Devices for forms that list them, where the plan's own form does not say. */
static enum moe_status set_gpus(struct moe_plan *plan, uint32_t gpu_count, const char *path,
                                struct moe_error *err)
{
    struct moe_placement_shape *shape = &plan->placement.shape;
    if (gpu_count == 0) {
        return MOE_OK;
    }
    if (plan->gpus_stated && shape->gpu_count != gpu_count) {
        return moe_fail(err, MOE_RANGE, "--gpus %u: %.200s is a plan for %u GPUs", gpu_count, path,
                        shape->gpu_count);
    }
    if (shape->slot_count % gpu_count != 0) {
        return moe_fail(err, MOE_RANGE,
                        "--gpus %u: %.200s has %u slots, which do not divide over "
                        "them",
                        gpu_count, path, shape->slot_count);
    }
    shape->gpu_count = gpu_count;
    plan->gpus_stated = true;
    return MOE_OK;
}

enum moe_status moe_plan_command_import(int argc, char **argv, struct moe_error *err)
{
    struct moe_plan_output output = { 0 };
    struct numbering numbering = { .step = 1 };
    const struct moe_plan_format *format = NULL;
    struct moe_plan plan = { 0 };
    const char *path = NULL;
    uint32_t gpu_count = 0;
    const struct moe_option options[] = {
        { "gpus", MOE_OPTION_COUNT, &gpu_count, "N", "GPUs, where the file does not say", 0,
          MOE_SLOT_EMPTY - 1 },
        NUMBERING_OPTIONS(numbering),
        MOE_PLAN_OUTPUT_OPTIONS(output),
    };
    const size_t count = sizeof options / sizeof options[0];
    struct moe_positionals inputs = { .items = &path, .min = 1, .max = 1, .what = "a plan" };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim plan import FILE [OPTION ...]\n"
                    "  Finds the form by content, checks it and says what it holds; with --export "
                    "writes it in\n  another form. `--policies ./FILE,eplb` of compare and run "
                    "scores it.");
        moe_options_print(stdout, options, count);
        moe_plan_output_print_formats();
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, count, &inputs, argc, argv, err));
    MOE_TRY(moe_plan_output_settle(&output, err));
    MOE_TRY(moe_plan_read(&plan, path, &format, err));
    enum moe_status status = set_gpus(&plan, gpu_count, path, err);
    if (status == MOE_OK) {
        status = number(&plan, &numbering, err);
    }
    if (status == MOE_OK && output.format != NULL) {
        status = moe_plan_output_fill_and_write(&output, &plan, err);
    }
    if (status == MOE_OK) {
        describe(&plan, path, format->name);
    }
    moe_plan_finish(&plan);
    return status;
}
