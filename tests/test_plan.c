#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "policies/composition.h"
#include "policies/plan/plan.h"
#include "policies/plan/plan_policy.h"
#include "sim/base/random.h"

enum { X = MOE_SLOT_EMPTY };

static char folder[64];

static void open_folder(void)
{
    (void) snprintf(folder, sizeof folder, "/tmp/moesim_plan_XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
}

static void close_folder(void)
{
    (void) remove("plan");
    cr_assert_eq(rmdir(folder), 0, "%s holds more than plan", folder);
}

TestSuite(plan, .init = open_folder, .fini = close_folder);

static const struct moe_plan_format *format_named(const char *name)
{
    const struct moe_plan_format *format = NULL;
    cr_assert_eq(moe_plan_format_find(name, &format, NULL), MOE_OK);
    return format;
}

/* The plan as that form's text, to be freed. */
static char *print(const struct moe_plan *plan, const struct moe_plan_format *format)
{
    char *text = NULL;
    size_t size = 0;
    struct moe_error err = { 0 };
    FILE *out = open_memstream(&text, &size);
    cr_assert_not_null(out);
    cr_assert_eq(format->print(out, plan, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(fclose(out), 0);
    return text;
}

static void expect_refused(const char *text, enum moe_status expected, const char *words)
{
    struct moe_error err = { 0 };
    struct moe_plan plan = { 0 };
    cr_assert_eq(moe_plan_parse(&plan, "p.json", text, strlen(text), NULL, &err), expected,
                 "%s: %s", text, err.text);
    cr_assert_not_null(strstr(err.text, words), "'%s' lacks '%s'", err.text, words);
    cr_assert_not_null(strstr(err.text, "p.json"), "%s", err.text);
    cr_assert_null(plan.layer_number, "a refused plan is not handed over");
}

/* A plan with every expert in each layer and, with is_full false, some empty slots. */
static void draw(struct moe_plan *plan, uint64_t key, bool is_full)
{
    const uint32_t gpus = 1 + (uint32_t) moe_random_below(key, 0, 5);
    const uint32_t per_gpu = 1 + (uint32_t) moe_random_below(key, 1, 6);
    const struct moe_placement_shape shape = {
        .layer_count = 1 + (uint32_t) moe_random_below(key, 2, 6),
        .slot_count = gpus * per_gpu,
        .gpu_count = gpus,
        .expert_count = 1 + (uint32_t) moe_random_below(key, 3, (uint64_t) gpus * per_gpu),
    };
    const uint32_t first = (uint32_t) moe_random_below(key, 4, 3);
    const uint32_t step = 1 + (uint32_t) moe_random_below(key, 5, 2);
    cr_assert_eq(moe_plan_init(plan, &shape, "drawn", NULL), MOE_OK);
    cr_assert_eq(moe_plan_number(plan, first, step, NULL), MOE_OK);
    for (uint32_t layer = 0; layer < shape.layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(&plan->placement, layer);
        for (uint32_t slot = 0; slot < shape.slot_count; slot++) {
            const uint64_t at = 10 + (uint64_t) layer * shape.slot_count + slot;
            slots[slot] = slot < shape.expert_count
                              ? (uint16_t) slot
                              : (uint16_t) moe_random_below(key, at, shape.expert_count);
            if (slot >= shape.expert_count && !is_full && moe_random_below(key, at + 1000, 2)) {
                slots[slot] = X;
            }
        }
        for (uint32_t slot = shape.slot_count - 1; slot > 0; slot--) {
            const uint64_t other = moe_random_below(key, 5000 + layer * 64 + slot, slot + 1);
            const uint16_t swapped = slots[slot];
            slots[slot] = slots[other];
            slots[other] = swapped;
        }
    }
    cr_assert_eq(moe_plan_settle(plan, "drawn", NULL), MOE_OK);
}

/* What each form can say survives it, and what it says again is the same to the byte. */
Test(plan, forms_read_back_what_they_print)
{
    size_t count = 0;
    const struct moe_plan_format *const *formats = moe_plan_formats(&count);
    cr_assert_eq(count, 4);
    for (uint64_t i = 0; i < 2000; i++) {
        const struct moe_plan_format *format = formats[i % count];
        const struct moe_plan_format *found = NULL;
        struct moe_error err = { 0 };
        struct moe_plan plan;
        struct moe_plan back;
        draw(&plan, moe_random_key(i, MOE_RANDOM_TEST), !format->takes_empty);
        char *text = print(&plan, format);
        cr_assert_eq(moe_plan_parse(&back, "text", text, strlen(text), &found, &err), MOE_OK,
                     "%s: %s", text, err.text);
        cr_assert_eq(found, format);
        char *again = print(&back, format);
        cr_assert_str_eq(again, text);
        const bool lists_dense = strcmp(format->name, "sglang") == 0;
        cr_assert_eq(back.placement.shape.slot_count, plan.placement.shape.slot_count);
        cr_assert_eq(back.placement.shape.expert_count, plan.placement.shape.expert_count);
        for (uint32_t layer = 0; layer < plan.placement.shape.layer_count; layer++) {
            const uint32_t row = lists_dense ? plan.layer_number[layer] : layer;
            cr_assert_eq(memcmp(moe_placement_layer(&back.placement, row),
                                moe_placement_layer(&plan.placement, layer),
                                plan.placement.shape.slot_count * sizeof(uint16_t)),
                         0, "%s", text);
        }
        free(text);
        free(again);
        moe_plan_finish(&plan);
        moe_plan_finish(&back);
    }
}

Test(plan, files_are_written_whole_or_not_at_all)
{
    struct moe_plan plan;
    struct moe_plan back;
    struct moe_error err = { 0 };
    draw(&plan, moe_random_key(3, MOE_RANDOM_TEST), true);
    const struct moe_plan_format *format = format_named("moesim");
    cr_assert_eq(moe_plan_write(&plan, format, "plan", false, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_plan_read(&back, "plan", NULL, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_placement_count_moves(&plan.placement, &back.placement), 0);
    moe_plan_finish(&back);
    cr_assert_eq(moe_plan_write(&plan, format, "plan", false, &err), MOE_RANGE);
    plan.numbers_stated = false;
    cr_assert_eq(moe_plan_write(&plan, format_named("trtllm"), "plan", true, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "--first-layer"), "%s", err.text);
    plan.numbers_stated = true;
    plan.gpus_stated = false;
    cr_assert_eq(moe_plan_write(&plan, format_named("vllm-ascend"), "plan", true, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "--gpus"), "%s", err.text);
    cr_assert_eq(moe_plan_read(&back, "plan", NULL, &err), MOE_OK, "a refused plan replaced it");
    moe_plan_finish(&back);
    moe_plan_finish(&plan);
    cr_assert_eq(moe_plan_read(&back, "none", NULL, &err), MOE_IO);
    cr_assert_eq(moe_plan_read(&back, ".", NULL, &err), MOE_IO);
    cr_assert_eq(moe_plan_format_find("nonesuch", &format, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "sglang trtllm vllm-ascend moesim"), "%s", err.text);
}

Test(plan, the_engines_own_files_are_read)
{
    static const struct {
        const char *file;
        const char *format;
        uint32_t layers;
        uint32_t slots;
        uint32_t experts;
        uint32_t first_number;
    } fixtures[] = {
        { "sglang_init_expert_location_p2l.json", "sglang", 8, 72, 64, 0 },
        { "trtllm_moe_load_balancer.yaml", "trtllm", 8, 72, 64, 1 },
        { "vllm_ascend_expert_map.json", "vllm-ascend", 1, 10, 8, 0 },
    };
    for (size_t i = 0; i < sizeof fixtures / sizeof fixtures[0]; i++) {
        char path[512];
        struct moe_plan plan;
        struct moe_error err = { 0 };
        const struct moe_plan_format *format = NULL;
        (void) snprintf(path, sizeof path, "%s/tests/formats/%s", MOE_SOURCE_ROOT,
                        fixtures[i].file);
        cr_assert_eq(moe_plan_read(&plan, path, &format, &err), MOE_OK, "%s", err.text);
        cr_assert_str_eq(format->name, fixtures[i].format);
        cr_assert_eq(plan.placement.shape.layer_count, fixtures[i].layers);
        cr_assert_eq(plan.placement.shape.slot_count, fixtures[i].slots);
        cr_assert_eq(plan.placement.shape.expert_count, fixtures[i].experts);
        cr_assert_eq(plan.layer_number[0], fixtures[i].first_number);
        cr_assert_eq(plan.gpus_stated, i == 2);
        moe_plan_finish(&plan);
    }
}

Test(plan, what_is_no_plan_of_sglang_is_refused)
{
    expect_refused("", MOE_PARSE, "no plan of any known form");
    expect_refused("[]", MOE_PARSE, "no plan of any known form: sglang");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, 0], [2, 2, 1, 0]", MOE_PARSE, ":1:");
    expect_refused("{\"physical_to_logical_map\": 3}", MOE_PARSE, "a list");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, 0], [2, 2, 1, 0]], \"x\": 1}",
                   MOE_PARSE, "one key");
    expect_refused("{\"physical_to_logical_map\": [], \"physical_to_logical_map\": []}", MOE_PARSE,
                   "duplicate");
    expect_refused("{\"physical_to_logical_map\": []}", MOE_RANGE, "0 layers");
    expect_refused("{\"physical_to_logical_map\": [[]]}", MOE_RANGE, "0 slots");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, 0], 7]}", MOE_PARSE, "[1] is not");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, 0], [2, 2, 1]]}", MOE_RANGE,
                   "[1] has 3 slots");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, -1]]}", MOE_RANGE, "[0][3] is -1");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, null]]}", MOE_PARSE, "[0][3] is not");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, 65534]]}", MOE_RANGE,
                   "[0][3] is 65534; experts are 0 to 65533");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2.0, 0]]}", MOE_PARSE,
                   "[0][2] is not a whole number");
    expect_refused("{\"physical_to_logical_map\": [[0, 1, 2, 0], [2, 2, 2, 0]]}", MOE_RANGE,
                   "layer 1: expert 1 has no slot");
}

