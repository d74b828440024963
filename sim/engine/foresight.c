#include "sim/engine/foresight.h"

#include <assert.h>
#include <string.h>

#include "sim/base/no_malloc.h"

enum moe_status moe_foresight_init(struct moe_foresight *f, const struct moe_composition_part *part,
                                   const struct moe_place_view *planning, struct moe_arena *arena,
                                   struct moe_error *err)
{
    const struct moe_placement_shape *shape = &planning->shape;
    const size_t cells = (size_t) shape->layer_count * shape->expert_count;
    const struct moe_policy *policy = part->policy;
    struct moe_place_view shown;
    struct moe_place_view asked = *planning;
    double unused[MOE_POLICY_PARAMETER_LIMIT];
    asked.parameters = part->values;
    *f = (struct moe_foresight){
        .part = part,
        .shape = *shape,
        .now = MOE_NEW(arena, uint32_t, cells),
        .last = MOE_NEW(arena, uint32_t, cells),
        .predicted = MOE_NEW(arena, float, shape->expert_count),
    };
    assert(policy->predict->step != NULL);
    if (f->now == NULL || f->last == NULL || f->predicted == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for the loads of %u layers", shape->layer_count);
    }
    MOE_TRY(
        moe_predict_score_init(&f->score, arena, shape->expert_count, MOE_FORESIGHT_HOTTEST, err));
    MOE_TRY(moe_policy_show(policy, &asked, &shown, unused, err));
    f->seed = shown.seed;
    if (policy->predict->init == NULL) {
        return MOE_OK;
    }
    struct moe_error reason = { 0 };
    const enum moe_status status = policy->predict->init(&shown, arena, &f->state, &reason);
    return status == MOE_OK
               ? MOE_OK
               : moe_fail(err, status, "predict policy %s: %s", policy->name, reason.text);
}

void moe_foresight_begin_step(struct moe_foresight *f, uint64_t step, bool scoring)
{
    uint32_t *ended = f->now;
    f->begun = step > 0;
    f->now = f->last;
    f->last = ended;
    f->step = step;
    f->scoring = scoring;
}

static enum moe_status check(const struct moe_foresight *f, uint32_t layer, bool *said,
                             struct moe_error *err)
{
    *said = false;
    for (uint32_t expert = 0; expert < f->shape.expert_count; expert++) {
        const double load = (double) f->predicted[expert];
        if (!(load >= 0.0 && load <= MOE_POLICY_LOAD_LIMIT)) {
            return moe_fail(err, MOE_POLICY,
                            "predict policy %s: layer %u, expert %u: a load of %g; allowed: 0 to "
                            "%g",
                            f->part->policy->name, layer, expert, load, MOE_POLICY_LOAD_LIMIT);
        }
        *said |= load > 0.0;
    }
    return MOE_OK;
}

enum moe_status moe_foresight_layer(struct moe_foresight *f, uint32_t layer, const uint64_t *total,
                                    const float **predicted, struct moe_error *err)
{
    const uint32_t experts = f->shape.expert_count;
    const struct moe_policy *policy = f->part->policy;
    uint32_t *now = f->now + (size_t) layer * experts;
    struct moe_error reason = { 0 };
    bool said = false;
    for (uint32_t expert = 0; expert < experts; expert++) {
        assert(total[expert] <= UINT32_MAX);
        now[expert] = (uint32_t) total[expert];
    }
    const struct moe_predict_view view = {
        .shape = f->shape,
        .step = f->step,
        .layer = layer,
        .lead_steps = 1,
        .lead_layers = 1,
        .last = f->begun ? f->last + (size_t) layer * experts : NULL,
        .before = layer > 0 ? now - experts : NULL,
        .actual = (policy->needs & MOE_POLICY_NEEDS_FUTURE) != 0 ? now : NULL,
        .parameters = f->part->values,
        .seed = f->seed,
    };
    memset(f->predicted, 0, experts * sizeof *f->predicted);
    const enum moe_status status = policy->predict->step(f->state, &view, f->predicted, &reason);
    if (status != MOE_OK) {
        return moe_fail(err, status, "predict policy %s: %s", policy->name, reason.text);
    }
    MOE_TRY(check(f, layer, &said, err));
    if (f->scoring) {
        moe_predict_score_add(&f->score, f->predicted, now);
    }
    *predicted = said ? f->predicted : NULL;
    return MOE_OK;
}

enum moe_status moe_foresight_watch(struct moe_foresight *f, const uint32_t *tokens,
                                    const uint16_t *expert_of_slot, uint64_t *total,
                                    struct moe_error *err)
{
    for (uint32_t layer = 0; layer < f->shape.layer_count; layer++) {
        const size_t first = (size_t) layer * f->shape.slot_count;
        const uint16_t *expert = expert_of_slot + first;
        const float *unused = NULL;
        memset(total, 0, f->shape.expert_count * sizeof *total);
        for (uint32_t slot = 0; slot < f->shape.slot_count; slot++) {
            if (expert[slot] != MOE_SLOT_EMPTY) {
                total[expert[slot]] += tokens[first + slot];
            }
        }
        MOE_TRY(moe_foresight_layer(f, layer, total, &unused, err));
    }
    return MOE_OK;
}

struct moe_foresight_score moe_foresight_result(const struct moe_predict_score *score)
{
    return (struct moe_foresight_score){
        .scored = score->scored,
        .error_share = moe_predict_score_error_share(score),
        .wrong_share = moe_predict_score_wrong_share(score),
        .hit_rate = moe_predict_score_hit_rate(score),
    };
}

enum moe_status moe_foresight_score_window(const struct moe_placement_shape *shape,
                                           const double *predicted, const double *actual,
                                           struct moe_arena *scratch,
                                           struct moe_foresight_score *out, struct moe_error *err)
{
    const uint32_t experts = shape->expert_count;
    struct moe_predict_score score;
    double *said = MOE_NEW(scratch, double, experts);
    if (said == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to score the loads of %u experts", experts);
    }
    MOE_TRY(moe_predict_score_init(&score, scratch, experts, MOE_FORESIGHT_HOTTEST, err));
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        const double *was = actual + (size_t) layer * experts;
        const double *row = predicted + (size_t) layer * experts;
        double sum[2] = { 0.0, 0.0 };
        /* The windows differ in length: only the shares can be compared. */
        for (uint32_t expert = 0; expert < experts; expert++) {
            sum[0] += row[expert];
            sum[1] += was[expert];
        }
        for (uint32_t expert = 0; expert < experts; expert++) {
            said[expert] = sum[0] > 0.0 ? row[expert] * (sum[1] / sum[0]) : 0.0;
        }
        moe_predict_score_add_window(&score, said, was);
    }
    *out = moe_foresight_result(&score);
    return MOE_OK;
}
