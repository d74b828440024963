/* Import of a numpy trace against a plain SQLite write of the same bytes, in one process,
 * in turns; then the reader. usage: bench_trace_import [DIR]; without DIR a trace is made
 * up. Prints MB of experts.npy per second, best of 7, and how much longer the import takes: by
 * the clock, the middle one of the rounds' ratios; and by the processor's time, which a busy
 * machine disturbs least. The bar is 2.
 *
 * The plain write is what anyone would do: the same page size and journal, the bytes of
 * experts.npy read in pieces of 1 MiB and inserted, 16 to a transaction, then one row of
 * two lengths per request. It checks and hashes nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sim/base/random.h"
#include "sim/base/wall_clock.h"
#include "traces/import.h"
#include "traces/trace_schema.h"

enum { PIECE = 1 << 20, REPEATS = 7, REQUESTS = 20000, ROW_BYTES = 64, REQUEST_ROWS = 100 };

static char folder[64] = "/tmp/moesim-bench-XXXXXX";

/* Of this process, user and system. */
static double processor_seconds(void)
{
    return (double) clock() / CLOCKS_PER_SEC;
}

static int compare_ratios(const void *a, const void *b)
{
    const double x = *(const double *) a;
    const double y = *(const double *) b;
    return (x > y) - (x < y);
}

static void stop(const char *what)
{
    (void) fprintf(stderr, "%s\n", what);
    exit(EXIT_FAILURE);
}

static FILE *create(const char *name, const char *header)
{
    char path[128];
    (void) snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        stop("cannot write the made-up trace");
    }
    if (header != NULL) {
        const size_t length = strlen(header);
        (void) fwrite("\x93NUMPY\x01\x00", 8, 1, file);
        (void) fputc((int) length, file);
        (void) fputc(0, file);
        (void) fputs(header, file);
    }
    return file;
}

/* 20,000 requests of 100 rows of 8 layers x top-8 of 256: 128 MB. */
static void make_up(void)
{
    static unsigned char block[REQUEST_ROWS * ROW_BYTES];
    FILE *files[4] = {
        create("experts.npy", "{'descr': '|u1', 'fortran_order': False, 'shape': (2000000, 8, 8)}"),
        create("prompt_len.npy", "{'descr': '|u1', 'fortran_order': False, 'shape': (20000,)}"),
        create("output_len.npy", "{'descr': '|u1', 'fortran_order': False, 'shape': (20000,)}"),
        create("meta.json", NULL),
    };
    for (uint64_t i = 0; i < REQUESTS; i++) {
        for (size_t j = 0; j < sizeof block; j++) {
            block[j] = (unsigned char) moe_random_bits(77, i * sizeof block + j);
        }
        (void) fwrite(block, sizeof block, 1, files[0]);
        (void) fputc(60, files[1]);
        (void) fputc(41, files[2]);
    }
    (void) fputs("{\"experts\": 256, \"top_k\": 8, \"moe_layers\": 8, \"model\": \"made up\"}",
                 files[3]);
    for (int i = 0; i < 4; i++) {
        if (fclose(files[i]) != 0) {
            stop("cannot write the made-up trace");
        }
    }
}

static void check(enum moe_status status, const struct moe_error *err)
{
    if (status != MOE_OK) {
        stop(err->text);
    }
}

static double plain_write(const char *input, const char *output, uint64_t request_count)
{
    static unsigned char piece[PIECE];
    static const struct moe_database_kind kind = {
        .noun = "plain table",
        .application_id = 1,
        .version = 1,
        .schema = "CREATE TABLE piece(id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);"
                  "CREATE TABLE request(id INTEGER PRIMARY KEY, arrival INTEGER, prompt INTEGER,"
                  " output INTEGER, domain INTEGER)",
    };
    struct moe_database db;
    struct moe_error err = { 0 };
    sqlite3_stmt *stmt = NULL;
    char path[4200];
    (void) snprintf(path, sizeof path, "%s/experts.npy", input);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        stop("no experts.npy");
    }
    const double begin = moe_wall_clock_s();
    check(moe_database_open(&db, &kind, output, MOE_DATABASE_CREATE, &err), &err);
    check(moe_database_prepare(&db, "INSERT INTO piece VALUES (NULL, ?)", &stmt, &err), &err);
    check(moe_database_exec(&db, "BEGIN IMMEDIATE", &err), &err);
    size_t got = fread(piece, 1, sizeof piece, file);
    for (int count = 1; got > 0; count++) {
        (void) sqlite3_bind_blob(stmt, 1, piece, (int) got, SQLITE_STATIC);
        check(moe_database_run(&db, stmt, &err), &err);
        if (count % 16 == 0) {
            check(moe_database_exec(&db, "COMMIT; BEGIN IMMEDIATE", &err), &err);
        }
        got = fread(piece, 1, sizeof piece, file);
    }
    (void) sqlite3_finalize(stmt);
    check(
        moe_database_prepare(&db, "INSERT INTO request VALUES (NULL, NULL, ?, ?, 0)", &stmt, &err),
        &err);
    for (uint64_t i = 0; i < request_count; i++) {
        (void) sqlite3_bind_int64(stmt, 1, (sqlite3_int64) (i % 256));
        (void) sqlite3_bind_int64(stmt, 2, (sqlite3_int64) (i % 112));
        check(moe_database_run(&db, stmt, &err), &err);
    }
    (void) sqlite3_finalize(stmt);
    check(moe_database_exec(&db, "COMMIT", &err), &err);
    moe_database_close(&db);
    const double time_s = moe_wall_clock_s() - begin;
    (void) fclose(file);
    (void) unlink(output);
    return time_s;
}

