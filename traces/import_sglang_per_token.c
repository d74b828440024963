/*
 * Import format "sglang_per_token": SGLang's expert distribution recorder in the mode
 * per_token: for each forward pass and rank topk_ids_of_layer [layer][token][8], physical
 * experts, the columns beyond the model's top-k filled with -1.
 *
 * The dump does not say which request a decoded token belongs to. A pass that extends
 * (forward_mode 1) is cut into requests by extend_seq_lens, each all prompt; a pass of any
 * other mode becomes one request of one prompt token and the rest as output. The domains
 * "extend" and "other" keep the two apart.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/sglang_dump.h"

enum { FORWARD_EXTEND = 1 };

struct per_token {
    struct moe_sglang_dump dump;
    uint32_t top_k;
};

static bool recognise(const struct moe_import_input *input)
{
    return moe_sglang_recognise(input, "last_physical_to_logical_map", "topk_ids_of_layer");
}

static void close_import(void *state)
{
    struct per_token *import = state;
    if (import != NULL) {
        moe_sglang_dump_close(&import->dump);
        free(import);
    }
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct moe_tensor tensor;
    unsigned char *bytes = NULL;
    struct per_token *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    MOE_TRY(moe_sglang_dump_open(&import->dump, input, out, err));
    MOE_TRY(moe_sglang_record_tensor(&import->dump, 0, 0, "topk_ids_of_layer", 3, &tensor, &bytes,
                                     err));
    free(bytes);
    if (tensor.shape[2] < 1 || tensor.shape[2] > MOE_TRACE_TOP_K_LIMIT) {
        return moe_fail(err, MOE_PARSE,
                        "%s: record 0: topk_ids_of_layer has %" PRIu64
                        " choices; 1 to %d are allowed",
                        import->dump.ranks[0].path, tensor.shape[2], MOE_TRACE_TOP_K_LIMIT);
    }
    import->top_k = (uint32_t) tensor.shape[2];
    out->model.content = MOE_TRACE_ROUTES;
    out->model.top_k = import->top_k;
    out->top_k_is_padded = true;
    out->model.domain_count = 2;
    (void) snprintf(out->model.domains[0], sizeof out->model.domains[0], "extend");
    (void) snprintf(out->model.domains[1], sizeof out->model.domains[1], "other");
    return MOE_OK;
}

/* Requests of a pass of token_count tokens that extends. */
static enum moe_status send_extended(const struct per_token *import, size_t rank, size_t record,
                                     uint64_t token_count, struct moe_import_sink *sink,
                                     struct moe_error *err)
{
    const struct moe_sglang_dump *dump = &import->dump;
    const struct moe_pickle_value *lengths =
        moe_pickle_get(&dump->ranks[rank].records->items[record], "extend_seq_lens");
    uint64_t sum = 0;
    if (lengths == NULL || lengths->kind != MOE_PICKLE_LIST) {
        return moe_fail(err, MOE_PARSE, "%s: record %zu: extend_seq_lens is %s; a list is expected",
                        dump->ranks[rank].path, record, moe_pickle_kind_text(lengths));
    }
    for (size_t i = 0; i < lengths->list->count; i++) {
        const struct moe_pickle_value *length = &lengths->list->items[i];
        if (length->kind != MOE_PICKLE_INT || length->integer < 0 ||
            (uint64_t) length->integer > token_count - sum) {
            return moe_fail(err, MOE_PARSE,
                            "%s: record %zu: extend_seq_lens[%zu] is no length within the %" PRIu64
                            " tokens of the pass",
                            dump->ranks[rank].path, record, i, token_count);
        }
        const struct moe_trace_request request = {
            .arrival_ns = -1,
            .prompt_tokens = (uint32_t) length->integer,
            .output_tokens = 1,
        };
        sum += (uint64_t) length->integer;
        MOE_TRY(length->integer == 0 ? MOE_OK : sink->request(sink, &request, NULL, 0, err));
    }
    return sum == token_count ? MOE_OK
                              : moe_fail(err, MOE_PARSE,
                                         "%s: record %zu: extend_seq_lens sum to %" PRIu64
                                         ", but the pass has %" PRIu64 " tokens",
                                         dump->ranks[rank].path, record, sum, token_count);
}

static enum moe_status send_requests(const struct per_token *import, size_t rank, size_t record,
                                     uint64_t token_count, struct moe_import_sink *sink,
                                     struct moe_error *err)
{
    int64_t mode = 0;
    MOE_TRY(moe_sglang_record_number(&import->dump, rank, record, "forward_mode", &mode, err));
    if (mode == FORWARD_EXTEND) {
        return send_extended(import, rank, record, token_count, sink, err);
    }
    const struct moe_trace_request request = {
        .arrival_ns = -1,
        .prompt_tokens = 1,
        .output_tokens = (uint32_t) token_count,
        .domain = 1,
    };
    return sink->request(sink, &request, NULL, 0, err);
}

