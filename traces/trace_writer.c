#include "traces/trace_writer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "traces/expert_pack.h"
#include "traces/trace_schema.h"
#include "traces/trace_writer_state.h"

/* Measured with blobs of random bytes on ext4, 2 cores, MB/s, best of 3 (256 MiB each):
 *   journal DELETE  page 4 KiB 450, 16 KiB 830, 64 KiB 860
 *   journal WAL     page 4 KiB 280, 16 KiB 410, 64 KiB 470
 * New pages need no entry in a rollback journal, while WAL writes every page twice.
 * Blobs of 64 KiB, 256 KiB, 1 MiB, 4 MiB: 870, 950, 840, 850; transactions of 1, 4, 16,
 * 64 MiB: 630, 780, 840, 940. So: DELETE, 64 KiB pages (see database.c), 1 MiB, 16 MiB,
 * and synchronous = FULL, SQLite's default, which costs nothing measurable here. */
enum { BATCH_BLOBS = 16 };

enum found {
    FOUND_NOTHING,  /* an empty store */
    FOUND_PARTIAL,  /* this import, unfinished */
    FOUND_FINISHED, /* this import, finished */
    FOUND_OTHER,
};

static enum moe_status read_state(struct moe_trace_writer *writer, sqlite3_stmt *stmt,
                                  enum found *found, struct moe_error *err)
{
    int row = 0;
    uint64_t finished = 0;
    MOE_TRY(moe_database_step(&writer->db, stmt, &row, err));
    if (row == 0) {
        *found = FOUND_NOTHING;
        return MOE_OK;
    }
    MOE_TRY(moe_trace_column_count(&writer->db, stmt, 1, 0, 1, &finished, err));
    if ((uint64_t) sqlite3_column_int64(stmt, 0) != writer->identity) {
        *found = FOUND_OTHER;
        return moe_fail(err, MOE_RANGE,
                        "%s: holds %s import of other files or another model; give --overwrite to "
                        "replace it",
                        writer->db.path, finished != 0 ? "the" : "an unfinished");
    }
    *found = finished != 0 ? FOUND_FINISHED : FOUND_PARTIAL;
    MOE_TRY(moe_trace_column_count(&writer->db, stmt, 2, 0, INT64_MAX, &writer->request_done, err));
    MOE_TRY(moe_trace_column_count(&writer->db, stmt, 3, 0, INT64_MAX, &writer->row_done, err));
    return MOE_OK;
}

static enum moe_status find_state(struct moe_trace_writer *writer, enum found *found,
                                  struct moe_error *err)
{
    sqlite3_stmt *stmt = NULL;
    MOE_TRY(moe_database_prepare(&writer->db,
                                 "SELECT identity, finished, request_count, row_count FROM import",
                                 &stmt, err));
    const enum moe_status status = read_state(writer, stmt, found, err);
    (void) sqlite3_finalize(stmt);
    return status;
}

