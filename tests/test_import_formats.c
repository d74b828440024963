/* Every fixture of tests/formats: what it was made of comes back, whatever the container. */
#include <unistd.h>

#include "tests/import_fixture.h"
#include "traces/dump_loads.h"

TestSuite(import_formats, .init = import_setup, .fini = fixture_teardown);

static const struct {
    const char *format;
    const char *files;
    const char *layers;
    uint32_t experts;
    uint32_t top_k;
    uint64_t rows;
    uint64_t requests;
    uint32_t first_prompt; /* of the first request */
} routes[] = {
    { "sglang_per_token",
      "sglang_per_token_expert_distribution_recorder_1700000000.9_0.pt "
      "sglang_per_token_expert_distribution_recorder_1700000000.9_1.pt",
      NULL, 0, 0, 192, 6, 32 },
    { "sglang_response", "sglang_generate_response.json", NULL, 64, 0, 40, 1, 25 },
    { "sglang_response", "sglang_generate_response_uint8.json", "moe", 64, 6, 40, 1, 25 },
    { "vllm_response", "vllm_completion_response_npy_base64.json", "1-8", 64, 0, 40, 1, 25 },
    { "vllm_response", "vllm_v021_completion_response_lists.json", NULL, 64, 0, 40, 1, 25 },
    { "array", "vllm_routed_experts_uint8.npy", "moe", 64, 0, 40, 1, 40 },
    { "array", "vllm_routed_experts_uint16.npy", "moe", 64, 0, 40, 1, 40 },
    { "array", "vllm_routed_experts_int16.npy", "moe", 64, 0, 40, 1, 40 },
    { "array", "vllm_fortran_order.npy", "1,2,3,4-8", 64, 0, 40, 1, 40 },
    { "array", "generic_stored.npz", NULL, 64, 0, 40, 1, 40 },
    { "array", "generic_deflate.npz", NULL, 64, 0, 40, 1, 40 },
    { "trtllm_routes", "trtllm_expert_statistic", NULL, 0, 0, 256, 8, 32 },
    { "megatron", "megatron_router_trace_rank0.jsonl", NULL, 64, 0, 128, 2, 64 },
    { "llamacpp", "llamacpp_expert_selection.csv", NULL, 64, 0, 16, 1, 16 },
};

Test(import_formats, routes_are_those_of_the_npz)
{
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        struct moe_import_result result;
        struct moe_error err = { 0 };
        struct moe_trace *trace = NULL;
        uint16_t row[TRUE_LAYERS * TRUE_TOP_K];
        const struct moe_import_options options = { .layers = routes[i].layers,
                                                    .expert_count = routes[i].experts,
                                                    .top_k = routes[i].top_k };
        cr_assert_eq(import_files("auto", routes[i].files, &options, &result, &err), MOE_OK,
                     "%s: %s", routes[i].files, err.text);
        cr_assert_str_eq(result.format->name, routes[i].format);
        cr_assert_eq(moe_trace_open(&trace, fixture_path("t.db"), &err), MOE_OK, "%s", err.text);
        const struct moe_trace_model *model = moe_trace_model(trace);
        cr_assert_eq(model->layer_count, TRUE_LAYERS, "%s", routes[i].files);
        cr_assert_eq(model->top_k, TRUE_TOP_K);
        cr_assert_eq(model->expert_count, TRUE_EXPERTS);
        cr_assert_eq(moe_trace_row_count(trace), routes[i].rows, "%s", routes[i].files);
        cr_assert_eq(moe_trace_request_count(trace), routes[i].requests);
        cr_assert_eq(moe_trace_requests(trace)[0].prompt_tokens, routes[i].first_prompt);
        for (uint64_t token = 0; token < TRUE_TOKENS && token < routes[i].rows; token++) {
            cr_assert_eq(moe_trace_read(trace, token, 1, row, &err), MOE_OK);
            for (int id = 0; id < TRUE_LAYERS * TRUE_TOP_K; id++) {
                cr_assert_eq(row[id], true_ids[token][id / TRUE_TOP_K][id % TRUE_TOP_K],
                             "%s: token %d, id %d", routes[i].files, (int) token, id);
            }
        }
        moe_trace_close(trace);
    }
}

/* counts[step][layer][expert] of the 64 tokens of each step, from the raw choices. */
enum { STEPS = 4, STEP_TOKENS = 64 };

