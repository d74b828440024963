/* Step profile and overlay: means and errors that can be checked by eye; files that are refused. */
#include <criterion/criterion.h>
#include <math.h>

#include "sim/engine/step_profile.h"
#include "tests/trace_fixture.h"

static struct moe_step_profile profile;

TestSuite(overlay, .init = fixture_setup, .fini = fixture_teardown);

static const char *write_file(const char *text)
{
    const char *path = fixture_path("times.csv");
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    (void) fputs(text, file);
    cr_assert_eq(fclose(file), 0);
    return path;
}

Test(overlay, cells_are_quarters_of_an_octave)
{
    cr_assert_eq(moe_step_cell_of(1), 0);
    cr_assert_eq(moe_step_cell_of(2), 4);
    cr_assert_eq(moe_step_cell_of(1024), 40);
    cr_assert_eq(moe_step_cell_of(1023), 39);
    cr_assert_eq(moe_step_cell_of(UINT32_MAX), MOE_STEP_CELLS - 1);
    for (uint64_t t = 1; t < 5000; t++) {
        const double q = floor(4.0 * log2((double) t) + 1e-9);
        cr_assert_eq(moe_step_cell_of(t), (uint32_t) q, "%llu", (unsigned long long) t);
    }
}

Test(overlay, times_are_linear_between_cells_and_end_half_an_octave_beyond)
{
    double ns = 0.0;
    moe_step_profile_add(&profile, MOE_STEP_DECODE, 100, 1000);
    moe_step_profile_add(&profile, MOE_STEP_DECODE, 100, 3000);
    moe_step_profile_add(&profile, MOE_STEP_DECODE, 200, 4000);
    cr_assert(moe_step_profile_at(&profile, MOE_STEP_DECODE, 100, &ns));
    cr_assert_eq(ns, 2000.0);
    cr_assert(moe_step_profile_at(&profile, MOE_STEP_DECODE, 150, &ns));
    cr_assert_eq(ns, 3000.0);
    cr_assert(moe_step_profile_at(&profile, MOE_STEP_DECODE, 282, &ns));
    cr_assert_eq(ns, 4000.0);
    cr_assert(moe_step_profile_at(&profile, MOE_STEP_DECODE, 71, &ns));
    cr_assert_eq(ns, 2000.0);
    cr_assert_not(moe_step_profile_at(&profile, MOE_STEP_DECODE, 283, &ns));
    cr_assert_not(moe_step_profile_at(&profile, MOE_STEP_DECODE, 70, &ns));
    cr_assert_not(moe_step_profile_at(&profile, MOE_STEP_MIXED, 100, &ns));
}

Test(overlay, errors_are_those_of_the_definition)
{
    struct moe_overlay overlay;
    const char *path = write_file("tokens,decode_only,step_ms\n"
                                  "100,1,0.002\n" /* exact */
                                  "200,1,0.005\n" /* 4 us simulated: -20 % */
                                  "150,1,0.002\n" /* 3: +50 % */
                                  "150,0,0.002\n" /* nothing mixed ran */
                                  "9000,1,1\n");
    moe_step_profile_add(&profile, MOE_STEP_DECODE, 100, 2000);
    moe_step_profile_add(&profile, MOE_STEP_DECODE, 200, 4000);
    cr_assert_eq(moe_overlay_read(&overlay, path, NULL), MOE_OK);
    const struct moe_overlay_error all =
        moe_overlay_compare(&overlay, &profile, MOE_STEP_KINDS, MOE_STEP_CELLS);
    cr_assert_eq(all.count, 3);
    cr_assert_eq(all.left_out, 2);
    cr_assert_float_eq(all.bias, 0.1, 1e-12);
    cr_assert_float_eq(all.mape, 0.7 / 3.0, 1e-12);
    cr_assert_float_eq(all.p95, 0.5, 1e-12);
    cr_assert_float_eq(all.measured_ns, 3000.0, 1e-9);
    cr_assert_float_eq(all.simulated_ns, 3000.0, 1e-9);
    const struct moe_overlay_error mixed =
        moe_overlay_compare(&overlay, &profile, MOE_STEP_MIXED, MOE_STEP_CELLS);
    cr_assert_eq(mixed.count, 0);
    cr_assert_eq(mixed.left_out, 1);
    const struct moe_overlay_error cell =
        moe_overlay_compare(&overlay, &profile, MOE_STEP_DECODE, moe_step_cell_of(200));
    cr_assert_eq(cell.count, 1);
    cr_assert_float_eq(cell.bias, -0.2, 1e-12);
    moe_overlay_finish(&overlay);
}

Test(overlay, refused_with_line_and_reason)
{
    static const char *const cases[][2] = {
        { "", "the first line must be tokens,decode_only,step_ms" },
        { "tokens,step_ms\n1,2\n", "the first line must be tokens,decode_only,step_ms" },
        { "tokens,decode_only,step_ms\n", "holds no step" },
        { "tokens,decode_only,step_ms\n1,1\n", ":2: 2 fields" },
        { "tokens,decode_only,step_ms\n1,1,5\n0,1,5\n", ":3: tokens is 0" },
        { "tokens,decode_only,step_ms\n1,2,5\n", "2" },
        { "tokens,decode_only,step_ms\n1,1,0\n", "0" },
        { "tokens,decode_only,step_ms\n1,1,nan\n", "nan" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct moe_overlay overlay = { .count = 7 };
        struct moe_error err = { 0 };
        const enum moe_status status = moe_overlay_read(&overlay, write_file(cases[i][0]), &err);
        cr_expect(status == MOE_PARSE || status == MOE_RANGE, "case %zu", i);
        cr_expect_not_null(strstr(err.text, cases[i][1]), "case %zu: %s", i, err.text);
        cr_expect_eq(overlay.count, 7, "written on error");
    }
}
