/* Why ranks wait in a step of two halves: every subset of causes, round by round. */
#include "sim/engine/overlap/halves_step.h"

#include "sim/base/no_malloc.h"

enum stretch { BEFORE, SHARED, DISPATCH, EXPERT, COMBINE, STRETCHES };

static const enum moe_cause own_cause[STRETCHES] = {
    [BEFORE] = MOE_CAUSE_BATCH,   [SHARED] = MOE_CAUSE_BATCH, [DISPATCH] = MOE_CAUSE_COMM,
    [EXPERT] = MOE_CAUSE_ROUTING, [COMBINE] = MOE_CAUSE_COMM,
};

/* Layers of even and odd number in turn: a layer's last exchange runs beside the next one's first
 * arithmetic. */
static moe_time_ns *variants(const struct moe_halves_step *h, uint32_t layer, uint32_t half,
                             enum stretch stretch)
{
    const size_t gpus = h->timeline.pace.gpu_count;
    return h->variant +
           ((size_t) (layer % 2 * 2 + half) * STRETCHES + stretch) * MOE_STRAGGLER_VARIANTS * gpus;
}

static void price_layer(struct moe_halves_step *h, uint32_t layer)
{
    const uint32_t gpus = h->timeline.pace.gpu_count;
    for (uint32_t half = 0; half < 2; half++) {
        const struct moe_layer_prices p = moe_step_layer_prices(&h->half[half], layer);
        moe_straggler_price(&p.before, gpus, variants(h, layer, half, BEFORE));
        moe_straggler_price(&p.shared, gpus, variants(h, layer, half, SHARED));
        moe_straggler_price(&p.dispatch, gpus, variants(h, layer, half, DISPATCH));
        moe_straggler_price(&p.expert, gpus, variants(h, layer, half, EXPERT));
        moe_straggler_price(&p.combine, gpus, variants(h, layer, half, COMBINE));
    }
}

static const moe_time_ns *pick(const struct moe_halves_step *h, uint32_t layer, uint32_t half,
                               enum stretch stretch, uint32_t subset)
{
    const size_t gpus = h->timeline.pace.gpu_count;
    return variants(h, layer, half, stretch) +
           moe_straggler_variant(own_cause[stretch], subset) * gpus;
}

/* One round of a subset. */
static void play(const struct moe_halves_step *h, uint32_t subset,
                 const struct moe_halves_work *work, struct moe_straggler *straggler)
{
    const size_t row = (size_t) subset * h->timeline.pace.gpu_count;
    const struct moe_halves_clock clock = { h->compute + row, h->comm + row };
    struct moe_halves_use use = { 0 };
    const struct moe_barrier barrier = moe_halves_round(&h->timeline.pace, work, &clock, &use);
    straggler->step_idle_ns[subset] += barrier.idle_ns;
}

/* The last round of the layer before, or the begin of the step; then all but the last of this. */
static void play_layer(const struct moe_halves_step *h, uint32_t layer, uint32_t subset,
                       struct moe_straggler *straggler)
{
    const uint32_t gpus = h->timeline.pace.gpu_count;
    const moe_time_ns *begin = pick(h, layer, 0, BEFORE, subset);
    if (layer == 0) {
        for (uint32_t gpu = 0; gpu < gpus; gpu++) {
            h->compute[(size_t) subset * gpus + gpu] = begin[gpu];
            h->comm[(size_t) subset * gpus + gpu] = 0;
        }
    } else {
        const struct moe_halves_work work = { .exchange = pick(h, layer - 1, 1, COMBINE, subset),
                                              .first = begin };
        play(h, subset, &work, straggler);
    }
    const struct moe_halves_work rounds[] = {
        { .exchange = pick(h, layer, 0, DISPATCH, subset),
          .first = pick(h, layer, 1, BEFORE, subset) },
        { .exchange = pick(h, layer, 1, DISPATCH, subset),
          .first = pick(h, layer, 0, SHARED, subset),
          .then = pick(h, layer, 0, EXPERT, subset) },
        { .exchange = pick(h, layer, 0, COMBINE, subset),
          .first = pick(h, layer, 1, SHARED, subset),
          .then = pick(h, layer, 1, EXPERT, subset) },
    };
    for (uint32_t i = 0; i < sizeof rounds / sizeof rounds[0]; i++) {
        play(h, subset, &rounds[i], straggler);
    }
}

void moe_halves_add_to_straggler(struct moe_halves_step *h, struct moe_straggler *straggler)
{
    const uint32_t gpus = h->timeline.pace.gpu_count;
    const uint32_t layers = h->timeline.layer_count;
    for (uint32_t layer = 0; layer < layers; layer++) {
        price_layer(h, layer);
        for (uint32_t subset = 0; subset < MOE_CAUSE_SUBSETS; subset++) {
            play_layer(h, layer, subset, straggler);
        }
    }
    for (uint32_t subset = 0; subset < MOE_CAUSE_SUBSETS; subset++) {
        const struct moe_halves_work last = { .exchange = pick(h, layers - 1, 1, COMBINE, subset) };
        const size_t row = (size_t) subset * gpus;
        play(h, subset, &last, straggler);
        for (uint32_t gpu = 0; gpu < gpus; gpu++) {
            straggler->clock[row + gpu] = h->compute[row + gpu] > h->comm[row + gpu]
                                              ? h->compute[row + gpu]
                                              : h->comm[row + gpu];
        }
    }
}