Test(plan, what_is_no_plan_of_tensorrt_llm_is_refused)
{
    expect_refused("initial_global_assignments:\n  0: [0]\n", MOE_PARSE, "num_slots");
    expect_refused("num_slots: 2\ninitial_global_assignments:\n  0: [0, 1\n", MOE_PARSE, ":4:");
    expect_refused("num_slots: 2\ninitial_global_assignments: [0, 1]\n", MOE_PARSE, "a mapping");
    expect_refused("num_slots: 2\ninitial_global_assignments: {0: [0]}\n", MOE_RANGE,
                   "2: 1 slots; num_slots is 2");
    expect_refused("num_slots: 1\ninitial_global_assignments: {0: [0], 0: [0]}\n", MOE_PARSE,
                   "second time");
    expect_refused("num_slots: 1\ninitial_global_assignments: {a: [0]}\n", MOE_RANGE, "layer");
    expect_refused("num_slots: 1\ninitial_global_assignments: {1024: [0]}\n", MOE_RANGE, "1023");
    expect_refused("num_slots: 1\ninitial_global_assignments: {0: [-1]}\n", MOE_RANGE, "expert");
    expect_refused("num_slots: 1\nx: 2\ninitial_global_assignments: {0: [0]}\n", MOE_PARSE,
                   "another key");
    expect_refused("num_slots: 1\nnum_slots: 1\ninitial_global_assignments: {0: [0]}\n", MOE_PARSE,
                   "that was there before");
    expect_refused("num_slots: 1\ninitial_global_assignments: {}\n", MOE_RANGE, "0 layers");
    expect_refused("&a\nnum_slots: 1\ninitial_global_assignments: *a\n", MOE_RANGE, "layer");
    expect_refused("num_slots: 0\ninitial_global_assignments: {0: []}\n", MOE_RANGE, "0 slots");
}

