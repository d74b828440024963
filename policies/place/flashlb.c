/* FlashLB: balances the mean and the spread of the load (solve/flash_solver.h).
 *
 * Departures: the original keeps the ratio that a layer had when it was last changed; here,
 * where a policy has no memory, the ratio that the new plan would have takes its place. */
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/copy_budget.h"
#include "policies/solve/flash_solver.h"
#include "policies/solve/realign.h"
#include "sim/base/no_malloc.h"

enum { REPLICATE, Z, DEPTH, WIDTH, SAMPLES, FLOOR, KEEP_ABOVE, KEEP_RATIO, REALIGN };
enum { GREEDY, PROPORTIONAL };

static const struct moe_policy_parameter parameters[] = {
    [REPLICATE] = { .name = "replicate",
                    .kind = MOE_PARAMETER_CHOICE,
                    .standard = GREEDY,
                    .choices = (const char *const[]){ "greedy", "proportional", NULL },
                    .help = "how an interval's copies go to its experts: each to the largest risk "
                            "per copy, or all in proportion to risk by largest remainder",
                    .source = "vllm-ascend policy_flashlb, which has both; greedy was the better "
                              "on recorded loads" },
    [Z] = { .name = "z",
            .kind = MOE_PARAMETER_REAL,
            .standard = 0.6744897501960817,
            .max = 10,
            .help = "standard deviations added to the mean",
            .source = "vllm-ascend policy_flashlb: the 75 % quantile" },
    [DEPTH] = { .name = "depth",
                .kind = MOE_PARAMETER_WHOLE,
                .standard = 4,
                .min = 1,
                .max = 16,
                .help = "intervals of experts; 1 = no search",
                .source = "vllm-ascend policy_flashlb" },
    [WIDTH] = { .name = "width",
                .kind = MOE_PARAMETER_WHOLE,
                .standard = 8,
                .max = 64,
                .help = "copies more or fewer that are tried per interval",
                .source = "vllm-ascend policy_flashlb" },
    [SAMPLES] = { .name = "samples",
                  .kind = MOE_PARAMETER_WHOLE,
                  .standard = 64,
                  .min = 1,
                  .max = 4096,
                  .help = "the window is summed up to so many steps; the oldest may be left out",
                  .source = "vllm-ascend policy_flashlb" },
    [FLOOR] = { .name = "floor",
                .kind = MOE_PARAMETER_REAL,
                .standard = 1,
                .max = 1e9,
                .help = "tokens added to every expert of every batch",
                .source = "vllm-ascend policy_flashlb" },
    [KEEP_ABOVE] = { .name = "keep_above",
                     .kind = MOE_PARAMETER_REAL,
                     .standard = 0.9,
                     .max = 1,
                     .help = "a layer stays as it is while mean / max load is at least this",
                     .source = "vllm-ascend policy_flashlb" },
    [KEEP_RATIO] = { .name = "keep_ratio",
                     .kind = MOE_PARAMETER_REAL,
                     .standard = 0.95,
                     .max = 1,
                     .help = "and at least this times the new plan's",
                     .source = "vllm-ascend policy_flashlb" },
    [REALIGN] = { .name = "realign",
                  .kind = MOE_PARAMETER_FLAG,
                  .standard = 1,
                  .help = "relabel GPUs and slots so that least moves",
                  .source = "vllm-ascend policy_flashlb" },
};

struct flash {
    const double *parameters;
    struct moe_flash solver;
    struct moe_realign realign;
};

