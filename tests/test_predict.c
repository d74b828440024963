/* Predictors on hand-made series and routes, their scores, and what lead and error mean. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/predict_score.h"
#include "policies/solve/predict_periods.h"
#include "sim/base/random.h"

enum { LAYERS = 2, EXPERTS = 4, STEPS = 40, BATCHES = 6, ARENA_BYTES = 1 << 20 };

static struct moe_arena arena;
static struct moe_place_view planning;
static double values[MOE_POLICY_PARAMETER_LIMIT];
static double load[LAYERS * EXPERTS];
static float batches[BATCHES * LAYERS * EXPERTS];

static void setup(void)
{
    cr_assert_eq(moe_arena_init(&arena, ARENA_BYTES, NULL), MOE_OK);
    for (uint32_t i = 0; i < sizeof batches / sizeof batches[0]; i++) {
        batches[i] = (float) ((i * 7) % 11);
    }
    planning = (struct moe_place_view){
        .shape = { LAYERS, EXPERTS, EXPERTS, 1, 1, 1 },
        .parameters = values,
        .batch_count = BATCHES,
        .batches = batches,
        .seed = 5,
    };
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(predict, .init = setup, .fini = teardown);

/* The policy with its defaults in values. */
static const struct moe_policy *find(const char *name)
{
    const struct moe_policy *policy = NULL;
    cr_assert_eq(moe_policy_find(MOE_POLICY_PREDICT, name, &policy, NULL), MOE_OK, "%s", name);
    moe_policy_defaults(policy, values);
    return policy;
}

static void set(const struct moe_policy *policy, const char *name, double value)
{
    uint32_t i = 0;
    while (strcmp(policy->parameters[i].name, name) != 0) {
        i++;
        cr_assert_lt(i, policy->parameter_count, "%s has no %s", policy->name, name);
    }
    values[i] = value;
}

static void ask_window(const struct moe_policy *policy)
{
    struct moe_error err = { 0 };
    memset(load, 0xff, sizeof load);
    cr_assert_eq(policy->predict->window(&planning, &arena, load, &err), MOE_OK, "%s", err.text);
}

/* load is wanted[layer][expert], scaled to what each layer had in the whole window. */
static void expect_window(const double *wanted)
{
    for (uint32_t i = 0; i < LAYERS * EXPERTS; i++) {
        double sum = 0.0;
        double all = 0.0;
        for (uint32_t j = i / EXPERTS * EXPERTS; j < (i / EXPERTS + 1) * EXPERTS; j++) {
            sum += wanted[j];
            for (uint32_t batch = 0; batch < BATCHES; batch++) {
                all += (double) batches[batch * LAYERS * EXPERTS + j];
            }
        }
        cr_assert_float_eq(load[i], wanted[i] * all / sum, 1e-9, "%u: %g", i, load[i]);
    }
}

/* Counts of a made-up series. */
static uint32_t count_at(uint32_t step, uint32_t layer, uint32_t expert)
{
    const uint64_t key = moe_random_key(9, MOE_RANDOM_TEST);
    return (uint32_t) moe_random_below(key, (step * LAYERS + layer) * EXPERTS + expert, 1000);
}

/* Runs the policy over the series; said[step][layer][expert]. */
static void ask_steps(const struct moe_policy *policy, float *said)
{
    static uint32_t row[STEPS][LAYERS][EXPERTS];
    void *state = NULL;
    struct moe_error err = { 0 };
    if (policy->predict->init != NULL) {
        cr_assert_eq(policy->predict->init(&planning, &arena, &state, &err), MOE_OK, "%s",
                     err.text);
    }
    memset(said, 0, sizeof(float) * STEPS * LAYERS * EXPERTS);
    for (uint32_t step = 0; step < STEPS; step++) {
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            for (uint32_t expert = 0; expert < EXPERTS; expert++) {
                row[step][layer][expert] = count_at(step, layer, expert);
            }
            const struct moe_predict_view view = {
                .shape = planning.shape,
                .step = step,
                .layer = layer,
                .lead_steps = 1,
                .lead_layers = 1,
                .last = step > 0 ? row[step - 1][layer] : NULL,
                .before = layer > 0 ? row[step][layer - 1] : NULL,
                .actual = row[step][layer],
                .parameters = values,
                .seed = 5,
            };
            float *out = said + ((size_t) step * LAYERS + layer) * EXPERTS;
            cr_assert_eq(policy->predict->step(state, &view, out, &err), MOE_OK);
        }
    }
}

