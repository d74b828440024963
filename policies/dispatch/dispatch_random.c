/* Random: every token of a replicated expert goes to one of its copies by lot. Source: SGLang's
 * ep_dispatch_algorithm "dynamic" (a uniform random index per token and expert).
 *
 * The lots depend on (seed, step, layer, source GPU, expert) alone, so no other decision moves
 * them. A fair coin per token is as good as counting the ones in random bits, 64 tokens at a
 * time; copies in a number that is no power of two draw token by token. */
#include "policies/policy.h"
#include "policies/solve/spread.h"
#include "sim/base/no_malloc.h"
#include "sim/base/random.h"

enum { LOTS_EACH = 2 }; /* 32 bits are enough for one lot */

/* How many of so many fair coins show heads. */
static uint32_t toss(uint32_t coins, uint64_t key, uint64_t *counter)
{
    uint32_t heads = 0;
    for (; coins >= 64; coins -= 64) {
        heads += (uint32_t) __builtin_popcountll(moe_random_bits(key, (*counter)++));
    }
    if (coins > 0) {
        heads +=
            (uint32_t) __builtin_popcountll(moe_random_bits(key, (*counter)++) >> (64 - coins));
    }
    return heads;
}

/* tokens over a power of two of copies: halves, quarters, ... */
static void halve(uint32_t *quota, uint32_t copies, uint32_t tokens, uint64_t key,
                  uint64_t *counter)
{
    quota[0] = tokens;
    for (uint32_t width = copies; width > 1; width /= 2) {
        for (uint32_t begin = 0; begin < copies; begin += width) {
            const uint32_t right = toss(quota[begin], key, counter);
            quota[begin] -= right;
            quota[begin + width / 2] = right;
        }
    }
}

static void draw(uint32_t *quota, uint32_t copies, uint32_t tokens, uint64_t key, uint64_t *counter)
{
    for (uint32_t copy = 0; copy < copies; copy++) {
        quota[copy] = 0;
    }
    for (uint32_t token = 0; token < tokens; token += LOTS_EACH) {
        const uint64_t bits = moe_random_bits(key, (*counter)++);
        quota[(bits & UINT32_MAX) * copies >> 32]++;
        if (token + 1 < tokens) {
            quota[(bits >> 32) * copies >> 32]++;
        }
    }
}

static enum moe_status split(void *state, const struct moe_dispatch_view *view, uint32_t *quota,
                             struct moe_error *err)
{
    (void) state;
    (void) err;
    const uint32_t experts = view->shape.expert_count;
    const uint64_t when = view->step * view->shape.layer_count + view->layer;
    const uint64_t key =
        moe_random_mix(moe_random_key(view->seed, MOE_RANDOM_POLICY) ^ moe_random_mix(when)) | 1;
    moe_spread_first(view, quota);
    for (uint32_t source = 0; source < view->shape.gpu_count; source++) {
        const uint32_t *demand = view->demand + (size_t) source * experts;
        uint32_t *row = quota + (size_t) source * view->copy_count;
        for (uint32_t expert = 0; expert < experts; expert++) {
            const uint32_t begin = view->first_copy[expert];
            const uint32_t copies = view->first_copy[expert + 1] - begin;
            if (copies < 2 || demand[expert] == 0) {
                continue;
            }
            uint64_t counter = (uint64_t) (source * experts + expert) << 32;
            if ((copies & (copies - 1)) == 0) {
                halve(row + begin, copies, demand[expert], key, &counter);
            } else {
                draw(row + begin, copies, demand[expert], key, &counter);
            }
        }
    }
    return MOE_OK;
}

static const struct moe_dispatch_methods dispatch = { .split = split };

MOE_POLICY_DEFINE(dispatch_random) = {
    MOE_POLICY_HEADER,
    .name = "random",
    .summary = "every token of a replicated expert takes one of its copies by lot",
    .source = "SGLang, ep_dispatch_algorithm dynamic",
    .tie_rule = "none needed; the seed decides",
    .needs = MOE_POLICY_NEEDS_SEED,
    .dispatch = &dispatch,
};
