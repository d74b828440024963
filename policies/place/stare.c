/* STARE: a fresh plan for a layer only where its gain pays for the weights that move.
 *
 * The window is cut into chunks of batches; inside one the batches' weights rise from `oldest`
 * to 1, and the chunks are blended by an exponential average with factor `alpha` for the newer.
 * On that estimate EPLB makes a fresh plan per layer under the labels that move least. A layer
 * takes it when
 *   imbalance now - imbalance then > moves * seconds per move * layers * safety / horizon,
 * where a move carries one expert over a link of `bandwidth`; at most `layers` layers change,
 * those that gain most first.
 *
 * Departures: the original adapts its safety factor to what the last change really brought, and
 * leaves a layer alone for two calls after a change. A policy here has no memory, so safety is
 * a parameter and there is no such pause. Labels are matched exactly, not by overlap and 2-opt. */
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/greedy.h"
#include "policies/solve/thrifty.h"
#include "sim/base/no_malloc.h"

enum { OLDEST, CHUNK, ALPHA, SAFETY, BANDWIDTH, HORIZON, LAYERS };

static const struct moe_policy_parameter parameters[] = {
    [OLDEST] = { .name = "oldest",
                 .kind = MOE_PARAMETER_REAL,
                 .standard = 0.5,
                 .min = 0.001,
                 .max = 1,
                 .help = "weight of a chunk's oldest batch; its newest has 1",
                 .source = "STARE-LB v15" },
    [CHUNK] = { .name = "chunk",
                .kind = MOE_PARAMETER_WHOLE,
                .standard = 128,
                .min = 1,
                .max = 1e9,
                .help = "batches between two updates of the average",
                .source = "STARE-LB v15: its collection interval" },
    [ALPHA] = { .name = "alpha",
                .kind = MOE_PARAMETER_REAL,
                .standard = 0.7,
                .min = 0.001,
                .max = 1,
                .help = "weight of the newer chunk in the average",
                .source = "STARE-LB v15" },
    [SAFETY] = { .name = "safety",
                 .kind = MOE_PARAMETER_REAL,
                 .standard = 16,
                 .max = 1000,
                 .help = "factor on the price of a move",
                 .source = "STARE-LB v15: where its adaptive factor starts (1 to 16)" },
    [BANDWIDTH] = { .name = "bandwidth",
                    .kind = MOE_PARAMETER_REAL,
                    .standard = 9e11,
                    .min = 1e6,
                    .max = 1e15,
                    .help = "bytes per second that a moving expert's weights take",
                    .source = "STARE-LB v15: the competition's 900 GB/s" },
    [HORIZON] = { .name = "horizon",
                  .kind = MOE_PARAMETER_REAL,
                  .standard = 60,
                  .min = 1e-6,
                  .max = 1e9,
                  .help = "seconds of work that one unit of imbalance costs",
                  .source = "STARE-LB v15: the competition's modelled time is 60 x imbalance" },
    [LAYERS] = { .name = "layers",
                 .kind = MOE_PARAMETER_WHOLE,
                 .standard = 0,
                 .max = 65534,
                 .help = "layers that may change; 0 = all",
                 .source = "own; the competition switches one layer per iteration" },
};

struct stare {
    struct moe_thrifty thrifty;
    double *average; /* [expert_count] */
    double *gain;    /* [layer_count] of the layers that pay, else 0 */
    uint32_t *order; /* [layer_count] */
    uint32_t *spare; /* [layer_count] */
};

/* Chunks are counted from the newest batch back, so that the newest is whole. */
static void estimate(struct stare *s, const struct moe_place_view *view, uint32_t layer)
{
    struct moe_thrifty *t = &s->thrifty;
    const uint32_t chunk = (uint32_t) view->parameters[CHUNK];
    const double alpha = view->parameters[ALPHA];
    uint32_t end = view->batch_count % chunk > 0 ? view->batch_count % chunk : chunk;
    uint32_t begin = 0;
    end = end < view->batch_count ? end : view->batch_count;
    for (; begin < view->batch_count; begin = end, end += chunk) {
        moe_thrifty_average(t, view, layer, begin, end, view->parameters[OLDEST], 1.0);
        for (uint32_t expert = 0; expert < t->shape.expert_count; expert++) {
            s->average[expert] =
                begin == 0 ? t->weight[expert]
                           : alpha * t->weight[expert] + (1.0 - alpha) * s->average[expert];
        }
    }
    memcpy(t->weight, s->average, t->shape.expert_count * sizeof *t->weight);
}

static enum moe_status set_up(struct stare *s, const struct moe_placement_shape *shape,
                              struct moe_arena *scratch, struct moe_error *err)
{
    s->average = MOE_NEW(scratch, double, shape->expert_count);
    s->gain = MOE_NEW(scratch, double, shape->layer_count);
    s->order = MOE_NEW(scratch, uint32_t, shape->layer_count);
    s->spare = MOE_NEW(scratch, uint32_t, shape->layer_count);
    if (s->average == NULL || s->gain == NULL || s->order == NULL || s->spare == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for %u layers of %u experts", shape->layer_count,
                        shape->expert_count);
    }
    return moe_thrifty_init(&s->thrifty, scratch, shape, err);
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const double *p = view->parameters;
    const double price =
        view->memory->expert_bytes / p[BANDWIDTH] * shape->layer_count * p[SAFETY] / p[HORIZON];
    struct stare s;
    MOE_TRY(set_up(&s, shape, scratch, err));
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const uint16_t *before = moe_placement_layer(view->previous, layer);
        uint16_t *row = moe_placement_layer(plan, layer);
        estimate(&s, view, layer);
        moe_thrifty_replan(&s.thrifty, before, row);
        const double now = moe_thrifty_measure(&s.thrifty, before);
        const double gain = now - moe_thrifty_measure(&s.thrifty, row);
        const uint32_t moves = moe_realign_count_moves(before, row, shape->slot_count);
        s.gain[layer] = gain > moves * price ? gain : 0.0;
    }
    moe_greedy_sort(s.gain, shape->layer_count, s.order, s.spare);
    for (uint32_t i = 0; i < shape->layer_count; i++) {
        const uint32_t layer = s.order[i];
        if (s.gain[layer] <= 0.0 || (p[LAYERS] > 0.0 && i >= p[LAYERS])) {
            memcpy(moe_placement_layer(plan, layer), moe_placement_layer(view->previous, layer),
                   shape->slot_count * sizeof(uint16_t));
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(stare) = {
    MOE_POLICY_HEADER,
    .name = "stare",
    .summary = "a fresh plan for a layer only where its gain in balance pays for the moves",
    .source = "STARE-LB v15 of the LauzHack x Huawei competition, from its description; without "
              "its adaptive safety and pauses",
    .tie_rule = "of equal gains the lower layer; else EPLB's",
    .needs = MOE_POLICY_NEEDS_BATCHES | MOE_POLICY_NEEDS_PREVIOUS | MOE_POLICY_NEEDS_MEMORY,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};
