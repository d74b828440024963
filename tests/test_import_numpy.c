#include "tests/trace_fixture.h"
#include "traces/import.h"
#include "traces/trace_provenance.h"
#include "traces/trace_schema.h"

TestSuite(import_numpy, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

enum { LAYERS = 3, EXPERTS = 6, TOP_K = 2, ROWS = 9, IDS = ROWS * LAYERS * TOP_K };

/* Three requests of 4+2-1, 1+1-1 and 2+2-1 rows. */
static const int64_t prompt_len[] = { 4, 1, 2 };
static const int64_t output_len[] = { 2, 1, 2 };
static const int64_t domain[] = { 1, 0, 1 };

static const char meta[] = "{\"experts\": 6, \"top_k\": 2, \"moe_layers\": 3, \"model\": \"toy\","
                           " \"domains\": [\"code\", \"math\"], \"groups\": 3, \"top_groups\": 2,"
                           " \"hidden\": 64, \"engine\": \"by hand\", \"steps\": 7}";

static int64_t id_at(size_t i)
{
    return (int64_t) (i * 5 % EXPERTS);
}

static void write_text(const char *name, const char *text)
{
    FILE *file = fopen(fixture_path(name), "wb");
    cr_assert_geq(fputs(text, file), 0);
    cr_assert_eq(fclose(file), 0);
}

/* What a .npy file is written from. */
struct array {
    const char *descr;
    const char *shape;
    const int64_t *values; /* written little endian, as wide as descr says */
    size_t count;
    size_t drop;       /* how many of the last bytes are missing */
    int major;         /* 0: version 1.0 */
    const char *order; /* NULL: "False" */
};

static void write_npy(const char *name, struct array array)
{
    const int major = array.major == 0 ? 1 : array.major;
    unsigned char bytes[4096] = "\x93NUMPY";
    char header[256];
    const size_t item = (size_t) (array.descr[2] - '0');
    const size_t begin = major == 1 ? 10 : 12;
    int length =
        snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }\n",
                 array.descr, array.order == NULL ? "False" : array.order, array.shape);
    bytes[6] = (unsigned char) major;
    bytes[8] = (unsigned char) length;
    memcpy(bytes + begin, header, (size_t) length);
    unsigned char *p = bytes + begin + length;
    for (size_t i = 0; i < array.count; i++, p += item) {
        memcpy(p, &array.values[i], item);
    }
    FILE *file = fopen(fixture_path(name), "wb");
    cr_assert_eq(fwrite(bytes, (size_t) (p - bytes) - array.drop, 1, file), 1);
    cr_assert_eq(fclose(file), 0);
}

/* A good input, of which each case spoils one file. */
static void write_good(void)
{
    int64_t ids[IDS];
    for (size_t i = 0; i < IDS; i++) {
        ids[i] = id_at(i);
    }
    write_npy("experts.npy", (struct array){ "|u1", "(9, 3, 2)", ids, IDS, 0, 0, NULL });
    write_npy("prompt_len.npy", (struct array){ "<u2", "(3,)", prompt_len, 3, 0, 0, NULL });
    write_npy("output_len.npy", (struct array){ "<i4", "(3,)", output_len, 3, 0, 0, NULL });
    write_npy("domain.npy", (struct array){ "|u1", "(3,)", domain, 3, 0, 0, NULL });
    write_text("meta.json", meta);
}

static enum moe_status run(const char *format, struct moe_import_result *result,
                           struct moe_error *err)
{
    const char *folder = fixture_folder;
    const struct moe_import_request request = {
        .format = format,
        .inputs = &folder,
        .input_count = 1,
        .output = fixture_path("t.db"),
    };
    return moe_import_run(&request, result, err);
}

