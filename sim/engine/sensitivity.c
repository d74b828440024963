#include "sim/engine/sensitivity.h"

#include "sim/engine/hardware.h"
#include "sim/engine/timeline.h"

#include "sim/base/no_malloc.h"

enum moe_status moe_sensitivity_init(struct moe_sensitivity *s, uint32_t layer_count,
                                     uint32_t gpu_count, const struct moe_serving *serving,
                                     struct moe_arena *arena, struct moe_error *err)
{
    *s = (struct moe_sensitivity){
        .clock = MOE_NEW(arena, moe_time_ns, gpu_count),
        .barriers = MOE_NEW(arena, struct moe_barrier, moe_barrier_count(layer_count)),
    };
    MOE_TRY(moe_step_times_init(&s->times, layer_count, gpu_count, serving, arena, err));
    return s->clock != NULL && s->barriers != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "no room for the sensitivity lanes");
}

static void scale_before(const struct moe_step_times *times, const struct moe_step_prices *prices,
                         enum moe_cost_part part, double scale, moe_time_ns *out)
{
    const uint32_t gpus = times->gpu_count;
    for (uint32_t layer = 0; layer < times->layer_count; layer++) {
        const double *jitter =
            prices->jitter + ((size_t) layer * MOE_STRETCH_COUNT + MOE_STRETCH_BEFORE) * gpus;
        const uint32_t dense =
            moe_dense_layers_before(layer, times->layer_count, prices->dense_layer_count);
        for (uint32_t gpu = 0; gpu < gpus; gpu++) {
            const struct moe_duration *p = prices->tokens[gpu].part;
            const double ns =
                moe_before_ns(p[MOE_COST_ATTENTION].ns * (part == MOE_COST_ATTENTION ? scale : 1.0),
                              p[MOE_COST_DENSE].ns * (part == MOE_COST_DENSE ? scale : 1.0),
                              p[MOE_COST_GATE].ns * (part == MOE_COST_GATE ? scale : 1.0), dense);
            out[(size_t) layer * gpus + gpu] = moe_time_round_up(ns * jitter[gpu]);
        }
    }
}

/* price: [layer][gpu], or [gpu] for all layers when per_layer is 0. */
static void scale_stretch(const struct moe_step_times *times, const struct moe_step_prices *prices,
                          enum moe_stretch stretch, const double *price, size_t per_layer,
                          double scale, moe_time_ns *out)
{
    const uint32_t gpus = times->gpu_count;
    for (uint32_t layer = 0; layer < times->layer_count; layer++) {
        const double *jitter =
            prices->jitter + ((size_t) layer * MOE_STRETCH_COUNT + stretch) * gpus;
        for (uint32_t gpu = 0; gpu < gpus; gpu++) {
            out[(size_t) layer * gpus + gpu] =
                moe_time_round_up(price[layer * per_layer + gpu] * scale * jitter[gpu]);
        }
    }
}

static void scale_after(const struct moe_step_times *times, const struct moe_step_prices *prices,
                        enum moe_cost_part part, double scale, moe_time_ns *out)
{
    const uint32_t gpus = times->gpu_count;
    const double *jitter =
        prices->jitter +
        ((size_t) times->layer_count * MOE_STRETCH_COUNT + MOE_STRETCH_BEFORE) * gpus;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        const struct moe_duration *p = prices->tokens[gpu].part;
        const double head = p[MOE_COST_HEAD].ns * (part == MOE_COST_HEAD ? scale : 1.0);
        const double host = p[MOE_COST_HOST].ns * (part == MOE_COST_HOST ? scale : 1.0);
        out[gpu] = moe_time_round_up((head + host) * jitter[gpu]);
    }
}

static void scale_part(const struct moe_step_times *times, const struct moe_step_times *own,
                       const struct moe_step_prices *prices, enum moe_cost_part part, double scale,
                       struct moe_step_times *lane)
{
    *lane = *times;
    switch (part) {
    case MOE_COST_ATTENTION:
    case MOE_COST_DENSE:
    case MOE_COST_GATE:
        lane->before = own->before;
        scale_before(times, prices, part, scale, lane->before);
        break;
    case MOE_COST_SHARED:
        lane->shared = own->shared;
        scale_stretch(times, prices, MOE_STRETCH_BEFORE, prices->shared, 0, scale, lane->shared);
        break;
    case MOE_COST_DISPATCH:
        lane->dispatch = own->dispatch;
        scale_stretch(times, prices, MOE_STRETCH_DISPATCH, prices->dispatch, times->gpu_count,
                      scale, lane->dispatch);
        break;
    case MOE_COST_EXPERT:
        lane->expert = own->expert;
        scale_stretch(times, prices, MOE_STRETCH_EXPERT, prices->expert, times->gpu_count, scale,
                      lane->expert);
        break;
    case MOE_COST_COMBINE:
        lane->combine = own->combine;
        scale_stretch(times, prices, MOE_STRETCH_COMBINE, prices->combine, times->gpu_count, scale,
                      lane->combine);
        break;
    case MOE_COST_HEAD:
    case MOE_COST_HOST:
        lane->after = own->after;
        scale_after(times, prices, part, scale, lane->after);
        break;
    case MOE_COST_PART_COUNT:
        break;
    }
}

void moe_sensitivity_lane(const struct moe_step_times *times, const struct moe_step_times *own,
                          const struct moe_step_prices *prices, uint32_t number,
                          struct moe_step_times *lane)
{
    scale_part(times, own, prices, (enum moe_cost_part)(number / 2), moe_sensitivity_scale(number),
               lane);
}

void moe_sensitivity_step(struct moe_sensitivity *s, const struct moe_step_times *times,
                          const struct moe_step_prices *prices)
{
    struct moe_step_times lane;
    for (uint32_t i = 0; i < MOE_SENSITIVITY_LANES; i++) {
        moe_sensitivity_lane(times, &s->times, prices, i, &lane);
        s->time_ns[i] += moe_timeline_run(&lane, s->clock, s->barriers);
    }
}
