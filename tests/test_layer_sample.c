/* Layer samples: one layer of each run of neighbours, each equally often; what stands for what. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "sim/engine/layer_sample.h"
#include "tests/engine_case.h"
#include "tests/engine_drive.h"

enum { LAYERS = 58, TRACE_LAYERS = 8, STEPS = 20000 };

static struct moe_arena arena;

static void setup(void)
{
    cr_assert_eq(moe_arena_init(&arena, (size_t) 1 << 20, NULL), MOE_OK);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(layer_sample, .init = setup, .fini = teardown);

static struct moe_layer_sample sample_of(uint32_t counted)
{
    struct moe_layer_sample sample;
    cr_assert_eq(moe_layer_sample_init(&sample, LAYERS, TRACE_LAYERS, counted, 7, &arena, NULL),
                 MOE_OK);
    return sample;
}

Test(layer_sample, all_layers_are_counted_where_nothing_else_is_asked)
{
    static const uint32_t counts[] = { 0, LAYERS, LAYERS + 1 };
    for (size_t i = 0; i < 3; i++) {
        struct moe_layer_sample sample = sample_of(counts[i]);
        moe_layer_sample_begin_step(&sample, 3);
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            cr_assert(moe_layer_sample_counts(&sample, layer));
        }
    }
}

Test(layer_sample, one_of_each_run_of_neighbours_stands_for_it)
{
    for (uint32_t counted = 1; counted < LAYERS; counted++) {
        struct moe_layer_sample sample = sample_of(counted);
        for (uint64_t step = 0; step < 20; step++) {
            uint32_t standing = 0;
            uint32_t runs = 1;
            moe_layer_sample_begin_step(&sample, step);
            for (uint32_t i = 0; i < LAYERS; i++) {
                const uint32_t source = sample.source[sample.order[i]];
                standing += source == sample.order[i];
                runs += i > 0 && source != sample.source[sample.order[i - 1]];
                cr_assert(moe_layer_sample_counts(&sample, source));
            }
            cr_assert_eq(standing, counted);
            cr_assert_eq(runs, counted);
        }
    }
}

/* With as many as trace layers, a layer stands for those of its own trace layer but at the ends of
 * runs: runs of 7 and 8 layers over trace layers of 8 and 7. */
Test(layer_sample, neighbours_share_a_trace_layer)
{
    struct moe_layer_sample sample = sample_of(TRACE_LAYERS);
    uint32_t same = 0;
    for (uint64_t step = 0; step < 100; step++) {
        moe_layer_sample_begin_step(&sample, step);
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            same += layer % TRACE_LAYERS == sample.source[layer] % TRACE_LAYERS;
        }
    }
    cr_assert_gt(same, 100 * LAYERS * 6 / 10);
}

Test(layer_sample, each_layer_of_a_run_is_counted_equally_often)
{
    static uint32_t times[LAYERS];
    struct moe_layer_sample sample = sample_of(4);
    for (uint64_t step = 0; step < STEPS; step++) {
        moe_layer_sample_begin_step(&sample, step);
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            times[layer] += moe_layer_sample_counts(&sample, layer);
        }
    }
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        uint32_t place = 0;
        while (sample.order[place] != layer) {
            place++;
        }
        const uint32_t run = (place * 4 + 3) / LAYERS; /* runs begin at 0, 14, 29, 43 */
        const uint32_t length = (run + 1) * LAYERS / 4 - run * LAYERS / 4;
        const double share = 1.0 / length;
        const double spread = sqrt(STEPS * share * (1.0 - share));
        cr_expect_float_eq(times[layer], STEPS * share, 5.0 * spread, "layer %u: %u", layer,
                           times[layer]);
    }
}

/* A whole run: all layers asked for by number is the same as not asking; fewer are a sample of the
 * work, not of the tokens. */
Test(layer_sample, runs_count_what_they_say)
{
    static struct engine_drive drive;
    static struct twin_case c;
    static struct moe_run_result result;
    static char table[32 << 10];
    static char text[32 << 10];
    uint32_t sampled = 0;
    FILE *file = fopen(MOE_SOURCE_ROOT "/tests/data/tiny-calibration.csv", "r");
    cr_assert_not_null(file);
    table[fread(table, 1, sizeof table - 1, file)] = '\0';
    cr_assert_eq(fclose(file), 0);
    engine_drive_open(&drive);
    for (uint64_t seed = 0; seed < 160; seed++) {
        struct moe_token_account whole = { 0 };
        moe_time_ns idle_ns = 0;
        engine_case_make(seed, table, &c, text, sizeof text);
        engine_drive_scenario(&c, &drive.scenario);
        drive.scenario.serving.draft_layers = 0; /* drafting needs all layers */
        const uint32_t layers = drive.scenario.model.moe_layer_count;
        const uint32_t counts[] = { 0, layers, 1 };
        for (uint32_t i = 0; i < 3; i++) {
            struct moe_error err = { 0 };
            drive.scenario.counted_layers = counts[i];
            if (engine_drive_scene(&drive, &c, text, false, &result, &err) != MOE_OK ||
                !result.fits) {
                cr_assert(i == 0 || strstr(err.text, "counted_layers") != NULL, "%s", err.text);
                break;
            }
            const struct moe_token_account *a = &result.account[MOE_PHASE_SCORED];
            if (i == 0) {
                whole = *a;
                idle_ns = result.idle_ns;
            } else if (i == 1) {
                cr_assert_eq(memcmp(&whole, a, sizeof whole), 0);
                cr_assert_eq(result.idle_ns, idle_ns);
            } else {
                cr_assert_eq(a->assignments, a->tokens * drive.scenario.model.top_k);
                sampled += layers > 1 && a->tokens > 0;
            }
        }
    }
    cr_assert_gt(sampled, 10);
    engine_drive_close(&drive);
}
