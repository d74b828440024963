/*
 * Sensitivity: the same steps with one cost part 20 % cheaper or dearer.
 *
 * Each lane replays the baseline's batches with one part of moe_cost_part scaled, so that
 * the report can say which assumed cost, if it were wrong by a fifth, would change the
 * verdict. Lanes share the layer's work and noise; only durations differ: the scaled part's
 * price times the scale takes the price's place (step.h), then jitter, then rounding.
 */
#ifndef MOE_SIM_ENGINE_SENSITIVITY_H
#define MOE_SIM_ENGINE_SENSITIVITY_H

#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/time.h"
#include "sim/engine/step_times.h"

enum { MOE_SENSITIVITY_LANES = 2 * MOE_COST_PART_COUNT };

/* Lane 2 * part is 0.8, lane 2 * part + 1 is 1.2. */
static inline double moe_sensitivity_scale(uint32_t lane)
{
    return lane % 2 == 0 ? 0.8 : 1.2;
}

struct moe_sensitivity {
    struct moe_step_times times;                /* of the lane being played */
    moe_time_ns *clock;                         /* [gpu] */
    struct moe_barrier *barriers;               /* scratch */
    moe_time_ns time_ns[MOE_SENSITIVITY_LANES]; /* summed over the steps that were played */
};

/* The prices of one step from which its durations were rounded: everything but noise. */
struct moe_step_prices {
    const struct moe_token_prices *tokens; /* [gpu] */
    const double *shared;                  /* [gpu] */
    const double *dispatch;                /* [layer][gpu] */
    const double *expert;                  /* [layer][gpu] */
    const double *combine;                 /* [layer][gpu] */
    const double *jitter;                  /* [layer + 1][stretch][gpu] */
    uint32_t dense_layer_count;
};

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_sensitivity_init(struct moe_sensitivity *sensitivity, uint32_t layer_count,
                                     uint32_t gpu_count, const struct moe_serving *serving,
                                     struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* The durations of lane `number` of a step: *lane is a view that shares every array with times but
 * the one that its part changes, which is own's. */
void moe_sensitivity_lane(const struct moe_step_times *times, const struct moe_step_times *own,
                          const struct moe_step_prices *prices, uint32_t number,
                          struct moe_step_times *lane);

/* Plays one step in every lane. times: the step as it was. */
void moe_sensitivity_step(struct moe_sensitivity *sensitivity, const struct moe_step_times *times,
                          const struct moe_step_prices *prices);

#endif