Test(plan, what_is_no_expert_map_is_refused)
{
#define MAP(count, id, devices, list)                                      \
    "{\"moe_layer_count\": " count ", \"layer_list\": [{\"layer_id\": " id \
    ", \"device_count\": " devices ", \"device_list\": [" list "]}]}"
    expect_refused("{\"layer_list\": []}", MOE_RANGE, "0 layers");
    expect_refused(MAP("2", "0", "1", "{\"device_id\": 0, \"device_expert\": [0, 1]}"), MOE_RANGE,
                   "moe_layer_count");
    expect_refused(MAP("1", "3", "1", "{\"device_id\": 0, \"device_expert\": [0, 1]}"), MOE_RANGE,
                   "layer_id is 3, expected 0");
    expect_refused(MAP("1", "0", "2", "{\"device_id\": 0, \"device_expert\": [0, 1]}"), MOE_RANGE,
                   "device_count is 2, expected 1");
    expect_refused(MAP("1", "0", "2",
                       "{\"device_id\": 0, \"device_expert\": [0, 1]}, "
                       "{\"device_id\": 0, \"device_expert\": [0, 1]}"),
                   MOE_RANGE, "device_id is 0, expected 1");
    expect_refused(MAP("1", "0", "2",
                       "{\"device_id\": 0, \"device_expert\": [0, 1]}, "
                       "{\"device_id\": 1, \"device_expert\": [0]}"),
                   MOE_RANGE, "device 1 has 1 experts");
#undef MAP
}