static void count_steps(double counts[STEPS][TRUE_LAYERS][TRUE_EXPERTS])
{
    const struct moe_import_options options = { .layers = NULL };
    struct moe_import_result result;
    struct moe_trace *trace = NULL;
    uint16_t row[TRUE_LAYERS][TRUE_TOP_K];
    memset(counts, 0, sizeof(double) * STEPS * TRUE_LAYERS * TRUE_EXPERTS);
    cr_assert_eq(import_files("trtllm_routes", "trtllm_expert_statistic", &options, &result, NULL),
                 MOE_OK);
    cr_assert_eq(moe_trace_open(&trace, fixture_path("t.db"), NULL), MOE_OK);
    for (uint64_t token = 0; token < (uint64_t) STEPS * STEP_TOKENS; token++) {
        cr_assert_eq(moe_trace_read(trace, token, 1, &row[0][0], NULL), MOE_OK);
        for (int layer = 0; layer < TRUE_LAYERS; layer++) {
            for (int k = 0; k < TRUE_TOP_K; k++) {
                counts[token / STEP_TOKENS][layer][row[layer][k]] += 1.0;
            }
        }
    }
    moe_trace_close(trace);
}

static const struct {
    const char *format;
    const char *files;
    uint64_t steps;
    uint64_t loads;
    uint32_t slots; /* of the recorded placement */
} loads[] = {
    { "sglang_stat", "sglang_stat_expert_distribution_recorder_1700000000.123.pt", 8, 8, 0 },
    { "sglang_stat", "sglang_stat_cuda_location.pt", 8, 8, 0 },
    { "sglang_per_pass",
      "sglang_per_pass_expert_distribution_recorder_1700000000.5_0.pt "
      "sglang_per_pass_expert_distribution_recorder_1700000000.5_1.pt",
      8, 16, 72 },
    { "trtllm_counts", "trtllm_expert_statistic", 4, 8, 0 },
    { "adrs", "adrs_expert_load_history.json", 8, 8, 0 },
};

Test(import_formats, loads_are_counts_of_those_routes)
{
    static double truth[STEPS][TRUE_LAYERS][TRUE_EXPERTS];
    static double seen[8][TRUE_LAYERS][TRUE_EXPERTS];
    count_steps(truth);
    for (size_t i = 0; i < sizeof loads / sizeof loads[0]; i++) {
        const struct moe_import_options options = { .layers = NULL };
        struct moe_import_result result;
        struct moe_error err = { 0 };
        struct moe_trace *trace = NULL;
        struct moe_trace_load_cursor cursor;
        struct moe_trace_load load;
        double counts[TRUE_LAYERS][TRUE_EXPERTS];
        uint64_t steps = 0;
        uint32_t slots = 0;
        uint16_t *placement = NULL;
        bool got = true;
        cr_assert_eq(import_files(loads[i].format, loads[i].files, &options, &result, &err), MOE_OK,
                     "%s: %s", loads[i].files, err.text);
        cr_assert_eq(moe_trace_open(&trace, fixture_path("t.db"), &err), MOE_RANGE);
        cr_assert_not_null(strstr(err.text, "only counts of tokens per expert"), "%s", err.text);
        cr_assert_eq(moe_trace_open_any(&trace, fixture_path("t.db"), &err), MOE_OK);
        cr_assert_eq(moe_trace_step_count(trace, &steps, NULL), MOE_OK);
        cr_assert_eq(steps, loads[i].steps);
        cr_assert_eq(moe_trace_load_count(trace), loads[i].loads);
        cr_assert_eq(moe_trace_placement_read(trace, &slots, &placement, NULL), MOE_OK);
        cr_assert_eq(slots, loads[i].slots);
        for (uint32_t slot = 0; slot < slots * TRUE_LAYERS; slot++) {
            cr_assert_eq(placement[slot], slot % slots % TRUE_EXPERTS);
        }
        free(placement);
        memset(seen, 0, sizeof seen);
        cr_assert_eq(moe_trace_loads_begin(&cursor, trace, NULL), MOE_OK);
        while (got) {
            cr_assert_eq(moe_trace_loads_next(&cursor, &load, &counts[0][0], &got, &err), MOE_OK);
            for (int cell = 0; got && cell < TRUE_LAYERS * TRUE_EXPERTS; cell++) {
                (&seen[load.step][0][0])[cell] += (&counts[0][0])[cell];
            }
        }
        moe_trace_loads_end(&cursor);
        moe_trace_close(trace);
        cr_assert_arr_eq(seen, truth, sizeof truth, "%s", loads[i].files);
    }
}

