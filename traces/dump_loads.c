#include "traces/dump_loads.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE_IDS = 1 << 17 };

_Static_assert(PIECE_IDS >= MOE_TRACE_LAYER_LIMIT * MOE_TRACE_TOP_K_LIMIT, "a piece holds a row");

struct receiver {
    struct moe_import_receiver base; /* first, so that the one is the other */
    struct moe_dump_loads loads;
    double share;
    uint64_t rows; /* seen so far */
};

static enum moe_status begin(struct moe_dump_loads *loads, const struct moe_trace_model *model,
                             uint64_t units, double share, const uint16_t *placement,
                             uint32_t slot_count, struct moe_error *err)
{
    const size_t cells = (size_t) model->layer_count * model->expert_count;
    const size_t slots = (size_t) model->layer_count * slot_count;
    loads->model = *model;
    loads->unit_count = units;
    loads->planned_units = (uint64_t) floor(share * (double) units);
    loads->planned_units = loads->planned_units == 0 ? 1 : loads->planned_units;
    loads->in_sample = units == 1 && share < 1.0;
    loads->planned = calloc(cells, sizeof *loads->planned);
    loads->scored = calloc(cells, sizeof *loads->scored);
    if (slot_count > 0) {
        loads->placement = malloc(slots * sizeof *loads->placement);
        loads->slot_count = slot_count;
    }
    if (loads->planned == NULL || loads->scored == NULL ||
        (slot_count > 0 && loads->placement == NULL)) {
        return moe_fail(err, MOE_LIMIT, "no memory for the loads of %u layers of %u experts",
                        model->layer_count, model->expert_count);
    }
    if (slot_count > 0) {
        memcpy(loads->placement, placement, slots * sizeof *placement);
    }
    return MOE_OK;
}

static void add_rows(struct moe_dump_loads *loads, uint64_t first, const uint16_t *experts,
                     uint64_t row_count)
{
    const struct moe_trace_model *model = &loads->model;
    for (uint64_t row = first; row < first + row_count; row++) {
        double *to = row < loads->planned_units ? loads->planned : loads->scored;
        for (uint32_t layer = 0; layer < model->layer_count; layer++, to += model->expert_count) {
            for (uint32_t k = 0; k < model->top_k; k++, experts++) {
                if (*experts != MOE_EXPERT_UNKNOWN) {
                    to[*experts] += 1.0;
                }
            }
        }
    }
}

static void add_counts(struct moe_dump_loads *loads, uint64_t step, const double *counts)
{
    const size_t cells = (size_t) loads->model.layer_count * loads->model.expert_count;
    double *to = step < loads->planned_units ? loads->planned : loads->scored;
    for (size_t i = 0; i < cells; i++) {
        to[i] += counts[i];
    }
}

static enum moe_status take_request(struct moe_import_sink *sink,
                                    const struct moe_trace_request *request, const int64_t *blocks,
                                    size_t block_count, struct moe_error *err)
{
    (void) sink;
    (void) request;
    (void) blocks;
    (void) block_count;
    (void) err;
    return MOE_OK;
}

static enum moe_status take_rows(struct moe_import_sink *sink, const uint16_t *experts,
                                 uint64_t row_count, struct moe_error *err)
{
    struct receiver *receiver = (struct receiver *) sink;
    (void) err;
    add_rows(&receiver->loads, receiver->rows, experts, row_count);
    receiver->rows += row_count;
    return MOE_OK;
}

static enum moe_status take_load(struct moe_import_sink *sink, const struct moe_trace_load *load,
                                 const double *counts, struct moe_error *err)
{
    struct receiver *receiver = (struct receiver *) sink;
    (void) err;
    add_counts(&receiver->loads, load->step, counts);
    return MOE_OK;
}

static enum moe_status begin_dump(struct moe_import_receiver *base,
                                  const struct moe_import_result *result, const uint16_t *placement,
                                  uint32_t slot_count, struct moe_error *err)
{
    struct receiver *receiver = (struct receiver *) base;
    if (result->model.content == MOE_TRACE_ARRIVALS) {
        return moe_fail(err, MOE_RANGE, "arrivals of requests say nothing about experts");
    }
    return begin(&receiver->loads, &result->model,
                 result->model.content == MOE_TRACE_ROUTES ? result->row_count : result->step_count,
                 receiver->share, placement, slot_count, err);
}