/* One number of said. */
static double at(const float *said, uint32_t step, uint32_t layer, uint32_t expert)
{
    return (double) said[(step * LAYERS + layer) * EXPERTS + expert];
}

Test(predict, last_is_the_step_lead_steps_ago)
{
    static float said[STEPS * LAYERS * EXPERTS];
    const struct moe_policy *policy = find("last");
    double known[LAYERS * EXPERTS];
    set(policy, "periods", 0);
    for (uint32_t lead = 1; lead <= 5; lead++) {
        set(policy, "lead", lead);
        ask_steps(policy, said);
        ask_window(policy);
        for (uint32_t step = 0; step < STEPS; step++) {
            for (uint32_t i = 0; i < LAYERS * EXPERTS; i++) {
                const uint32_t layer = i / EXPERTS;
                cr_assert_eq(at(said, step, layer, i % EXPERTS),
                             step < lead ? 0.0 : count_at(step - lead, layer, i % EXPERTS));
                known[i] = (double) batches[(BATCHES - lead) * LAYERS * EXPERTS + i];
            }
        }
        expect_window(known);
    }
    set(policy, "lead", BATCHES + 1);
    struct moe_error err = { 0 };
    cr_assert_eq(policy->predict->window(&planning, &arena, load, &err), MOE_POLICY);
    cr_assert_str_eq(err.text, "a lead of 7 looks past the window's 6 periods");
}

Test(predict, ewma_follows_its_recursion)
{
    static float said[STEPS * LAYERS * EXPERTS];
    const struct moe_policy *policy = find("ewma");
    double batch_mean[LAYERS * EXPERTS];
    set(policy, "periods", 0);
    set(policy, "alpha", 0.25);
    set(policy, "lead", 2);
    ask_steps(policy, said);
    ask_window(policy);
    for (uint32_t i = 0; i < LAYERS * EXPERTS; i++) {
        double mean = count_at(0, i / EXPERTS, i % EXPERTS);
        batch_mean[i] = (double) batches[i];
        for (uint32_t step = 2; step < STEPS; step++) {
            const double known = count_at(step - 2, i / EXPERTS, i % EXPERTS);
            mean = 0.25 * known + 0.75 * mean;
            cr_assert_float_eq(at(said, step, i / EXPERTS, i % EXPERTS), mean, 1e-6 * mean + 1e-6);
        }
        for (uint32_t batch = 1; batch < BATCHES - 1; batch++) {
            const double next = (double) batches[batch * LAYERS * EXPERTS + i];
            batch_mean[i] = 0.25 * next + 0.75 * batch_mean[i];
        }
    }
    expect_window(batch_mean);
}

Test(predict, mean_std_forgets_what_left_its_window)
{
    static float said[STEPS * LAYERS * EXPERTS];
    const struct moe_policy *policy = find("mean_std");
    set(policy, "periods", 0);
    set(policy, "steps", 5);
    set(policy, "k", 2.0);
    set(policy, "lead", 3);
    ask_steps(policy, said);
    ask_window(policy);
    for (uint32_t step = 3; step < STEPS; step++) {
        const uint32_t end = step - 2;
        const uint32_t first = end > 5 ? end - 5 : 0;
        double mean = 0.0;
        double variance = 0.0;
        for (uint32_t known = first; known < end; known++) {
            mean += count_at(known, 1, 2) / (double) (end - first);
        }
        for (uint32_t known = first; known < end; known++) {
            variance += pow(count_at(known, 1, 2) - mean, 2.0) / (end - first);
        }
        const double raised = mean + 2.0 * sqrt(variance);
        cr_assert_float_eq(at(said, step, 1, 2), raised, 1e-5 * raised, "step %u", step);
    }
    double wanted[LAYERS * EXPERTS];
    for (uint32_t i = 0; i < LAYERS * EXPERTS; i++) { /* of 6 batches a lead of 3 knows 4 */
        double sum = 0.0;
        double square = 0.0;
        for (uint32_t batch = 0; batch < 4; batch++) {
            const double x = (double) batches[batch * LAYERS * EXPERTS + i];
            sum += x;
            square += x * x;
        }
        wanted[i] = sum / 4 + 2.0 * sqrt(square / 4 - sum * sum / 16);
    }
    expect_window(wanted);
}

/* Six batches of 1, 1, 1, 1, 4 and 8 tokens in three periods of about 16 / 3: the middles of the
 * batches lie at 0.5, 1.5, 2.5, 3.5, 6 and 12 tokens. */
