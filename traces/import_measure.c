#include "traces/import_measure.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static enum moe_status take_request(struct moe_import_sink *sink,
                                    const struct moe_trace_request *request, const int64_t *blocks,
                                    size_t block_count, struct moe_error *err)
{
    struct moe_import_measure *measure = (struct moe_import_measure *) sink;
    (void) blocks;
    (void) block_count;
    if (request->prompt_tokens < 1 || request->output_tokens < 1) {
        return moe_fail(err, MOE_RANGE,
                        "request %" PRIu64 ": %u prompt and %u output tokens; both "
                        "are at least 1",
                        measure->request_count, request->prompt_tokens, request->output_tokens);
    }
    measure->request_count++;
    measure->rows_wanted += moe_trace_request_rows(request);
    return MOE_OK;
}

static void measure_row(struct moe_import_measure *measure, const uint16_t *experts)
{
    const struct moe_trace_model *model = &measure->description->model;
    for (uint32_t layer = 0; layer < model->layer_count; layer++) {
        bool used = false;
        for (uint32_t k = 0; k < model->top_k; k++, experts++) {
            if (*experts == MOE_EXPERT_UNKNOWN) {
                continue;
            }
            used = used || *experts != 0;
            measure->id_end = *experts >= measure->id_end ? *experts + 1U : measure->id_end;
            measure->k_end = k >= measure->k_end ? k + 1 : measure->k_end;
        }
        measure->layer_is_used[layer] = measure->layer_is_used[layer] || used;
    }
}

/* Counts how many of the first ones are like the very first. */
static void compare(struct moe_import_measure *measure, const void *item, size_t bytes,
                    uint64_t index)
{
    if (index == 0) {
        memcpy(measure->first, item, bytes);
    }
    if (measure->equal_count == index && memcmp(measure->first, item, bytes) == 0) {
        measure->equal_count++;
    }
}

static enum moe_status take_rows(struct moe_import_sink *sink, const uint16_t *experts,
                                 uint64_t row_count, struct moe_error *err)
{
    struct moe_import_measure *measure = (struct moe_import_measure *) sink;
    const struct moe_trace_model *model = &measure->description->model;
    const size_t per_row = (size_t) model->layer_count * model->top_k;
    (void) err;
    for (uint64_t row = 0; row < row_count; row++, experts += per_row) {
        measure_row(measure, experts);
        compare(measure, experts, per_row * sizeof *experts, measure->row_count);
        measure->row_count++;
    }
    return MOE_OK;
}

static enum moe_status take_load(struct moe_import_sink *sink, const struct moe_trace_load *load,
                                 const double *counts, struct moe_error *err)
{
    struct moe_import_measure *measure = (struct moe_import_measure *) sink;
    const struct moe_trace_model *model = &measure->description->model;
    const size_t cells = (size_t) model->layer_count * model->expert_count;
    if (load->step > measure->step_count || load->step + 1 < measure->step_count) {
        return moe_fail(err, MOE_PARSE, "step %" PRIu64 " follows step %" PRIu64, load->step,
                        measure->step_count - 1);
    }
    for (size_t i = 0; i < cells; i++) {
        if (counts[i] != 0.0) {
            measure->layer_is_used[i / model->expert_count] = true;
        }
    }
    if (load->rank == MOE_TRACE_ALL_RANKS) {
        compare(measure, counts, cells * sizeof *counts, measure->load_count);
    }
    measure->load_count++;
    measure->step_count = load->step + 1;
    return MOE_OK;
}

static enum moe_status check_axis(const char *axis, uint32_t value, uint32_t least, uint32_t most,
                                  struct moe_error *err)
{
    return value >= least && value <= most
               ? MOE_OK
               : moe_fail(err, MOE_RANGE, "%u recorded %s; %u to %u are allowed", value, axis,
                          least, most);
}

enum moe_status moe_import_measure_init(struct moe_import_measure *measure,
                                        const struct moe_import_description *description,
                                        struct moe_error *err)
{
    const struct moe_trace_model *model = &description->model;
    size_t bytes = 1;
    *measure = (struct moe_import_measure){
        .sink = { take_request, take_rows, take_load },
        .description = description,
    };
    if (model->content != MOE_TRACE_ARRIVALS) {
        MOE_TRY(check_axis("layers", model->layer_count, 1, MOE_TRACE_LAYER_LIMIT, err));
    }
    if (model->content == MOE_TRACE_ROUTES) {
        MOE_TRY(check_axis("choices of a token", model->top_k, 1, MOE_TRACE_TOP_K_LIMIT, err));
        bytes = (size_t) model->layer_count * model->top_k * sizeof(uint16_t);
    } else if (model->content == MOE_TRACE_LOADS) {
        MOE_TRY(check_axis("experts", model->expert_count, 1, MOE_TRACE_EXPERT_LIMIT, err));
        bytes = (size_t) model->layer_count * model->expert_count * sizeof(double);
    }
    measure->first = malloc(bytes);
    return measure->first != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "no memory for a row of %zu bytes", bytes);
}

enum moe_status moe_import_measure_check(const struct moe_import_measure *measure, const char *what,
                                         struct moe_error *err)
{
    const enum moe_trace_content content = measure->description->model.content;
    if (content == MOE_TRACE_LOADS ? measure->load_count == 0 : measure->request_count == 0) {
        return moe_fail(err, MOE_PARSE, "%s: holds no %s at all", what,
                        moe_trace_content_text(content));
    }
    if (content == MOE_TRACE_ROUTES && measure->rows_wanted != measure->row_count) {
        return moe_fail(err, MOE_PARSE,
                        "%s: %" PRIu64 " requests need %" PRIu64 " rows, but there are %" PRIu64,
                        what, measure->request_count, measure->rows_wanted, measure->row_count);
    }
    return MOE_OK;
}

uint64_t moe_import_measure_warmup(const struct moe_import_measure *measure)
{
    return measure->equal_count >= MOE_IMPORT_WARMUP_ROWS ? measure->equal_count : 0;
}

void moe_import_measure_finish(struct moe_import_measure *measure)
{
    free(measure->first);
    measure->first = NULL;
}