/* ids[layer][token][k] of physical experts to rows[token][layer][k] of logical ones. */
static enum moe_status turn(const struct per_token *import, size_t rank, size_t record,
                            uint64_t token_count, const uint16_t *ids, uint16_t *rows,
                            struct moe_error *err)
{
    const struct moe_sglang_dump *dump = &import->dump;
    const size_t top_k = import->top_k;
    for (uint32_t layer = 0; layer < dump->layer_count; layer++) {
        const uint16_t *map = dump->map + (size_t) layer * dump->slot_count;
        for (uint64_t token = 0; token < token_count; token++) {
            uint16_t *row = rows + (token * dump->layer_count + layer) * top_k;
            for (size_t k = 0; k < top_k; k++, ids++) {
                if (*ids != MOE_EXPERT_UNKNOWN && *ids >= dump->slot_count) {
                    return moe_fail(err, MOE_PARSE,
                                    "%s: record %zu: topk_ids_of_layer: layer %u, token %" PRIu64
                                    ", k %zu: physical expert %u; there are 0 to %u",
                                    dump->ranks[rank].path, record, layer, token, k, *ids,
                                    dump->slot_count - 1);
                }
                row[k] = *ids == MOE_EXPERT_UNKNOWN ? *ids : map[*ids];
            }
        }
    }
    return MOE_OK;
}

static enum moe_status send_rows(const struct per_token *import, size_t rank, size_t record,
                                 const struct moe_tensor *tensor, struct moe_import_sink *sink,
                                 struct moe_error *err)
{
    const char *path = import->dump.ranks[rank].path;
    const uint64_t token_count = tensor->shape[1];
    uint16_t *ids = malloc(tensor->item_count * sizeof *ids);
    uint16_t *rows = malloc(tensor->item_count * sizeof *rows);
    enum moe_status status = MOE_OK;
    if (ids == NULL || rows == NULL) {
        status =
            moe_fail(err, MOE_LIMIT, "%s: no memory for %" PRIu64 " tokens", path, token_count);
    } else {
        const uint64_t good = moe_tensor_experts(tensor, 0, tensor->item_count, ids);
        if (good < tensor->item_count) {
            char value[32];
            status = moe_fail(err, MOE_PARSE,
                              "%s: record %zu: topk_ids_of_layer: item %" PRIu64
                              " is %s, neither an expert from 0 to %d nor -1",
                              path, record, good,
                              moe_tensor_item_text(tensor, good, value, sizeof value),
                              MOE_TRACE_EXPERT_LIMIT - 1);
        }
    }
    if (status == MOE_OK) {
        status = turn(import, rank, record, token_count, ids, rows, err);
    }
    if (status == MOE_OK) {
        status = send_requests(import, rank, record, token_count, sink, err);
    }
    if (status == MOE_OK) {
        status = sink->rows(sink, rows, token_count, err);
    }
    free(rows);
    free(ids);
    return status;
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    const struct per_token *import = state;
    const struct moe_sglang_dump *dump = &import->dump;
    for (size_t record = 0; record < dump->ranks[0].records->count; record++) {
        for (size_t rank = 0; rank < dump->rank_count; rank++) {
            struct moe_tensor tensor;
            unsigned char *bytes = NULL;
            MOE_TRY(moe_sglang_record_tensor(dump, rank, record, "topk_ids_of_layer", 3, &tensor,
                                             &bytes, err));
            enum moe_status status = MOE_OK;
            if (tensor.shape[2] != import->top_k || tensor.shape[1] >= UINT32_MAX) {
                status = moe_fail(err, MOE_PARSE,
                                  "%s: record %zu: topk_ids_of_layer has %" PRIu64
                                  " choices of %" PRIu64 " tokens; record 0 has %u choices",
                                  dump->ranks[rank].path, record, tensor.shape[2], tensor.shape[1],
                                  import->top_k);
            } else if (tensor.item_count > 0) {
                status = send_rows(import, rank, record, &tensor, sink, err);
            }
            free(bytes);
            MOE_TRY(status);
        }
    }
    return MOE_OK;
}

const struct moe_import_format moe_import_sglang_per_token = {
    .name = "sglang_per_token",
    .summary = "SGLang's recorder, mode per_token: .pt files of all ranks",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};
