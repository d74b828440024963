/* The gate against its CPU twin, both versions: ids equal except where rounding could decide, which
 * may be the case for few tokens; weights within a few roundings. Logits are drawn from a grid, so
 * that exact ties occur and are held to their rule. */
#include <inttypes.h>
#include <math.h>

#include "kernels/reference/reference_gate.h"
#include "tests/gpu_case.h"

enum { TOKENS_MAX = 1000 };

static const struct moe_gate gates[] = {
    /* expert_count, top_k, group_count, group_keep, score, group, renormalise, scale */
    { 8, 2, 1, 1, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST_TWO, 1, 1.0F },     /* Mixtral */
    { 256, 8, 8, 4, MOE_GATE_SIGMOID, MOE_GATE_GROUP_BEST_TWO, 1, 2.5F },   /* DeepSeek-V3 */
    { 160, 6, 8, 3, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST, 0, 16.0F },      /* DeepSeek-V2 */
    { 384, 8, 1, 1, MOE_GATE_SIGMOID, MOE_GATE_GROUP_BEST_TWO, 1, 2.827F }, /* Kimi K2 */
    { 1, 1, 1, 1, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST_TWO, 0, 1.0F },
    { 128, 8, 1, 1, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST_TWO, 1, 1.0F },  /* Qwen3 */
    { 60, 4, 1, 1, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST_TWO, 0, 1.0F },   /* Qwen1.5 */
    { 512, 10, 1, 1, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST_TWO, 1, 1.0F }, /* Qwen3-Next */
    { 1024, 16, 32, 7, MOE_GATE_SIGMOID, MOE_GATE_GROUP_BEST_TWO, 1, 1.0F },
    { 1023, 16, 31, 1, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST, 0, 1.0F },
    { 33, 16, 11, 6, MOE_GATE_SIGMOID, MOE_GATE_GROUP_BEST_TWO, 0, 1.0F },
};

struct drawn {
    size_t places;
    float *logits;
    float *bias;
    float *logits_dev;
    float *bias_dev;
    int32_t *ids_dev;
    float *weights_dev;
    int32_t *ids; /* the twin's, then the GPU's */
    double *weights;
    double *margin;
    int32_t *found_ids;
    float *found_weights;
};

static struct drawn draw(const struct moe_gate *gate, int32_t tokens, uint64_t seed)
{
    const uint64_t key = moe_random_key(seed, MOE_RANDOM_TEST);
    const size_t experts = (size_t) gate->expert_count;
    const size_t count = (size_t) tokens * experts;
    struct drawn d = { .places = (size_t) tokens * (size_t) gate->top_k };
    d.logits = gpu_host(count * sizeof *d.logits);
    d.bias = gpu_host(experts * sizeof *d.bias);
    for (size_t i = 0; i < count; i++) {
        d.logits[i] = rintf(gpu_draw(key, i) * 4.0F * 1024.0F) / 1024.0F;
    }
    for (size_t e = 0; e < experts; e++) {
        d.bias[e] = rintf(gpu_draw(key, e + (UINT64_C(1) << 40)) * 8.0F) / 32.0F;
    }
    d.logits_dev = gpu_upload(d.logits, count * sizeof *d.logits);
    d.bias_dev = gpu_upload(d.bias, experts * sizeof *d.bias);
    d.ids_dev = gpu_alloc((d.places + 1) * sizeof *d.ids_dev);
    d.weights_dev = gpu_alloc((d.places + 1) * sizeof *d.weights_dev);
    d.ids = gpu_host(d.places * sizeof *d.ids);
    d.weights = gpu_host(d.places * sizeof *d.weights);
    d.margin = gpu_host((size_t) tokens * sizeof *d.margin);
    d.found_ids = gpu_host((d.places + 1) * sizeof *d.found_ids);
    d.found_weights = gpu_host((d.places + 1) * sizeof *d.found_weights);
    return d;
}