static enum moe_status set_up(struct flash *f, const struct moe_place_view *view,
                              struct moe_arena *scratch, struct moe_error *err)
{
    const struct moe_placement_shape *shape = &view->shape;
    const uint32_t samples = (uint32_t) view->parameters[SAMPLES];
    const struct moe_flash_rule rule = {
        .proportional = view->parameters[REPLICATE] == PROPORTIONAL,
        .z = view->parameters[Z],
        .depth = (uint32_t) view->parameters[DEPTH],
        .width = (uint32_t) view->parameters[WIDTH],
    };
    f->parameters = view->parameters;
    MOE_TRY(moe_flash_init(&f->solver, scratch, shape, &rule,
                           view->batch_count < samples ? view->batch_count : samples, err));
    return moe_realign_init(&f->realign, scratch, shape->gpu_count,
                            moe_placement_slots_per_gpu(shape), shape->expert_count, err);
}

/* Steps are sums of equally many batches, the last ones. */
static void read_layer(struct flash *f, const struct moe_place_view *view, uint32_t layer)
{
    const size_t experts = view->shape.expert_count;
    const uint32_t samples = (uint32_t) view->parameters[SAMPLES];
    const uint32_t steps = view->batch_count < samples ? view->batch_count : samples;
    const uint32_t per_step = view->batch_count / steps;
    const uint32_t first = view->batch_count - per_step * steps;
    memset(f->solver.x, 0, steps * experts * sizeof *f->solver.x);
    for (uint32_t i = 0; i < steps * per_step; i++) {
        double *x = f->solver.x + i / per_step * experts;
        const float *batch = moe_place_view_batch(view, first + i) + layer * experts;
        for (size_t expert = 0; expert < experts; expert++) {
            x[expert] += (double) batch[expert] + f->parameters[FLOOR];
        }
    }
    moe_flash_read(&f->solver, steps);
}

/* Whether the layer may stay as it is, given what the new plan is worth. */
static bool may_keep(struct flash *f, const uint16_t *before, double worth)
{
    struct moe_flash *solver = &f->solver;
    memset(solver->part, 0, solver->expert_count * sizeof *solver->part);
    for (uint32_t slot = 0; slot < solver->gpu_count * solver->capacity; slot++) {
        if (before[slot] != MOE_SLOT_EMPTY) {
            solver->part[before[slot]]++;
        }
    }
    const double ratio = 1.0 / moe_flash_worth(solver, before, solver->part);
    return ratio >= f->parameters[KEEP_ABOVE] && ratio >= f->parameters[KEEP_RATIO] / worth;
}

static enum moe_status place(const struct moe_place_view *view, struct moe_arena *scratch,
                             struct moe_placement *plan, struct moe_error *err)
{
    const uint32_t slots = view->shape.slot_count;
    struct flash f;
    MOE_TRY(set_up(&f, view, scratch, err));
    for (uint32_t layer = 0; layer < view->shape.layer_count; layer++) {
        const uint16_t *before = moe_placement_layer(view->previous, layer);
        uint16_t *now = moe_placement_layer(plan, layer);
        read_layer(&f, view, layer);
        const double worth = moe_flash_search(&f.solver, moe_copy_budget(view, layer));
        const bool keep = view->replica_budget_total == 0 && may_keep(&f, before, worth);
        memcpy(now, keep ? before : f.solver.slots, slots * sizeof *now);
        if (f.parameters[REALIGN] != 0.0 && !keep) {
            moe_realign_gpus(&f.realign, before, now, f.solver.gpu_count);
        }
    }
    return MOE_OK;
}

MOE_POLICY_DEFINE(flashlb) = {
    MOE_POLICY_HEADER,
    .name = "flashlb",
    .summary = "balances mean + z * deviation of the load, with a tree search over how many "
               "copies the hotter experts get",
    .source = "vllm-ascend policy_flashlb (FlashTree); it remembers a layer's last ratio, here "
              "the new plan's stands for it",
    .tie_rule = "of equal risks the first expert, of equal GPUs the first, of equally good "
                "searches the one nearest to plain replication, fewer copies before more",
    .needs = MOE_POLICY_NEEDS_BATCHES | MOE_POLICY_NEEDS_PREVIOUS,
    .budgeted = true,
    MOE_POLICY_PARAMETERS(parameters),
    .place = place,
};
