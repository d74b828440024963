/*
 * Eviction: a placement without GPUs that have died.
 *
 * Slots of dead GPUs are emptied. In every layer each expert that then has no copy, lowest first,
 * takes a slot of a GPU that lives: an empty one, on the GPU with most empty slots of the layer
 * (the lowest of equal ones); else that of a copy of the expert with most copies (the lowest of
 * equal ones), on the GPU with the highest slot of it.
 */
#ifndef MOE_SIM_ENGINE_ONLINE_EVICTION_H
#define MOE_SIM_ENGINE_ONLINE_EVICTION_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/placement.h"
#include "sim/base/error.h"

/* dead[gpu]. fetched[gpu] is raised by the experts that a GPU gets, of all layers; NULL: not
 * asked. Errors: MOE_POLICY when the slots that remain do not hold one copy of every expert. */
enum moe_status moe_placement_evict(struct moe_placement *placement, const bool *dead,
                                    uint32_t *fetched, struct moe_error *err) MOE_MUST_CHECK;

#endif
