/* Coverage: the request that has waited longest joins the device whose experts cover most of its
 * prompt's choices, among the GPUs that are not much busier than the idlest. Source: own; the aim
 * of arXiv 2604.23150 without its clusters: what its prompt says is asked of the placement
 * itself, whatever policy made that. */
#include "policies/solve/group_devices.h"
#include "sim/base/no_malloc.h"

enum { DEVICES, SLACK };

struct covering {
    struct moe_group_devices devices;
    double *coverage; /* [device] */
};

static enum moe_status init(const struct moe_place_view *planning,
                            const struct moe_placement *placement, struct moe_arena *arena,
                            void **state, uint32_t *lookahead, struct moe_error *err)
{
    (void) lookahead;
    struct covering *made = MOE_NEW(arena, struct covering, 1);
    if (made == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the experts of the devices");
    }
    MOE_TRY(moe_group_devices_init(&made->devices, arena, placement,
                                   (enum moe_group_device) planning->parameters[DEVICES], err));
    made->coverage = MOE_NEW(arena, double, made->devices.device_count);
    if (made->coverage == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the coverage of %u devices",
                        made->devices.device_count);
    }
    *state = made;
    return MOE_OK;
}

static enum moe_status choose(void *state, const struct moe_group_view *view,
                              struct moe_group_choice *choice, struct moe_error *err)
{
    const struct covering *made = state;
    const struct moe_waiting_request *request = &view->waiting[0];
    const struct moe_group_home anywhere = { 0, view->shape.gpu_count };
    const uint32_t idlest = moe_group_home_seat(view, request, anywhere);
    uint32_t found = idlest;
    double most = -1.0;
    (void) err;
    if (request->signature != NULL && idlest < view->shape.gpu_count) {
        moe_group_devices_cover(&made->devices, request->signature, made->coverage);
        for (uint32_t device = 0; device < made->devices.device_count; device++) {
            const uint32_t gpu =
                moe_group_home_seat(view, request, moe_group_devices_home(&made->devices, device));
            if (gpu < view->shape.gpu_count &&
                (double) view->running[gpu] <= view->running[idlest] + view->parameters[SLACK] &&
                made->coverage[device] > most) {
                most = made->coverage[device];
                found = gpu;
            }
        }
    }
    *choice = (struct moe_group_choice){ .waiting = 0, .gpu = found };
    return MOE_OK;
}

static const struct moe_policy_parameter parameters[] = {
    [DEVICES] = MOE_GROUP_DEVICES_PARAMETER("whose experts count together; auto: a node's, or a "
                                            "GPU's where there is one node",
                                            "own"),
    [SLACK] = { .name = "slack",
                .kind = MOE_PARAMETER_WHOLE,
                .standard = 4.0,
                .min = 0.0,
                .max = 1e6,
                .help = "running requests that a GPU may have more than the idlest that fits",
                .source = "own" },
};

static const struct moe_group_methods group = { .init = init, .choose = choose };

MOE_POLICY_DEFINE(group_coverage) = {
    MOE_POLICY_HEADER,
    .name = "coverage",
    .summary = "the request that has waited longest joins the device whose experts cover most of "
               "its prompt, among those not much busier than the idlest",
    .source = "own; the aim of arXiv 2604.23150 for any placement",
    .tie_rule =
        "of equal coverage the lowest device; in it the GPU with fewest running, the lowest",
    .needs = MOE_POLICY_NEEDS_ROUTES,
    MOE_POLICY_PARAMETERS(parameters),
    .group = &group,
};
