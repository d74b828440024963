#include "calibrate/measure/measure_model.h"

const struct moe_measure_model moe_measure_models[] = {
#define MODEL(name, hidden, expert_hidden, size, experts, top_k, groups, limit, shared, dense, \
              gated, attention, heads, kv_heads, head, q_lora, kv_lora, rope, value, words)    \
    { name,  hidden, expert_hidden,           size,  experts,  top_k, groups, limit,   shared, \
      dense, gated,  MOE_MEASURE_##attention, heads, kv_heads, head,  q_lora, kv_lora, rope,   \
      value, words },
#include "calibrate/measure/model_shapes.def"
#undef MODEL
};

const size_t moe_measure_model_count = sizeof moe_measure_models / sizeof moe_measure_models[0];
