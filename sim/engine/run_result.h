/*
 * Run result, the collecting side: what one step adds to a moe_run_result.
 */
#ifndef MOE_SIM_ENGINE_RUN_RESULT_H
#define MOE_SIM_ENGINE_RUN_RESULT_H

#include "sim/engine/run.h"
#include "sim/engine/serving/serving.h"
#include "sim/engine/step.h"

/* Arrays for layer_count x gpu_count x slot_count x expert_count, zeroed.
 * Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_run_result_init(struct moe_run_result *result,
                                    const struct moe_placement_shape *shape,
                                    struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* Adds what a scored step that was priced and counted loads, with expert_of_slot[layer][slot] of
 * the counter's slots. meter: NULL unless the step's bounds are taken.
 * expert_scratch[expert_count]. */
void moe_run_result_add_loads(struct moe_run_result *result, const struct moe_step *step,
                              const struct moe_route_counter *counter,
                              const uint16_t *expert_of_slot, struct moe_bound_meter *meter,
                              uint32_t *expert_scratch);

/* Adds where its time went, as it was played: in one piece, or in halves. */
void moe_run_result_add_step(struct moe_run_result *result, const struct moe_step *step,
                             const struct moe_route_counter *counter,
                             const uint16_t *expert_of_slot, moe_time_ns step_ns);
void moe_run_result_add_halves(struct moe_run_result *result, const struct moe_step *step,
                               const struct moe_halves_step *halves, moe_time_ns step_ns);

/* Adds a request that finished in a scored step: TPOT and end-to-end latency. */
void moe_run_result_add_request(struct moe_run_result *result, const struct moe_finished *finished);

#endif
