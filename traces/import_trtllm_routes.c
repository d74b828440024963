/*
 * Import format "trtllm_routes": TensorRT-LLM's raw expert statistics, the choices of each
 * token by iteration, layer and rank (rank<r>_raw.safetensors). Tokens are not told apart by
 * request: each iteration of a rank becomes one, all prompt.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "traces/route_gather.h"
#include "traces/trtllm_dump.h"

struct trtllm {
    struct moe_trtllm_dump dump;
    struct moe_route_gather gather;
};

static bool recognise(const struct moe_import_input *input)
{
    return moe_trtllm_recognise(input, "_raw.safetensors");
}

static enum moe_status take(void *context, int32_t rank, uint32_t iteration, uint32_t layer,
                            const struct moe_tensor *tensor, const char *place,
                            struct moe_error *err)
{
    struct trtllm *import = context;
    const uint32_t top_k = import->dump.top_k;
    uint16_t experts[MOE_TRACE_TOP_K_LIMIT];
    char shape[100];
    if (tensor->dimension_count != 2 || (tensor->item_count > 0 && tensor->shape[1] != top_k)) {
        return moe_fail(err, MOE_PARSE, "%s: shape %s; [token][%u] is expected", place,
                        moe_tensor_shape_text(tensor, shape, sizeof shape), top_k);
    }
    for (uint64_t token = 0; token * top_k < tensor->item_count; token++) {
        const struct moe_gather_choice choice = {
            .request = (uint64_t) iteration << 17 | (uint64_t) (uint32_t) rank,
            .token = token,
            .layer = layer,
            .count = top_k,
            .experts = experts,
        };
        const uint64_t good = moe_tensor_experts(tensor, token * top_k, top_k, experts);
        if (good < top_k) {
            char value[32];
            return moe_fail(err, MOE_PARSE,
                            "%s: token %" PRIu64 ", k %" PRIu64
                            " is %s, neither an expert from 0 to %d nor -1",
                            place, token, good,
                            moe_tensor_item_text(tensor, token * top_k + good, value, sizeof value),
                            MOE_TRACE_EXPERT_LIMIT - 1);
        }
        MOE_TRY(moe_route_gather_take(&import->gather, &choice, place, err));
    }
    return MOE_OK;
}

static void close_import(void *state)
{
    struct trtllm *import = state;
    if (import != NULL) {
        moe_route_gather_finish(&import->gather);
        free(import);
    }
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct trtllm *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    MOE_TRY(moe_trtllm_dump_open(&import->dump, input, "_raw.safetensors", out, err));
    import->gather.sorts_requests = true;
    import->gather.expert_count = import->dump.expert_count;
    MOE_TRY(moe_trtllm_dump_read(&import->dump, take, import, err));
    MOE_TRY(moe_route_gather_turn(&import->gather, 0, input->paths[0], err));
    MOE_TRY(moe_trtllm_dump_read(&import->dump, take, import, err));
    moe_route_gather_describe(&import->gather, out);
    return MOE_OK;
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    const struct trtllm *import = state;
    return moe_route_list_feed(&import->gather.list, sink, err);
}

const struct moe_import_format moe_import_trtllm_routes = {
    .name = "trtllm_routes",
    .summary = "TensorRT-LLM's raw expert statistics: rank*_raw.safetensors",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};
