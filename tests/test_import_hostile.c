/* Files that were not written by an engine: refused with the place, in bounded memory. */
#include <math.h>
#include <sys/resource.h>
#include <zip.h>

#include "tests/import_fixture.h"
#include "traces/base64.h"
#include "traces/csv.h"
#include "traces/json_documents.h"
#include "traces/json_stream.h"
#include "traces/pickle.h"
#include "traces/safetensors.h"
#include "traces/torch_file.h"
#include "traces/zip_file.h"

TestSuite(import_hostile, .init = import_setup, .fini = fixture_teardown);

/* Pickles as text: \x.. as in C. The length is that of the literal. */
#define PICKLE(text)             \
    {                            \
        (text), sizeof(text) - 1 \
    }

static const struct {
    struct {
        const char *bytes;
        size_t size;
    } pickle;
    const char *text;
} pickles[] = {
    /* os.system('id'), as protocol 2 has it. */
    { PICKLE("\x80\x02"
             "cos\nsystem\nX\x02\x00\x00\x00id\x85R."),
      "offset 2: the pickle calls os.system; only torch tensors are rebuilt and no code is run" },
    { PICKLE("\x80\x02"
             "cbuiltins\neval\nX\x01\x00\x00\x00"
             "1\x85R."),
      "the pickle calls builtins.eval" },
    { PICKLE("\x80\x02"
             "ctorch._utils\n_rebuild_tensor\n."),
      "torch._utils._rebuild_tensor;" },
    { PICKLE("\x80\x02"
             "ctorch\nIntStorage\n)R."),
      "calls a storage type" },
    { PICKLE("\x80\x02"
             "ccollections\nOrderedDict\nK\x01\x85R."),
      "OrderedDict with arguments" },
    { PICKLE("\x80\x02"
             "ctorch._utils\n_rebuild_tensor_v2\n)R."),
      "make no sense" },
    { PICKLE("\x80\x02"
             "cos\nsystem"),
      "ends in the name of a global" },
    { PICKLE("\x80\x02"
             "Nios\nsystem\n."),
      "opcode 0x69" }, /* INST */
    { PICKLE("\x80\x02"
             "(X\x02\x00\x00\x00ido."),
      "opcode 0x6f" },                           /* OBJ */
    { PICKLE("\x80\x02)\x81."), "opcode 0x81" }, /* NEWOBJ */
    { PICKLE("\x80\x02Nb."), "opcode 0x62" },    /* BUILD */
    { PICKLE("\x80\x04N."), "not a pickle of protocol 2" },
    { PICKLE("\x80\x02"), "ends in the middle" },
    { PICKLE("\x80\x02."), "other than one value" },
    { PICKLE("\x80\x02NN."), "other than one value" },
    { PICKLE("\x80\x02(N."), "other than one value" },
    { PICKLE("\x80\x02X\xff\xff\xff\x7f"
             "a."),
      "ends in the middle" },
    { PICKLE("\x80\x02\x8a\x09"
             "123456789."),
      "more than 64 bits" },
    { PICKLE("\x80\x02h\x05."), "was not kept" },
    { PICKLE("\x80\x02Nr\xff\xff\xff\x7f."), "absurd number" },
    { PICKLE("\x80\x02"
             "e."),
      "no MARK" },
    { PICKLE("\x80\x02N(Ne."), "no list" },
    { PICKLE("\x80\x02N\x86."), "more values than there are" },
    { PICKLE("\x80\x02}(X\x01\x00\x00\x00"
             "aNu(X\x01\x00\x00\x00"
             "aNu."),
      "key 'a' stands twice" },
    { PICKLE("\x80\x02}(Nu."), "a key without a value" },
    { PICKLE("\x80\x02NQ."), "no torch storage" },
    /* A storage key that climbs out of the archive's folder. */
    { PICKLE("\x80\x02(X\x07\x00\x00\x00storagectorch\nIntStorage\nX\x04\x00\x00\x00../aX\x03\x00"
             "\x00\x00"
             "cpuK\x01tQ."),
      "no name of a member" },
};

Test(import_hostile, pickles_run_nothing)
{
    for (size_t i = 0; i < sizeof pickles / sizeof pickles[0]; i++) {
        struct moe_pickle *pickle = NULL;
        struct moe_error err = { 0 };
        const unsigned char *bytes = (const unsigned char *) pickles[i].pickle.bytes;
        cr_assert_eq(moe_pickle_parse(&pickle, "x.pt", bytes, pickles[i].pickle.size, &err),
                     MOE_PARSE, "%zu", i);
        cr_assert_not_null(strstr(err.text, pickles[i].text), "%zu: %s", i, err.text);
    }
}