Test(predict, periods_have_about_equally_many_tokens)
{
    struct moe_predict_periods periods;
    const float tokens[BATCHES] = { 1, 1, 1, 1, 4, 8 };
    memset(batches, 0, sizeof batches);
    for (uint32_t batch = 0; batch < BATCHES; batch++) {
        batches[batch * LAYERS * EXPERTS + batch % EXPERTS] = tokens[batch];
    }
    cr_assert_eq(moe_predict_periods_cut(&periods, &planning, 3, 3, &arena, NULL), MOE_OK);
    cr_assert_eq(periods.count, 3);
    cr_assert_eq(moe_predict_period(&periods, 0)[3], 1.0);
    cr_assert_eq(moe_predict_period(&periods, 1)[0], 4.0);
    cr_assert_eq(moe_predict_period(&periods, 2)[1], 8.0);
    cr_assert_eq(moe_predict_periods_cut(&periods, &planning, 3, 4, &arena, NULL), MOE_POLICY);
    cr_assert_eq(moe_predict_periods_cut(&periods, &planning, 0, 6, &arena, NULL), MOE_OK);
    cr_assert_eq(periods.count, BATCHES);
    double said[LAYERS * EXPERTS] = { 0, 0, 3, 1 }; /* the second layer has no tokens */
    moe_predict_periods_scale(&periods, &planning.shape, said);
    cr_assert_eq(said[2], 12.0);
    cr_assert_eq(said[5], 0.0);
}

/* Two requests of different domains; in layer 0 tokens choose 0 or 1, in layer 1 the former go to
 * 2 and the latter to 3. The second request's prompt and decode agree, the first's do not. */
static const uint16_t route[][LAYERS] = { { 0, 2 }, { 0, 2 }, { 0, 2 }, { 1, 3 },
                                          { 1, 3 }, { 1, 3 }, { 1, 3 }, { 1, 3 } };
static const uint32_t request_of[] = { 0, 0, 0, 0, 1, 1, 1, 1 };
static const uint8_t phase_of[] = { 0, 0, 1, 1, 0, 0, 1, 1 };
static const uint32_t first_token[] = { 0, 4, 8 };
static const uint16_t domain_of[] = { 0, 1 };
static const struct moe_policy_routes routes = {
    .token_count = 8,
    .request_count = 2,
    .planned_requests = 2,
    .top_k = 1,
    .domain_count = 2,
    .expert = &route[0][0],
    .request = request_of,
    .phase = phase_of,
    .first_token = first_token,
    .request_domain = domain_of,
};
static const double routed[] = { 3, 5, 0, 0, 0, 0, 3, 5 };

Test(predict, transition_carries_the_layer_before_on)
{
    static float said[STEPS * LAYERS * EXPERTS];
    const struct moe_policy *policy = find("transition");
    planning.routes = &routes;
    set(policy, "smoothing", 0.0);
    ask_steps(policy, said);
    for (uint32_t step = 1; step < STEPS; step++) {
        /* Experts 2 and 3 of layer 0 were never seen: they say 3 : 5. */
        const double unseen = count_at(step, 0, 2) + count_at(step, 0, 3);
        cr_assert_float_eq(at(said, step, 1, 2), count_at(step, 0, 0) + unseen * 3 / 8, 1e-3);
        cr_assert_float_eq(at(said, step, 1, 3), count_at(step, 0, 1) + unseen * 5 / 8, 1e-3);
        cr_assert_eq(at(said, step, 1, 0), 0.0);
        cr_assert_eq(at(said, step, 0, 1), count_at(step - 1, 0, 1));
    }
    set(policy, "lead", 2); /* no layer has two before it */
    ask_steps(policy, said);
    cr_assert_eq(at(said, 7, 1, 2), count_at(6, 1, 2));
}

Test(predict, domain_mixes_priors_as_domains_arrived_lately)
{
    const struct moe_policy *policy = find("domain");
    planning.routes = &routes;
    planning.load = routed;
    planning.domain_count = 2;
    set(policy, "recent", 0.5); /* the second request, of domain 1, alone */
    ask_window(policy);
    const double second[] = { 0, 8, 0, 0, 0, 0, 0, 8 };
    for (uint32_t i = 0; i < LAYERS * EXPERTS; i++) {
        cr_assert_float_eq(load[i], second[i], 1e-12);
    }
    set(policy, "domain", 0);
    ask_window(policy);
    const double first[] = { 6, 2, 0, 0, 0, 0, 6, 2 };
    for (uint32_t i = 0; i < LAYERS * EXPERTS; i++) {
        cr_assert_float_eq(load[i], first[i], 1e-12);
    }
    set(policy, "domain", 2);
    struct moe_error err = { 0 };
    cr_assert_eq(policy->predict->window(&planning, &arena, load, &err), MOE_POLICY);
    cr_assert_str_eq(err.text, "the trace has no domain 2; it has 0 to 1");
}

