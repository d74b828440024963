/* Stores joined, split, written anew, exported and imported again: the content stays. */
#include "tests/trace_fixture.h"
#include "traces/export.h"
#include "traces/import.h"
#include "traces/trace_edit.h"
#include "traces/trace_loads.h"

TestSuite(trace_edit, .init = fixture_setup, .fini = fixture_teardown);

enum { REQUESTS = 60 };

static char *own_path(const char *name, char *out, size_t size)
{
    (void) snprintf(out, size, "%s", fixture_path(name));
    return out;
}

static struct moe_trace_edit_result run(const char *verb, const char *const *names,
                                        size_t name_count, const char *output,
                                        const struct moe_trace_choice *choice, bool by_arrival)
{
    char paths[4][400];
    const char *inputs[4];
    char out[400];
    struct moe_trace_edit_result result = { 0 };
    struct moe_error err = { 0 };
    for (size_t i = 0; i < name_count; i++) {
        inputs[i] = own_path(names[i], paths[i], sizeof paths[i]);
    }
    const struct moe_trace_edit edit = { .verb = verb,
                                         .inputs = inputs,
                                         .input_count = name_count,
                                         .output = own_path(output, out, sizeof out),
                                         .choice = *choice,
                                         .by_arrival = by_arrival };
    cr_assert_eq(moe_trace_edit_run(&edit, &result, &err), MOE_OK, "%s", err.text);
    return result;
}

/* A part, the rest, and both together; the results' hash. */
static uint64_t part_and_join(const char *input, struct moe_trace_choice choice, bool by_arrival,
                              uint64_t *first_part)
{
    const struct moe_trace_choice all = moe_trace_choose_all();
    const char *const parts[2] = { "part.db", "rest.db" };
    (void) unlink(fixture_path("part.db"));
    (void) unlink(fixture_path("rest.db"));
    (void) unlink(fixture_path("joined.db"));
    *first_part = run("split", &input, 1, "part.db", &choice, false).item_count;
    choice.is_rest = true;
    (void) run("split", &input, 1, "rest.db", &choice, false);
    return run("merge", parts, 2, "joined.db", &all, by_arrival).hash;
}

static uint64_t import_back(const char *path, const char *output)
{
    char in[400];
    const char *inputs[1] = { own_path(path, in, sizeof in) };
    struct moe_import_request request = {
        .format = "auto", .inputs = inputs, .input_count = 1, .output = fixture_path(output)
    };
    struct moe_import_result result;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_import_run(&request, &result, &err), MOE_OK, "%s", err.text);
    return result.hash;
}

static enum moe_status export_as(const char *format_name, const char *input, const char *output,
                                 struct moe_error *err)
{
    const struct moe_export_format *format = NULL;
    struct moe_trace *trace = NULL;
    char out[400];
    cr_assert_eq(moe_export_find(format_name, &format, err), MOE_OK);
    cr_assert_eq(moe_trace_open_any(&trace, fixture_path(input), err), MOE_OK, "%s", err->text);
    const enum moe_status status =
        format->write(trace, own_path(output, out, sizeof out), false, err);
    moe_trace_close(trace);
    return status;
}

Test(trace_edit, routes_come_back)
{
    const struct moe_trace_model models[] = { fixture_model(3, 16, 2), fixture_model(2, 300, 3) };
    for (size_t i = 0; i < 2; i++) {
        const char *input = i == 0 ? "a.db" : "b.db";
        const char *lines = i == 0 ? "a.jsonl" : "b.jsonl";
        const char *back = i == 0 ? "a2.db" : "b2.db";
        const char *anew = i == 0 ? "a3.db" : "b3.db";
        const struct moe_trace_choice all = moe_trace_choose_all();
        struct moe_trace_choice choice = moe_trace_choose_all();
        struct moe_error err = { 0 };
        uint64_t count = 0;
        const uint64_t hash = fixture_store(fixture_path(input), &models[i], REQUESTS, 7);
        cr_assert_eq(run("convert", &input, 1, anew, &all, false).hash, hash);
        choice.first_share = 0.25;
        cr_assert_eq(part_and_join(input, choice, false, &count), hash);
        cr_assert_eq(count, REQUESTS / 4);
        cr_assert_eq(export_as("jsonl", input, lines, &err), MOE_OK, "%s", err.text);
        cr_assert_eq(import_back(lines, back), hash);
        /* Arrays have no place for arrival times. */
        cr_assert_eq(export_as("npy", input, "folder", &err), MOE_RANGE);
        cr_assert_not_null(strstr(err.text, "arrival time"), "%s", err.text);
        cr_assert_neq(access(fixture_path("folder"), F_OK), 0);
    }
}

