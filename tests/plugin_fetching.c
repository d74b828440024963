/* A plug-in that in every second layer fetches the first missing expert to every GPU, and gives all
 * tokens to the last copy of their expert. PLUGIN_WRONG: NOTHING keeps the contract, each other
 * value breaks one rule of it. */
#include "policies/policy.h"

enum wrong { NOTHING, NO_SUCH_GPU, TWICE, RESIDENT, OVERFULL, BY_ADDRESS, STALE };

/* A variable, since with the macro one build would compare a constant with itself. */
static const enum wrong broken = PLUGIN_WRONG;

struct memory {
    uint32_t copy; /* number of the last copy of expert 0 that was there */
};

static enum moe_status init(const struct moe_place_view *planning,
                            const struct moe_placement *placement, struct moe_arena *arena,
                            void **state, struct moe_error *err)
{
    (void) planning;
    (void) placement;
    *state = MOE_NEW(arena, struct memory, 1);
    return *state != NULL ? MOE_OK : moe_fail(err, MOE_LIMIT, "no room");
}

static bool holds(const struct moe_dispatch_view *view, uint32_t expert, uint32_t gpu)
{
    for (uint32_t i = view->first_copy[expert]; i < view->first_copy[expert + 1]; i++) {
        if (view->gpu_of_copy[i] == gpu) {
            return true;
        }
    }
    return false;
}

static enum moe_status fetch(void *state, const struct moe_dispatch_view *view,
                             struct moe_dispatch_fetch *copies, uint32_t *count,
                             struct moe_error *err)
{
    const uint32_t gpus = view->shape.gpu_count;
    const uint32_t first = broken == BY_ADDRESS ? (uint32_t) ((uintptr_t) state >> 4 & 1) : 0;
    const uint32_t most = broken == OVERFULL ? view->fetch_limit + 1 : 1;
    const uint32_t room = gpus * view->fetch_limit;
    (void) err;
    if ((view->step + view->layer) % 2 == 1) {
        return MOE_OK;
    }
    for (uint32_t gpu = first; gpu < gpus; gpu++) {
        uint32_t here = 0;
        for (uint32_t e = 0; e < view->shape.expert_count && here < most && *count < room; e++) {
            if (!holds(view, e, gpu) || broken == RESIDENT) {
                const uint32_t to = broken == NO_SUCH_GPU ? gpus : gpu;
                copies[(*count)++] = (struct moe_dispatch_fetch){ (uint16_t) e, (uint16_t) to };
                here++;
            }
        }
        if (broken == TWICE && here == 1 && view->fetch_limit > 1) {
            copies[*count] = copies[*count - 1];
            *count += 1;
        }
        if (*count >= room) {
            break;
        }
    }
    return MOE_OK;
}

/* To the last copy of each expert; STALE: expert 0 to where its last copy was the time before. */
static enum moe_status split(void *state, const struct moe_dispatch_view *view, uint32_t *quota,
                             struct moe_error *err)
{
    struct memory *memory = state;
    const uint32_t experts = view->shape.expert_count;
    const uint32_t last = view->first_copy[1] - 1;
    (void) err;
    for (uint32_t source = 0; source < view->shape.gpu_count; source++) {
        const uint32_t *demand = view->demand + (size_t) source * experts;
        uint32_t *row = quota + (size_t) source * view->copy_count;
        for (uint32_t e = 0; e < experts; e++) {
            uint32_t copy = view->first_copy[e + 1] - 1;
            if (broken == STALE && e == 0 && memory->copy < view->copy_count) {
                copy = memory->copy;
            }
            row[copy] += demand[e];
        }
    }
    memory->copy = last;
    return MOE_OK;
}

static const struct moe_dispatch_methods dispatch = { .init = init,
                                                      .fetch = fetch,
                                                      .split = split };

MOE_POLICY_DEFINE(fetching) = {
    MOE_POLICY_HEADER, .name = "fetching", .summary = "the first missing expert to every GPU",
    .source = "own",   .tie_rule = "none", .dispatch = &dispatch,
};
