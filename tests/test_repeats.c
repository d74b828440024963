/* A sample's time, and how often a later pass says the same: all by hand. */
#include <criterion/criterion.h>
#include <math.h>

#include "sim/calibration/observation.h"
#include "sim/calibration/repeats.h"

static struct moe_evidence_sample with_quantiles(double p25, double p75)
{
    return (struct moe_evidence_sample){
        .median_us = 16.0,
        .quantile_us = { 8.0, 10.0, p25, p75, 24.0, 90.0 },
    };
}

Test(repeats, a_wide_middle_is_summed_up_by_its_mean)
{
    struct moe_evidence_sample sample = with_quantiles(12.0, 20.0);
    /* 0.20 * 11 + 0.25 * 14 + 0.25 * 18 + 0.20 * 22 = 14.6 of 0.90. */
    cr_expect_float_eq(moe_sample_us(&sample), 14.6 / 0.9, 1e-12, "%g", moe_sample_us(&sample));
    sample = with_quantiles(16.0, 16.8); /* five hundredths exactly: still narrow */
    cr_expect_eq(moe_sample_us(&sample), 16.0);
    sample = with_quantiles(16.0, 16.9);
    cr_expect_gt(moe_sample_us(&sample), 16.1);
    sample = (struct moe_evidence_sample){ .median_us = 16.0 }; /* quantiles are not known */
    cr_expect_eq(moe_sample_us(&sample), 16.0);
}

enum { ALONE, TOGETHER, SERIES };
enum { RUNS = 2, GPUS = 2, LIMIT = 64 };

static const struct moe_evidence_series all_series[SERIES] = {
    [ALONE] = { .kind = MOE_EVIDENCE_EXPERT, .ranks = 1 },
    [TOGETHER] = { .kind = MOE_EVIDENCE_HOST_TO_DEVICE, .ranks = 2 },
};

/* A point's visits are added one by one, each in the pass after the one before. */
struct fixture {
    struct moe_evidence_point points[LIMIT];
    struct moe_evidence_sample samples[LIMIT];
    uint32_t point_count;
    uint32_t sample_count;
};

static struct fixture made;

static void begin_point(uint32_t series, enum moe_evidence_role role)
{
    made.points[made.point_count++] = (struct moe_evidence_point){ .series = series, .role = role };
}

static void visit(uint32_t run, uint32_t gpu, uint32_t pass, double us, double mhz)
{
    made.samples[made.sample_count++] = (struct moe_evidence_sample){
        .point = made.point_count - 1,
        .run = run,
        .gpu = gpu,
        .pass = pass,
        .median_us = us,
        .mhz = mhz,
    };
}

static struct moe_repeats count_of(uint32_t series)
{
    struct moe_repeats rows[SERIES];
    struct moe_repeats kinds[MOE_EVIDENCE_KIND_COUNT];
    struct moe_arena arena;
    const struct moe_evidence evidence = {
        .name = "made",
        .series = all_series,
        .points = made.points,
        .samples = made.samples,
        .run_count = RUNS,
        .gpu_count = GPUS,
        .series_count = SERIES,
        .point_count = made.point_count,
        .sample_count = made.sample_count,
    };
    cr_assert_eq(moe_arena_init(&arena, moe_repeats_bytes(&evidence), NULL), MOE_OK);
    cr_assert_eq(moe_repeats_count(rows, &evidence, &arena, NULL), MOE_OK);
    moe_arena_finish(&arena);
    const struct moe_repeats all = moe_repeats_by_kind(kinds, rows, &evidence);
    cr_expect_eq(all.count, rows[ALONE].count + rows[TOGETHER].count);
    cr_expect_eq(kinds[all_series[series].kind].in_cycles, rows[series].in_cycles);
    return rows[series];
}

static void expect(uint32_t series, uint32_t count, uint32_t agreeing, uint32_t in_cycles)
{
    const struct moe_repeats found = count_of(series);
    cr_expect(found.count == count && found.agreeing == agreeing && found.in_cycles == in_cycles,
              "%u repeats, %u agree, %u in cycles; by hand %u, %u, %u", found.count, found.agreeing,
              found.in_cycles, count, agreeing, in_cycles);
    made = (struct fixture){ 0 };
}

Test(repeats, passes_are_held_against_the_first)
{
    begin_point(ALONE, MOE_EVIDENCE_ANCHOR);
    visit(0, 0, 1, 100.0, 1980.0);
    visit(0, 0, 2, 101.4, 1980.0);
    visit(0, 0, 3, 101.6, 1980.0);
    visit(1, 0, 2, 300.0, 1980.0); /* of another run, and of another GPU: first ones */
    visit(0, 1, 2, 300.0, 1980.0);
    begin_point(ALONE, MOE_EVIDENCE_SENTINEL);
    visit(0, 0, 1, 100.0, 1980.0);
    visit(0, 0, 2, 200.0, 1980.0);
    expect(ALONE, 2, 1, 1);
}

Test(repeats, at_the_power_cap_cycles_are_compared)
{
    begin_point(ALONE, MOE_EVIDENCE_ANCHOR); /* the clock explains it */
    visit(0, 0, 1, 100.0, 1200.0);
    visit(0, 0, 2, 104.0, 1150.0);
    begin_point(ALONE, MOE_EVIDENCE_ANCHOR); /* the clock fell and the time did not */
    visit(0, 0, 1, 100.0, 1200.0);
    visit(0, 0, 2, 100.0, 1150.0);
    begin_point(ALONE, MOE_EVIDENCE_ANCHOR); /* only one is at the cap: 1500 of 1980 is above */
    visit(0, 0, 1, 100.0, 1500.0);
    visit(0, 0, 2, 104.0, 1440.0);
    begin_point(ALONE, MOE_EVIDENCE_ANCHOR); /* the highest clock of its own run counts */
    visit(1, 0, 1, 100.0, 1200.0);
    visit(1, 0, 2, 104.0, 1150.0);
    begin_point(ALONE, MOE_EVIDENCE_ANCHOR); /* sets it in run 0 */
    visit(0, 0, 1, 100.0, 1980.0);
    expect(ALONE, 4, 1, 1);
}

Test(repeats, the_timer_counts_to_a_tenth)
{
    begin_point(ALONE, MOE_EVIDENCE_ANCHOR);
    visit(0, 0, 1, 5.0, 0.0);
    visit(0, 0, 2, 5.09, 0.0);
    visit(0, 0, 3, 5.11, 0.0);
    expect(ALONE, 2, 0, 1);
}

Test(repeats, what_gpus_do_together_is_one_event)
{
    begin_point(TOGETHER, MOE_EVIDENCE_ANCHOR);
    visit(0, 0, 1, 10.0, 0.0);
    visit(0, 1, 1, 100.0, 0.0);
    visit(0, 0, 2, 14.0, 0.0); /* the slowest is where it was */
    visit(0, 1, 2, 100.5, 0.0);
    visit(0, 0, 3, 110.0, 0.0); /* another is slowest now */
    visit(0, 1, 3, 20.0, 0.0);
    expect(TOGETHER, 2, 1, 1);
}
