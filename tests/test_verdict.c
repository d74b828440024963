/* Verdicts of studies made by hand: winner, ties, flips, and who takes no part. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "sim/engine/verdict.h"

enum { POLICIES = 4, SEEDS = 3, BASELINE = 0, A = 1, B = 2, C = 3 };

static struct moe_scenario scenario;
static struct moe_policy policy[POLICIES];
static struct moe_run_result runs[POLICIES][SEEDS];
static struct moe_policy_summary summaries[POLICIES];
static struct moe_flip flips[MOE_SENSITIVITY_LANES];
static struct moe_study study;
static double scratch[SEEDS];

/* Scored time of a policy under one seed, the same in every lane. */
static void set_time(uint32_t p, uint32_t seed, moe_time_ns ns)
{
    runs[p][seed].account[MOE_PHASE_SCORED].time_ns = ns;
    for (uint32_t lane = 0; lane < MOE_SENSITIVITY_LANES; lane++) {
        runs[p][seed].sensitivity_ns[lane] = ns;
    }
}

/* Four policies that fit, all as fast as the baseline, whose seeds differ. */
static void setup(void)
{
    memset(policy, 0, sizeof policy);
    memset(runs, 0, sizeof runs);
    memset(summaries, 0, sizeof summaries);
    scenario = (struct moe_scenario){ .attribution = true };
    study = (struct moe_study){
        .scenario = &scenario,
        .mean_request_tokens = 100,
        .policy_count = POLICIES,
        .seed_count = SEEDS,
        .policies = summaries,
        .baseline = BASELINE,
        .flips = flips,
    };
    for (uint32_t p = 0; p < POLICIES; p++) {
        summaries[p].composition.part[MOE_POLICY_PLACE].policy = &policy[p];
        summaries[p].runs = runs[p];
        for (uint32_t seed = 0; seed < SEEDS; seed++) {
            runs[p][seed].fits = true;
            runs[p][seed].memory.kv_tokens = 1050;
            runs[p][seed].account[MOE_PHASE_SCORED].output_tokens = 600;
            runs[p][seed].account[MOE_PHASE_SCORED].steps = 10;
            set_time(p, seed, INT64_C(1200000) * (seed + 1));
        }
    }
}

TestSuite(verdict, .init = setup);

static void set_times(uint32_t p, moe_time_ns first, moe_time_ns second, moe_time_ns third)
{
    set_time(p, 0, first);
    set_time(p, 1, second);
    set_time(p, 2, third);
}

Test(verdict, interval_is_students)
{
    const double values[] = { 1, 2, 3 };
    const struct moe_estimate three = moe_estimate_of(values, 3);
    cr_assert_float_eq(three.mean, 2, 1e-12);
    cr_assert_float_eq(three.half, 4.302652729911275 / sqrt(3), 1e-9);
    const struct moe_estimate one = moe_estimate_of(values, 1);
    cr_assert_eq(one.mean, 1);
    cr_assert(isnan(one.half));
}

Test(verdict, speedups_are_paired_by_seed)
{
    /* Twice as fast under every seed, though seeds differ threefold. */
    set_times(A, 600000, 1200000, 1800000);
    moe_verdict_reach(&study, scratch);
    cr_assert_eq(study.best, A);
    cr_assert_float_eq(summaries[A].speedup.mean, 2, 1e-12);
    cr_assert_float_eq(summaries[A].speedup.half, 0, 1e-9);
    cr_assert_float_eq(summaries[BASELINE].speedup.mean, 1, 0);
    cr_assert(summaries[A].best);
    cr_assert_eq(study.tie_count, 0);
    cr_assert_eq(study.flip_count, 0);
    cr_assert_eq(summaries[A].largest_batch, 10);
}

Test(verdict, overlapping_intervals_tie)
{
    set_times(A, 600000, 1200000, 1800000);  /* 2, 2, 2 */
    set_times(B, 630000, 1150000, 1750000);  /* mean 2.016, wide */
    set_times(C, 1000000, 2000000, 3000000); /* 1.2 */
    moe_verdict_reach(&study, scratch);
    cr_assert_eq(study.best, B);
    cr_assert(summaries[A].tie);
    cr_assert_not(summaries[A].best);
    cr_assert_not(summaries[C].tie);
    cr_assert_not(summaries[BASELINE].tie);
    cr_assert_eq(study.tie_count, 1);
}

