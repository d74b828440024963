/* Any text as a calibration table: refused with a sentence, or read and usable. What is
 * accepted prices work without a crash, a NaN or a negative time. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sim/cost/calibration.h"
#include "sim/cost/cost.h"

static const struct moe_model model = {
    .name = "toy",
    .layer_count = 2,
    .moe_layer_count = 1,
    .hidden_size = 100,
    .vocabulary_size = 1000,
    .expert_count = 8,
    .top_k = 2,
    .group_count = 1,
    .group_limit = 1,
    .expert_size = 50,
    .gated = true,
    .attention = MOE_ATTENTION_GQA,
    .head_count = 4,
    .kv_head_count = 2,
    .head_size = 25,
    .kv_layer_count = 2,
    .expert_bytes_per_weight = 1,
    .dense_bytes_per_weight = 1,
    .kv_bytes_per_value = 2,
};

static void require(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void price(const struct moe_cost *cost)
{
    const struct moe_gpu_factor factor = moe_cost_gpu_factor(cost, 1, 2);
    require(factor.compute > 0.0 && factor.memory > 0.0 && factor.comm > 0.0);
    const struct moe_expert_work expert = { 10, 3, 4, 5 };
    const struct moe_exchange_work exchange = { 5, 6, 7, 8, 0 };
    const struct moe_token_work tokens = {
        .tokens = 5, .sampled = 2, .kv_read = 50, .score_pairs = 60
    };
    const struct moe_duration durations[] = {
        moe_cost_expert(cost, &expert, &factor),
        moe_cost_exchange(cost, MOE_COST_DISPATCH, &exchange, &factor),
        moe_cost_exchange(cost, MOE_COST_COMBINE, &exchange, &factor),
        moe_cost_attention(cost, &tokens, &factor),
        moe_cost_gate(cost, 5, &factor),
        moe_cost_head(cost, &tokens, &factor),
        moe_cost_host(cost),
    };
    for (size_t i = 0; i < sizeof durations / sizeof durations[0]; i++) {
        require(isfinite(durations[i].ns) && durations[i].ns >= 0.0);
        require(durations[i].provenance < MOE_PROVENANCE_COUNT);
    }
    for (uint32_t kind = 0; kind < MOE_JITTER_COUNT; kind++) {
        require(moe_cost_jitter(cost, (enum moe_jitter) kind, 0.999) >= 0.5);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct moe_arena arena;
    struct moe_error err = { 0 };
    const struct moe_calibration *calibration = NULL;
    if (arena.base == NULL && moe_arena_init(&arena, 1 << 20, &err) != MOE_OK) {
        return 0;
    }
    moe_arena_reset(&arena);
    /* Exactly as long as the input: reading past its end is found. */
    char *text = malloc(size == 0 ? 1 : size);
    if (text == NULL) {
        return 0;
    }
    if (size > 0) {
        memcpy(text, data, size);
    }
    const enum moe_status status = moe_calibration_parse(&calibration, text, size, "input",
                                                         MOE_CALIBRATION_FITTED, &arena, &err);
    free(text);
    if (status == MOE_OK) {
        struct moe_cluster cluster = { .node_count = 2, .gpus_per_node = 4 };
        struct moe_cost *cost = NULL;
        (void) strncpy(cluster.gpu, calibration->gpu_kind_rows[0].name, sizeof cluster.gpu - 1);
        if (moe_cost_init(&cost, calibration, &model, &cluster, &arena, &err) == MOE_OK) {
            price(cost);
        } else {
            require(err.text[0] != '\0');
        }
    } else {
        require(err.text[0] != '\0');
    }
    return 0;
}