/* Imports and compares with ids[IDS], where -1 is unknown. */
static void check_import(const int64_t *ids)
{
    struct moe_import_result result;
    struct moe_trace *trace = NULL;
    struct moe_error err = { 0 };
    uint16_t out[IDS];
    cr_assert_eq(run("auto", &result, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_open(&trace, fixture_path("t.db"), &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_hash(trace), result.hash);
    cr_assert_eq(moe_trace_read(trace, 0, ROWS, out, &err), MOE_OK, "%s", err.text);
    for (size_t i = 0; i < IDS; i++) {
        cr_assert_eq(out[i], ids[i] < 0 ? MOE_EXPERT_UNKNOWN : ids[i], "id %zu", i);
    }
    for (size_t i = 0; i < 3; i++) {
        const struct moe_trace_request *request = &moe_trace_requests(trace)[i];
        cr_assert_eq(request->prompt_tokens, prompt_len[i]);
        cr_assert_eq(request->output_tokens, output_len[i]);
        cr_assert_eq(request->domain, domain[i]);
        cr_assert_eq(request->arrival_ns, -1);
    }
    moe_trace_close(trace);
    cr_assert_eq(unlink(fixture_path("t.db")), 0);
}

Test(import_numpy, reads_every_type_and_version)
{
    static const char *const types[] = { "|u1", "<u2", "<i2", "<i4", "<i8" };
    int64_t ids[IDS];
    write_good();
    for (size_t i = 0; i < IDS; i++) {
        ids[i] = id_at(i);
    }
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        for (int major = 1; major <= 3; major++) {
            write_npy("experts.npy",
                      (struct array){ types[i], "(9, 3, 2)", ids, IDS, 0, major, NULL });
            check_import(ids);
        }
    }
    ids[0] = -1; /* not recorded */
    ids[17] = -1;
    ids[IDS - 1] = -1;
    for (size_t i = 2; i < sizeof types / sizeof types[0]; i++) {
        write_npy("experts.npy", (struct array){ types[i], "(9, 3, 2)", ids, IDS, 0, 0, NULL });
        check_import(ids);
    }
}

Test(import_numpy, keeps_what_meta_json_says_and_where_it_comes_from)
{
    struct moe_import_result result;
    struct moe_trace_history history;
    struct moe_trace *trace = NULL;
    struct moe_error err = { 0 };
    write_good();
    cr_assert_eq(run("numpy", &result, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_trace_open(&trace, fixture_path("t.db"), &err), MOE_OK, "%s", err.text);
    const struct moe_trace_model *model = moe_trace_model(trace);
    cr_assert_str_eq(model->name, "toy");
    cr_assert_eq(model->group_count, 3);
    cr_assert_eq(model->group_limit, 2);
    cr_assert_eq(model->hidden_size, 64);
    cr_assert_eq(model->expert_size, 0);
    cr_assert_eq(model->domain_count, 2);
    cr_assert_str_eq(model->domains[1], "math");
    cr_assert_eq(moe_trace_history_load(&history, moe_trace_database(trace), &err), MOE_OK);
    cr_assert_eq(history.count, 1);
    cr_assert_str_eq(history.records[0].engine, "by hand");
    cr_assert_eq(history.records[0].source_count, 5);
    cr_assert_str_eq(history.records[0].sources[4].name, "meta.json");
    cr_assert_eq(history.records[0].sources[4].size_bytes, sizeof meta - 1);
    cr_assert_eq(history.records[0].sources[4].hash, moe_hash_bytes(meta, sizeof meta - 1, 0));
    moe_trace_history_finish(&history);
    moe_trace_close(trace);

    cr_assert_eq(run("numpy", &result, &err), MOE_OK, "%s", err.text);
    cr_assert(result.was_finished);
    write_text("meta.json", "{\"experts\": 6, \"top_k\": 2, \"moe_layers\": 3, \"model\": \"toy\","
                            " \"domains\": [\"code\", \"maths\"]}");
    cr_assert_eq(run("numpy", &result, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "--overwrite"), "%s", err.text);
}

/* One spoiled input each: its file is written over a good one. */
static const struct {
    const char *file;
    const char *descr;
    const char *shape;
    int64_t first; /* value 0; the others are 1 */
    size_t count;
    size_t drop;
    enum moe_status status;
    const char *text;
} bad_arrays[] = {
    { "experts.npy", "|u1", "(9, 3, 2)", 0, IDS, 1, MOE_PARSE,
      "truncated: 127 bytes are expected, 126 were found" },
    { "experts.npy", "|u1", "(9, 3, 2)", 0, IDS + 1, 0, MOE_PARSE, "too long" },
    { "experts.npy", "|u1", "(9, 3, 2)", 6, IDS, 0, MOE_RANGE,
      "experts.npy: row 0, layer 0, k 0: expert 6; the model has experts 0 to 5" },
    { "experts.npy", "<i2", "(9, 3, 2)", -2, IDS, 0, MOE_RANGE, "expert -2" },
    { "experts.npy", "<u2", "(9, 3, 2)", 65535, IDS, 0, MOE_RANGE, "expert 65535" },
    { "experts.npy", "<i8", "(9, 3, 2)", INT64_MAX, IDS, 0, MOE_RANGE, "9223372036854775807" },
    { "experts.npy", "|u1", "(10, 3, 2)", 0, 60, 0, MOE_RANGE,
      "the lengths sum to 9 rows (prompt + output - 1 of 3 requests), but experts.npy has 10" },
    { "experts.npy", "|u1", "(9, 2, 3)", 0, IDS, 0, MOE_PARSE, "rows of [2][3]" },
    { "experts.npy", "|u1", "(9, 6)", 0, IDS, 0, MOE_PARSE, "2 dimensions" },
    { "experts.npy", "|u1", "(0, 3, 2)", 0, 0, 0, MOE_PARSE, "experts.npy: no rows" },
    { "experts.npy", "<f4", "(9, 3, 2)", 0, IDS, 0, MOE_UNSUPPORTED, "'<f4'" },
    { "experts.npy", ">i2", "(9, 3, 2)", 0, IDS, 0, MOE_UNSUPPORTED, "'>i2'" },
    { "experts.npy", "|u1", "(9, -3, 2)", 0, IDS, 0, MOE_PARSE, "shape" },
    { "experts.npy", "|u1", "(4294967296, 4294967296, 2)", 0, IDS, 0, MOE_PARSE, "2^59" },
    { "prompt_len.npy", "<u2", "(3,)", 0, 3, 0, MOE_RANGE, "request 0 has length 0" },
    { "prompt_len.npy", "<i8", "(3,)", 4294967296, 3, 0, MOE_RANGE, "length 4294967296" },
    { "prompt_len.npy", "<u2", "(3,)", 6, 3, 0, MOE_RANGE, "but experts.npy has 9" },
    { "output_len.npy", "<i4", "(3,)", -1, 3, 0, MOE_RANGE, "request 0 has length -1" },
    { "output_len.npy", "<u2", "(2,)", 1, 2, 0, MOE_PARSE, "2 requests, but prompt_len.npy has 3" },
    { "domain.npy", "|u1", "(3,)", 2, 3, 0, MOE_RANGE, "domain 2; 0 to 1 are allowed" },
    { "domain.npy", "|u1", "(1, 3)", 0, 3, 0, MOE_PARSE, "2 dimensions" },
};

Test(import_numpy, refuses_bad_arrays_with_the_place_and_leaves_nothing)
{
    for (size_t i = 0; i < sizeof bad_arrays / sizeof bad_arrays[0]; i++) {
        int64_t values[IDS + 10];
        struct moe_import_result result;
        struct moe_error err = { 0 };
        for (size_t j = 0; j < sizeof values / sizeof values[0]; j++) {
            values[j] = j == 0 ? bad_arrays[i].first : 1;
        }
        write_good();
        write_npy(bad_arrays[i].file,
                  (struct array){ bad_arrays[i].descr, bad_arrays[i].shape, values,
                                  bad_arrays[i].count, bad_arrays[i].drop, 0, NULL });
        cr_expect_eq(run("numpy", &result, &err), bad_arrays[i].status, "%zu: %s", i, err.text);
        cr_expect_not_null(strstr(err.text, bad_arrays[i].text), "%zu: %s", i, err.text);
        cr_expect_eq(fixture_count_files(), 5, "%zu left a file behind", i);
    }
}

Test(import_numpy, refuses_fortran_order_and_says_what_to_do)
{
    const int64_t values[IDS] = { 0 };
    struct moe_import_result result;
    struct moe_error err = { 0 };
    write_good();
    write_npy("experts.npy", (struct array){ "|u1", "(9, 3, 2)", values, IDS, 0, 0, "True" });
    cr_assert_eq(run("numpy", &result, &err), MOE_UNSUPPORTED);
    cr_assert_not_null(strstr(err.text, "numpy.ascontiguousarray"), "%s", err.text);
}

static const struct {
    const char *meta;
    const char *text;
} bad_metas[] = {
    { "{\"experts\": 6, \"top_k\": 2, \"model\": \"toy\"}", "\"moe_layers\" is missing" },
    { "{\"experts\": \"six\", \"top_k\": 2, \"moe_layers\": 3}", "\"experts\" is \"six\"" },
    { "{\"experts\": 65535, \"top_k\": 2, \"moe_layers\": 3}", "1 to 65534" },
    { "{\"experts\": 6, \"top_k\": 2, \"moe_layers\": 3, \"model\": \"toy\"}", "domains" },
    { "{\"experts\": 6, \"top_k\": 2, \"moe_layers\": 3, \"domains\": [\"a\", \"b\"]}", "--name" },
    { "{\"experts\": 6, \"top_k\": 2, \"moe_layers\": 3, \"model\": \"toy\", \"domains\": [\"a\","
      "\"a\"]}",
      "domains 0 and 1 are both named 'a'" },
    { "{\"experts\": 6, \"top_k\": 2, \"moe_layers\": 3, \"model\": \"toy\", \"domains\": [\"a\","
      "\"b\"], \"groups\": 4}",
      "6 experts do not divide into 4" },
    { "{\"experts\": 6, \"top_k\": 2, \"moe_layers\": 3, \"model\": \"toy\", \"domains\": [\"a\","
      "\"b\"], \"groups\": 6, \"top_groups\": 1}",
      "top-2 is more than the 1 experts" },
    { "{\"experts\": 6, \"top_k\": 2, \"moe_layers\": 3, \"model\": \"toy\", \"domains\": [\"a\","
      "\"b\"], \"requests\": 4}",
      "\"requests\" is 4, but prompt_len.npy has 3" },
    { "{\"experts\": 6, \"top_k\": 2, \"moe_layers\": 3, \"model\": \"toy\", \"domains\": [\"a\","
      "\"b\"], \"tokens\": 8}",
      "\"tokens\" is 8, but experts.npy has 9" },
    { "[1, 2]", "object" },
    { "{\"experts\": 6,", "meta.json:1:" },
};

Test(import_numpy, refuses_a_meta_json_that_says_too_little_or_the_wrong_thing)
{
    write_good();
    for (size_t i = 0; i < sizeof bad_metas / sizeof bad_metas[0]; i++) {
        struct moe_import_result result;
        struct moe_error err = { 0 };
        write_text("meta.json", bad_metas[i].meta);
        const enum moe_status status = run("numpy", &result, &err);
        cr_expect(status == MOE_PARSE || status == MOE_RANGE, "%zu: %s", i, err.text);
        cr_expect_not_null(strstr(err.text, bad_metas[i].text), "%zu: %s", i, err.text);
        cr_expect_eq(fixture_count_files(), 5, "%zu left a file behind", i);
    }
}

Test(import_numpy, says_how_to_unpack_and_which_formats_there_are)
{
    struct moe_import_result result;
    struct moe_error err = { 0 };
    write_good();
    cr_assert_eq(rename(fixture_path("experts.npy"), fixture_path("experts.npy.xz")), 0);
    cr_assert_eq(run("auto", &result, &err), MOE_PARSE);
    cr_assert_not_null(strstr(err.text, "xz -dk "), "%s", err.text);
    cr_assert_eq(run("parquet", &result, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "no format 'parquet'; there are: auto numpy "), "%s",
                       err.text);
    cr_assert_eq(unlink(fixture_path("experts.npy.xz")), 0);
    cr_assert_eq(run("auto", &result, &err), MOE_PARSE);
    cr_assert_not_null(strstr(err.text, "none of the formats"), "%s", err.text);
}
