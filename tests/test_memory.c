/* Memory: what is said to fit does, and one slot more on every GPU does not. */
#include <criterion/criterion.h>
#include <string.h>

#include "sim/engine/memory.h"
#include "tests/property.h"

enum { CASES = 2000 };

static uint16_t slots[4 * 512];

static struct moe_model model_of(struct draws *draws)
{
    const uint32_t heads = 1U << draw_below(draws, 5);
    return (struct moe_model){
        .layer_count = 4,
        .moe_layer_count = 1 + draw_below(draws, 4),
        .hidden_size = 64 * (1 + draw_below(draws, 8)),
        .vocabulary_size = 100,
        .expert_count = 8 * (1 + draw_below(draws, 4)),
        .top_k = 2,
        .expert_size = 32 * (1 + draw_below(draws, 8)),
        .gated = true,
        .attention = draw_below(draws, 2) == 0 ? MOE_ATTENTION_MLA : MOE_ATTENTION_GQA,
        .head_count = heads,
        .kv_head_count = 1U << draw_below(draws, 3),
        .head_size = 16,
        .kv_lora_rank = 32,
        .rope_head_size = 8,
        .value_head_size = 16,
        .kv_layer_count = 4,
        .expert_bytes_per_weight = 1.0,
        .dense_bytes_per_weight = 1.0,
        .kv_bytes_per_value = 2.0,
    };
}

/* Every slot in use. */
static struct moe_placement full(const struct moe_placement_shape *shape)
{
    memset(slots, 0, sizeof slots);
    return (struct moe_placement){ .shape = *shape, .expert_of_slot = slots };
}

static bool holds(const struct moe_memory_setup *setup, struct moe_placement_shape shape,
                  uint32_t slot_count, uint64_t tokens)
{
    struct moe_memory memory;
    shape.slot_count = slot_count;
    const struct moe_placement placement = full(&shape);
    moe_memory_of(setup, &placement, &memory);
    return memory.weights_fit && memory.kv_tokens >= tokens;
}

static bool remedy_is_the_limit(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    const struct moe_model model = model_of(draws);
    const struct moe_cluster cluster = { .reserve_bytes = 1000.0 * draw_below(draws, 100) };
    const struct moe_memory_setup setup = {
        .model = &model,
        .cluster = &cluster,
        .attention_ranks = 1U << draw_below(draws, 3),
        .gpu_bytes = 1e5 * (1 + draw_below(draws, 400)),
        .buffer_bytes = 1000.0 * draw_below(draws, 10),
    };
    const struct moe_placement_shape shape = {
        .layer_count = model.moe_layer_count,
        .expert_count = model.expert_count,
        .slot_count = model.expert_count,
        .gpu_count = 4,
        .node_count = 2,
        .group_count = 1,
    };
    const uint64_t tokens = 1 + draw_below(draws, 2000);
    uint32_t *answers = context;
    struct moe_memory_remedy remedy;
    moe_memory_find_remedy(&setup, &shape, tokens, &remedy);
    (void) snprintf(why, PROPERTY_TEXT_LIMIT, "%u slots, %u GPUs", remedy.slots, remedy.gpus);
    if (remedy.slots > 0) {
        answers[0]++;
        const bool most = remedy.slots >= 4 * model.expert_count;
        return holds(&setup, shape, remedy.slots, tokens) &&
               (most || !holds(&setup, shape, remedy.slots + 4, tokens));
    }
    if (holds(&setup, shape, (model.expert_count + 3) / 4 * 4, tokens)) {
        return false;
    }
    answers[remedy.gpus > 0 ? 1 : 2]++;
    if (remedy.gpus == 0) {
        return !holds(&setup, shape, 4, tokens);
    }
    struct moe_placement_shape larger = shape;
    larger.gpu_count = remedy.gpus;
    larger.node_count = remedy.gpus / 2;
    const uint32_t each = (model.expert_count + remedy.gpus - 1) / remedy.gpus;
    return remedy.gpus % 2 == 0 && remedy.gpus > 4 &&
           holds(&setup, larger, each * remedy.gpus, tokens);
}

Test(memory, the_remedy_fits_and_one_slot_more_does_not)
{
    uint32_t answers[3] = { 0 };
    const char *fault = property_fails(remedy_is_the_limit, answers, 3, CASES);
    cr_assert(fault == NULL, "%s", fault);
    cr_assert(answers[0] > 30 && answers[1] > 30 && answers[2] > 30, "%u %u %u", answers[0],
              answers[1], answers[2]);
}

Test(memory, attention_that_is_shared_leaves_more_room)
{
    struct draws draws = { .key = 1 };
    struct moe_model model = model_of(&draws);
    const struct moe_cluster cluster = { 0 };
    const struct moe_placement_shape shape = { .layer_count = model.moe_layer_count,
                                               .expert_count = model.expert_count,
                                               .slot_count = model.expert_count,
                                               .gpu_count = 4,
                                               .node_count = 1,
                                               .group_count = 1 };
    struct moe_memory_setup setup = { &model, &cluster, 1, 1e9, 0, 0, 0 };
    const struct moe_placement placement = full(&shape);
    struct moe_memory one;
    struct moe_memory four;
    model.attention = MOE_ATTENTION_GQA;
    model.head_count = 16;
    model.kv_head_count = 8;
    moe_memory_of(&setup, &placement, &one);
    setup.attention_ranks = 4;
    moe_memory_of(&setup, &placement, &four);
    cr_assert_lt(four.nonexpert_bytes, one.nonexpert_bytes);
    cr_assert_float_eq(four.kv_bytes_per_token * 4, one.kv_bytes_per_token, 1e-9);
    model.kv_head_count = 2; /* two GPUs hold the same head */
    moe_memory_of(&setup, &placement, &four);
    setup.attention_ranks = 1;
    moe_memory_of(&setup, &placement, &one);
    cr_assert_float_eq(four.kv_bytes_per_token * 2, one.kv_bytes_per_token, 1e-9);
}

/* DeepSeek-V4: windows of the running requests are set aside, KV grows by entries only. */
Test(memory, compressed_entries_leave_room_for_windows_beside_the_pool)
{
    struct moe_model model;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_model_load(&model, "deepseek-v4-flash", &err), MOE_OK, "%s", err.text);
    const struct moe_cluster cluster = { .node_count = 1, .gpus_per_node = 1 };
    struct moe_memory_setup setup = { &model, &cluster, 1, 1e12, 0, 10, 0 };
    const struct moe_placement_shape shape = {
        .layer_count = 1, .expert_count = 1, .slot_count = 1, .gpu_count = 1, .node_count = 1
    };
    const struct moe_placement placement = full(&shape);
    struct moe_memory memory;
    moe_memory_of(&setup, &placement, &memory);
    cr_assert_eq(memory.reserve_bytes, 10.0 * 43 * 128 * 512 * 2);
    cr_assert_eq(memory.kv_bytes_per_token, 512 * 2 * (21 / 4.0 + 20 / 128.0) + 21 * 128 * 2 / 4.0);
    /* GPUs that share the attention each hold the vector of all heads, and the indexers. */
    setup.attention_ranks = 8;
    moe_memory_of(&setup, &placement, &memory);
    cr_assert_eq(memory.kv_bytes_per_token, 6880);
    cr_assert_float_eq(memory.nonexpert_bytes,
                       moe_model_nonexpert_bytes(&model) -
                           43 * moe_model_attention_weights(&model) * 7.0 / 8.0,
                       1.0);
}
