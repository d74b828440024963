#include "sim/engine/hardware.h"

#include <assert.h>
#include <gsl/gsl_cdf.h>
#include <math.h>

#include "sim/base/random.h"
#include "sim/cost/logarithm.h"

#include "sim/base/no_malloc.h"

/* Under load that lasts. */
static enum moe_status slow_clock(struct moe_hardware *h, struct moe_error *err)
{
    if (h->options == NULL || h->options->clock == MOE_CLOCK_BURST) {
        return MOE_OK;
    }
    h->nominal.compute = h->options->sustained_factor > 0.0 ? h->options->sustained_factor
                                                            : moe_cost_sustained_factor(h->cost);
    return h->nominal.compute > 0.0
               ? MOE_OK
               : moe_fail(err, MOE_RANGE,
                          "hardware.clock: the calibration does not say what load that lasts does "
                          "to the clock; state hardware.sustained_factor");
}

enum moe_status moe_hardware_init(struct moe_hardware *h, const struct moe_cost *cost,
                                  struct moe_hardware_size size, uint64_t seed, bool noise,
                                  const struct moe_hardware_options *options,
                                  struct moe_arena *arena, struct moe_error *err)
{
    const uint32_t gpu_count = size.gpu_count;
    const uint64_t noise_seed = seed ^ (uint64_t) size.first_gpu << 40;
    *h = (struct moe_hardware){
        .cost = cost,
        .gpu_count = gpu_count,
        .layer_count = size.layer_count,
        .noise = noise,
        .jitter_key = moe_random_key(noise_seed, MOE_RANDOM_JITTER),
        .drift_key = moe_random_key(noise_seed, MOE_RANDOM_DRIFT),
        .drift = moe_cost_drift(cost),
        .options = options,
        .comm_load = 1.0,
        .nominal = { 1.0, 1.0, 1.0 },
        .own = MOE_NEW(arena, struct moe_gpu_factor, gpu_count),
        .factor = MOE_NEW(arena, struct moe_gpu_factor, gpu_count),
        .drift_log = MOE_NEW(arena, double, gpu_count),
        .drift_factor = MOE_NEW(arena, double, gpu_count),
    };
    if (h->own == NULL || h->factor == NULL || h->drift_log == NULL || h->drift_factor == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for %u GPUs", gpu_count);
    }
    MOE_TRY(slow_clock(h, err));
    for (uint32_t gpu = 0; gpu < gpu_count; gpu++) {
        h->own[gpu] = noise ? moe_cost_gpu_factor(cost, seed, size.first_gpu + gpu)
                            : (struct moe_gpu_factor){ 1.0, 1.0, 1.0 };
        h->own[gpu].compute *= h->nominal.compute;
        h->factor[gpu] = h->own[gpu];
        h->drift_factor[gpu] = 1.0;
    }
    return MOE_OK;
}

/* The normal quantile on a grid of 2^-40: GSL uses the C library's logarithm, whose last bit
 * depends on the processor. */
static double normal(double u)
{
    return floor(gsl_cdf_ugaussian_Pinv(u) * 0x1p40 + 0.5) * 0x1p-40;
}

static void apply_event(const struct moe_hardware_event *event, struct moe_gpu_factor *factor)
{
    if (event->kind == MOE_HARDWARE_SLOW || event->kind == MOE_HARDWARE_CLOCK) {
        factor->compute *= event->factor;
    }
    if (event->kind == MOE_HARDWARE_SLOW) {
        factor->memory *= event->factor;
    }
    if (event->kind == MOE_HARDWARE_LINK) {
        factor->comm *= event->factor;
    }
}

void moe_hardware_apply_standing(const struct moe_hardware_options *options, uint32_t gpu,
                                 struct moe_gpu_factor *factor)
{
    for (uint32_t i = 0; i < options->event_count; i++) {
        const struct moe_hardware_event *e = &options->event[i];
        if (e->gpu == gpu && e->begin_ns == 0 && e->end_ns == INT64_MAX) {
            apply_event(e, factor);
        }
    }
}

/* Events of this moment. */
static void apply_events(struct moe_hardware *h, moe_time_ns now_ns)
{
    const uint32_t events = h->options == NULL ? 0 : h->options->event_count;
    h->nominal.comm = h->comm_load;
    for (uint32_t gpu = 0; gpu < h->gpu_count; gpu++) {
        h->factor[gpu] = h->own[gpu];
        h->factor[gpu].comm *= h->comm_load;
    }
    for (uint32_t i = 0; i < events; i++) {
        const struct moe_hardware_event *e = &h->options->event[i];
        if (now_ns < e->begin_ns || now_ns >= e->end_ns) {
            continue;
        }
        apply_event(e, &h->factor[e->gpu]);
    }
}

void moe_hardware_begin_step(struct moe_hardware *h, uint64_t step, moe_time_ns now_ns)
{
    h->step = step;
    apply_events(h, now_ns);
    if (!h->noise || h->drift.sigma <= 0.0) {
        return;
    }
    /* The first step draws from the stationary distribution, later ones move on from it. */
    const double keep = step == 0 ? 0.0 : h->drift.phi;
    const double spread = h->drift.sigma * sqrt(1.0 - keep * keep);
    for (uint32_t gpu = 0; gpu < h->gpu_count; gpu++) {
        const double u = moe_random_inside(h->drift_key, step * h->gpu_count + gpu);
        h->drift_log[gpu] = keep * h->drift_log[gpu] + spread * normal(u);
        h->drift_factor[gpu] = moe_exp2(h->drift_log[gpu] * 1.4426950408889634);
    }
}

void moe_hardware_jitter(const struct moe_hardware *h, uint32_t layer, double *out)
{
    static const enum moe_jitter kind[MOE_STRETCH_COUNT] = {
        [MOE_STRETCH_BEFORE] = MOE_JITTER_COMPUTE,
        [MOE_STRETCH_DISPATCH] = MOE_JITTER_COMM,
        [MOE_STRETCH_EXPERT] = MOE_JITTER_EXPERT,
        [MOE_STRETCH_COMBINE] = MOE_JITTER_COMM,
    };
    assert(layer <= h->layer_count);
    if (!h->noise) {
        for (uint32_t i = 0; i < MOE_STRETCH_COUNT * h->gpu_count; i++) {
            out[i] = 1.0;
        }
        return;
    }
    const uint64_t first = (h->step * (h->layer_count + 1) + layer) * h->gpu_count;
    for (uint32_t s = 0; s < MOE_STRETCH_COUNT; s++) {
        const struct moe_jitter_draws draws = { h->jitter_key, first * MOE_STRETCH_COUNT + s,
                                                MOE_STRETCH_COUNT };
        double *row = out + (size_t) s * h->gpu_count;
        moe_cost_jitter_row(h->cost, kind[s], draws, h->gpu_count, row);
        for (uint32_t gpu = 0; kind[s] != MOE_JITTER_COMM && gpu < h->gpu_count; gpu++) {
            row[gpu] *= h->drift_factor[gpu];
        }
    }
}
