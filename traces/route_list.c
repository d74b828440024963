#include "traces/route_list.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static enum moe_status reserve(struct moe_route_list *list, uint64_t rows, const char *what,
                               struct moe_error *err)
{
    const uint64_t row_bytes = (uint64_t) list->layer_count * list->top_k * sizeof *list->rows;
    const uint64_t most = MOE_ROUTE_LIST_BYTES / row_bytes;
    if (rows > most - list->row_count) {
        return moe_fail(err, MOE_RANGE,
                        "%s: more than %" PRIu64 " rows of routes, which are held in memory", what,
                        most);
    }
    if (list->request_count == list->request_room) {
        const size_t room = list->request_room == 0 ? 64 : 2 * list->request_room;
        struct moe_trace_request *requests = realloc(list->requests, room * sizeof *requests);
        if (requests == NULL) {
            return moe_fail(err, MOE_LIMIT, "%s: no memory for %zu requests", what, room);
        }
        list->requests = requests;
        list->request_room = room;
    }
    if (list->row_count + rows > list->row_room) {
        uint64_t room = 2 * list->row_room;
        room = room < list->row_count + rows ? list->row_count + rows : room;
        room = room < most ? room : most;
        uint16_t *grown = realloc(list->rows, room * row_bytes);
        if (grown == NULL) {
            return moe_fail(err, MOE_LIMIT, "%s: no memory for %" PRIu64 " rows", what, room);
        }
        list->rows = grown;
        list->row_room = room;
    }
    return MOE_OK;
}

enum moe_status moe_route_list_add(struct moe_route_list *list,
                                   const struct moe_trace_request *request, uint16_t **rows,
                                   const char *what, struct moe_error *err)
{
    const size_t row_ids = (size_t) list->layer_count * list->top_k;
    if (list->layer_count < 1 || list->layer_count > MOE_TRACE_LAYER_LIMIT || list->top_k < 1 ||
        list->top_k > MOE_TRACE_TOP_K_LIMIT) {
        return moe_fail(
            err, MOE_RANGE, "%s: rows of %u layers and %u choices; 1 to %d and 1 to %d are allowed",
            what, list->layer_count, list->top_k, MOE_TRACE_LAYER_LIMIT, MOE_TRACE_TOP_K_LIMIT);
    }
    if (request->prompt_tokens < 1 || request->output_tokens < 1) {
        return moe_fail(err, MOE_RANGE,
                        "%s: a request of %u prompt and %u output tokens; both are at least 1",
                        what, request->prompt_tokens, request->output_tokens);
    }
    const uint64_t count = moe_trace_request_rows(request);
    MOE_TRY(reserve(list, count, what, err));
    list->requests[list->request_count++] = *request;
    *rows = list->rows + list->row_count * row_ids;
    memset(*rows, 0xff, count * row_ids * sizeof **rows); /* MOE_EXPERT_UNKNOWN */
    list->row_count += count;
    return MOE_OK;
}

enum moe_status moe_route_list_add_tensor(struct moe_route_list *list,
                                          const struct moe_trace_request *request,
                                          const struct moe_tensor *tensor, const char *what,
                                          struct moe_error *err)
{
    uint16_t *rows = NULL;
    char shape[100];
    if (tensor->dimension_count != 3 || tensor->item_count == 0 ||
        tensor->shape[1] != list->layer_count || tensor->shape[2] != list->top_k ||
        tensor->shape[0] != moe_trace_request_rows(request)) {
        return moe_fail(err, MOE_PARSE,
                        "%s: shape %s; %" PRIu64 " rows of %u layers and %u choices are expected",
                        what, moe_tensor_shape_text(tensor, shape, sizeof shape),
                        moe_trace_request_rows(request), list->layer_count, list->top_k);
    }
    MOE_TRY(moe_route_list_add(list, request, &rows, what, err));
    const uint64_t good = moe_tensor_experts(tensor, 0, tensor->item_count, rows);
    const uint64_t per_row = (uint64_t) list->layer_count * list->top_k;
    if (good == tensor->item_count) {
        return MOE_OK;
    }
    char value[32];
    return moe_fail(err, MOE_PARSE,
                    "%s: row %" PRIu64 ", layer %" PRIu64 ", k %" PRIu64
                    " is %s, neither an expert from 0 to %d nor -1",
                    what, good / per_row, good % per_row / list->top_k, good % list->top_k,
                    moe_tensor_item_text(tensor, good, value, sizeof value),
                    MOE_TRACE_EXPERT_LIMIT - 1);
}

enum moe_status moe_route_list_split(uint64_t row_count, uint64_t prompt_tokens, const char *what,
                                     struct moe_trace_request *out, struct moe_error *err)
{
    if (row_count < 1 || row_count >= UINT32_MAX || prompt_tokens > row_count) {
        return moe_fail(err, MOE_RANGE,
                        "%s: %" PRIu64 " rows for a prompt of %" PRIu64
                        " tokens; a request has a row for each token but the last one sampled",
                        what, row_count, prompt_tokens);
    }
    const uint64_t prompt = prompt_tokens == 0 ? row_count : prompt_tokens;
    *out = (struct moe_trace_request){
        .arrival_ns = -1,
        .prompt_tokens = (uint32_t) prompt,
        .output_tokens = (uint32_t) (row_count - prompt + 1),
    };
    return MOE_OK;
}

enum moe_status moe_route_list_feed(const struct moe_route_list *list, struct moe_import_sink *sink,
                                    struct moe_error *err)
{
    const size_t row_ids = (size_t) list->layer_count * list->top_k;
    const uint16_t *rows = list->rows;
    for (size_t i = 0; i < list->request_count; i++) {
        const uint64_t count = moe_trace_request_rows(&list->requests[i]);
        MOE_TRY(sink->request(sink, &list->requests[i], NULL, 0, err));
        MOE_TRY(sink->rows(sink, rows, count, err));
        rows += count * row_ids;
    }
    return MOE_OK;
}

void moe_route_list_finish(struct moe_route_list *list)
{
    free(list->requests);
    free(list->rows);
    list->requests = NULL;
    list->rows = NULL;
    list->request_count = 0;
    list->row_count = 0;
}