static uint64_t without_arrivals(const char *name, const struct moe_trace_model *model,
                                 uint32_t unknown_every)
{
    const struct moe_trace_history history = { 0 };
    struct moe_trace_writer *writer = NULL;
    uint64_t hash = 0;
    uint64_t index = 0;
    uint16_t row[64];
    cr_assert_eq(moe_trace_writer_open(&writer, fixture_path(name), false, model, &history, NULL),
                 MOE_OK);
    for (uint64_t i = 0; i < REQUESTS; i++) {
        struct moe_trace_request request = fixture_request(i);
        request.arrival_ns = -1;
        cr_assert_eq(moe_trace_writer_requests(writer, &request, 1, NULL), MOE_OK);
        for (uint64_t r = 0; r < moe_trace_request_rows(&request); r++) {
            for (uint32_t k = 0; k < model->layer_count * model->top_k; k++) {
                row[k] = fixture_choice(model, index++, unknown_every);
            }
            cr_assert_eq(moe_trace_writer_rows(writer, row, 1, NULL), MOE_OK);
        }
    }
    cr_assert_eq(moe_trace_writer_finish(writer, &hash, NULL), MOE_OK);
    (void) moe_trace_writer_close(writer, MOE_OK);
    return hash;
}

Test(trace_edit, arrays_come_back)
{
    struct moe_trace_model model = fixture_model(4, 64, 3);
    model.group_count = 8;
    model.group_limit = 2;
    model.hidden_size = 128;
    for (uint32_t unknown = 0; unknown <= 5; unknown += 5) {
        struct moe_error err = { 0 };
        const char *name = unknown == 0 ? "a.db" : "b.db";
        const char *folder = unknown == 0 ? "a" : "b";
        const uint64_t hash = without_arrivals(name, &model, unknown);
        cr_assert_eq(export_as("npy", name, folder, &err), MOE_OK, "%s", err.text);
        cr_assert_eq(import_back(folder, unknown == 0 ? "a2.db" : "b2.db"), hash);
        cr_assert_eq(export_as("npy", name, folder, &err), MOE_RANGE, "replaced without a word");
        char command[500];
        (void) snprintf(command, sizeof command, "rm -r '%s'", fixture_path(folder));
        cr_assert_eq(system(command), 0);
    }
}

Test(trace_edit, domains_and_draws_part_the_requests)
{
    const struct moe_trace_model model = fixture_model(2, 8, 2);
    const char *input = "a.db";
    struct moe_trace_choice choice = moe_trace_choose_all();
    uint64_t code = 0;
    uint64_t drawn = 0;
    uint64_t again = 0;
    (void) without_arrivals(input, &model, 0);
    for (uint64_t i = 0; i < REQUESTS; i++) {
        code += fixture_request(i).domain == 0;
    }
    choice.domain = "code";
    (void) part_and_join(input, choice, false, &drawn);
    cr_assert_eq(drawn, code);
    choice = moe_trace_choose_all();
    choice.drawn_share = 0.5;
    choice.seed = 4;
    (void) part_and_join(input, choice, false, &drawn);
    (void) part_and_join(input, choice, false, &again);
    cr_assert_eq(drawn, again);
    cr_assert(drawn > 15 && drawn < 45, "%lu of 60 under 0.5", (unsigned long) drawn);
}

/* An arrivals store with blocks. */
static uint64_t arrivals_store(const char *name)
{
    struct moe_trace_model model = {
        .name = "x", .content = MOE_TRACE_ARRIVALS, .domain_count = 1, .domains = { "all" }
    };
    const struct moe_trace_history history = { 0 };
    struct moe_trace_writer *writer = NULL;
    uint64_t hash = 0;
    model.group_count = 1;
    model.group_limit = 1;
    cr_assert_eq(moe_trace_writer_open(&writer, fixture_path(name), false, &model, &history, NULL),
                 MOE_OK);
    for (uint64_t i = 0; i < REQUESTS; i++) {
        const struct moe_trace_request request = { .arrival_ns = (int64_t) i / 2 * 500000000,
                                                   .prompt_tokens = 1000,
                                                   .output_tokens = 7 };
        const int64_t blocks[2] = { (int64_t) i - 3, INT64_MAX - (int64_t) i };
        cr_assert_eq(moe_trace_writer_arrival(writer, &request, blocks, i % 3, 512, NULL), MOE_OK);
    }
    cr_assert_eq(moe_trace_writer_finish(writer, &hash, NULL), MOE_OK);
    (void) moe_trace_writer_close(writer, MOE_OK);
    return hash;
}

