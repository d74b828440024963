/*
 * Home: seats for waiting requests that belong somewhere: what group policies share that give
 * every request a home, a run of GPUs.
 *
 * Who is seated, and where:
 *   1. the first request that was passed over `patience` times or more: on the GPU with fewest
 *      running requests, wherever it fits;
 *   2. else the first request that fits on a GPU of its home: there, where fewest are running;
 *   3. else, when spill is set or nothing is running anywhere, the first request: as in 1;
 *   4. else nobody for now.
 * Of equally many running the lowest GPU.
 */
#ifndef MOE_POLICIES_GROUP_HOME_H
#define MOE_POLICIES_GROUP_HOME_H

#include <stdbool.h>
#include <stdint.h>

#include "policies/policy.h"

struct moe_group_home {
    uint32_t first; /* GPUs first .. end-1 */
    uint32_t end;
};

/* The GPU of home with fewest running requests on which the request fits, or shape.gpu_count. */
uint32_t moe_group_home_seat(const struct moe_group_view *view,
                             const struct moe_waiting_request *request, struct moe_group_home home);

/* The rule above; home[waiting_count]. */
struct moe_group_choice moe_group_home_choose(const struct moe_group_view *view,
                                              const struct moe_group_home *home, uint32_t patience,
                                              bool spill);

#endif
