/* EPLB as in SGLang's deepseek_vec: copies by looking at several steps, then a snake.
 *
 * Every extra copy goes to the expert for which the largest load per copy, summed over the
 * steps, falls most. Only the expert that is the largest of a step can lower that step's
 * maximum, so a step needs its two largest experts alone. Then the copies, heaviest first, are
 * dealt to the GPUs in rows whose direction alternates. Steps, sums and quotients are float32
 * as there, and so is the tie breaker, 1e-4 times the expert's place, that is added to what a
 * copy bears (not to what it would bear after one more copy).
 * "Chunk" is what copies do not leave: a node of the hierarchical form, or everything. */
#include <assert.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/greedy.h"
#include "sim/base/no_malloc.h"

/* The two largest loads per copy of one step. */
struct peak {
    uint32_t place; /* of the largest; of equal ones the first */
    float first;
    float second;
};

struct sglang {
    struct moe_placement_shape shape; /* one group and node when global */
    struct moe_greedy greedy;
    uint32_t step_count;
    double *group_load;       /* [group_count] */
    uint32_t *place_of_group; /* [group_count] */
    uint32_t *expert_at;      /* [expert_count] by place */
    float *tokens;            /* [step][places of a chunk] */
    float *score;             /* the same per copy, with the tie breaker */
    struct peak *peak;        /* [step] */
    double *gain;             /* [places of a chunk] */
    uint32_t *copies;         /* [places of a chunk] */
    uint32_t *place_of_copy;  /* [slots of a chunk] */
    double *weight;           /* [slots of a chunk] */
    uint32_t *order;          /* [slots of a chunk] */
};

static enum moe_status set_up(struct sglang *s, const struct moe_place_view *view,
                              struct moe_arena *scratch, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &s->shape;
    const size_t places = shape->expert_count / shape->node_count;
    const size_t slots = shape->slot_count / shape->node_count;
    s->step_count = view->batch_count;
    s->group_load = MOE_NEW(scratch, double, shape->group_count);
    s->place_of_group = MOE_NEW(scratch, uint32_t, shape->group_count);
    s->expert_at = MOE_NEW(scratch, uint32_t, shape->expert_count);
    s->tokens = MOE_NEW(scratch, float, places * s->step_count);
    s->score = MOE_NEW(scratch, float, places * s->step_count);
    s->peak = MOE_NEW(scratch, struct peak, s->step_count);
    s->gain = MOE_NEW(scratch, double, places);
    s->copies = MOE_NEW(scratch, uint32_t, places);
    s->place_of_copy = MOE_NEW(scratch, uint32_t, slots);
    s->weight = MOE_NEW(scratch, double, slots);
    s->order = MOE_NEW(scratch, uint32_t, slots);
    if (s->group_load == NULL || s->place_of_group == NULL || s->expert_at == NULL ||
        s->tokens == NULL || s->score == NULL || s->peak == NULL || s->gain == NULL ||
        s->copies == NULL || s->place_of_copy == NULL || s->weight == NULL || s->order == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to balance %u experts over %u slots in %u steps",
                        shape->expert_count, shape->slot_count, s->step_count);
    }
    return moe_greedy_init(&s->greedy, scratch, shape->slot_count, err);
}

static const float *step_of(const struct moe_place_view *view, uint32_t step, uint32_t layer)
{
    return moe_place_view_batch(view, step) + (size_t) layer * view->shape.expert_count;
}

static void place_groups(struct sglang *s, const struct moe_place_view *view, uint32_t layer)
{
    const uint32_t group_size = s->shape.expert_count / s->shape.group_count;
    for (uint32_t group = 0; group < s->shape.group_count; group++) {
        float sum = 0.0f;
        for (uint32_t i = 0; i < group_size; i++) {
            float over_steps = 0.0f;
            for (uint32_t step = 0; step < s->step_count; step++) {
                over_steps += step_of(view, step, layer)[group * group_size + i];
            }
            sum += over_steps;
        }
        s->group_load[group] = sum;
    }
    moe_greedy_pack(&s->greedy, s->group_load, s->shape.group_count, s->shape.node_count,
                    s->shape.group_count / s->shape.node_count, s->place_of_group);
    for (uint32_t group = 0; group < s->shape.group_count; group++) {
        for (uint32_t i = 0; i < group_size; i++) {
            s->expert_at[s->place_of_group[group] * group_size + i] = group * group_size + i;
        }
    }
}

static struct peak find_peak(const float *score, uint32_t places)
{
    struct peak peak = { .place = 0, .first = score[0], .second = 0.0f };
    for (uint32_t place = 1; place < places; place++) {
        if (score[place] > peak.first) {
            peak = (struct peak){ place, score[place], peak.first };
        } else if (score[place] > peak.second) {
            peak.second = score[place];
        }
    }
    return peak;
}

/* One more copy for the expert whose copy lowers the sum of the peaks most. */
static uint32_t choose(struct sglang *s, uint32_t places)
{
    uint32_t best = 0;
    memset(s->gain, 0, places * sizeof *s->gain);
    for (uint32_t step = 0; step < s->step_count; step++) {
        const struct peak *peak = &s->peak[step];
        const float shared =
            s->tokens[(size_t) step * places + peak->place] / (float) (s->copies[peak->place] + 1);
        const float after = shared > peak->second ? shared : peak->second;
        s->gain[peak->place] += (double) peak->first - (double) after;
    }
    for (uint32_t place = 1; place < places; place++) {
        best = s->gain[place] > s->gain[best] ? place : best;
    }
    return best;
}