Test(trace_edit, arrivals_come_back)
{
    struct moe_trace_choice choice = moe_trace_choose_all();
    struct moe_error err = { 0 };
    uint64_t count = 0;
    const uint64_t hash = arrivals_store("a.db");
    choice.begin_ns = 2000000000;
    choice.end_ns = 4000000000;
    cr_assert_eq(part_and_join("a.db", choice, true, &count), hash);
    cr_assert_eq(count, 8);
    cr_assert_eq(export_as("jsonl", "a.db", "a.jsonl", &err), MOE_OK, "%s", err.text);
    cr_assert_eq(import_back("a.jsonl", "b.db"), hash);
}

static uint64_t loads_store(const char *name, bool has_placement)
{
    struct moe_trace_model model = fixture_model(2, 3, 0);
    const struct moe_trace_history history = { 0 };
    struct moe_trace_writer *writer = NULL;
    uint64_t hash = 0;
    model.content = MOE_TRACE_LOADS;
    cr_assert_eq(moe_trace_writer_open(&writer, fixture_path(name), false, &model, &history, NULL),
                 MOE_OK);
    for (uint64_t i = 0; i < 20; i++) {
        const struct moe_trace_load load = { i / 2, i % 4 < 2 ? -1 : (int64_t) i * 3,
                                             i % 2 == 0 ? MOE_TRACE_ALL_RANKS : 1, 0 };
        const double counts[6] = { (double) i, 0.1, 1.0 / 3.0, 4294967296.0, 0.0, 1e-300 };
        cr_assert_eq(moe_trace_writer_load(writer, &load, counts, NULL), MOE_OK);
    }
    const uint16_t placement[8] = { 0, 1, 2, MOE_EXPERT_UNKNOWN, 2, 1, 0, 0 };
    if (has_placement) {
        cr_assert_eq(moe_trace_writer_placement(writer, placement, 4, NULL), MOE_OK);
    }
    cr_assert_eq(moe_trace_writer_finish(writer, &hash, NULL), MOE_OK);
    (void) moe_trace_writer_close(writer, MOE_OK);
    return hash;
}

Test(trace_edit, loads_and_placement_come_back)
{
    struct moe_trace_choice choice = moe_trace_choose_all();
    struct moe_error err = { 0 };
    uint64_t count = 0;
    const uint64_t hash = loads_store("a.db", true);
    choice.first_share = 0.3;
    cr_assert_eq(part_and_join("a.db", choice, false, &count), hash);
    cr_assert_eq(count, 3);
    cr_assert_eq(export_as("jsonl", "a.db", "a.jsonl", &err), MOE_OK, "%s", err.text);
    cr_assert_eq(import_back("a.jsonl", "b.db"), hash);
    cr_assert_neq(loads_store("c.db", false), hash);
    cr_assert_eq(export_as("npy", "a.db", "folder", &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "jsonl everything"), "%s", err.text);
}

static void expect_refused(const char *a, const char *b, const struct moe_trace_choice *choice,
                           bool by_arrival, const char *words)
{
    char paths[2][400];
    const char *inputs[2] = { own_path(a, paths[0], sizeof paths[0]),
                              own_path(b == NULL ? a : b, paths[1], sizeof paths[1]) };
    struct moe_trace_edit_result result;
    struct moe_error err = { 0 };
    const struct moe_trace_edit edit = { .verb = "merge",
                                         .inputs = inputs,
                                         .input_count = b == NULL ? 1 : 2,
                                         .output = fixture_path("out.db"),
                                         .choice = *choice,
                                         .by_arrival = by_arrival };
    cr_assert_eq(moe_trace_edit_run(&edit, &result, &err), MOE_RANGE, "%s", err.text);
    cr_assert_not_null(strstr(err.text, words), "'%s' lacks '%s'", err.text, words);
    cr_assert_neq(access(fixture_path("out.db"), F_OK), 0, "a refused edit left a store");
}

