/* What must hold of a step in halves (sim/engine/audit.h). */
#include "sim/engine/overlap/halves_step.h"

#include <inttypes.h>
#include <math.h>

#include "sim/base/no_malloc.h"

#define BREACH(err, ...) moe_fail((err), MOE_LIMIT, "audit: please report this: " __VA_ARGS__)

static bool differ(double a, double b)
{
    return a < b || a > b;
}

/* One layer of both halves: copies sent and received, and tokens of slots. */
static enum moe_status check_layer(const struct moe_halves_step *h,
                                   const struct moe_route_counter *counter, uint32_t layer,
                                   struct moe_error *err)
{
    const uint32_t gpus = counter->gpu_count;
    for (uint32_t i = 0; i < 2; i++) {
        const struct moe_exchange_work *w = h->half[i].dispatch_work + (size_t) layer * gpus;
        double near = 0.0;
        double far = 0.0;
        for (uint32_t gpu = 0; gpu < gpus; gpu++) {
            near += w[gpu].near_out - w[gpu].near_in;
            far += w[gpu].far_out - w[gpu].far_in;
        }
        if (fabs(near) > 1e-6 || fabs(far) > 1e-6) {
            return BREACH(err, "half %u, layer %u: %g copies more sent than received near, %g far",
                          i, layer, near, far);
        }
    }
    const uint32_t *whole = moe_route_counter_slots(counter, layer);
    const uint32_t *first = moe_route_counter_slots(&h->counter[0], layer);
    const uint32_t *second = moe_route_counter_slots(&h->counter[1], layer);
    for (uint32_t slot = 0; slot < counter->slot_count; slot++) {
        if (first[slot] + second[slot] != whole[slot]) {
            return BREACH(err, "layer %u, slot %u: %u and %u tokens in halves, %u in all", layer,
                          slot, first[slot], second[slot], whole[slot]);
        }
    }
    return MOE_OK;
}

enum moe_status moe_halves_audit(const struct moe_halves_step *h, const struct moe_step *whole,
                                 const struct moe_route_counter *counter, moe_time_ns step_ns,
                                 struct moe_error *err)
{
    struct moe_critical_path path = { 0 };
    const struct moe_halves_use use = h->timeline.use;
    moe_time_ns sum = 0;
    for (uint32_t layer = 0; layer < whole->layer_count; layer++) {
        MOE_TRY(check_layer(h, counter, layer, err));
    }
    moe_halves_path(h, whole, &path);
    for (uint32_t part = 0; part < MOE_COST_PART_COUNT; part++) {
        for (uint32_t source = 0; source < MOE_PROVENANCE_COUNT; source++) {
            sum += path.ns[part][source];
        }
    }
    if (sum != step_ns) {
        return BREACH(err, "a step in halves of %" PRId64 " ns, %" PRId64 " along its path",
                      step_ns, sum);
    }
    return use.hidden_ns <= use.exchange_ns && use.exchange_ns <= step_ns * whole->gpu_count
               ? MOE_OK
               : BREACH(err, "%" PRId64 " ns of exchange hidden of %" PRId64 ", in %" PRId64,
                        use.hidden_ns, use.exchange_ns, step_ns);
}

enum moe_status moe_halves_audit_rows(const struct moe_halves_step *h,
                                      const struct moe_token_work *rank, uint32_t rank_count,
                                      struct moe_error *err)
{
    for (uint32_t i = 0; i < rank_count; i++) {
        const struct moe_token_work *a = &h->rank[0][i];
        const struct moe_token_work *b = &h->rank[1][i];
        const double gap = a->tokens - b->tokens;
        if (differ(a->tokens + b->tokens, rank[i].tokens) || gap < 0.0 || gap > 1.0 ||
            differ(a->sampled + b->sampled, rank[i].sampled) ||
            differ(a->score_pairs + b->score_pairs, rank[i].score_pairs) ||
            differ(a->window_pairs + b->window_pairs, rank[i].window_pairs)) {
            return BREACH(err, "rank %u: halves of %g and %g rows of %g", i, a->tokens, b->tokens,
                          rank[i].tokens);
        }
    }
    return MOE_OK;
}
