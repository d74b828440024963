/* Round robin: every source GPU deals its own tokens of an expert over the copies in turn, without
 * asking the other sources. Source: TensorRT-LLM's routing kernel, which deals the tokens of a
 * replicated expert round robin; a kernel runs on one rank, so each rank deals for itself. Where a
 * rank begins is our choice: when all begin at the first copy, it gets up to one token more from
 * each of them, which start=first shows.
 *
 * A turn is not carried from step to step: a kernel keeps no memory. */
#include "policies/policy.h"
#include "policies/solve/spread.h"
#include "sim/base/no_malloc.h"

enum { START };
enum { START_RANK, START_FIRST };

static enum moe_status split(void *state, const struct moe_dispatch_view *view, uint32_t *quota,
                             struct moe_error *err)
{
    (void) state;
    (void) err;
    const uint32_t experts = view->shape.expert_count;
    const bool by_rank = (int) view->parameters[START] == START_RANK;
    moe_spread_first(view, quota);
    for (uint32_t source = 0; source < view->shape.gpu_count; source++) {
        const uint32_t *demand = view->demand + (size_t) source * experts;
        uint32_t *row = quota + (size_t) source * view->copy_count;
        for (uint32_t expert = 0; expert < experts; expert++) {
            const uint32_t begin = view->first_copy[expert];
            const uint32_t copies = view->first_copy[expert + 1] - begin;
            if (copies < 2 || demand[expert] == 0) {
                continue;
            }
            const uint32_t each = demand[expert] / copies;
            const uint32_t over = demand[expert] % copies;
            uint32_t copy = by_rank ? source % copies : 0;
            for (uint32_t turn = 0; turn < copies; turn++) {
                row[begin + copy] = each + (turn < over ? 1 : 0);
                copy = copy + 1 == copies ? 0 : copy + 1;
            }
        }
    }
    return MOE_OK;
}

static const char *const starts[] = { "rank", "first", NULL };

static const struct moe_policy_parameter parameters[] = {
    [START] = { .name = "start",
                .kind = MOE_PARAMETER_CHOICE,
                .choices = starts,
                .standard = START_RANK,
                .help = "the copy that takes a source's first token: its rank modulo the copies, "
                        "or the first",
                .source = "own" },
};

static const struct moe_dispatch_methods dispatch = { .split = split };

MOE_POLICY_DEFINE(dispatch_round_robin) = {
    MOE_POLICY_HEADER,
    .name = "round_robin",
    .summary = "every source GPU deals its tokens over the copies in turn, each for itself",
    .source = "TensorRT-LLM's routing kernel (round robin over the copies, per rank)",
    .tie_rule = "copies in ascending order of their slots",
    .needs = MOE_POLICY_NEEDS_NOTHING,
    MOE_POLICY_PARAMETERS(parameters),
    .dispatch = &dispatch,
};