/* A list that is appended to itself, and one that grows without end: neither hangs. */
Test(import_hostile, pickles_that_hold_themselves)
{
    static const unsigned char self[] = "\x80\x02]q\x00h\x00"
                                        "a.";
    struct moe_pickle *pickle = NULL;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_pickle_parse(&pickle, "x", self, sizeof self - 1, &err), MOE_OK, "%s",
                 err.text);
    moe_pickle_close(pickle);
    enum { LISTS = 12 << 20 };
    unsigned char *many = malloc(LISTS + 3);
    cr_assert_not_null(many);
    many[0] = 0x80;
    many[1] = 2;
    memset(many + 2, ']', LISTS);
    many[LISTS + 2] = '.';
    cr_assert_eq(moe_pickle_parse(&pickle, "x", many, LISTS + 3, &err), MOE_PARSE);
    cr_assert_not_null(strstr(err.text, "more memory than"), "%s", err.text);
    free(many);
}

static void write_zip(const char *path, const char *name, const void *bytes, size_t size,
                      bool deflated)
{
    int code = 0;
    zip_t *archive = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &code);
    cr_assert_not_null(archive);
    zip_source_t *source = zip_source_buffer(archive, bytes, size, 0);
    const zip_int64_t index = zip_file_add(archive, name, source, 0);
    cr_assert(index >= 0);
    cr_assert_eq(zip_set_file_compression(archive, (zip_uint64_t) index,
                                          deflated ? ZIP_CM_DEFLATE : ZIP_CM_STORE, 9),
                 0);
    cr_assert_eq(zip_close(archive), 0);
}