static void replicate(struct sglang *s, const struct moe_place_view *view, uint32_t layer,
                      uint32_t chunk)
{
    const uint32_t places = s->shape.expert_count / s->shape.node_count;
    const uint32_t slots = s->shape.slot_count / s->shape.node_count;
    const uint32_t *expert_at = s->expert_at + (size_t) chunk * places;
    for (uint32_t place = 0; place < places; place++) {
        s->copies[place] = 1;
        s->place_of_copy[place] = place;
    }
    for (uint32_t step = 0; step < s->step_count; step++) {
        float *tokens = s->tokens + (size_t) step * places;
        float *score = s->score + (size_t) step * places;
        for (uint32_t place = 0; place < places; place++) {
            tokens[place] = step_of(view, step, layer)[expert_at[place]];
            score[place] = tokens[place] + (float) (chunk * places + place) * 1e-4f;
        }
        s->peak[step] = find_peak(score, places);
    }
    for (uint32_t copy = places; copy < slots; copy++) {
        const uint32_t place = choose(s, places);
        s->place_of_copy[copy] = place;
        s->copies[place]++;
        for (uint32_t step = 0; step < s->step_count; step++) {
            float *score = s->score + (size_t) step * places;
            const float before = score[place];
            score[place] = (s->tokens[(size_t) step * places + place] +
                            (float) (chunk * places + place) * 1e-4f) /
                           (float) s->copies[place];
            if (before >= s->peak[step].second) { /* else the two largest are others */
                s->peak[step] = find_peak(score, places);
            }
        }
    }
}

/* Rows of one copy per GPU, heaviest first, every second row backwards. */
static void deal(struct sglang *s, uint32_t chunk, uint16_t *slots)
{
    const uint32_t places = s->shape.expert_count / s->shape.node_count;
    const uint32_t copies = s->shape.slot_count / s->shape.node_count;
    const uint32_t gpus = s->shape.gpu_count / s->shape.node_count;
    const uint32_t capacity = copies / gpus;
    const uint32_t *expert_at = s->expert_at + (size_t) chunk * places;
    for (uint32_t copy = 0; copy < copies; copy++) {
        float sum = 0.0f;
        for (uint32_t step = 0; step < s->step_count; step++) {
            sum += s->tokens[(size_t) step * places + s->place_of_copy[copy]];
        }
        s->weight[copy] = sum / (float) s->copies[s->place_of_copy[copy]];
        s->order[copy] = copy;
    }
    if (capacity > 1) {
        moe_greedy_sort(s->weight, copies, s->order, s->greedy.spare);
    }
    for (uint32_t i = 0; i < copies; i++) {
        const uint32_t row = i / gpus;
        const uint32_t gpu = row % 2 == 0 ? i % gpus : gpus - 1 - i % gpus;
        slots[(size_t) chunk * copies + (size_t) gpu * capacity + row] =
            (uint16_t) expert_at[s->place_of_copy[s->order[i]]];
    }
}

enum { HIERARCHICAL };
enum { AUTO, ALWAYS, NEVER };

static const struct moe_policy_parameter parameters[] = {
    [HIERARCHICAL] = { .name = "hierarchical",
                       .kind = MOE_PARAMETER_CHOICE,
                       .standard = AUTO,
                       .choices = (const char *const[]){ "auto", "always", "never", NULL },
                       .help = "groups onto nodes first; auto: where the nodes divide the groups",
                       .source = "SGLang --eplb-algorithm: auto, deepseek_vec_hierarchical, "
                                 "deepseek_vec" },
};

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const bool divides = shape->group_count % shape->node_count == 0;
    struct sglang s = { .shape = *shape };
    if (view->parameters[HIERARCHICAL] == ALWAYS && !divides) {
        return moe_fail(err, MOE_POLICY,
                        "hierarchical=always needs groups that divide over the nodes; there are "
                        "%u groups and %u nodes",
                        shape->group_count, shape->node_count);
    }
    if (!divides || view->parameters[HIERARCHICAL] == NEVER) {
        s.shape.group_count = 1;
        s.shape.node_count = 1;
    }
    MOE_TRY(set_up(&s, view, scratch, err));
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        place_groups(&s, view, layer);
        for (uint32_t chunk = 0; chunk < s.shape.node_count; chunk++) {
            replicate(&s, view, layer, chunk);
            deal(&s, chunk, moe_placement_layer(plan, layer));
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(eplb_sglang) = {
    MOE_POLICY_HEADER,
    .name = "eplb_sglang",
    .summary = "EPLB as in SGLang's deepseek_vec: copies that lower the peak over several steps, "
               "dealt to GPUs in a snake",
    .source = "SGLang python/sglang/srt/eplb/eplb_algorithms/deepseek_vec.py; its unstable sort "
              "made stable",
    .tie_rule = "of equal gains the first expert, of equally loaded copies the first made",
    .needs = MOE_POLICY_NEEDS_BATCHES,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};