Test(import_formats, sums_and_the_plan_in_force_are_found)
{
    static const char *const inputs[] = {
        MOE_SOURCE_ROOT "/tests/formats/sglang_init_expert_location_logical_count.json",
        MOE_SOURCE_ROOT "/tests/formats/sglang_init_expert_location_p2l.json",
    };
    static const char *const history[] = { MOE_SOURCE_ROOT
                                           "/tests/formats/adrs_expert_load_history.json" };
    struct moe_import_request request = { .format = "auto", .inputs = inputs, .input_count = 2 };
    struct moe_dump_loads sum = { 0 };
    struct moe_dump_loads steps = { 0 };
    struct moe_error err = { 0 };
    cr_assert_eq(moe_dump_loads_read(&sum, &request, 0.5, &err), MOE_OK, "%s", err.text);
    cr_assert(sum.in_sample);
    cr_assert_eq(sum.slot_count, 72);
    cr_assert_eq(sum.placement[65], 1);
    request.inputs = history;
    request.input_count = 1;
    cr_assert_eq(moe_dump_loads_read(&steps, &request, 0.25, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(steps.planned_units, 2);
    cr_assert_eq(steps.unit_count, 8);
    for (int i = 0; i < TRUE_LAYERS * TRUE_EXPERTS; i++) {
        cr_assert_eq(sum.planned[i], steps.planned[i] + steps.scored[i]);
    }
    moe_dump_loads_finish(&sum);
    moe_dump_loads_finish(&steps);
    request.inputs = inputs + 1;
    cr_assert_eq(moe_dump_loads_read(&sum, &request, 0.5, &err), MOE_PARSE);
    cr_assert_not_null(strstr(err.text, "only a placement"), "%s", err.text);
}

static const struct {
    const char *files;
    struct moe_import_options options;
    enum moe_status status;
    const char *text;
} refused[] = {
    { "sglang_per_pass_expert_distribution_recorder_1700000000.5_1.pt",
      { 0 },
      MOE_PARSE,
      "the file of rank 0 is missing" },
    { "sglang_per_pass_expert_distribution_recorder_1700000000.5_0.pt",
      { 0 },
      MOE_PARSE,
      "_1.pt: the file of rank 1 is missing" },
    { "trtllm_expert_statistic/meta_info.json trtllm_expert_statistic/rank1_raw.safetensors",
      { 0 },
      MOE_PARSE,
      "the file of rank 0 is missing" },
    { "vllm_routed_experts_uint8.npy",
      { .expert_count = 64 },
      MOE_RANGE,
      "layer 0 holds only zeros" },
    { "vllm_routed_experts_uint8.npy",
      { .layers = "moe" },
      MOE_RANGE,
      "give --experts N (the largest id in it is 63)" },
    { "vllm_routed_experts_uint8.npy",
      { .layers = "moe", .expert_count = 63 },
      MOE_RANGE,
      "holds expert 63; the model has experts 0 to 62" },
    { "vllm_routed_experts_uint8.npy",
      { .layers = "9", .expert_count = 64 },
      MOE_RANGE,
      "layer 9 was not recorded" },
    { "vllm_routed_experts_uint8.npy",
      { .layers = "3-", .expert_count = 64 },
      MOE_RANGE,
      "is no layer number" },
    { "vllm_routed_experts_uint8.npy",
      { .layers = "moe", .expert_count = 64, .prompt_tokens = 41 },
      MOE_RANGE,
      "40 rows for a prompt of 41 tokens" },
    { "adrs_expert_load_history.json",
      { .expert_count = 65 },
      MOE_RANGE,
      "--experts 65, but it states 64" },
    { "sglang_generate_response_uint8.json", { .expert_count = 64 }, MOE_RANGE, "give --top-k N" },
    { "vllm_ascend_expert_map.json", { 0 }, MOE_PARSE, "looks like none of the formats" },
};

Test(import_formats, what_is_missing_is_named)
{
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct moe_import_result result;
        struct moe_error err = { 0 };
        const enum moe_status status =
            import_files("auto", refused[i].files, &refused[i].options, &result, &err);
        cr_assert_eq(status, refused[i].status, "%s: %s", refused[i].files, err.text);
        cr_assert_not_null(strstr(err.text, refused[i].text), "%s", err.text);
        cr_assert_eq(fixture_count_files(), 0, "%s leaves something", refused[i].files);
    }
}

/* 1,200 equal rows of a warm-up, then real ones. */
Test(import_formats, warm_up_is_kept_unless_told)
{
    enum { WARM = 1200, REAL = 50 };
    static char text[(WARM + REAL) * 80];
    size_t used = 0;
    for (int i = 0; i < WARM + REAL; i++) {
        const int token = i < WARM ? i : i - WARM;
        used += (size_t) snprintf(text + used, sizeof text - used,
                                  "{\"type\":\"route\",\"req_id\":\"%s\",\"token_idx\":%d,"
                                  "\"layer\":4,\"topk_ids\":[%d,7]}\n",
                                  i < WARM ? "warm" : "real", token, i < WARM ? 0 : token % 7);
    }
    const char *path = import_write("routes.jsonl", text, used);
    struct moe_import_options options = { .expert_count = 8 };
    struct moe_import_result result;
    struct moe_error err = { 0 };
    cr_assert_eq(import_files("auto", path, &options, &result, &err), MOE_OK, "%s", err.text);
    cr_assert_str_eq(result.format->name, "vllm_routes");
    cr_assert_eq(result.warmup_rows, WARM + 1); /* the first real row is like them */
    cr_assert_eq(result.rows_skipped, 0);
    cr_assert_eq(result.row_count, WARM + REAL);
    options.skip_warmup = true;
    path = fixture_path("routes.jsonl");
    cr_assert_eq(import_files("auto", path, &options, &result, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(result.rows_skipped, WARM + 1);
    cr_assert_eq(result.row_count, REAL - 1);
    cr_assert_eq(result.request_count, 1);
    struct moe_trace *trace = NULL;
    uint16_t row[2];
    cr_assert_eq(moe_trace_open(&trace, fixture_path("t.db"), &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_read(trace, 0, 1, row, NULL), MOE_OK);
    cr_assert_eq(row[0], 1);
    moe_trace_close(trace);
}

static void check_dialect(const char *name, const char *text, const char *format, uint32_t prompt,
                          uint32_t output, uint16_t first)
{
    const char *path = import_write(name, text, strlen(text));
    const struct moe_import_options options = { .expert_count = 8 };
    struct moe_import_result result;
    struct moe_error err = { 0 };
    struct moe_trace *trace = NULL;
    uint16_t row[4];
    cr_assert_eq(import_files("auto", path, &options, &result, &err), MOE_OK, "%s: %s", format,
                 err.text);
    cr_assert_str_eq(result.format->name, format);
    cr_assert_eq(moe_trace_open(&trace, fixture_path("t.db"), &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_requests(trace)[0].prompt_tokens, prompt);
    cr_assert_eq(moe_trace_requests(trace)[0].output_tokens, output);
    cr_assert_eq(moe_trace_model(trace)->layer_count, 2);
    cr_assert_eq(moe_trace_read(trace, 1, 1, row, NULL), MOE_OK);
    cr_assert_eq(row[0], first);
    cr_assert_eq(row[3], MOE_EXPERT_UNKNOWN); /* the second token's later layer is not there */
    moe_trace_close(trace);
}

Test(import_formats, dialects_of_jsonl)
{
    check_dialect(
        "a_routing.jsonl",
        "{\"dataset\":\"gsm8k\",\"problem_id\":1,\"layer\":3,\"token_idx\":0,\"experts\":[1,2],"
        "\"gating_probs\":[0.6,0.4]}\n"
        "{\"dataset\":\"gsm8k\",\"problem_id\":1,\"layer\":9,\"token_idx\":0,\"experts\":[3,4]}\n"
        "{\"dataset\":\"gsm8k\",\"problem_id\":1,\"layer\":3,\"token_idx\":1,\"experts\":[5,6]}\n",
        "speculative", 2, 1, 5);
    check_dialect(
        "b.jsonl",
        "{\"record_type\":\"metadata\",\"format\":\"moe-cache-lab.routing-jsonl\","
        "\"format_version\":1,\"model_id\":\"m\",\"num_experts\":8}\n"
        "{\"record_type\":\"routing_selection\",\"phase\":\"prompt\",\"token_position\":4,"
        "\"layer\":0,\"selected_experts\":[1,2],\"selected_probabilities\":[]}\n"
        "{\"record_type\":\"routing_selection\",\"phase\":\"prompt\",\"token_position\":4,"
        "\"layer\":1,\"selected_experts\":[1,2],\"selected_probabilities\":[]}\n"
        "{\"record_type\":\"routing_selection\",\"phase\":\"generated\",\"token_position\":5,"
        "\"layer\":0,\"selected_experts\":[6,2],\"selected_probabilities\":[]}\n",
        "moe_cache_lab", 1, 2, 6);
}