static enum moe_status store_model(struct moe_trace_writer *writer, struct moe_error *err)
{
    const struct moe_trace_model *model = &writer->model;
    struct moe_database *db = &writer->db;
    const uint32_t fields[] = {
        model->layer_count, model->expert_count, model->top_k,       model->group_count,
        model->group_limit, model->hidden_size,  model->expert_size, model->shared_size,
    };
    sqlite3_stmt *stmt = NULL;
    MOE_TRY(moe_database_prepare(db, "INSERT INTO model VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                                 &stmt, err));
    (void) sqlite3_bind_text(stmt, 1, model->name, -1, SQLITE_STATIC);
    for (int i = 0; i < (int) (sizeof fields / sizeof fields[0]); i++) {
        (void) sqlite3_bind_int64(stmt, i + 2, fields[i]);
    }
    enum moe_status status = moe_database_run(db, stmt, err);
    (void) sqlite3_finalize(stmt);
    if (status != MOE_OK) {
        return status;
    }
    MOE_TRY(moe_database_prepare(db, "INSERT INTO domain VALUES (?, ?)", &stmt, err));
    for (uint32_t i = 0; status == MOE_OK && i < model->domain_count; i++) {
        (void) sqlite3_bind_int64(stmt, 1, i);
        (void) sqlite3_bind_text(stmt, 2, model->domains[i], -1, SQLITE_STATIC);
        status = moe_database_run(db, stmt, err);
    }
    (void) sqlite3_finalize(stmt);
    return status;
}

static enum moe_status store_import(struct moe_trace_writer *writer, struct moe_error *err)
{
    sqlite3_stmt *stmt = NULL;
    MOE_TRY(moe_database_prepare(&writer->db, "INSERT INTO import VALUES (1, ?, ?, ?, 0, 0, 0, 0)",
                                 &stmt, err));
    (void) sqlite3_bind_int64(stmt, 1, (sqlite3_int64) writer->identity);
    (void) sqlite3_bind_int64(stmt, 2, (sqlite3_int64) 1 << writer->layout.row_shift);
    (void) sqlite3_bind_int64(stmt, 3, writer->layout.expert_bytes);
    const enum moe_status status = moe_database_run(&writer->db, stmt, err);
    (void) sqlite3_finalize(stmt);
    return status;
}

static enum moe_status store_content(struct moe_trace_writer *writer, struct moe_error *err)
{
    char sql[96];
    (void) snprintf(sql, sizeof sql, "INSERT INTO content VALUES (1, '%s', 0)",
                    moe_trace_content_text(writer->model.content));
    return moe_database_exec(&writer->db, sql, err);
}

static void close_database(struct moe_trace_writer *writer)
{
    (void) sqlite3_finalize(writer->insert_request);
    (void) sqlite3_finalize(writer->insert_routes);
    (void) sqlite3_finalize(writer->insert_load);
    (void) sqlite3_finalize(writer->insert_prefix);
    writer->insert_load = NULL;
    writer->insert_prefix = NULL;
    writer->insert_request = NULL;
    writer->insert_routes = NULL;
    moe_database_close(&writer->db); /* rolls an open transaction back */
}

/* Opens path and looks at what it holds; FOUND_OTHER comes with the error that says so.
 * The state is read again once the lock is held: another import may have run since. */
static enum moe_status open_at(struct moe_trace_writer *writer, const char *path, enum found *found,
                               struct moe_error *err)
{
    struct moe_database *db = &writer->db;
    *found = FOUND_OTHER;
    MOE_TRY(moe_database_open(db, &moe_trace_kind, path, MOE_DATABASE_RESUME, err));
    enum moe_status status = find_state(writer, found, err);
    if (status == MOE_OK && *found != FOUND_FINISHED) {
        status = moe_database_exec(db, "PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE", err);
        if (status == MOE_OK) {
            status = find_state(writer, found, err);
        }
    }
    if (status != MOE_OK) {
        close_database(writer);
    }
    return status;
}

/* Whether the file says that it is a trace store, of whatever version and health: the
 * only kind of file that --overwrite may replace. SQLite keeps application_id at byte 68
 * (https://www.sqlite.org/fileformat.html, 1.3). */
static bool is_trace_store(const char *path)
{
    unsigned char head[72] = { 0 };
    const uint32_t id = moe_trace_kind.application_id;
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) {
        return false;
    }
    const ssize_t got = read(file, head, sizeof head);
    (void) close(file);
    return got == (ssize_t) sizeof head && memcmp(head, "SQLite format 3", 16) == 0 &&
           head[68] == (id >> 24 & 0xff) && head[69] == (id >> 16 & 0xff) &&
           head[70] == (id >> 8 & 0xff) && head[71] == (id & 0xff);
}

static enum moe_status open_beside(struct moe_trace_writer *writer, const char *path,
                                   enum found *found, struct moe_error *err)
{
    char beside[4096];
    if (!is_trace_store(path)) {
        return moe_fail(err, MOE_RANGE,
                        "%s: not a trace store, and --overwrite replaces nothing else", path);
    }
    if (snprintf(beside, sizeof beside, "%s.new", path) >= (int) sizeof beside) {
        return moe_fail(err, MOE_RANGE, "a path of %zu bytes; at most %zu are allowed",
                        strlen(path), sizeof beside - 5);
    }
    writer->replaces = true;
    enum moe_status status = open_at(writer, beside, found, err);
    if (*found == FOUND_OTHER && is_trace_store(beside)) {
        /* Left by another interrupted --overwrite: nobody can want it any more. */
        if (unlink(beside) != 0) {
            return moe_fail(err, MOE_IO, "%s: %s", beside, strerror(errno));
        }
        status = open_at(writer, beside, found, err);
    }
    return status;
}

static enum moe_status open_store(struct moe_trace_writer *writer, const char *path, bool overwrite,
                                  enum found *found, struct moe_error *err)
{
    const bool existed = access(path, F_OK) == 0;
    const enum moe_status status = open_at(writer, path, found, err);
    const bool refused = status != MOE_OK && status != MOE_IO && status != MOE_LIMIT;
    if (overwrite && existed && (refused || (status == MOE_OK && *found == FOUND_FINISHED))) {
        close_database(writer);
        return open_beside(writer, path, found, err);
    }
    return status;
}

/* The rename is on the disk only when the folder is. */
static enum moe_status move_into_place(struct moe_trace_writer *writer, struct moe_error *err)
{
    char folder[4096];
    if (rename(writer->db.path, writer->target) != 0) {
        return moe_fail(err, MOE_IO, "%s: cannot be renamed to %s: %s", writer->db.path,
                        writer->target, strerror(errno));
    }
    (void) snprintf(folder, sizeof folder, "%s", writer->target);
    const int handle = open(dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (handle >= 0) {
        (void) fsync(handle); /* some file systems refuse it for folders; the rename holds */
        (void) close(handle);
    }
    return MOE_OK;
}

static enum moe_status begin(struct moe_trace_writer *writer, enum found found,
                             const struct moe_trace_history *history, struct moe_error *err)
{
    int64_t rows = 0;
    writer->has_committed = found != FOUND_NOTHING;
    if (found == FOUND_FINISHED) {
        close_database(writer);
        /* A replacement that was killed between its last commit and the renaming. */
        MOE_TRY(writer->replaces ? move_into_place(writer, err) : MOE_OK);
        writer->is_finished = true;
        return MOE_OK;
    }
    if (found == FOUND_NOTHING) {
        writer->request_done = 0;
        writer->row_done = 0;
        MOE_TRY(store_model(writer, err));
        MOE_TRY(moe_trace_history_store(history, &writer->db, err));
        MOE_TRY(store_import(writer, err));
        MOE_TRY(store_content(writer, err));
    }
    if (writer->model.content == MOE_TRACE_ROUTES) {
        MOE_TRY(moe_database_scalar(&writer->db,
                                    "SELECT sum(prompt_tokens + output_tokens - 1) FROM request", 0,
                                    &rows, err));
    }
    writer->request_rows = (uint64_t) rows;
    MOE_TRY(moe_database_prepare(&writer->db, "INSERT INTO request VALUES (?, ?, ?, ?, ?)",
                                 &writer->insert_request, err));
    MOE_TRY(moe_database_prepare(&writer->db, "INSERT INTO routes VALUES (?, ?, ?, ?)",
                                 &writer->insert_routes, err));
    writer->experts = malloc(MOE_TRACE_BLOB_BYTES);
    writer->mask = calloc(1, MOE_TRACE_BLOB_BYTES / 8);
    return writer->experts != NULL && writer->mask != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "%s: no memory to write it", writer->target);
}

enum moe_status moe_trace_writer_open(struct moe_trace_writer **out, const char *path,
                                      bool overwrite, const struct moe_trace_model *model,
                                      const struct moe_trace_history *history,
                                      struct moe_error *err)
{
    struct moe_hash hash;
    enum found found = FOUND_OTHER;
    struct moe_trace_writer *writer = calloc(1, sizeof *writer);
    if (writer == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to write it", path);
    }
    moe_hash_init(&hash, 0);
    moe_trace_model_hash(&hash, model);
    moe_trace_history_hash(&hash, history);
    writer->model = *model;
    writer->layout = moe_trace_layout_of(model);
    writer->identity = moe_hash_value(&hash);
    (void) snprintf(writer->target, sizeof writer->target, "%s", path);
    enum moe_status status = open_store(writer, path, overwrite, &found, err);
    if (status != MOE_OK) {
        free(writer);
        return status;
    }
    status = begin(writer, found, history, err);
    if (status != MOE_OK) {
        (void) moe_trace_writer_close(writer, MOE_IO);
        return status;
    }
    *out = writer;
    return MOE_OK;
}

enum moe_status moe_trace_writer_try(const char *path, bool overwrite,
                                     const struct moe_trace_model *model,
                                     const struct moe_trace_history *history, struct moe_error *err)
{
    char folder[4096];
    struct moe_trace_writer *writer = NULL;
    if (access(path, F_OK) != 0) {
        (void) snprintf(folder, sizeof folder, "%s", path);
        return access(dirname(folder), W_OK | X_OK) == 0
                   ? MOE_OK
                   : moe_fail(err, MOE_IO, "%s: its folder: %s", path, strerror(errno));
    }
    if (overwrite) {
        return is_trace_store(path)
                   ? MOE_OK
                   : moe_fail(err, MOE_RANGE,
                              "%s: not a trace store, and --overwrite replaces nothing else", path);
    }
    MOE_TRY(moe_trace_writer_open(&writer, path, false, model, history, err));
    (void) moe_trace_writer_close(writer, MOE_IO); /* the world's: what is there stays */
    return MOE_OK;
}

bool moe_trace_writer_is_finished(const struct moe_trace_writer *writer)
{
    return writer->is_finished;
}

uint64_t moe_trace_writer_stored_rows(const struct moe_trace_writer *writer)
{
    return writer->row_done;
}

void moe_trace_writer_resume(struct moe_trace_writer *writer, uint64_t *request, uint64_t *row)
{
    assert(writer->request_next == 0);
    assert(writer->row_next == 0);
    writer->request_next = writer->request_done;
    writer->row_next = writer->row_done;
    *request = writer->request_done;
    *row = writer->row_done;
}

static enum moe_status store_counts(struct moe_trace_writer *writer, struct moe_error *err)
{
    char sql[160];
    (void) snprintf(sql, sizeof sql, "UPDATE import SET request_count = %llu, row_count = %llu",
                    (unsigned long long) writer->request_done,
                    (unsigned long long) writer->row_done);
    return moe_database_exec(&writer->db, sql, err);
}

enum moe_status moe_trace_writer_commit(struct moe_trace_writer *writer, struct moe_error *err)
{
    MOE_TRY(store_counts(writer, err));
    MOE_TRY(moe_database_exec(&writer->db, "COMMIT", err));
    writer->has_committed = true;
    writer->batch_blobs = 0;
    writer->batch_bytes = 0;
    return moe_database_exec(&writer->db, "BEGIN IMMEDIATE", err);
}

enum moe_status moe_trace_writer_requests(struct moe_trace_writer *writer,
                                          const struct moe_trace_request *requests, uint64_t count,
                                          struct moe_error *err)
{
    sqlite3_stmt *stmt = writer->insert_request;
    for (uint64_t i = 0; i < count; i++, writer->request_next++) {
        const struct moe_trace_request *request = &requests[i];
        if (writer->request_next < writer->request_done) {
            continue;
        }
        MOE_TRY(moe_trace_request_check(request, writer->request_next, &writer->model,
                                        writer->target, err));
        (void) sqlite3_bind_int64(stmt, 1, (sqlite3_int64) writer->request_next);
        if (request->arrival_ns < 0) {
            (void) sqlite3_bind_null(stmt, 2);
        } else {
            (void) sqlite3_bind_int64(stmt, 2, request->arrival_ns);
        }
        (void) sqlite3_bind_int64(stmt, 3, request->prompt_tokens);
        (void) sqlite3_bind_int64(stmt, 4, request->output_tokens);
        (void) sqlite3_bind_int64(stmt, 5, request->domain);
        MOE_TRY(moe_database_run(&writer->db, stmt, err));
        writer->request_done++;
        if (writer->model.content == MOE_TRACE_ROUTES) {
            writer->request_rows += moe_trace_request_rows(request);
        }
    }
    return MOE_OK;
}

/* Writes the blob in the making, rows of it, which may be the last and short one. */
static enum moe_status store_blob(struct moe_trace_writer *writer, uint64_t rows,
                                  struct moe_error *err)
{
    sqlite3_stmt *stmt = writer->insert_routes;
    const uint64_t blob = writer->row_done >> writer->layout.row_shift;
    const size_t bytes = (size_t) rows * writer->layout.ids_per_row * writer->layout.expert_bytes;
    const size_t mask_bytes = moe_trace_layout_mask_bytes(&writer->layout, rows);
    const uint8_t *mask = writer->has_unknown ? writer->mask : NULL;
    const uint64_t hash = moe_trace_blob_hash(writer->experts, bytes, mask, mask_bytes);
    (void) sqlite3_bind_int64(stmt, 1, (sqlite3_int64) blob);
    (void) sqlite3_bind_int64(stmt, 2, (sqlite3_int64) hash);
    if (mask == NULL) {
        (void) sqlite3_bind_null(stmt, 3);
    } else {
        (void) sqlite3_bind_blob(stmt, 3, mask, (int) mask_bytes, SQLITE_STATIC);
    }
    (void) sqlite3_bind_blob(stmt, 4, writer->experts, (int) bytes, SQLITE_STATIC);
    MOE_TRY(moe_database_run(&writer->db, stmt, err));
    if (writer->has_unknown) {
        memset(writer->mask, 0, MOE_TRACE_BLOB_BYTES / 8);
        writer->has_unknown = false;
    }
    writer->row_done += rows;
    writer->batch_blobs++;
    return writer->batch_blobs < BATCH_BLOBS ? MOE_OK : moe_trace_writer_commit(writer, err);
}

static enum moe_status refuse_id(const struct moe_trace_writer *writer, uint64_t row, size_t id,
                                 uint16_t value, struct moe_error *err)
{
    return moe_fail(err, MOE_RANGE,
                    "%s: row %llu, layer %zu, k %zu: expert %u; the model has experts 0 to %u",
                    writer->target, (unsigned long long) (row + id / writer->layout.ids_per_row),
                    id % writer->layout.ids_per_row / writer->model.top_k, id % writer->model.top_k,
                    value, writer->model.expert_count - 1);
}

/* The slow way, for pieces with unknown ids: 0 in the blob, a bit in the mask. */
static enum moe_status pack_unknown(struct moe_trace_writer *writer, const uint16_t *in,
                                    size_t first, size_t count, struct moe_error *err)
{
    for (size_t i = 0; i < count; i++) {
        const bool unknown = in[i] == MOE_EXPERT_UNKNOWN;
        const uint16_t id = unknown ? 0 : in[i];
        if (id >= writer->model.expert_count) {
            return refuse_id(writer, writer->row_next, i, id, err);
        }
        if (unknown) {
            writer->mask[(first + i) / 8] |= (uint8_t) (1U << ((first + i) % 8));
            writer->has_unknown = true;
        }
        if (writer->layout.expert_bytes == 1) {
            writer->experts[first + i] = (uint8_t) id;
        } else {
            memcpy(writer->experts + (first + i) * 2, &id, 2);
        }
    }
    return MOE_OK;
}

static enum moe_status pack(struct moe_trace_writer *writer, const uint16_t *in, size_t first,
                            size_t count, struct moe_error *err)
{
    if (moe_expert_max(in, count) >= writer->model.expert_count) {
        return pack_unknown(writer, in, first, count, err);
    }
    if (writer->layout.expert_bytes == 1) {
        moe_expert_narrow(in, count, writer->experts + first);
    } else {
        memcpy(writer->experts + first * 2, in, count * 2);
    }
    return MOE_OK;
}

enum moe_status moe_trace_writer_rows(struct moe_trace_writer *writer, const uint16_t *experts,
                                      uint64_t row_count, struct moe_error *err)
{
    const uint64_t full = UINT64_C(1) << writer->layout.row_shift;
    assert(writer->model.content == MOE_TRACE_ROUTES);
    if (writer->row_next < writer->row_done) {
        const uint64_t there = writer->row_done - writer->row_next;
        const uint64_t passed = row_count < there ? row_count : there;
        experts += passed * writer->layout.ids_per_row;
        row_count -= passed;
        writer->row_next += passed;
    }
    while (row_count > 0) {
        const uint64_t within = writer->row_next - writer->row_done;
        const uint64_t rows = row_count < full - within ? row_count : full - within;
        const size_t ids = (size_t) rows * writer->layout.ids_per_row;
        MOE_TRY(pack(writer, experts, (size_t) within * writer->layout.ids_per_row, ids, err));
        writer->row_next += rows;
        experts += ids;
        row_count -= rows;
        if (within + rows == full) {
            MOE_TRY(store_blob(writer, full, err));
        }
    }
    return MOE_OK;
}

enum moe_status moe_trace_writer_finish(struct moe_trace_writer *writer, uint64_t *hash,
                                        struct moe_error *err)
{
    char sql[96];
    assert(!writer->is_finished);
    if (writer->model.content == MOE_TRACE_LOADS && writer->row_next == 0) {
        return moe_fail(err, MOE_RANGE, "%s: there are no loads to store", writer->target);
    }
    if (writer->model.content != MOE_TRACE_LOADS &&
        (writer->row_next != writer->request_rows || writer->request_next != writer->request_done ||
         writer->request_done == 0)) {
        return moe_fail(err, MOE_RANGE,
                        "%s: %llu requests need %llu rows, but there are %llu requests and %llu "
                        "rows",
                        writer->target, (unsigned long long) writer->request_done,
                        (unsigned long long) writer->request_rows,
                        (unsigned long long) writer->request_next,
                        (unsigned long long) writer->row_next);
    }
    if (writer->model.content == MOE_TRACE_ROUTES && writer->row_next > writer->row_done) {
        MOE_TRY(store_blob(writer, writer->row_next - writer->row_done, err));
    }
    MOE_TRY(store_counts(writer, err));
    MOE_TRY(moe_trace_content_hash(&writer->db, &writer->model, hash, err));
    (void) snprintf(sql, sizeof sql, "UPDATE import SET hash = %lld, finished = 1; COMMIT",
                    (long long) *hash);
    MOE_TRY(moe_database_exec(&writer->db, sql, err));
    close_database(writer);
    if (writer->replaces) {
        MOE_TRY(move_into_place(writer, err));
    }
    writer->is_finished = true;
    return MOE_OK;
}

bool moe_trace_writer_close(struct moe_trace_writer *writer, enum moe_status status)
{
    if (writer == NULL) {
        return false;
    }
    const bool world = status == MOE_IO || status == MOE_LIMIT || status == MOE_DEVICE;
    const bool keep = writer->is_finished || (world && writer->has_committed);
    close_database(writer);
    if (!keep) {
        (void) unlink(writer->db.path);
    }
    const bool resumes = keep && !writer->is_finished;
    free(writer->experts);
    free(writer->mask);
    free(writer->counts);
    free(writer);
    return resumes;
}
