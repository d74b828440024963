/*
 * TensorRT-LLM dump: the folder that EXPERT_STATISTIC_PATH names: meta_info.json {num_experts,
 * num_experts_per_token} and per rank a safetensors file with a tensor for each key
 * "<iteration>_<layer>": rank<r>.safetensors counts [expert] of that rank's tokens, newer
 * rank<r>_raw.safetensors the choices [token][top_k].
 */
#ifndef MOE_TRACES_TRTLLM_DUMP_H
#define MOE_TRACES_TRTLLM_DUMP_H

#include "traces/import.h"
#include "traces/tensor.h"

struct moe_trtllm_dump {
    struct moe_import_input *input;
    const char *suffix; /* ".safetensors" or "_raw.safetensors" */
    uint32_t expert_count;
    uint32_t top_k;
};

/* Whether there is a file rank<r><suffix> that begins like one of safetensors. */
bool moe_trtllm_recognise(const struct moe_import_input *input, const char *suffix);

/* Reads meta_info.json and checks that no rank is missing; marks the files. */
enum moe_status moe_trtllm_dump_open(struct moe_trtllm_dump *dump, struct moe_import_input *input,
                                     const char *suffix, struct moe_import_description *out,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Called for each tensor; place ("rank0.safetensors: 100_1") begins errors. */
typedef enum moe_status moe_trtllm_taker(void *context, int32_t rank, uint32_t iteration,
                                         uint32_t layer, const struct moe_tensor *tensor,
                                         const char *place, struct moe_error *err);

/* All tensors of all ranks. Errors: also MOE_PARSE for a key of another form. */
enum moe_status moe_trtllm_dump_read(const struct moe_trtllm_dump *dump, moe_trtllm_taker *take,
                                     void *context, struct moe_error *err) MOE_MUST_CHECK;

#endif
