/*
 * Popularity: what the workloads with fixed expert popularities share: probabilities per layer,
 * requests of one length, independent layers.
 */
#ifndef MOE_TRACES_GENERATE_POPULARITY_H
#define MOE_TRACES_GENERATE_POPULARITY_H

#include "traces/generate/generate.h"

struct moe_popularity {
    struct moe_trace_model model;
    uint32_t prompt_tokens;
    uint32_t output_tokens;
    float *probability; /* [layer][expert], of a layer summing to top_k; owned */
};

/* Room for model, which has its shape; lengths that were not said are 256 and 64 tokens.
 * Errors: MOE_LIMIT. */
enum moe_status moe_popularity_create(struct moe_popularity **out,
                                      const struct moe_trace_model *model,
                                      const struct moe_generate_options *options,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Sets a layer from weights[expert_count]. scratch[expert_count]. */
void moe_popularity_set(struct moe_popularity *popularity, uint32_t layer, const double *weights,
                        double *scratch);

/* The slots of a generator. */
void moe_popularity_request(const void *state, uint64_t index, struct moe_trace_request *out);
void moe_popularity_row(const void *state, const struct moe_generate_row *row, uint16_t *experts);
void moe_popularity_close(void *state);

#endif
