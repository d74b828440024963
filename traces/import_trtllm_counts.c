/*
 * Import format "trtllm_counts": TensorRT-LLM's expert statistics, tokens per expert of each
 * iteration, layer and rank (rank<r>.safetensors). Become loads per iteration and source rank.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "traces/load_gather.h"
#include "traces/trtllm_dump.h"

struct trtllm {
    struct moe_trtllm_dump dump;
    struct moe_load_gather gather;
};

static bool recognise(const struct moe_import_input *input)
{
    return moe_trtllm_recognise(input, ".safetensors");
}

static enum moe_status take(void *context, int32_t rank, uint32_t iteration, uint32_t layer,
                            const struct moe_tensor *tensor, const char *place,
                            struct moe_error *err)
{
    struct trtllm *import = context;
    const uint32_t count = import->gather.expert_count;
    const struct moe_load_row row = { iteration, rank, 0, layer };
    double *counts = NULL;
    char shape[100];
    if (tensor->dimension_count != 1 || tensor->item_count != count) {
        return moe_fail(err, MOE_PARSE, "%s: shape %s; counts of %u experts are expected", place,
                        moe_tensor_shape_text(tensor, shape, sizeof shape), count);
    }
    MOE_TRY(moe_load_gather_take(&import->gather, &row, place, &counts, err));
    if (counts == NULL) {
        return MOE_OK;
    }
    const uint64_t good = moe_tensor_counts(tensor, 0, count, counts);
    return good == count ? MOE_OK
                         : moe_fail(err, MOE_PARSE, "%s: expert %" PRIu64 ": %g is no count", place,
                                    good, counts[good]);
}

static void close_import(void *state)
{
    struct trtllm *import = state;
    if (import != NULL) {
        moe_load_gather_finish(&import->gather);
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
    MOE_TRY(moe_trtllm_dump_open(&import->dump, input, ".safetensors", out, err));
    import->gather.expert_count = import->dump.expert_count;
    MOE_TRY(moe_trtllm_dump_read(&import->dump, take, import, err));
    MOE_TRY(moe_load_gather_turn(&import->gather, input->paths[0], err));
    MOE_TRY(moe_trtllm_dump_read(&import->dump, take, import, err));
    MOE_TRY(moe_load_gather_describe(&import->gather, input->paths[0], out, err));
    out->model.top_k = import->dump.top_k;
    return MOE_OK;
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    const struct trtllm *import = state;
    return moe_load_gather_feed(&import->gather, sink, err);
}

const struct moe_import_format moe_import_trtllm_counts = {
    .name = "trtllm_counts",
    .summary = "TensorRT-LLM's expert statistics: meta_info.json, rank*.safetensors",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};
