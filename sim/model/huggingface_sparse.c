/*
 * Sparse attention of HuggingFace configurations: DeepSeek-V3.2 and GLM-5.2 (an indexer beside
 * MLA), DeepSeek-V4 (compressed entries), MiniMax-M3 (blocks of a grouped attention).
 *
 * Sources: the configs; the models' reports (arXiv 2512.02556; DeepSeek-V4's beside its weights;
 * 2606.13392) and released inference programs, for what a config leaves to its class. What such a
 * class could say but the released models do not is refused by its key.
 */
#include <string.h>

#include "sim/model/huggingface_config.h"

/* DeepSeek-V3.2's program keeps index keys as fp8 with a float32 scale for each key of 128. */
static const double FP8_KEY_BYTES = 132.0 / 128.0;
static const double BF16_KEY_BYTES = 2.0;

/* compress_ratios of DeepSeek-V4: what its program takes for a window only, for entries that an
 * indexer chooses, and for entries that are all read. */
enum { NO_RATIO = 0, CHOSEN_RATIO = 4, POOLED_RATIO = 128 };

static enum moe_status read_indexer(const struct moe_config *c)
{
    static const struct moe_config_size keys[] = {
        { "index_topk", offsetof(struct moe_model, sparse_entries), false },
        { "index_n_heads", offsetof(struct moe_model, index_head_count), false },
        { "index_head_dim", offsetof(struct moe_model, index_head_size), false },
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        MOE_TRY(moe_config_sizes(c, &keys[i], 1));
        if (json_integer_value(moe_config_get(c, keys[i].key)) == 0) {
            return moe_config_refuse(c, MOE_RANGE, keys[i].key, "it must be at least 1");
        }
    }
    c->model->index_block = 1;
    return MOE_OK;
}

/* GLM-5.2: "full" layers have an indexer, "shared" ones take over what the last one chose. */
static enum moe_status read_indexer_types(const struct moe_config *c)
{
    uint32_t every = 1;
    MOE_TRY(moe_config_size(c, "index_topk_freq", true, 1, &every));
    if (moe_config_get(c, "index_topk_pattern") != NULL) {
        return moe_config_refuse(c, MOE_UNSUPPORTED, "index_topk_pattern",
                                 "only null is understood; indexer_types can say the same");
    }
    if (moe_config_get(c, "indexer_types") != NULL) {
        uint32_t shared = 0;
        MOE_TRY(moe_config_count_layers(c, "indexer_types", "full", "shared", &shared));
        const char *first =
            json_string_value(json_array_get(moe_config_get(c, "indexer_types"), 0));
        if (first != NULL && strcmp(first, "shared") == 0) {
            return moe_config_refuse(c, MOE_RANGE, "indexer_types",
                                     "the first entry must be \"full\": nobody chose before it");
        }
        c->model->index_layer_count = c->model->layer_count - shared;
        return MOE_OK;
    }
    if (every != 1) {
        return moe_config_refuse(c, MOE_UNSUPPORTED, "index_topk_freq",
                                 "without indexer_types only 1 is understood");
    }
    c->model->index_layer_count = c->model->layer_count;
    return MOE_OK;
}

enum moe_status moe_config_read_indexed_mla(const struct moe_config *c)
{
    struct moe_model *model = c->model;
    MOE_TRY(read_indexer(c));
    MOE_TRY(read_indexer_types(c));
    model->sparse_layer_count = model->layer_count;
    model->sparse_ratio = 1;
    model->index_bytes_per_value = FP8_KEY_BYTES;
    return MOE_OK;
}

/* One entry per hidden layer, and one per layer of multi-token prediction, which is not run. */
static enum moe_status read_ratios(const struct moe_config *c)
{
    static const char key[] = "compress_ratios";
    struct moe_model *model = c->model;
    const json_t *list = moe_config_get(c, key);
    const size_t count = json_array_size(list);
    uint32_t extra = 0;
    MOE_TRY(moe_config_size(c, "num_nextn_predict_layers", true, 0, &extra));
    if (!json_is_array(list) ||
        (count != model->layer_count && count != (size_t) model->layer_count + extra)) {
        return moe_config_refuse(c, MOE_RANGE, key,
                                 "it must be a list with one entry per hidden layer, with or "
                                 "without those of num_nextn_predict_layers");
    }
    for (uint32_t layer = 0; layer < model->layer_count; layer++) {
        const json_t *entry = json_array_get(list, layer);
        const json_int_t ratio = json_is_integer(entry) ? json_integer_value(entry) : -1;
        if (ratio == NO_RATIO) {
            model->window_layer_count++;
        } else if (ratio == CHOSEN_RATIO) {
            model->sparse_layer_count++;
        } else if (ratio == POOLED_RATIO) {
            model->pooled_layer_count++;
        } else {
            return moe_fail(c->err, MOE_UNSUPPORTED,
                            "%.200s: key %s: entry %u is none of 0, %d and %d", c->path, key, layer,
                            CHOSEN_RATIO, POOLED_RATIO);
        }
    }
    model->kv_layer_count = model->sparse_layer_count + model->pooled_layer_count;
    model->pooled_ratio = model->pooled_layer_count > 0 ? POOLED_RATIO : 0;
    return MOE_OK;
}

