/*
 * Measured models: the sizes of a model that decide what moecal measures for it.
 */
#ifndef MOE_CALIBRATE_MEASURE_MODEL_H
#define MOE_CALIBRATE_MEASURE_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum moe_measure_attention {
    MOE_MEASURE_MHA,
    MOE_MEASURE_GQA,
    MOE_MEASURE_MLA,
};

/* The words of a model's card (sim/model/model.h). */
struct moe_measure_model {
    const char *name;
    int32_t hidden;
    int32_t expert_hidden; /* 0: hidden */
    int32_t expert_size;
    int32_t expert_count;
    int32_t top_k;
    int32_t group_count;
    int32_t group_limit;
    int32_t shared_size; /* 0: none; dense_size too */
    int32_t dense_size;
    bool gated;
    enum moe_measure_attention attention;
    int32_t heads;
    int32_t kv_heads;
    int32_t head_size;
    int32_t q_lora; /* MLA; 0: full-rank query projection */
    int32_t kv_lora;
    int32_t rope;
    int32_t value_head;
    int32_t vocabulary;
};

extern const struct moe_measure_model moe_measure_models[];
extern const size_t moe_measure_model_count;

/* Width that routed experts read and write. */
static inline int32_t moe_measure_expert_width(const struct moe_measure_model *model)
{
    return model->expert_hidden == 0 ? model->hidden : model->expert_hidden;
}

#endif
