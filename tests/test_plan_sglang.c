#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "policies/plan_sglang.h"

enum { X = MOE_SLOT_EMPTY };

static const struct moe_placement_shape shape = { 2, 3, 4, 2, 1, 1 };
static struct moe_arena arena;
static char folder[64];

static void open_folder(void)
{
    (void) snprintf(folder, sizeof folder, "/tmp/moesim_plan_XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
    cr_assert_eq(moe_arena_init(&arena, 1 << 16, NULL), MOE_OK);
}

static void close_folder(void)
{
    moe_arena_finish(&arena);
    (void) remove("plan.json");
    cr_assert_eq(rmdir(folder), 0, "%s holds more than plan.json", folder);
}

TestSuite(plan_sglang, .init = open_folder, .fini = close_folder);

static enum moe_status parse(const char *text, struct moe_error *err)
{
    struct moe_placement plan;
    return moe_plan_sglang_parse(&plan, &arena, &shape, "p.json", text, strlen(text), err);
}

static void expect_refused(const char *text, enum moe_status expected, const char *words)
{
    struct moe_error err = { 0 };
    cr_assert_eq(parse(text, &err), expected, "%s: %s", text, err.text);
    cr_assert_not_null(strstr(err.text, words), "'%s' lacks '%s'", err.text, words);
    cr_assert_not_null(strstr(err.text, "p.json"), "%s", err.text);
}

Test(plan_sglang, written_plans_are_read_back)
{
    uint16_t slots[8] = { 0, 1, 2, 0, 2, 2, 1, 0 };
    const struct moe_placement plan = { .shape = shape, .expert_of_slot = slots };
    struct moe_placement back;
    struct moe_error err = { 0 };
    char text[128] = "";
    cr_assert_eq(moe_plan_sglang_write(&plan, "plan.json", false, &err), MOE_OK, "%s", err.text);
    FILE *file = fopen("plan.json", "rb");
    cr_assert_not_null(file);
    cr_assert_gt(fread(text, 1, sizeof text - 1, file), 0);
    (void) fclose(file);
    cr_assert_str_eq(text, "{\"physical_to_logical_map\": [[0, 1, 2, 0], [2, 2, 1, 0]]}\n");
    cr_assert_eq(moe_plan_sglang_read(&back, &arena, &shape, "plan.json", &err), MOE_OK, "%s",
                 err.text);
    cr_assert_eq(moe_placement_count_moves(&plan, &back), 0);
    cr_assert_eq(back.shape.gpu_count, 2);
    cr_assert_eq(moe_plan_sglang_write(&plan, "plan.json", false, &err), MOE_RANGE);
    slots[1] = 2; /* layer 0 loses expert 1 */
    cr_assert_eq(moe_plan_sglang_write(&plan, "plan.json", true, &err), MOE_OK);
    cr_assert_eq(moe_plan_sglang_read(&back, &arena, &shape, "plan.json", &err), MOE_RANGE);
    cr_assert_eq(moe_plan_sglang_read(&back, &arena, &shape, "none.json", &err), MOE_IO);
    cr_assert_eq(moe_plan_sglang_read(&back, &arena, &shape, ".", &err), MOE_IO);
}

Test(plan_sglang, what_is_no_plan_is_refused)
{
    const char *good = "{\"physical_to_logical_map\": [[0, 1, 2, 0], [2, 2, 1, 0]]}";
    cr_assert_eq(parse(good, NULL), MOE_OK);
    expect_refused("", MOE_PARSE, "p.json:1:0");
    expect_refused("[]", MOE_PARSE, "physical_to_logical_map");
    expect_refused("{}", MOE_PARSE, "physical_to_logical_map");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, 0], [2, 2, 1, 0]", MOE_PARSE, ":1:");
    expect_refused("{\"physical_to_logical_map\": 3}", MOE_PARSE, "a list");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, 0], [2, 2, 1, 0]], \"x\": 1}",
                   MOE_PARSE, "one key");
    expect_refused("{\"physical_to_logical_map\": [], \"physical_to_logical_map\": []}", MOE_PARSE,
                   "duplicate");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, 0]]}", MOE_RANGE,
                   "has 1 layers, expected 2");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, 0], 7]}", MOE_PARSE, "[1] is not");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, 0], [2, 2, 1]]}", MOE_RANGE,
                   "[1] has 3 slots, expected 4");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, 0], [2, 2, 1, 3]]}", MOE_RANGE,
                   "[1][3] is 3; experts are 0 to 2");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, -1], [2, 2, 1, 0]]}", MOE_RANGE,
                   "[0][3] is -1");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, 65535], [2, 2, 1, 0]]}", MOE_RANGE,
                   "[0][3] is 65535");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2.0, 0], [2, 2, 1, 0]]}", MOE_PARSE,
                   "[0][2] is not a whole number");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, 0], [2, 2, 2, 0]]}", MOE_RANGE,
                   "layer 1: expert 1 has no slot");
    while (moe_arena_alloc(&arena, 1, 1) != NULL) {
    }
    struct moe_error err = { 0 };
    cr_assert_eq(parse(good, &err), MOE_LIMIT);
}

/* GPU 0 has slots 0 to 2, GPU 1 the rest. Expert 0 lives on both, so its load would
 * shift; expert 1 lives on GPU 0 alone. */
Test(plan_sglang, filling_moves_no_load)
{
    const struct moe_placement_shape six = { 1, 3, 6, 2, 1, 1 };
    const double load[3] = { 10, 20, 40 };
    uint16_t slots[6] = { 0, 1, X, X, 0, 2 };
    const uint16_t filled_slots[6] = { 0, 1, 1, 2, 0, 2 };
    struct moe_placement plan = { .shape = six, .expert_of_slot = slots };
    double before[2];
    double after[2];
    uint64_t filled = 0;
    moe_placement_gpu_load(&plan, 0, load, before);
    cr_assert_eq(moe_plan_sglang_fill(&plan, &arena, &filled, NULL), MOE_OK);
    moe_placement_gpu_load(&plan, 0, load, after);
    cr_assert_eq(filled, 2);
    cr_assert_eq(memcmp(slots, filled_slots, sizeof slots), 0);
    cr_assert_eq(before[0], after[0]);
    cr_assert_eq(before[1], after[1]);

    uint16_t shared[6] = { 0, 1, 2, 0, 0, X };
    struct moe_error err = { 0 };
    plan.expert_of_slot = shared;
    cr_assert_eq(moe_plan_sglang_fill(&plan, &arena, &filled, &err), MOE_POLICY);
    cr_assert_not_null(strstr(err.text, "slot 5 is empty"), "%s", err.text);
    cr_assert_not_null(strstr(err.text, "GPU 1 has none"), "%s", err.text);
}