enum moe_status moe_config_read_compressed(const struct moe_config *c)
{
    static const struct moe_config_size keys[] = {
        { "num_attention_heads", offsetof(struct moe_model, head_count), false },
        { "num_key_value_heads", offsetof(struct moe_model, kv_head_count), false },
        { "head_dim", offsetof(struct moe_model, head_size), false },
        { "q_lora_rank", offsetof(struct moe_model, q_lora_rank), false },
        { "o_lora_rank", offsetof(struct moe_model, output_rank), true },
        { "o_groups", offsetof(struct moe_model, output_groups), true },
        { "sliding_window", offsetof(struct moe_model, window_size), false },
        { "hc_mult", offsetof(struct moe_model, residual_streams), true },
    };
    struct moe_model *model = c->model;
    MOE_TRY(moe_config_sizes(c, keys, sizeof keys / sizeof keys[0]));
    if (model->kv_head_count != 1) {
        return moe_config_refuse(c, MOE_UNSUPPORTED, "num_key_value_heads",
                                 "only 1 is understood: one vector for K and V of all heads");
    }
    model->attention = MOE_ATTENTION_SHARED;
    MOE_TRY(read_ratios(c));
    if (model->sparse_layer_count > 0) {
        MOE_TRY(read_indexer(c));
        model->sparse_ratio = CHOSEN_RATIO;
        model->index_layer_count = model->sparse_layer_count;
        model->index_bytes_per_value = BF16_KEY_BYTES;
    }
    return MOE_OK;
}

/* A whole number of sparse_attention_config. */
static enum moe_status block_size(const struct moe_config *c, const json_t *object, const char *key,
                                  uint32_t least, uint32_t most, uint32_t *out)
{
    const json_t *value = json_object_get(object, key);
    const json_int_t size = json_integer_value(value);
    if (!json_is_integer(value) || size < least || size > most) {
        return moe_fail(c->err, MOE_RANGE,
                        "%.200s: key sparse_attention_config.%s must be a whole number from %u "
                        "to %u",
                        c->path, key, least, most);
    }
    *out = (uint32_t) size;
    return MOE_OK;
}

/* Layers that sparse_attention_freq marks 1. An indexer with values of its own, which
 * sparse_disable_index_value could leave in, is not modelled. */
static enum moe_status count_sparse(const struct moe_config *c, const json_t *object)
{
    const json_t *sparse = json_object_get(object, "sparse_attention_freq");
    const json_t *bare = json_object_get(object, "sparse_disable_index_value");
    struct moe_model *model = c->model;
    if (json_array_size(sparse) != model->layer_count ||
        json_array_size(bare) != model->layer_count) {
        return moe_fail(c->err, MOE_RANGE,
                        "%.200s: key sparse_attention_config: sparse_attention_freq and "
                        "sparse_disable_index_value must be lists of one entry per hidden layer",
                        c->path);
    }
    for (uint32_t layer = 0; layer < model->layer_count; layer++) {
        const json_t *entry = json_array_get(sparse, layer);
        const json_int_t chosen = json_is_integer(entry) ? json_integer_value(entry) : -1;
        if (chosen != 0 && chosen != 1) {
            return moe_fail(c->err, MOE_RANGE,
                            "%.200s: key sparse_attention_config.sparse_attention_freq: entry %u "
                            "is neither 0 nor 1",
                            c->path, layer);
        }
        if (chosen == 1 && json_integer_value(json_array_get(bare, layer)) != 1) {
            return moe_fail(c->err, MOE_UNSUPPORTED,
                            "%.200s: key sparse_attention_config.sparse_disable_index_value: "
                            "entry %u is not 1, but an indexer with values is not modelled",
                            c->path, layer);
        }
        model->sparse_layer_count += (uint32_t) chosen;
    }
    return MOE_OK;
}

enum moe_status moe_config_read_sparse_blocks(const struct moe_config *c)
{
    const json_t *object = moe_config_get(c, "sparse_attention_config");
    struct moe_model *model = c->model;
    uint32_t size = 0;
    uint32_t blocks = 0;
    uint32_t first = 0;
    if (object == NULL || json_is_false(json_object_get(object, "use_sparse_attention"))) {
        return MOE_OK;
    }
    const char *score = json_string_value(json_object_get(object, "sparse_score_type"));
    if (score == NULL || strcmp(score, "max") != 0) {
        return moe_fail(c->err, MOE_UNSUPPORTED,
                        "%.200s: key sparse_attention_config.sparse_score_type is '%.40s', but "
                        "only \"max\" is understood",
                        c->path, score == NULL ? "" : score);
    }
    MOE_TRY(count_sparse(c, object));
    if (model->sparse_layer_count == 0) {
        return MOE_OK;
    }
    /* The blocks that are always read (the row's own) are among the sparse_topk_blocks. */
    MOE_TRY(block_size(c, object, "sparse_init_block", 0, 0, &first));
    MOE_TRY(block_size(c, object, "sparse_block_size", 1, 4096, &size));
    MOE_TRY(block_size(c, object, "sparse_topk_blocks", 1, 4096, &blocks));
    MOE_TRY(block_size(c, object, "sparse_num_index_heads", 1, 65536, &model->index_head_count));
    MOE_TRY(block_size(c, object, "sparse_index_dim", 1, 65536, &model->index_head_size));
    model->sparse_entries = size * blocks;
    model->index_block = size;
    model->sparse_ratio = 1;
    model->index_layer_count = model->sparse_layer_count;
    model->index_bytes_per_value = BF16_KEY_BYTES;
    return MOE_OK;
}