static double import(const char *input, const char *output, uint64_t *request_count)
{
    const struct moe_import_request request = {
        .format = "numpy", .inputs = &input, .input_count = 1, .output = output
    };
    struct moe_import_result result;
    struct moe_error err = { 0 };
    (void) unlink(output);
    const double begin = moe_wall_clock_s();
    check(moe_import_run(&request, &result, &err), &err);
    *request_count = result.request_count;
    return moe_wall_clock_s() - begin;
}

static void report_reads(const char *store, double bytes)
{
    enum { SINGLE_READS = 10000000 };
    struct moe_trace *trace = NULL;
    struct moe_error err = { 0 };
    const double opening = moe_wall_clock_s();
    check(moe_trace_open(&trace, store, &err), &err);
    (void) printf("open                        %8.1f ms\n", 1e3 * (moe_wall_clock_s() - opening));
    const struct moe_trace_layout layout = moe_trace_layout_of(moe_trace_model(trace));
    const uint64_t rows = moe_trace_row_count(trace);
    const uint64_t most = 4096;
    uint16_t *out = malloc(most * layout.ids_per_row * sizeof *out);
    if (out == NULL) {
        stop("no memory");
    }
    for (int pass = 0; pass < 2; pass++) {
        const double begin = moe_wall_clock_s();
        for (uint64_t row = 0; row < rows; row += most) {
            const uint64_t count = rows - row < most ? rows - row : most;
            check(moe_trace_read(trace, row, count, out, &err), &err);
        }
        (void) printf("read in order, %s   %8.0f MB/s\n", pass == 0 ? "first time" : "again     ",
                      bytes / (moe_wall_clock_s() - begin) * 1e-6);
    }
    uint64_t sum = 0;
    const double begin = moe_wall_clock_s();
    for (uint64_t i = 0; i < SINGLE_READS; i++) {
        check(moe_trace_read(trace, moe_random_below(99, i, rows), 1, out, &err), &err);
        sum += out[0];
    }
    (void) printf("read one row at random      %8.1f ns (%u ids; checksum %llu)\n",
                  (moe_wall_clock_s() - begin) / SINGLE_READS * 1e9, layout.ids_per_row,
                  (unsigned long long) sum);
    free(out);
    moe_trace_close(trace);
}

int main(int argc, char **argv)
{
    char output[128];
    char path[4200];
    struct stat info;
    double plain_s = 1e9;
    double import_s = 1e9;
    uint64_t request_count = 0;
    if (argc > 2 || mkdtemp(folder) == NULL) {
        stop("usage: bench_trace_import [DIR]");
    }
    if (argc == 1) {
        make_up();
    }
    const char *input = argc == 2 ? argv[1] : folder;
    (void) snprintf(output, sizeof output, "%s/out.db", folder);
    (void) snprintf(path, sizeof path, "%s/experts.npy", input);
    if (stat(path, &info) != 0) {
        stop("no experts.npy");
    }
    const double bytes = (double) info.st_size;
    double ratio[REPEATS];
    double import_cpu_s = 0.0;
    double plain_cpu_s = 0.0;
    for (int repeat = 0; repeat < REPEATS; repeat++) {
        const double before = processor_seconds();
        const double other = import(input, output, &request_count);
        (void) unlink(output);
        const double between = processor_seconds();
        const double one = plain_write(input, output, request_count);
        import_cpu_s += between - before;
        plain_cpu_s += processor_seconds() - between;
        ratio[repeat] = other / one;
        plain_s = one < plain_s ? one : plain_s;
        import_s = other < import_s ? other : import_s;
    }
    (void) import(input, output, &request_count);
    (void) printf("%.0f MB of routes, %llu requests\n", bytes * 1e-6,
                  (unsigned long long) request_count);
    (void) printf("plain SQLite write          %8.0f MB/s\n", bytes / plain_s * 1e-6);
    qsort(ratio, REPEATS, sizeof ratio[0], compare_ratios);
    const double cpu_ratio = import_cpu_s / plain_cpu_s;
    (void) printf("import                      %8.0f MB/s\n", bytes / import_s * 1e-6);
    (void) printf(
        "times as long               %8.2f by the clock, %.2f by processor time: the bar of "
        "2 is %s\n",
        ratio[REPEATS / 2], cpu_ratio, cpu_ratio <= 2.0 ? "met" : "missed");
    report_reads(output, bytes);
    static const char *const files[] = { "out.db", "experts.npy", "prompt_len.npy",
                                         "output_len.npy", "meta.json" };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        (void) snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        (void) unlink(path);
    }
    (void) rmdir(folder);
    return EXIT_SUCCESS;
}
