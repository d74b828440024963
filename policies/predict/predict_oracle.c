/* Oracle: the loads that follow, with a stated share of the tokens predicted wrong. Not deployable;
 * says what a predictor of that accuracy would be worth (PROBE states 87 to 94 % top-k accuracy,
 * arXiv 2602.00509; MoE-MPMC 99.4 %). Source: own.
 *
 * Of every expert's tokens the share `error` is said to go to other experts: in `lumps` equal
 * parts, each to an expert drawn at random from the others, so that the error is uneven, as a
 * real predictor's is. The draws depend on (seed, step, layer, expert). */
#include "policies/policy.h"
#include "sim/base/no_malloc.h"
#include "sim/base/random.h"

enum { ERROR_SHARE, LUMPS };

/* What is said of an expert's tokens; said[expert_count] comes zeroed. */
static void tell(const double *value, uint32_t experts, uint64_t key, uint32_t expert,
                 double tokens, double *said)
{
    const uint32_t lumps = (uint32_t) value[LUMPS];
    if (experts == 1) {
        said[0] += tokens;
        return;
    }
    said[expert] += tokens * (1.0 - value[ERROR_SHARE]);
    for (uint32_t lump = 0; value[ERROR_SHARE] > 0.0 && lump < lumps; lump++) {
        const uint64_t drawn = moe_random_below(key, (uint64_t) expert * lumps + lump, experts - 1);
        said[drawn < expert ? drawn : drawn + 1] += tokens * value[ERROR_SHARE] / lumps;
    }
}

static uint64_t key_of(uint64_t seed, uint64_t when)
{
    return moe_random_mix(moe_random_key(seed, MOE_RANDOM_POLICY) ^ moe_random_mix(when)) | 1;
}

static enum moe_status window(const struct moe_place_view *planning, struct moe_arena *scratch,
                              double *load, struct moe_error *err)
{
    const uint32_t experts = planning->shape.expert_count;
    (void) scratch;
    (void) err;
    for (uint32_t layer = 0; layer < planning->shape.layer_count; layer++) {
        const double *actual = planning->future_load + (size_t) layer * experts;
        double *said = load + (size_t) layer * experts;
        for (uint32_t expert = 0; expert < experts; expert++) {
            said[expert] = 0.0;
        }
        for (uint32_t expert = 0; expert < experts; expert++) {
            tell(planning->parameters, experts, key_of(planning->seed, layer), expert,
                 actual[expert], said);
        }
    }
    return MOE_OK;
}

static enum moe_status init(const struct moe_place_view *planning, struct moe_arena *arena,
                            void **state, struct moe_error *err)
{
    double *said = MOE_NEW(arena, double, planning->shape.expert_count);
    if (said == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the loads of %u experts",
                        planning->shape.expert_count);
    }
    *state = said;
    return MOE_OK;
}

static enum moe_status step(void *state, const struct moe_predict_view *view, float *predicted,
                            struct moe_error *err)
{
    double *said = state;
    const uint32_t experts = view->shape.expert_count;
    const uint64_t when = (view->step + 1) * view->shape.layer_count + view->layer;
    (void) err;
    for (uint32_t expert = 0; expert < experts; expert++) {
        said[expert] = 0.0;
    }
    for (uint32_t expert = 0; expert < experts; expert++) {
        tell(view->parameters, experts, key_of(view->seed, when), expert, view->actual[expert],
             said);
    }
    for (uint32_t expert = 0; expert < experts; expert++) {
        predicted[expert] = (float) said[expert];
    }
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    [ERROR_SHARE] = { .name = "error",
                      .kind = MOE_PARAMETER_REAL,
                      .standard = 0.0,
                      .min = 0.0,
                      .max = 1.0,
                      .help = "share of the tokens that are predicted wrong",
                      .source = "own" },
    [LUMPS] = { .name = "lumps",
                .kind = MOE_PARAMETER_WHOLE,
                .standard = 4.0,
                .min = 1.0,
                .max = 1024.0,
                .help = "experts among which one expert's wrong tokens are said to be",
                .source = "own" },
};

static const struct moe_predict_methods predict = { .window = window, .init = init, .step = step };

MOE_POLICY_DEFINE(predict_oracle) = {
    MOE_POLICY_HEADER,
    .name = "oracle",
    .summary = "oracle, not deployable: the loads that follow, with a stated share of the tokens "
               "predicted wrong",
    .source = "own; what a predictor of that accuracy could be worth",
    .tie_rule = "none needed; the seed decides who gets the wrong tokens",
    .needs = MOE_POLICY_NEEDS_FUTURE | MOE_POLICY_NEEDS_SEED,
    MOE_POLICY_PARAMETERS(parameters),
    .predict = &predict,
};
