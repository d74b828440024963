#include "policies/solve/group_home.h"

#include "sim/base/no_malloc.h"

uint32_t moe_group_home_seat(const struct moe_group_view *view,
                             const struct moe_waiting_request *request, struct moe_group_home home)
{
    uint32_t found = view->shape.gpu_count;
    for (uint32_t gpu = home.first; gpu < home.end; gpu++) {
        if (view->free_seats[gpu] > 0 && view->kv_free_tokens[gpu] >= request->kv_tokens &&
            (found == view->shape.gpu_count || view->running[gpu] < view->running[found])) {
            found = gpu;
        }
    }
    return found;
}

static bool all_idle(const struct moe_group_view *view)
{
    for (uint32_t gpu = 0; gpu < view->shape.gpu_count; gpu++) {
        if (view->running[gpu] > 0) {
            return false;
        }
    }
    return true;
}

struct moe_group_choice moe_group_home_choose(const struct moe_group_view *view,
                                              const struct moe_group_home *home, uint32_t patience,
                                              bool spill)
{
    const uint32_t none = view->shape.gpu_count;
    const struct moe_group_home anywhere = { 0, none };
    for (uint32_t i = 0; i < view->waiting_count; i++) {
        if (view->waiting[i].passed_over >= patience) {
            const uint32_t gpu = moe_group_home_seat(view, &view->waiting[i], anywhere);
            return (struct moe_group_choice){ .waiting = i, .gpu = gpu };
        }
    }
    for (uint32_t i = 0; i < view->waiting_count; i++) {
        const uint32_t gpu = moe_group_home_seat(view, &view->waiting[i], home[i]);
        if (gpu < none) {
            return (struct moe_group_choice){ .waiting = i, .gpu = gpu };
        }
    }
    if (spill || all_idle(view)) {
        const uint32_t gpu = moe_group_home_seat(view, &view->waiting[0], anywhere);
        return (struct moe_group_choice){ .waiting = 0, .gpu = gpu };
    }
    return (struct moe_group_choice){ .waiting = 0, .gpu = none };
}