static enum moe_status read_routes(struct moe_dump_loads *loads, struct moe_trace *trace,
                                   struct moe_error *err)
{
    const struct moe_trace_model *model = &loads->model;
    const uint64_t most = PIECE_IDS / ((uint64_t) model->layer_count * model->top_k);
    uint16_t *piece = malloc((size_t) PIECE_IDS * sizeof *piece);
    enum moe_status status = MOE_OK;
    if (piece == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", moe_trace_path(trace));
    }
    for (uint64_t row = 0; status == MOE_OK && row < loads->unit_count;) {
        const uint64_t rows = loads->unit_count - row < most ? loads->unit_count - row : most;
        status = moe_trace_read(trace, row, rows, piece, err);
        if (status == MOE_OK) {
            add_rows(loads, row, piece, rows);
        }
        row += rows;
    }
    free(piece);
    return status;
}

static enum moe_status read_counts(struct moe_dump_loads *loads, struct moe_trace *trace,
                                   struct moe_error *err)
{
    const size_t cells = (size_t) loads->model.layer_count * loads->model.expert_count;
    struct moe_trace_load_cursor cursor = { 0 };
    struct moe_trace_load load;
    bool got = true;
    double *counts = malloc(cells * sizeof *counts);
    if (counts == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", moe_trace_path(trace));
    }
    enum moe_status status = moe_trace_loads_begin(&cursor, trace, err);
    while (status == MOE_OK && got) {
        status = moe_trace_loads_next(&cursor, &load, counts, &got, err);
        if (status == MOE_OK && got) {
            add_counts(loads, load.step, counts);
        }
    }
    moe_trace_loads_end(&cursor);
    free(counts);
    return status;
}

static enum moe_status read_open(struct moe_dump_loads *loads, struct moe_trace *trace,
                                 double share, struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(trace);
    uint64_t units = moe_trace_row_count(trace);
    uint16_t *placement = NULL;
    uint32_t slot_count = 0;
    if (model->content == MOE_TRACE_ARRIVALS) {
        return moe_fail(err, MOE_RANGE, "%s: arrivals of requests say nothing about experts",
                        moe_trace_path(trace));
    }
    if (model->content == MOE_TRACE_LOADS) {
        MOE_TRY(moe_trace_step_count(trace, &units, err));
    }
    MOE_TRY(moe_trace_placement_read(trace, &slot_count, &placement, err));
    const enum moe_status status = begin(loads, model, units, share, placement, slot_count, err);
    free(placement);
    MOE_TRY(status);
    return model->content == MOE_TRACE_LOADS ? read_counts(loads, trace, err)
                                             : read_routes(loads, trace, err);
}

static enum moe_status read_store(struct moe_dump_loads *loads, const char *path, double share,
                                  struct moe_error *err)
{
    struct moe_trace *trace = NULL;
    MOE_TRY(moe_trace_open_any(&trace, path, err));
    const enum moe_status status = read_open(loads, trace, share, err);
    moe_trace_close(trace);
    return status;
}

static bool is_store(const char *path)
{
    char head[16] = "";
    FILE *file = fopen(path, "rbe");
    const bool found = file != NULL && fread(head, 1, sizeof head, file) == sizeof head &&
                       memcmp(head, "SQLite format 3", sizeof head) == 0;
    if (file != NULL) {
        (void) fclose(file);
    }
    return found;
}

enum moe_status moe_dump_loads_read(struct moe_dump_loads *out,
                                    const struct moe_import_request *request, double share,
                                    struct moe_error *err)
{
    struct receiver receiver = {
        .base = { .sink = { take_request, take_rows, take_load }, .begin = begin_dump },
        .share = share,
    };
    struct moe_dump_loads *loads = &receiver.loads;
    const enum moe_status status = request->input_count == 1 && is_store(request->inputs[0])
                                       ? read_store(loads, request->inputs[0], share, err)
                                       : moe_import_read(request, &receiver.base, err);
    if (status != MOE_OK) {
        moe_dump_loads_finish(loads);
        return status;
    }
    if (loads->in_sample) {
        memcpy(loads->scored, loads->planned,
               (size_t) loads->model.layer_count * loads->model.expert_count *
                   sizeof *loads->scored);
    }
    *out = *loads;
    return MOE_OK;
}

void moe_dump_loads_finish(struct moe_dump_loads *loads)
{
    free(loads->planned);
    free(loads->scored);
    free(loads->placement);
    loads->planned = NULL;
    loads->scored = NULL;
    loads->placement = NULL;
}