/* Layer 0: m = (1/4, 3/4), prompts (1, 0) and (0, 1), decoded (1/2, 1/2) and (0, 1): centred
 * (3/4, -3/4), (-1/4, 1/4) and (1/4, -1/4), (-1/4, 1/4), so a = (6/16 + 2/16) / (18/16 + 2/16). */
Test(predict, signature_believes_prompts_as_far_as_they_were_right)
{
    const struct moe_policy *policy = find("signature");
    planning.routes = &routes;
    planning.load = routed;
    set(policy, "recent", 0.5);
    ask_window(policy);
    const double a = 8.0 / 20.0;
    cr_assert_float_eq(load[0], 8.0 * (1.0 - a) * 0.25, 1e-12, "%g", load[0]);
    cr_assert_float_eq(load[1], 8.0 * (a + (1.0 - a) * 0.75), 1e-12, "%g", load[1]);
    set(policy, "blend", 1.0);
    ask_window(policy);
    cr_assert_float_eq(load[0], 0.0, 1e-12);
    cr_assert_float_eq(load[7], 8.0, 1e-12);
}

Test(predict, oracle_errs_by_the_share_it_states)
{
    static float said[STEPS * LAYERS * EXPERTS];
    struct moe_predict_score score;
    const struct moe_policy *policy = find("oracle");
    for (int pass = 0; pass < 3; pass++) {
        const double error = 0.1 * pass;
        set(policy, "error", error);
        set(policy, "lumps", 1);
        ask_steps(policy, said);
        cr_assert_eq(moe_predict_score_init(&score, &arena, EXPERTS, 1, NULL), MOE_OK);
        for (uint32_t i = 0; i < STEPS * LAYERS; i++) {
            uint32_t actual[EXPERTS];
            for (uint32_t expert = 0; expert < EXPERTS; expert++) {
                actual[expert] = count_at(i / LAYERS, i % LAYERS, expert);
            }
            moe_predict_score_add(&score, said + (size_t) i * EXPERTS, actual);
        }
        /* Wrong tokens may replace each other, so the share seen is at most that stated. */
        cr_assert_leq(moe_predict_score_wrong_share(&score), error + 1e-6);
        cr_assert_geq(moe_predict_score_wrong_share(&score), 0.4 * error);
        cr_assert_eq(moe_predict_score_hit_rate(&score) == 1.0, pass == 0);
    }
    planning.future_load = routed;
    set(policy, "error", 0.0);
    ask_window(policy);
    cr_assert_arr_eq(load, routed, sizeof load);
}

/* Said 8, 2, 0, 0 where 2, 6, 2, 2 followed: sum |.| is 14 of 12; scaled by 1.2 to 9.6, 2.4 it is
 * 7.6 + 3.6 + 2 + 2 = 15.2, half of it wrong. Hottest two said {0, 1}, were {1, 0}. */
Test(predict, score_counts_shares_and_hits)
{
    struct moe_predict_score score;
    const float said[] = { 8, 2, 0, 0 };
    const float nothing[] = { 0, 0, 0, 0 };
    const uint32_t actual[] = { 2, 6, 2, 2 };
    cr_assert_eq(moe_predict_score_init(&score, &arena, 4, 2, NULL), MOE_OK);
    moe_predict_score_add(&score, said, actual);
    moe_predict_score_add(&score, nothing, actual);
    cr_assert_eq(score.scored, 1);
    cr_assert_eq(score.left_out, 1);
    cr_assert_float_eq(moe_predict_score_error_share(&score), 14.0 / 12.0, 1e-12);
    cr_assert_float_eq(moe_predict_score_wrong_share(&score), 7.6 / 12.0, 1e-6);
    cr_assert_eq(moe_predict_score_hit_rate(&score), 1.0);
    const float other[] = { 0, 0, 1, 1 };
    moe_predict_score_add(&score, other, actual);
    cr_assert_eq(moe_predict_score_hit_rate(&score), 0.5);
}