Test(import_hostile, zip_bombs_and_damage)
{
    enum { BOMB = 64 << 20, SMALL = 100000 };
    struct moe_zip *zip = NULL;
    struct moe_error err = { 0 };
    unsigned char *bytes = NULL;
    size_t size = 0;
    unsigned char *zeros = calloc(BOMB, 1);
    char path[400];
    (void) snprintf(path, sizeof path, "%s", fixture_path("bomb.npz"));
    write_zip(path, "indices.npy", zeros, BOMB, true);
    cr_assert_eq(moe_zip_open(&zip, path, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_zip_read(zip, 0, UINT64_MAX, &bytes, &size, &err), MOE_PARSE);
    cr_assert_not_null(strstr(err.text, "member indices.npy would unpack from"), "%s", err.text);
    cr_assert_eq(moe_zip_read(zip, 0, 1000, &bytes, &size, &err), MOE_PARSE);
    cr_assert_not_null(strstr(err.text, "at most 1000 are read"), "%s", err.text);
    moe_zip_close(zip);
    /* The same, but really of many bytes: read, then with one of them changed. */
    for (int i = 0; i < SMALL; i++) {
        zeros[i] = (unsigned char) moe_random_bits(1, (uint64_t) i);
    }
    write_zip(path, "indices.npy", zeros, SMALL, false);
    cr_assert_eq(moe_zip_open(&zip, path, &err), MOE_OK);
    cr_assert_eq(moe_zip_read(zip, 0, UINT64_MAX, &bytes, &size, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(size, SMALL);
    cr_assert_eq(memcmp(bytes, zeros, SMALL), 0);
    free(bytes);
    moe_zip_close(zip);
    FILE *file = fopen(path, "r+b");
    cr_assert_eq(fseek(file, 50000, SEEK_SET), 0);
    cr_assert_neq(fputc(zeros[50000] ^ 1, file), EOF);
    cr_assert_eq(fclose(file), 0);
    cr_assert_eq(moe_zip_open(&zip, path, &err), MOE_OK);
    cr_assert_eq(moe_zip_read(zip, 0, UINT64_MAX, &bytes, &size, &err), MOE_PARSE);
    cr_assert_not_null(strstr(err.text, "CRC"), "%s", err.text);
    moe_zip_close(zip);
    cr_assert_eq(truncate(path, 60000), 0);
    cr_assert_eq(moe_zip_open(&zip, path, &err), MOE_PARSE);
    free(zeros);
}

/* As a user meets it: named by auto, with the place. */
Test(import_hostile, a_torch_file_that_would_run_code)
{
    static const char evil[] = "\x80\x02"
                               "cos\nsystem\nX\x02\x00\x00\x00id\x85R.";
    const struct moe_import_options options = { .layers = NULL };
    struct moe_import_result result;
    struct moe_error err = { 0 };
    char path[400];
    (void) snprintf(path, sizeof path, "%s", fixture_path("evil.pt"));
    write_zip(path, "evil/data.pkl", evil, sizeof evil - 1, false);
    cr_assert_eq(import_files("auto", path, &options, &result, &err), MOE_PARSE);
    cr_assert_not_null(strstr(err.text, "evil.pt: data.pkl: offset 2: the pickle calls os.system"),
                       "%s", err.text);
    write_zip(path, "evil/data.pkl", "\x80\x02}.", 4, false);
    cr_assert_eq(truncate(path, 60), 0);
    cr_assert_eq(import_files("auto", path, &options, &result, &err), MOE_PARSE);
    cr_assert_not_null(strstr(err.text, "not a readable zip file"), "%s", err.text);
    cr_assert_eq(fixture_count_files(), 1);
}

Test(import_hostile, safetensors_headers)
{
    static const struct {
        uint64_t length;
        const char *header;
        enum moe_status status;
        const char *text;
    } files[] = {
        { UINT64_C(10) << 30, "{}", MOE_PARSE, "a header of 10737418240 bytes" },
        { UINT64_MAX, "{}", MOE_PARSE, "a header of 18446744073709551615 bytes" },
        { 3, "{}", MOE_PARSE, "the file of 10 bytes has room for" },
        { 2, "[]", MOE_PARSE, "no JSON object" },
        { 0, "{\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", MOE_PARSE,
          "within the file's 0 bytes" },
        { 0, "{\"a\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[8,0]}}", MOE_PARSE,
          "make no sense" },
        { 0, "{\"a\":{\"dtype\":\"F8\",\"shape\":[1],\"data_offsets\":[0,0]}}", MOE_PARSE,
          "dtype F8 is not read" },
        { 0, "{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}",
          MOE_PARSE, "does not fit" },
        { 0, "{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"a\":{}}", MOE_PARSE,
          "duplicate" },
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        unsigned char bytes[300];
        struct moe_safetensors *file = NULL;
        struct moe_error err = { 0 };
        const size_t length = strlen(files[i].header);
        const uint64_t stated = files[i].length == 0 ? length : files[i].length;
        memcpy(bytes, &stated, 8);
        memcpy(bytes + 8, files[i].header, length);
        cr_assert_eq(moe_safetensors_open_memory(&file, "x", bytes, 8 + length, &err),
                     files[i].status, "%zu", i);
        cr_assert_not_null(strstr(err.text, files[i].text), "%zu: %s", i, err.text);
    }
}

static enum moe_status take_nothing(void *context, const struct moe_json_matrix *matrix,
                                    struct moe_error *err)
{
    (void) context;
    (void) matrix;
    (void) err;
    return MOE_OK;
}

Test(import_hostile, json_matrices)
{
    static const struct {
        const char *json;
        const char *text; /* NULL: good */
    } cases[] = {
        { "[[1,2],[3,4.5]]", NULL },
        { "[[[1,2]],[[3,4]]]", NULL },
        { "[[1,NaN]]", "x:1:5: not valid JSON: a value is expected (NaN and Infinity are none)" },
        { "[[1,1e999]]", "malformed or infinite" },
        { "[[1,-1]]", "m[0][1] is negative" },
        { "[[1,2],[3]]", "m[1][1] is missing: the rows differ" },
        { "[[1],[2,3]]", "m[1][1] makes a row longer" },
        { "[[],[1]]", "m[0][0] is missing: an empty list" },
        { "[]", "an empty list" },
        { "[1]", "not nested deep enough" },
        { "[[[[1]]]]", "nested too deep" },
        { "[[1],[[2]]]", "nested too deep" },
        { "[[[1],[2]],[[3]]]", "another number of rows" },
        { "[[1,\"2\"]]", "is no number" },
        { "[[1,null]]", "is no number" },
        { "[[1,2]", "comma or the end" },
        { "[[01]]", "malformed" },
        { "[[1,]]", "expected after a comma" },
        { "[[1] [2]]", "comma or the end" },
        { "[[1]] x", "something follows" },
        { "{\"a\":1}", "a list of lists of numbers is expected" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct moe_json_stream stream;
        struct moe_json_matrix matrix = { .row_limit = 100, .column_limit = 100 };
        struct moe_error err = { 0 };
        enum moe_json_token token = MOE_JSON_END;
        cr_assert_eq(
            moe_json_stream_open_memory(&stream, "x", cases[i].json, strlen(cases[i].json), &err),
            MOE_OK);
        enum moe_status status =
            moe_json_stream_matrices(&stream, true, "m", &matrix, take_nothing, NULL, &err);
        if (status == MOE_OK) {
            status = moe_json_stream_next(&stream, &token, &err);
        }
        cr_assert_eq(status == MOE_OK, cases[i].text == NULL, "%s: %s", cases[i].json, err.text);
        if (cases[i].text != NULL) {
            cr_assert_not_null(strstr(err.text, cases[i].text), "%s: %s", cases[i].json, err.text);
        }
        moe_json_matrix_finish(&matrix);
        moe_json_stream_close(&stream);
    }
}

Test(import_hostile, nesting_is_bounded)
{
    enum { DEEP = 100000 };
    struct moe_json_stream stream;
    struct moe_error err = { 0 };
    char *deep = malloc(DEEP);
    memset(deep, '[', DEEP);
    cr_assert_eq(moe_json_stream_open_memory(&stream, "x", deep, DEEP, &err), MOE_OK);
    cr_assert_eq(moe_json_stream_skip(&stream, &err), MOE_PARSE);
    cr_assert_not_null(strstr(err.text, "x:1:66: not valid JSON: nested more than 64"), "%s",
                       err.text);
    moe_json_stream_close(&stream);
    free(deep);
}

Test(import_hostile, csv_quotes_and_numbers)
{
    static const struct {
        const char *line;
        const char *text; /* of splitting; NULL: good, and its last field follows */
        const char *last;
    } lines[] = {
        { "a,\"b,c\"", NULL, "b,c" },
        { "\"say \"\"hi\"\"\"", NULL, "say \"hi\"" },
        { "a,", NULL, "" },
        { "a,\"b", "x:1: field 2: a quote does not end", NULL },
        { "\"a\"b,c", "field 1: a quote does not end, or text follows it", NULL },
        { "a\"b", "field 1: a quote inside of it", NULL },
    };
    for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        static struct moe_csv csv;
        struct moe_error err = { 0 };
        bool got = false;
        cr_assert_eq(moe_csv_open_memory(&csv, "x", lines[i].line, strlen(lines[i].line), &err),
                     MOE_OK);
        const enum moe_status status = moe_csv_next(&csv, &got, &err);
        cr_assert_eq(status == MOE_OK, lines[i].text == NULL, "%s: %s", lines[i].line, err.text);
        if (lines[i].text == NULL) {
            cr_assert_str_eq(csv.fields[csv.field_count - 1], lines[i].last);
        } else {
            cr_assert_not_null(strstr(err.text, lines[i].text), "%s", err.text);
        }
        moe_csv_close(&csv);
    }
    static const char *const numbers[] = { "", "nan", "inf", "0x10", "1 ", "1e999", "--1" };
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        static struct moe_csv csv;
        struct moe_error err = { 0 };
        double value = 0.0;
        uint64_t whole = 0;
        char line[32];
        bool got = false;
        (void) snprintf(line, sizeof line, "7,%s", numbers[i]);
        cr_assert_eq(moe_csv_open_memory(&csv, "x", line, strlen(line), &err), MOE_OK);
        cr_assert_eq(moe_csv_next(&csv, &got, &err), MOE_OK);
        cr_assert_eq(moe_csv_real(&csv, 1, 0.0, 10.0, &value, &err), MOE_PARSE, "%s", numbers[i]);
        cr_assert_not_null(strstr(err.text, "x:1: field 2"), "%s", err.text);
        cr_assert_eq(moe_csv_whole(&csv, 1, 10, &whole, &err), MOE_PARSE, "%s", numbers[i]);
        moe_csv_close(&csv);
    }
}

Test(import_hostile, base64_characters)
{
    static const struct {
        const char *text;
        const char *decoded; /* NULL: refused */
    } cases[] = { { "", "" },       { "TWFu", "Man" }, { "TWE=", "Ma" },
                  { "TQ==", "M" },  { "TWF", NULL },   { "T===", NULL },
                  { "TW=u", NULL }, { "TWF\n", NULL }, { "TWFuTW-u", NULL } };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        unsigned char *bytes = NULL;
        size_t size = 0;
        struct moe_error err = { 0 };
        const enum moe_status status =
            moe_base64_decode(&bytes, &size, "x", cases[i].text, strlen(cases[i].text), &err);
        cr_assert_eq(status == MOE_OK, cases[i].decoded != NULL, "%s", cases[i].text);
        if (status == MOE_OK) {
            cr_assert_eq(size, strlen(cases[i].decoded));
            cr_assert_eq(memcmp(bytes, cases[i].decoded, size), 0);
            free(bytes);
        }
    }
}

static const struct {
    const char *name;
    const char *text;
    const char *error;
} files[] = {
    { "h.json", "{\"load_history\":[{\"logical_expert_load\":[[1,2]]},{\"other\":1}]}",
      "step 1 lacks \"logical_expert_load\"" },
    { "h.json",
      "{\"load_history\":[{\"logical_expert_load\":[[1,2]],\"logical_expert_load\":[[1,2]]}]}",
      "stands twice" },
    { "h.json",
      "{\"load_history\":[{\"logical_expert_load\":[[1,2]]},{\"logical_expert_load\":[[1]]}]}",
      "logical_expert_load[0][1] is missing: the rows differ in length" },
    { "l.json", "{\"logical_count\":[[1,2]],\"logical_count\":[[1,2]]}", "stands twice" },
    { "a.csv", "layer_id,expert_ids\n1,3 4\n2,3\n1,3 x\n", "'x' is no expert" },
    { "a.csv", "layer_id,expert_ids\n1,3 4\n1,3 4\n2,3 5\n", "has 1 lines in this batch" },
    { "b.csv", "layer,0,1\n0,1,2\n0,3,4\n", "b.csv:3: layer 0 stands twice in its step" },
    { "b.csv", "layer,step,0,1\n0,1,1,2\n1,1,1,2\n0,2,1,2\n", "layer 1 is missing in step 2" },
    { "b.csv", "layer,0,1\n0,1,nan\n", "b.csv:2: field 3 is 'nan'; a number is expected" },
    { "c.csv",
      "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.1,4,1\n2023-11-16 "
      "18:17:02.9,4,1\n",
      "c.csv:3: earlier than the line before" },
    { "c.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-13-16 18:17:03,4,1\n", "c.csv:2:" },
    { "d.jsonl", "{\"timestamp\":1,\"input_length\":10,\"output_length\":1,\"hash_ids\":[1,2]}\n",
      "no list of blocks of 512 tokens for a prompt of 10" },
    { "e.jsonl",
      "{\"type\":\"route\",\"req_id\":1,\"token_idx\":0,\"layer\":0,\"topk_ids\":[1]}\n"
      "{\"type\":\"route\",\"req_id\":1,\"token_idx\":0,\"layer\":0,\"topk_ids\":[1]}\n",
      "e.jsonl:2: token 0 of layer 0 stands twice in its request" },
    { "e.jsonl",
      "{\"type\":\"route\",\"req_id\":1,\"token_idx\":0,\"layer\":0,\"topk_ids\":[-2]}\n",
      "choice 0 is -2; an expert or -1 is expected" },
    { "e.jsonl",
      "{\"type\":\"route\",\"req_id\":1,\"token_idx\":2000000000,\"layer\":0,"
      "\"topk_ids\":[1]}\n{\"type\":\"route\",\"req_id\":1,\"token_idx\":0,\"layer\":0,"
      "\"topk_ids\":[1]}\n",
      "rows of routes, which are held in memory" },
    { "e.jsonl",
      "{\"type\":\"route\",\"req_id\":1,\"req_id\":2,\"token_idx\":0,\"layer\":0,"
      "\"topk_ids\":[1]}\n",
      "duplicate" },
    { "f.json",
      "{\"object\":\"x\",\"usage\":{\"prompt_tokens\":1},\"choices\":[{\"routed_experts\":"
      "\"AAAA\"}]}",
      "not a .npy file" },
    { "g.csv", "", "(the file is empty)" },
    { "g.csv", "\xff\xfel\x01", "(text in UTF-16: save it as UTF-8)" },
    { "g.csv", "\xef\xbb\xbflayer_id,expert_ids\n0,1 2\n", "(it begins with a byte order mark" },
    { "g.pt",
      "\x80\x02"
      "cos\nsystem\n",
      "(a pickle outside of a zip file" },
    { "g.json", "\x1f\x8b\x08", "(compressed with gzip: unpack it)" },
    { "g.parquet", "PAR1....PAR1", "(Parquet: traces/README.md says how to convert it)" },
    { "g.npy", "<!doctype html>", "(a page of HTML or XML" },
    { "g.jsonl",
      "{\"step\":0,\"stage\":\"pre_dispatch\",\"block\":\"decoder\",\"layer\":0,\"rank\": 1,"
      "\"num_tokens\":1,\"topk\":1,\"top_indices\":[[0]]}\n",
      "the file of rank 0 is missing" },
    { "g.csv", "layer_id,expert_ids\n1,99999999999999999999\n",
      "is no expert from 0 to 65533, or more than 64 of them" },
};

/* A shape of values, and where something else than an expert stands among them. */
Test(import_hostile, a_value_that_is_no_expert_is_shown)
{
    static const float values[] = { 0, 1, 2, 3, NAN, 1, 2, 3 };
    static const char head[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2, 2), }";
    char bytes[160] = "\x93NUMPY\x01";
    memset(bytes + 10, ' ', 118);
    bytes[8] = 118;
    memcpy(bytes + 10, head, sizeof head - 1);
    bytes[127] = '\n';
    memcpy(bytes + 128, values, sizeof values);
    const char *path = import_write("v.npy", bytes, sizeof bytes);
    const struct moe_import_options options = { .expert_count = 64 };
    struct moe_import_result result;
    struct moe_error err = { 0 };
    cr_assert_eq(import_files("auto", path, &options, &result, &err), MOE_PARSE);
    cr_assert_not_null(
        strstr(err.text, "row 1, layer 0, k 0 is nan, neither an expert from 0 to 65533 nor -1"),
        "%s", err.text);
}

