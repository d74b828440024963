#include "traces/generate/choice_draw.h"

#include <assert.h>
#include <stdbool.h>

#include "sim/base/random.h"

void moe_choice_probabilities(const double *weights, uint32_t count, uint32_t size, double *out)
{
    double left = size;
    double sum = 0.0;
    uint32_t certain = 0;
    assert(size <= count);
    for (uint32_t i = 0; i < count; i++) {
        assert(weights[i] >= 0.0);
        out[i] = 0.0;
        sum += weights[i];
    }
    /* Each round fixes at least one more at 1, or ends. */
    for (bool found = true; found && sum > 0.0;) {
        found = false;
        const double scale = left / sum;
        for (uint32_t i = 0; i < count; i++) {
            if (out[i] < 1.0 && weights[i] > 0.0 && weights[i] * scale >= 1.0) {
                out[i] = 1.0;
                certain++;
                found = true;
            }
        }
        left = (double) (size - certain);
        sum = 0.0;
        for (uint32_t i = 0; i < count; i++) {
            sum += out[i] < 1.0 ? weights[i] : 0.0;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (out[i] < 1.0) {
            out[i] = sum > 0.0 ? weights[i] * (left / sum) : left / (double) (count - certain);
        }
    }
}

/* A way through count items that visits each once: from start on in steps of stride, which has
 * no factor in common with count. */
struct walk {
    uint32_t at;
    uint32_t stride;
    uint32_t count;
};

static uint32_t common_factor(uint32_t a, uint32_t b)
{
    while (b != 0) {
        const uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static struct walk begin_walk(uint64_t bits, uint32_t count)
{
    assert(count > 0);
    struct walk walk = { .at = (uint32_t) ((bits >> 32) % count), .count = count };
    walk.stride = 1 + (uint32_t) ((bits & 0xffffffff) % count);
    while (common_factor(walk.stride, count) != 1) {
        walk.stride = walk.stride == count ? 1 : walk.stride + 1;
    }
    return walk;
}

static uint32_t step_walk(struct walk *walk)
{
    const uint32_t here = walk->at;
    walk->at += walk->stride;
    walk->at -= walk->at >= walk->count ? walk->count : 0;
    return here;
}

/* What lies under next, next + 1, ... of probabilities laid end to end. */
struct pick {
    double next;
    double end; /* of what was laid so far */
    uint32_t count;
    uint32_t size; /* how many are picked */
};

/* The draw stays a little below 1, so that probabilities whose sum was rounded down still reach
 * the last of them. */
static struct pick begin_pick(uint64_t bits, uint32_t size)
{
    return (struct pick){ .next = (double) (bits >> 11) * 0x1p-53 * (1.0 - 0x1p-17), .size = size };
}

/* Lays one; left counts the items from this one on. True: it is picked. */
static bool lay(struct pick *pick, double probability, uint32_t left)
{
    pick->end += probability;
    if (pick->end > pick->next || left == pick->size - pick->count) {
        pick->count++;
        pick->next += 1.0;
        return true;
    }
    return false;
}

/* One group's share of the draw. */
struct group {
    double load; /* sum of its experts' probabilities */
    double probability;
};

/* Chooses shape->group_limit groups into taken[]; fills in groups[]. */
static void draw_groups(const struct moe_choice_shape *shape, const float *probability,
                        const uint64_t bits[3], struct group *groups, uint32_t *taken)
{
    const uint32_t size = shape->expert_count / shape->group_count;
    double loads[MOE_CHOICE_GROUP_LIMIT];
    double inclusion[MOE_CHOICE_GROUP_LIMIT];
    for (uint32_t group = 0; group < shape->group_count; group++) {
        loads[group] = 0.0;
        for (uint32_t i = group * size; i < (group + 1) * size; i++) {
            loads[group] += (double) probability[i];
        }
    }
    moe_choice_probabilities(loads, shape->group_count, shape->group_limit, inclusion);
    struct walk walk = begin_walk(bits[1], shape->group_count);
    struct pick pick = begin_pick(bits[0], shape->group_limit);
    for (uint32_t i = 0; pick.count < pick.size; i++) {
        const uint32_t group = step_walk(&walk);
        groups[group] = (struct group){ loads[group], inclusion[group] };
        if (lay(&pick, inclusion[group], shape->group_count - i)) {
            taken[pick.count - 1] = group;
        }
    }
}

/* An expert's probability once its group is taken. */
static double within(const struct group *group, float probability)
{
    const double p = group->probability > 0.0 ? (double) probability / group->probability : 0.0;
    return p < 1.0 ? p : 1.0;
}

/* The experts of the taken groups. */
static void draw_within(const struct moe_choice_shape *shape, const float *probability,
                        const struct group *groups, const uint32_t *taken, const uint64_t bits[3],
                        uint16_t *out)
{
    const uint32_t size = shape->expert_count / shape->group_count;
    const uint32_t item_count = size * shape->group_limit;
    double sum = 0.0;
    for (uint32_t i = 0; i < shape->group_limit; i++) {
        for (uint32_t j = 0; j < size; j++) {
            sum += within(&groups[taken[i]], probability[taken[i] * size + j]);
        }
    }
    /* What was cut at 1 is made good by all. */
    const double scale = sum > 0.0 ? shape->top_k / sum : 0.0;
    struct walk walk = begin_walk(bits[2], item_count);
    struct pick pick = begin_pick(moe_random_mix(bits[0] ^ bits[2]), shape->top_k);
    for (uint32_t i = 0; pick.count < pick.size; i++) {
        const uint32_t item = step_walk(&walk);
        const uint32_t group = taken[item / size];
        const uint32_t expert = group * size + item % size;
        const double p = within(&groups[group], probability[expert]) * scale;
        if (lay(&pick, p < 1.0 ? p : 1.0, item_count - i)) {
            out[pick.count - 1] = (uint16_t) expert;
        }
    }
}

void moe_choice_draw(const struct moe_choice_shape *shape, const float *probability,
                     const uint64_t bits[3], uint16_t *out)
{
    assert(shape->top_k <= shape->expert_count / shape->group_count * shape->group_limit);
    if (shape->group_limit < shape->group_count) {
        struct group groups[MOE_CHOICE_GROUP_LIMIT];
        uint32_t taken[MOE_CHOICE_GROUP_LIMIT];
        draw_groups(shape, probability, bits, groups, taken);
        draw_within(shape, probability, groups, taken, bits, out);
        return;
    }
    struct walk walk = begin_walk(bits[1], shape->expert_count);
    struct pick pick = begin_pick(bits[0], shape->top_k);
    for (uint32_t i = 0; pick.count < pick.size; i++) {
        const uint32_t expert = step_walk(&walk);
        if (lay(&pick, (double) probability[expert], shape->expert_count - i)) {
            out[pick.count - 1] = (uint16_t) expert;
        }
    }
}
