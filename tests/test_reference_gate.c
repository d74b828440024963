/* The gate's twin on answers made by hand. */
#include <criterion/criterion.h>
#include <math.h>

#include "kernels/reference/reference_gate.h"

Test(reference_gate, softmax_is_over_all_experts)
{
    const struct moe_gate gate = {
        .expert_count = 4, .top_k = 2, .group_count = 1, .group_keep = 1, .scale = 1.0F
    };
    struct moe_gate renormalised = gate;
    const float logits[] = { 0.0F, logf(3.0F), 0.0F, logf(4.0F) }; /* 1, 3, 1, 4 of 9 */
    int32_t ids[2];
    double weights[2];
    double margin;
    moe_reference_gate_choose(&gate, 1, ids, weights, logits, NULL, &margin);
    cr_assert_eq(ids[0], 3);
    cr_assert_eq(ids[1], 1);
    cr_assert_float_eq(weights[0], 4.0 / 9.0, 1e-7);
    cr_assert_float_eq(weights[1], 3.0 / 9.0, 1e-7);
    cr_assert_float_eq(margin, 1.0 / 9.0, 1e-7);
    renormalised.renormalise = 1;
    renormalised.scale = 2.5F;
    moe_reference_gate_choose(&renormalised, 1, ids, weights, logits, NULL, NULL);
    cr_assert_float_eq(weights[0], 2.5 * 4.0 / 7.0, 1e-6);
    cr_assert_float_eq(weights[1], 2.5 * 3.0 / 7.0, 1e-6);
}

Test(reference_gate, bias_chooses_and_does_not_weigh)
{
    const struct moe_gate gate = { .expert_count = 3,
                                   .top_k = 2,
                                   .group_count = 1,
                                   .group_keep = 1,
                                   .score = MOE_GATE_SIGMOID,
                                   .scale = 1.0F };
    const float logits[] = { 0.0F, logf(3.0F), -logf(3.0F) }; /* 1/2, 3/4, 1/4 */
    const float bias[] = { 0.0F, -0.5F, 0.5F };               /* 1/2, 1/4, 3/4 */
    int32_t ids[2];
    double weights[2];
    moe_reference_gate_choose(&gate, 1, ids, weights, logits, bias, NULL);
    cr_assert_eq(ids[0], 2);
    cr_assert_eq(ids[1], 0);
    cr_assert_float_eq(weights[0], 0.25, 1e-7);
    cr_assert_float_eq(weights[1], 0.5, 1e-7);
}

Test(reference_gate, of_equals_the_lower_id_is_first)
{
    const struct moe_gate gate = {
        .expert_count = 5, .top_k = 3, .group_count = 1, .group_keep = 1, .scale = 1.0F
    };
    const float logits[] = { 1.0F, 2.0F, 1.0F, 2.0F, 1.0F };
    int32_t ids[3];
    double weights[3];
    double margin;
    moe_reference_gate_choose(&gate, 1, ids, weights, logits, NULL, &margin);
    cr_assert_eq(ids[0], 1);
    cr_assert_eq(ids[1], 3);
    cr_assert_eq(ids[2], 0);
    cr_assert(margin > 0.01); /* ties do not count */
}

Test(reference_gate, groups_go_by_their_best_or_their_two_best)
{
    struct moe_gate gate = { .expert_count = 9,
                             .top_k = 2,
                             .group_count = 3,
                             .group_keep = 1,
                             .score = MOE_GATE_SIGMOID,
                             .scale = 1.0F };
    /* Group 0 has the best one; group 1 the best two; group 2 equals group 1. */
    const float logits[] = { 3.0F, -3.0F, -3.0F, 2.0F, -9.0F, 2.0F, 2.0F, 2.0F, -9.0F };
    int32_t ids[2];
    double weights[2];
    moe_reference_gate_choose(&gate, 1, ids, weights, logits, NULL, NULL);
    cr_assert_eq(ids[0], 3);
    cr_assert_eq(ids[1], 5);
    gate.group = MOE_GATE_GROUP_BEST;
    moe_reference_gate_choose(&gate, 1, ids, weights, logits, NULL, NULL);
    cr_assert_eq(ids[0], 0);
    cr_assert_eq(ids[1], 1);
    gate.group_keep = 2;
    moe_reference_gate_choose(&gate, 1, ids, weights, logits, NULL, NULL);
    cr_assert_eq(ids[0], 0);
    cr_assert_eq(ids[1], 3);
}