Test(import_hostile, files_are_refused_with_the_place)
{
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        const char *path = import_write(files[i].name, files[i].text, strlen(files[i].text));
        const struct moe_import_options options = { .expert_count = 0 };
        struct moe_import_result result;
        struct moe_error err = { 0 };
        const enum moe_status status = import_files("auto", path, &options, &result, &err);
        cr_assert(status == MOE_PARSE || status == MOE_RANGE, "%s: %s", files[i].text, err.text);
        cr_assert_not_null(strstr(err.text, files[i].error), "%s: %s", files[i].text, err.text);
        (void) unlink(fixture_path(files[i].name));
        cr_assert_eq(fixture_count_files(), 0, "%s leaves something", files[i].text);
    }
}

/* Under ASan freed memory is kept for a while, and counts. */
#if defined(__SANITIZE_ADDRESS__)
#define MEMORY_IS_WATCHED 1
#elif defined(__has_feature)
#define MEMORY_IS_WATCHED __has_feature(address_sanitizer)
#else
#define MEMORY_IS_WATCHED 0
#endif

/* A load history of 13 MB (100 MB as a tree of values) passes through a little memory. */
Test(import_hostile, a_long_history_needs_little_memory)
{
    enum { REPEATS = 1000 };
    static char text[16384];
    char path[400];
    FILE *in = fopen(MOE_SOURCE_ROOT "/tests/formats/adrs_expert_load_history.json", "rb");
    const size_t size = fread(text, 1, sizeof text - 1, in);
    (void) fclose(in);
    /* The elements of the list, without what stands around it. */
    char *begin = strstr(text, "[{") + 1;
    char *end = text + size;
    while (*--end != ']') {
    }
    (void) snprintf(path, sizeof path, "%s", fixture_path("long.json"));
    FILE *out = fopen(path, "wb");
    cr_assert(fprintf(out, "{\"load_history\": [") > 0);
    for (int i = 0; i < REPEATS; i++) {
        cr_assert(fprintf(out, "%s%.*s", i == 0 ? "" : ", ", (int) (end - begin), begin) > 0);
    }
    cr_assert(fprintf(out, "]}") > 0);
    cr_assert_eq(fclose(out), 0);
    struct rusage before;
    struct rusage after;
    struct moe_import_result result;
    struct moe_error err = { 0 };
    const struct moe_import_options options = { .layers = NULL };
    cr_assert_eq(getrusage(RUSAGE_SELF, &before), 0);
    cr_assert_eq(import_files("auto", path, &options, &result, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(getrusage(RUSAGE_SELF, &after), 0);
    cr_assert_eq(result.load_count, UINT64_C(8) * REPEATS);
#if !MEMORY_IS_WATCHED
    cr_assert_lt(after.ru_maxrss - before.ru_maxrss, 64L * 1024);
#endif
}