Test(plan, what_is_no_neutral_plan_is_refused)
{
#define NEUTRAL(version, experts, hidden, layers)                                        \
    "{\"format\": \"moesim.plan\", \"version\": " version ", \"expert_count\": " experts \
    ", \"gpu_count\": null, \"slot_count\": 2, \"hidden_layer_count\": " hidden          \
    ", \"layers\": [" layers "]}"
    expect_refused(NEUTRAL("2", "1", "4", "{\"layer\": 3, \"experts\": [0, null]}"),
                   MOE_UNSUPPORTED, "version 2");
    expect_refused(NEUTRAL("1", "2", "4", "{\"layer\": 3, \"experts\": [0, null]}"), MOE_RANGE,
                   "expert 1 has no slot");
    expect_refused(NEUTRAL("1", "1", "4", "{\"layer\": 3, \"experts\": [0, 1]}"), MOE_RANGE,
                   "expert 1 is placed");
    expect_refused(NEUTRAL("1", "1", "3", "{\"layer\": 3, \"experts\": [0, null]}"), MOE_RANGE,
                   "layer is 3; 0 to 2 are allowed");
    expect_refused(NEUTRAL("1", "1", "null", "{\"layer\": 3, \"experts\": [0, null]}"), MOE_RANGE,
                   "layer is 3; 0 to 0 are allowed");
    expect_refused(NEUTRAL("1", "1", "4",
                           "{\"layer\": 1, \"experts\": [0, 0]}, {\"layer\": 1, \"experts\": "
                           "[0, 0]}"),
                   MOE_RANGE, "layer is 1; 2 to 3");
    expect_refused(NEUTRAL("1", "1", "4", "{\"layer\": 3, \"experts\": [0]}"), MOE_RANGE,
                   "1 slots; slot_count is 2");
    expect_refused(NEUTRAL("1", "1", "4", "{\"layer\": 3, \"experts\": [null, null]}"), MOE_RANGE,
                   "empty");
    expect_refused(NEUTRAL("1", "0", "4", ""), MOE_RANGE, "expert_count");
    expect_refused(NEUTRAL("1", "1", "4", ""), MOE_RANGE, "0 layers");
#undef NEUTRAL
}

/* GPU 0 has slots 0 to 2, GPU 1 the rest. Expert 0 lives on both, so its load would
 * shift; expert 1 lives on GPU 0 alone. */
Test(plan, filling_moves_no_load)
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
    cr_assert_eq(moe_plan_fill(&plan, &filled, NULL), MOE_OK);
    moe_placement_gpu_load(&plan, 0, load, after);
    cr_assert_eq(filled, 2);
    cr_assert_eq(memcmp(slots, filled_slots, sizeof slots), 0);
    cr_assert_eq(before[0], after[0]);
    cr_assert_eq(before[1], after[1]);

    uint16_t shared[6] = { 0, 1, 2, 0, 0, X };
    struct moe_error err = { 0 };
    plan.expert_of_slot = shared;
    cr_assert_eq(moe_plan_fill(&plan, &filled, &err), MOE_POLICY);
    cr_assert_not_null(strstr(err.text, "slot 5 is empty"), "%s", err.text);
    cr_assert_not_null(strstr(err.text, "GPU 1 has none"), "%s", err.text);
}