static void compare(const struct moe_gate *gate, int32_t tokens, const struct drawn *d, int version)
{
    int32_t close = 0;
    for (int32_t token = 0; token < tokens; token++) {
        if (d->margin[token] < 5e-7) {
            close++;
            continue;
        }
        for (int32_t place = 0; place < gate->top_k; place++) {
            const size_t i = (size_t) token * (size_t) gate->top_k + (size_t) place;
            const double weight = (double) d->found_weights[i];
            gpu_require(d->found_ids[i] == d->ids[i],
                        "gate %" PRId32 " top %" PRId32 " version %d, token %" PRId32
                        ", place %" PRId32 ": expert %" PRId32 ", its twin says %" PRId32,
                        gate->expert_count, gate->top_k, version, token, place, d->found_ids[i],
                        d->ids[i]);
            gpu_require(fabs(weight - d->weights[i]) <= 5e-6 * fabs(d->weights[i]),
                        "gate %" PRId32 " top %" PRId32 " version %d, token %" PRId32
                        ", place %" PRId32 ": weight %.9g, its twin says %.9g",
                        gate->expert_count, gate->top_k, version, token, place, weight,
                        d->weights[i]);
        }
    }
    gpu_require(close * 10 <= tokens, "%" PRId32 " of %" PRId32 " tokens can't be compared", close,
                tokens);
    gpu_require(d->found_ids[d->places] == -1 && isnan(d->found_weights[d->places]),
                "written behind the last place");
}

static void check(const struct moe_gate *gate, int32_t tokens, uint64_t seed)
{
    struct drawn d = draw(gate, tokens, seed);
    for (int with_bias = 0; with_bias < 2; with_bias++) {
        moe_reference_gate_choose(gate, tokens, d.ids, d.weights, d.logits,
                                  with_bias ? d.bias : NULL, d.margin);
        for (int version = 1; version <= MOE_GATE_VERSION_COUNT; version++) {
            gpu_poison(d.ids_dev, (d.places + 1) * sizeof *d.ids_dev);
            gpu_poison(d.weights_dev, (d.places + 1) * sizeof *d.weights_dev);
            gpu_demand(moe_gate_choose(gate, tokens, d.ids_dev, d.weights_dev, d.logits_dev,
                                       with_bias ? d.bias_dev : NULL, version, NULL),
                       "moe_gate_choose");
            gpu_download(d.found_ids, d.ids_dev, (d.places + 1) * sizeof *d.ids_dev,
                         "moe_gate_choose");
            gpu_download(d.found_weights, d.weights_dev, (d.places + 1) * sizeof *d.weights_dev,
                         "moe_gate_choose");
            compare(gate, tokens, &d, version);
        }
    }
    gpu_free_all(
        (void *[]){ d.logits_dev, d.bias_dev, d.ids_dev, d.weights_dev }, 4,
        (void *[]){ d.logits, d.bias, d.ids, d.weights, d.margin, d.found_ids, d.found_weights },
        7);
}

static void check_refusals(void)
{
    static const struct moe_gate bad[] = {
        { 1025, 8, 1, 1, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST, 0, 1.0F },
        { 0, 1, 1, 1, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST, 0, 1.0F },
        { 64, 17, 1, 1, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST, 0, 1.0F },
        { 8, 9, 1, 1, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST, 0, 1.0F },
        { 64, 9, 8, 1, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST, 0, 1.0F }, /* 8 can be chosen */
        { 64, 4, 9, 2, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST, 0, 1.0F },
        { 64, 4, 8, 9, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST, 0, 1.0F },
        { 66, 4, 33, 4, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST, 0, 1.0F },
        { 8, 4, 8, 4, MOE_GATE_SOFTMAX, MOE_GATE_GROUP_BEST_TWO, 0, 1.0F },
        { 8, 2, 1, 1, MOE_GATE_SCORE_COUNT, MOE_GATE_GROUP_BEST, 0, 1.0F },
    };
    float *dev = gpu_alloc(4096);
    int32_t *ids = (int32_t *) (void *) dev;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        gpu_require(moe_gate_choose(&bad[i], 1, ids, dev, dev, NULL, 2, NULL) ==
                        (int) cudaErrorInvalidValue,
                    "bad gate %zu is taken", i);
    }
    gpu_require(moe_gate_choose(&gates[0], 0, ids, dev, dev, NULL, 2, NULL) ==
                    (int) cudaErrorInvalidValue,
                "no token");
    gpu_require(moe_gate_choose(&gates[0], 1, ids, dev, dev, NULL, 3, NULL) ==
                    (int) cudaErrorInvalidValue,
                "version 3");
    gpu_free(dev);
}

int main(int argc, char **argv)
{
    const int small = gpu_begin(argc, argv);
    for (size_t g = 0; g < sizeof gates / sizeof gates[0]; g++) {
        check(&gates[g], small ? 33 : TOKENS_MAX, g + 1);
        check(&gates[g], 1, g + 100);
    }
    check_refusals();
    return EXIT_SUCCESS;
}
