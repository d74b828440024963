/*
 * Fixture of the trace tests: a temporary folder, and traces made up by a pure function,
 * which is the slow obvious twin of whatever comes back from a store.
 */
#ifndef MOE_TESTS_TRACE_FIXTURE_H
#define MOE_TESTS_TRACE_FIXTURE_H

#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/random.h"
#include "traces/trace_writer.h"

static char fixture_folder[64];

static inline const char *fixture_path(const char *name)
{
    static char paths[4][400];
    static int next;
    char *path = paths[next++ % 4];
    (void) snprintf(path, sizeof paths[0], "%s/%s", fixture_folder, name);
    return path;
}

static inline void fixture_setup(void)
{
    (void) snprintf(fixture_folder, sizeof fixture_folder, "/tmp/moesim-test-XXXXXX");
    cr_assert_not_null(mkdtemp(fixture_folder));
}

/* Number of files, so that tests can say that nothing was left behind. */
static inline int fixture_count_files(void)
{
    int count = 0;
    DIR *folder = opendir(fixture_folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        count += entry->d_name[0] != '.';
    }
    (void) closedir(folder);
    return count;
}

static inline void fixture_teardown(void)
{
    DIR *folder = opendir(fixture_folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] != '.') {
            (void) unlink(fixture_path(entry->d_name));
        }
    }
    (void) closedir(folder);
    (void) rmdir(fixture_folder);
}

static inline struct moe_trace_model fixture_model(uint32_t layers, uint32_t experts,
                                                   uint32_t top_k)
{
    return (struct moe_trace_model){
        .name = "made up",
        .layer_count = layers,
        .expert_count = experts,
        .top_k = top_k,
        .group_count = 1,
        .group_limit = 1,
        .domain_count = 3,
        .domains = { "code", "math", "prose" },
    };
}

/* Choice number `index` of the whole trace, rows * layers * k of them. Low ids are likelier,
 * so that loads differ; one of unknown_every is unknown (0: none). */
static inline uint16_t fixture_choice(const struct moe_trace_model *model, uint64_t index,
                                      uint32_t unknown_every)
{
    const uint64_t key = moe_random_key(1, MOE_RANDOM_TEST);
    if (unknown_every > 0 && moe_random_below(key, 2 * index + 1, unknown_every) == 0) {
        return MOE_EXPERT_UNKNOWN;
    }
    const uint64_t span = 1 + moe_random_below(key ^ 2, 2 * index, model->expert_count);
    return (uint16_t) moe_random_below(key, 2 * index, span);
}

static inline struct moe_trace_request fixture_request(uint64_t index)
{
    const uint64_t key = moe_random_key(2, MOE_RANDOM_TEST);
    return (struct moe_trace_request){
        .arrival_ns = index % 2 == 0 ? -1 : (int64_t) index * 1000,
        .prompt_tokens = 1 + (uint32_t) moe_random_below(key, 3 * index, 300),
        .output_tokens = 1 + (uint32_t) moe_random_below(key, 3 * index + 1, 100),
        .domain = (uint32_t) moe_random_below(key, 3 * index + 2, 2), /* the third has none */
    };
}

/* Sends requests and rows from a position on, in pieces of made-up sizes, and stops after
 * stop_rows. */
static inline enum moe_status fixture_send(struct moe_trace_writer *writer,
                                           const struct moe_trace_model *model,
                                           uint64_t request_count, uint32_t unknown_every,
                                           uint64_t request, uint64_t row, uint64_t stop_rows)
{
    enum { PIECE = 5000 };
    const size_t per_row = (size_t) model->layer_count * model->top_k;
    uint16_t *piece = malloc(PIECE * per_row * sizeof *piece);
    const uint64_t key = moe_random_key(3, MOE_RANDOM_TEST);
    enum moe_status status = MOE_OK;
    uint64_t rows = 0;
    for (uint64_t i = 0; i < request_count; i++) {
        const struct moe_trace_request one = fixture_request(i);
        rows += moe_trace_request_rows(&one);
    }
    rows = rows < stop_rows ? rows : stop_rows;
    for (; status == MOE_OK && request < request_count; request++) {
        const struct moe_trace_request one = fixture_request(request);
        status = moe_trace_writer_requests(writer, &one, 1, NULL);
    }
    while (status == MOE_OK && row < rows) {
        uint64_t count = 1 + moe_random_below(key, row, PIECE);
        count = count < rows - row ? count : rows - row;
        for (uint64_t i = 0; i < count * per_row; i++) {
            piece[i] = fixture_choice(model, row * per_row + i, unknown_every);
        }
        status = moe_trace_writer_rows(writer, piece, count, NULL);
        row += count;
    }
    free(piece);
    return status;
}

/* A finished store; its content hash. */
static inline uint64_t fixture_store(const char *path, const struct moe_trace_model *model,
                                     uint64_t request_count, uint32_t unknown_every)
{
    const struct moe_trace_history history = { 0 };
    struct moe_trace_writer *writer = NULL;
    uint64_t hash = 0;
    cr_assert_eq(moe_trace_writer_open(&writer, path, false, model, &history, NULL), MOE_OK);
    cr_assert_eq(fixture_send(writer, model, request_count, unknown_every, 0, 0, UINT64_MAX),
                 MOE_OK);
    cr_assert_eq(moe_trace_writer_finish(writer, &hash, NULL), MOE_OK);
    cr_assert_not(moe_trace_writer_close(writer, MOE_OK));
    return hash;
}

/* Runs SQL on a store, to damage it. */
static inline void fixture_sql(const char *path, const char *sql)
{
    sqlite3 *handle = NULL;
    cr_assert_eq(sqlite3_open(path, &handle), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(handle, sql, NULL, NULL, NULL), SQLITE_OK, "%s",
                 sqlite3_errmsg(handle));
    (void) sqlite3_close(handle);
}

#endif