/* Places under a composition into slots[2 * slot_count]. */
static enum moe_status place(const char *text, uint32_t layers, uint32_t slot_count, uint32_t gpus,
                             uint16_t *slots, struct moe_error *err)
{
    struct moe_composition composition;
    struct moe_arena scratch;
    struct moe_placement plan = { { layers, 3, slot_count, gpus, 1, 1 }, slots };
    MOE_TRY(moe_composition_parse(&composition, text, err));
    const struct moe_place_view view = {
        .shape = plan.shape,
        .parameters = composition.part[MOE_POLICY_PLACE].values,
    };
    cr_assert_eq(moe_arena_init(&scratch, 1 << 16, NULL), MOE_OK);
    memset(slots, 0xff, (size_t) layers * slot_count * sizeof *slots);
    const enum moe_status status =
        moe_policy_place(composition.part[MOE_POLICY_PLACE].policy, &view, &scratch, &plan, err);
    moe_arena_finish(&scratch);
    return status;
}

Test(plan, a_file_is_a_policy)
{
    static const char text[] = "num_slots: 4\ninitial_global_assignments:\n"
                               "  4: [2, 1, 0, 0]\n  2: [0, 1, 2, 1]\n  3: [1, 1, 0, 2]\n";
    uint16_t slots[18];
    struct moe_error err = { 0 };
    FILE *file = fopen("plan", "w");
    cr_assert_not_null(file);
    (void) fputs(text, file);
    cr_assert_eq(fclose(file), 0);

    /* As many layers: in the order of their numbers. */
    const uint16_t same[12] = { 0, 1, 2, 1, 1, 1, 0, 2, 2, 1, 0, 0 };
    cr_assert_eq(place("./plan", 3, 4, 2, slots, &err), MOE_OK, "%s", err.text);
    cr_assert_arr_eq(slots, same, sizeof same);
    /* Layers by number, and a slot more on each GPU, which stays empty. */
    const uint16_t padded[12] = { 0, 1, X, 2, 1, X, 2, 1, X, 0, 0, X };
    cr_assert_eq(place("./plan:first_layer=2:layer_step=2", 2, 6, 2, slots, &err), MOE_OK, "%s",
                 err.text);
    cr_assert_arr_eq(slots, padded, sizeof padded);

    cr_assert_eq(place("./plan", 2, 4, 2, slots, &err), MOE_POLICY);
    cr_assert_not_null(strstr(err.text, "3 layers and the model 2"), "%s", err.text);
    cr_assert_eq(place("./plan:first_layer=4", 2, 4, 2, slots, &err), MOE_POLICY);
    cr_assert_eq(place("./plan", 3, 3, 3, slots, &err), MOE_POLICY);
    cr_assert_not_null(strstr(err.text, "4 slots"), "%s", err.text);
    cr_assert_eq(place("./plan", 3, 6, 3, slots, &err), MOE_POLICY);
    cr_assert_not_null(strstr(err.text, "multiple of 3"), "%s", err.text);
    cr_assert_eq(place("./plan:file=1", 3, 4, 2, slots, &err), MOE_RANGE);
    cr_assert_eq(place("./none", 3, 4, 2, slots, &err), MOE_IO);

    struct moe_composition composition;
    const struct moe_policy *policy = NULL;
    cr_assert_eq(moe_composition_parse(&composition, "./plan:layer_step=1", &err), MOE_OK);
    cr_assert_str_eq(composition.label, "./plan");
    cr_assert_eq(moe_plan_policy_load(&policy, "./plan", &err), MOE_OK);
    cr_assert_eq(policy, composition.part[MOE_POLICY_PLACE].policy);
    cr_assert_eq(moe_policy_check_table(policy, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_composition_parse(&composition, "dispatch=./plan", &err), MOE_RANGE);
}