Test(verdict, the_first_of_equal_policies_is_best)
{
    set_times(B, 600000, 1200000, 1800000);
    set_times(C, 600000, 1200000, 1800000);
    moe_verdict_reach(&study, scratch);
    cr_assert_eq(study.best, B);
    cr_assert(summaries[C].tie);
}

Test(verdict, one_seed_ties_only_when_equal)
{
    study.seed_count = 1;
    set_time(A, 0, 600000);
    set_time(B, 0, 600001);
    set_time(C, 0, 600000);
    moe_verdict_reach(&study, scratch);
    cr_assert_eq(study.best, A);
    cr_assert(isnan(summaries[A].speedup.half));
    cr_assert_not(summaries[B].tie);
    cr_assert(summaries[C].tie);
    cr_assert_eq(study.tie_count, 1);
}

Test(verdict, an_oracle_takes_no_part)
{
    policy[B].needs = MOE_POLICY_NEEDS_FUTURE;
    set_times(A, 1000000, 2000000, 3000000);
    set_times(B, 600000, 1200000, 1800000);
    moe_verdict_reach(&study, scratch);
    cr_assert(summaries[B].oracle);
    cr_assert_eq(study.best, A);
    cr_assert_not(summaries[B].best);
    cr_assert_not(summaries[B].tie);
    cr_assert_float_eq(summaries[B].speedup.mean, 2, 1e-12);
    /* Nor can it flip anything. */
    cr_assert_eq(study.flip_count, 0);
}

Test(verdict, what_does_not_fit_in_every_seed_takes_no_part)
{
    set_times(A, 600000, 1200000, 1800000);
    runs[A][2].fits = false;
    moe_verdict_reach(&study, scratch);
    cr_assert_not(summaries[A].fits);
    cr_assert_not(summaries[A].tie);
    cr_assert_eq(study.best, BASELINE);
    cr_assert_eq(study.tie_count, 2);
}

Test(verdict, the_first_contender_that_fits_stands_in_for_a_baseline_that_does_not)
{
    set_times(A, 800000, 1600000, 2400000);
    set_times(B, 600000, 1200000, 1800000);
    runs[BASELINE][0].fits = false;
    moe_verdict_reach(&study, scratch);
    cr_assert_eq(study.baseline, A);
    cr_assert_eq(study.best, B);
    cr_assert_float_eq(summaries[A].speedup.mean, 1.0, 1e-12);
    cr_assert_float_eq(summaries[B].speedup.mean, 4.0 / 3.0, 1e-12);
}

Test(verdict, there_is_none_when_nothing_fits)
{
    for (uint32_t i = 0; i < POLICIES; i++) {
        runs[i][0].fits = false;
    }
    moe_verdict_reach(&study, scratch);
    cr_assert_eq(study.best, POLICIES);
}

Test(verdict, a_lane_flips_when_another_is_clearly_ahead)
{
    const uint32_t dear_combine = 2 * MOE_COST_COMBINE + 1;
    const uint32_t cheap_expert = 2 * MOE_COST_EXPERT;
    const uint32_t cheap_host = 2 * MOE_COST_HOST;
    set_times(A, 600000, 1200000, 1800000);
    set_times(B, 800000, 1600000, 2400000);
    policy[C].needs = MOE_POLICY_NEEDS_FUTURE;
    for (uint32_t seed = 0; seed < SEEDS; seed++) {
        /* B overtakes A when combine is dear; the oracle does when experts are cheap. */
        runs[B][seed].sensitivity_ns[dear_combine] = INT64_C(500000) * (seed + 1);
        runs[C][seed].sensitivity_ns[cheap_expert] = INT64_C(100000) * (seed + 1);
        /* B's mean is ahead with a cheap host, but by less than its spread. */
        runs[B][seed].sensitivity_ns[cheap_host] = 540000 + 640000 * (moe_time_ns) seed;
    }
    moe_verdict_reach(&study, scratch);
    cr_assert_eq(study.best, A);
    cr_assert(study.sensitivity_known);
    cr_assert_eq(study.flip_count, 1);
    cr_assert_eq(flips[0].part, MOE_COST_COMBINE);
    cr_assert_float_eq(flips[0].scale, 1.2, 1e-12);
    cr_assert_eq(flips[0].winner, B);

    scenario.attribution = false;
    moe_verdict_reach(&study, scratch);
    cr_assert_not(study.sensitivity_known);
    cr_assert_eq(study.flip_count, 0);
}
