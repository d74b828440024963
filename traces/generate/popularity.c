#include "traces/generate/popularity.h"

#include <stdlib.h>

enum { USUAL_PROMPT = 256, USUAL_OUTPUT = 64 };

enum moe_status moe_popularity_create(struct moe_popularity **out,
                                      const struct moe_trace_model *model,
                                      const struct moe_generate_options *options,
                                      struct moe_error *err)
{
    struct moe_popularity *popularity = calloc(1, sizeof *popularity);
    const size_t cells = (size_t) model->layer_count * model->expert_count;
    if (popularity == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to generate");
    }
    popularity->model = *model;
    popularity->prompt_tokens = options->prompt_tokens == 0 ? USUAL_PROMPT : options->prompt_tokens;
    popularity->output_tokens = options->output_tokens == 0 ? USUAL_OUTPUT : options->output_tokens;
    popularity->probability = calloc(cells, sizeof *popularity->probability);
    if (popularity->probability == NULL) {
        free(popularity);
        return moe_fail(err, MOE_LIMIT, "no memory for %u layers of %u experts", model->layer_count,
                        model->expert_count);
    }
    *out = popularity;
    return MOE_OK;
}

void moe_popularity_set(struct moe_popularity *popularity, uint32_t layer, const double *weights,
                        double *scratch)
{
    const uint32_t count = popularity->model.expert_count;
    float *out = popularity->probability + (size_t) layer * count;
    moe_choice_probabilities(weights, count, popularity->model.top_k, scratch);
    for (uint32_t i = 0; i < count; i++) {
        out[i] = (float) scratch[i];
    }
}

void moe_popularity_request(const void *state, uint64_t index, struct moe_trace_request *out)
{
    const struct moe_popularity *popularity = state;
    (void) index;
    *out = (struct moe_trace_request){
        .arrival_ns = -1,
        .prompt_tokens = popularity->prompt_tokens,
        .output_tokens = popularity->output_tokens,
    };
}

void moe_popularity_row(const void *state, const struct moe_generate_row *row, uint16_t *experts)
{
    const struct moe_popularity *popularity = state;
    const struct moe_choice_shape shape = moe_generate_shape(&popularity->model);
    for (uint32_t layer = 0; layer < popularity->model.layer_count; layer++) {
        uint64_t bits[3];
        moe_generate_bits(row, layer, bits);
        moe_choice_draw(&shape, popularity->probability + (size_t) layer * shape.expert_count, bits,
                        experts + (size_t) layer * shape.top_k);
    }
}

void moe_popularity_close(void *state)
{
    struct moe_popularity *popularity = state;
    if (popularity != NULL) {
        free(popularity->probability);
        free(popularity);
    }
}
