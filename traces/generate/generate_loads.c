/*
 * Routes for recorded loads: every expert is chosen as often as a dump, a trace store or SGLang's
 * JSON says, in expectation. Loads say nothing of which experts one token takes together, nor
 * across layers: both are synthetic, and the provenance says so.
 */
#include <stdlib.h>
#include <string.h>

#include "traces/dump_loads.h"
#include "traces/generate/popularity.h"

static enum moe_status read_loads(struct moe_dump_loads *loads, const char *path,
                                  const struct moe_generate_options *options, struct moe_error *err)
{
    const struct moe_import_request request = {
        .format = "auto",
        .inputs = &path,
        .input_count = 1,
        .options = { .layers = "moe",
                     .expert_count = options->expert_count,
                     .top_k = options->top_k },
    };
    return moe_dump_loads_read(loads, &request, 1.0, err);
}

/* What the dump says of the model, over which the options may say only what is missing. */
static enum moe_status settle(struct moe_generate_options *settled,
                              const struct moe_dump_loads *loads, struct moe_error *err)
{
    const struct moe_trace_model *model = &loads->model;
    if (settled->top_k != 0 && model->top_k != 0 && settled->top_k != model->top_k) {
        return moe_fail(err, MOE_RANGE, "--top-k %u: %.200s has top-%u", settled->top_k,
                        settled->input, model->top_k);
    }
    settled->layer_count = model->layer_count;
    settled->expert_count = model->expert_count;
    settled->top_k = settled->top_k == 0 ? model->top_k : settled->top_k;
    if (settled->group_count == 0 && settled->group_limit == 0 && model->group_count > 1) {
        settled->group_count = model->group_count;
        settled->group_limit = model->group_limit;
    }
    return MOE_OK;
}

static enum moe_status build(struct moe_popularity **out, const struct moe_dump_loads *loads,
                             const struct moe_generate_options *options,
                             struct moe_trace_model *model, struct moe_error *err)
{
    struct moe_generate_options settled = *options;
    MOE_TRY(settle(&settled, loads, err));
    MOE_TRY(moe_generate_model(model, &settled, "loads", err));
    double *scratch = malloc(model->expert_count * sizeof *scratch);
    if (scratch == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %u experts", model->expert_count);
    }
    const enum moe_status status = moe_popularity_create(out, model, options, err);
    for (uint32_t layer = 0; status == MOE_OK && layer < model->layer_count; layer++) {
        moe_popularity_set(*out, layer, loads->planned + (size_t) layer * model->expert_count,
                           scratch);
    }
    free(scratch);
    return status;
}

static enum moe_status open_loads(void **state, const struct moe_generate_options *options,
                                  struct moe_trace_model *model, uint64_t *request_count,
                                  struct moe_trace_provenance *record, struct moe_error *err)
{
    struct moe_dump_loads loads = { 0 };
    struct moe_popularity *popularity = NULL;
    MOE_TRY(moe_generate_refuse_others(options, "loads",
                                       " --input --requests --experts --top-k --groups "
                                       "--group-limit --prompt-tokens --output-tokens",
                                       err));
    if (options->input == NULL || options->request_count == 0) {
        return moe_fail(err, MOE_RANGE, "loads: %s is needed",
                        options->input == NULL ? "--input DUMP" : "--requests");
    }
    const char *name = strrchr(options->input, '/');
    name = name == NULL ? options->input : name + 1;
    MOE_TRY(read_loads(&loads, options->input, options, err));
    enum moe_status status = build(&popularity, &loads, options, model, err);
    moe_dump_loads_finish(&loads);
    *state = popularity;
    *request_count = options->request_count;
    (void) snprintf(record->note, sizeof record->note,
                    "seed %llu; expected loads are those of the source; which experts a token "
                    "takes together, in a layer and across layers, is synthetic",
                    (unsigned long long) options->seed);
    if (status == MOE_OK) {
        status = moe_trace_provenance_add_file(record, name, options->input, NULL, err);
    }
    return status;
}

const struct moe_generator moe_generator_loads = {
    .name = "loads",
    .summary = "expert loads of a dump, store or logical_count file (--input); the rest by chance",
    .open = open_loads,
    .request = moe_popularity_request,
    .row = moe_popularity_row,
    .close = moe_popularity_close,
};
