/* What-ifs of the hardware: what their texts mean, what is refused, and when they hold. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "sim/cost/calibration.h"
#include "sim/engine/hardware.h"
#include "sim/scenario/hardware_options.h"

static struct moe_hardware_options options_of(const char *const *events, uint32_t count)
{
    struct moe_hardware_options options = { .event_count = count };
    for (uint32_t i = 0; i < count; i++) {
        (void) snprintf(options.events[i], sizeof options.events[i], "%s", events[i]);
    }
    return options;
}

static const struct moe_hardware_size SIZE = { .gpu_count = 4, .layer_count = 2 };

Test(hardware, events_are_read_or_refused)
{
    static const char *const good[] = { "slow gpu=3 by=1.15", "link gpu=0 by=2 at=10 for=0.5",
                                        "dead gpu=7 at=20", "clock gpu=2 by=1.07" };
    static const char *const bad[] = { "slow gpu=8 by=1.15",
                                       "slow gpu=1.5 by=2",
                                       "slow by=2",
                                       "slow gpu=1",
                                       "fast gpu=1 by=2",
                                       "dead gpu=1 by=2",
                                       "dead gpu=1 for=2",
                                       "slow gpu=1 by=0",
                                       "slow gpu=1 by=2 x=1",
                                       "slow gpu=1 gpu=2 by=2",
                                       "" };
    struct moe_hardware_options options = options_of(good, 4);
    cr_assert_eq(moe_hardware_options_settle(&options, 8, NULL), MOE_OK);
    cr_assert_eq(options.event[0].end_ns, INT64_MAX);
    cr_assert_eq(options.event[1].begin_ns, 10000000000);
    cr_assert_eq(options.event[1].end_ns, 10500000000);
    cr_assert_eq(options.event[2].kind, MOE_HARDWARE_DEAD);
    cr_assert_eq(options.event[3].kind, MOE_HARDWARE_CLOCK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct moe_error err = { 0 };
        options = options_of(&bad[i], 1);
        cr_expect_eq(moe_hardware_options_settle(&options, 8, &err), MOE_RANGE, "%s", bad[i]);
        cr_expect_not_null(strstr(err.text, "hardware.events"), "%s", err.text);
        cr_expect(i > 1 || strstr(err.text, "which are 0 to 7") != NULL, "%s", err.text);
    }
}

/* A cost without measured GPUs and without noise. */
static struct moe_cost *toy_cost(struct moe_arena *arena, const struct moe_model *model)
{
    static char text[64 << 10];
    const struct moe_calibration *table = NULL;
    const struct moe_cluster cluster = { .node_count = 1, .gpus_per_node = 4, .gpu = "toy" };
    struct moe_cost *cost = NULL;
    FILE *file = fopen(MOE_SOURCE_ROOT "/tests/data/tiny-calibration.csv", "r");
    cr_assert_not_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    (void) fclose(file);
    cr_assert_eq(moe_calibration_parse(&table, text, strlen(text), "toy", MOE_CALIBRATION_FITTED,
                                       arena, NULL),
                 MOE_OK);
    cr_assert_eq(moe_cost_init(&cost, table, model, &cluster, arena, NULL), MOE_OK);
    return cost;
}

Test(hardware, events_hold_for_steps_that_begin_within_them)
{
    static const char *const events[] = { "slow gpu=1 by=2", "slow gpu=1 by=1.5 at=1 for=1",
                                          "link gpu=2 by=4 at=3", "clock gpu=3 by=1.07" };
    struct moe_model model;
    struct moe_arena arena = { 0 };
    struct moe_hardware h;
    struct moe_error err = { 0 };
    struct moe_hardware_options options = options_of(events, 4);
    cr_assert_eq(moe_arena_init(&arena, (size_t) 8 << 20, NULL), MOE_OK);
    cr_assert_eq(moe_model_load(&model, "mixtral-8x7b", NULL), MOE_OK);
    model.expert_size = 64;
    model.hidden_size = 128;
    cr_assert_eq(moe_hardware_options_settle(&options, 4, NULL), MOE_OK);
    const struct moe_cost *cost = toy_cost(&arena, &model);
    cr_assert_eq(moe_hardware_init(&h, cost, SIZE, 1, false, &options, &arena, NULL), MOE_OK);
    const struct {
        moe_time_ns at;
        double compute;
        double comm;
    } cases[] = { { 0, 2.0, 1.0 },          { 999999999, 2.0, 1.0 },  { 1000000000, 3.0, 1.0 },
                  { 1999999999, 3.0, 1.0 }, { 2000000000, 2.0, 1.0 }, { 3000000000, 2.0, 4.0 } };
    for (uint64_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        moe_hardware_begin_step(&h, i, cases[i].at);
        cr_expect_float_eq(h.factor[1].compute, cases[i].compute, 1e-12);
        cr_expect_float_eq(h.factor[1].memory, cases[i].compute, 1e-12);
        cr_expect_float_eq(h.factor[2].comm, cases[i].comm, 1e-12);
        cr_expect_float_eq(h.factor[0].compute, 1.0, 1e-12);
        cr_expect_float_eq(h.factor[3].compute, 1.07, 1e-12);
        cr_expect_float_eq(h.factor[3].memory, 1.0, 1e-12);
        cr_expect_float_eq(h.nominal.compute, 1.0, 1e-12);
    }
    struct moe_gpu_factor standing = { 1.0, 1.0, 1.0 };
    moe_hardware_apply_standing(&options, 1, &standing);
    cr_expect_float_eq(standing.compute, 2.0, 1e-12, "the second event of GPU 1 ends");
    moe_hardware_apply_standing(&options, 2, &standing);
    cr_expect_float_eq(standing.comm, 1.0, 1e-12, "that of GPU 2 begins later");
    options.clock = MOE_CLOCK_SUSTAINED;
    cr_assert_eq(moe_hardware_init(&h, cost, SIZE, 1, false, &options, &arena, &err), MOE_RANGE);
    options.sustained_factor = 1.25;
    cr_assert_eq(moe_hardware_init(&h, cost, SIZE, 1, false, &options, &arena, NULL), MOE_OK);
    moe_hardware_begin_step(&h, 0, 0);
    cr_expect_float_eq(h.nominal.compute, 1.25, 1e-12);
    cr_expect_float_eq(h.factor[0].compute, 1.25, 1e-12);
    cr_expect_float_eq(h.factor[1].compute, 2.5, 1e-12);
    cr_expect_float_eq(h.factor[1].memory, 2.0, 1e-12);
    moe_arena_finish(&arena);
}