Test(trace_edit, what_does_not_go_together_is_refused)
{
    const struct moe_trace_model one = fixture_model(2, 8, 2);
    const struct moe_trace_model other = fixture_model(2, 8, 1);
    const struct moe_trace_choice all = moe_trace_choose_all();
    struct moe_trace_choice choice = all;
    (void) fixture_store(fixture_path("a.db"), &one, 4, 0);
    (void) fixture_store(fixture_path("b.db"), &other, 4, 0);
    (void) loads_store("l.db", false);
    expect_refused("a.db", "b.db", &all, false, "differ in top-k");
    expect_refused("a.db", "l.db", &all, false, "differ in what they hold");
    expect_refused("a.db", "a.db", &all, true, "no arrival time");
    expect_refused("l.db", NULL, &all, true, "no arrival times");
    choice.domain = "nonesuch";
    expect_refused("a.db", NULL, &choice, false, "no domain 'nonesuch'");
    choice.domain = "prose"; /* stated, but no request has it */
    expect_refused("a.db", NULL, &choice, false, "no request is chosen");
    choice = all;
    choice.is_rest = true;
    expect_refused("l.db", NULL, &choice, false, "no step is chosen");
}

static void expect_no_import(const char *text, const char *words)
{
    char in[400];
    const char *inputs[1] = { own_path("x.jsonl", in, sizeof in) };
    const struct moe_import_request request = {
        .format = "moesim", .inputs = inputs, .input_count = 1, .output = fixture_path("x.db")
    };
    struct moe_import_result result;
    struct moe_error err = { 0 };
    FILE *file = fopen(in, "w");
    cr_assert_not_null(file);
    (void) fputs(text, file);
    cr_assert_eq(fclose(file), 0);
    cr_assert_neq(moe_import_run(&request, &result, &err), MOE_OK, "%s", text);
    cr_assert_not_null(strstr(err.text, words), "'%s' lacks '%s'", err.text, words);
    cr_assert_neq(access(fixture_path("x.db"), F_OK), 0);
}

#define HEAD(content, version, layers)                                                            \
    "{\"format\": \"moesim.trace\", \"version\": " version ", \"content\": \"" content            \
    "\", \"model\": \"m\", \"layers\": " layers ", \"experts\": 4, \"top_k\": 2, \"groups\": 1, " \
    "\"group_limit\": 1, \"hidden\": 0, \"expert_size\": 0, \"shared_size\": 0, \"domains\": "    \
    "[\"all\"], \"block_tokens\": 0, \"placement\": null}\n"
#define REQUEST                                                                    \
    "{\"request\": 0, \"arrival_ns\": null, \"domain\": 0, \"prompt_tokens\": 2, " \
    "\"output_tokens\": 1}\n"

Test(trace_edit, damaged_lines_are_refused)
{
    expect_no_import("{}\n", "does not state the format");
    expect_no_import(HEAD("routes", "2", "1"), "version 2");
    expect_no_import(HEAD("dreams", "1", "1"), "content");
    expect_no_import(HEAD("routes", "1", "0"), "layers");
    expect_no_import(HEAD("routes", "1", "1") REQUEST, "lacks 2 rows");
    expect_no_import(HEAD("routes", "1", "1") REQUEST "{\"rows\": [[0, 1]]}\n" REQUEST,
                     "lacks 1 rows");
    expect_no_import(HEAD("routes", "1", "1") REQUEST "{\"rows\": [[0, 1], [0, 1], [0, 1]]}\n",
                     "at most the 2 rows");
    expect_no_import(HEAD("routes", "1", "1") REQUEST "{\"rows\": [[0, 4]]}\n", "from 0 to 3");
    expect_no_import(HEAD("routes", "1", "1") REQUEST "{\"rows\": [[0]]}\n", "2 experts");
    expect_no_import(HEAD("loads", "1", "1") "{\"step\": 0, \"rank\": null, \"domain\": 0, "
                                             "\"label\": null, \"counts\": [[1, 2, 3]]}\n",
                     "1 layers of 4 experts");
    expect_no_import(HEAD("loads", "1", "1") "{\"step\": 0, \"rank\": null, \"domain\": 0, "
                                             "\"label\": null, \"counts\": [[1, 2, 3, -4]]}\n",
                     "from 0 to 2^32");
}
