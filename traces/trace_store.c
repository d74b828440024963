#include "traces/trace_store.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "traces/expert_pack.h"
#include "traces/trace_schema.h"

/* Blobs in memory together: all of the traces that people replay on a laptop, and a
 * thousandth of a large one, whose rows are read nearly in order. */
enum { CACHE_BYTES = 128 << 20 };

#define NO_SLOT UINT32_MAX

/* One cached blob, as wide as in the file. */
struct slot {
    uint8_t *experts; /* owned, room for a full blob */
    uint8_t *mask;    /* owned, room for a full blob's mask; NULL until one was needed */
    bool has_mask;
    uint64_t blob;
    uint64_t used_at; /* the trace's clock at the last read */
};

struct moe_trace {
    struct moe_database db;
    struct moe_trace_model model;
    struct moe_trace_layout layout;
    struct moe_trace_request *requests;
    uint64_t request_count;
    uint64_t row_count;
    uint64_t load_count;
    uint64_t hash;
    sqlite3_stmt *select;
    uint32_t *slot_of_blob; /* NO_SLOT: not in memory */
    struct slot *slots;
    uint32_t slot_count; /* filled so far */
    uint32_t slot_limit;
    uint64_t clock;
};

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "blobs hold little-endian ids");

const char *moe_trace_path(const struct moe_trace *trace)
{
    return trace->db.path;
}

const struct moe_trace_model *moe_trace_model(const struct moe_trace *trace)
{
    return &trace->model;
}

uint64_t moe_trace_request_count(const struct moe_trace *trace)
{
    return trace->request_count;
}

uint64_t moe_trace_row_count(const struct moe_trace *trace)
{
    return trace->row_count;
}

uint64_t moe_trace_load_count(const struct moe_trace *trace)
{
    return trace->load_count;
}

const struct moe_trace_request *moe_trace_requests(const struct moe_trace *trace)
{
    return trace->requests;
}

uint64_t moe_trace_hash(const struct moe_trace *trace)
{
    return trace->hash;
}

struct moe_database *moe_trace_database(struct moe_trace *trace)
{
    return &trace->db;
}

/* How much of what there is. 2^40 requests would need 32 TiB; more than that is damage. */
static enum moe_status load_counts(struct moe_trace *trace, sqlite3_stmt *stmt,
                                   struct moe_error *err)
{
    const enum moe_trace_content content = trace->model.content;
    const uint64_t requests = content == MOE_TRACE_LOADS ? 0 : 1;
    uint64_t rows = 0;
    MOE_TRY(moe_trace_column_count(&trace->db, stmt, 1, requests, requests << 40,
                                   &trace->request_count, err));
    const uint64_t least = content == MOE_TRACE_ROUTES  ? trace->request_count
                           : content == MOE_TRACE_LOADS ? 1
                                                        : 0;
    MOE_TRY(moe_trace_column_count(&trace->db, stmt, 2, least,
                                   content == MOE_TRACE_ARRIVALS ? 0 : INT64_MAX, &rows, err));
    trace->row_count = content == MOE_TRACE_ROUTES ? rows : 0;
    trace->load_count = content == MOE_TRACE_LOADS ? rows : 0;
    return MOE_OK;
}

static enum moe_status load_import_row(struct moe_trace *trace, sqlite3_stmt *stmt,
                                       struct moe_error *err)
{
    struct moe_database *db = &trace->db;
    uint64_t finished = 0;
    uint64_t checked = 0;
    int row = 0;
    uint64_t stored = 0;
    MOE_TRY(moe_database_step(db, stmt, &row, err));
    if (row != 0) {
        MOE_TRY(moe_trace_column_count(db, stmt, 0, 0, 1, &finished, err));
        MOE_TRY(moe_trace_column_count(db, stmt, 2, 0, INT64_MAX, &stored, err));
    }
    if (finished == 0) {
        return moe_fail(err, MOE_PARSE,
                        "%s: an unfinished import (%llu rows so far); run the same `moesim trace "
                        "import` again and it goes on from there",
                        db->path, (unsigned long long) stored);
    }
    trace->hash = (uint64_t) sqlite3_column_int64(stmt, 3);
    MOE_TRY(moe_trace_model_load(&trace->model, db, err));
    MOE_TRY(load_counts(trace, stmt, err));
    trace->layout = moe_trace_layout_of(&trace->model);
    const uint64_t rows_per_blob = UINT64_C(1) << trace->layout.row_shift;
    MOE_TRY(moe_trace_column_count(db, stmt, 4, rows_per_blob, rows_per_blob, &checked, err));
    return moe_trace_column_count(db, stmt, 5, trace->layout.expert_bytes,
                                  trace->layout.expert_bytes, &checked, err);
}

static enum moe_status load_import(struct moe_trace *trace, struct moe_error *err)
{
    sqlite3_stmt *stmt = NULL;
    MOE_TRY(moe_database_prepare(&trace->db,
                                 "SELECT finished, request_count, row_count, hash, rows_per_blob,"
                                 " expert_bytes FROM import",
                                 &stmt, err));
    const enum moe_status status = load_import_row(trace, stmt, err);
    (void) sqlite3_finalize(stmt);
    return status;
}

static enum moe_status load_request(struct moe_trace *trace, sqlite3_stmt *stmt, uint64_t index,
                                    uint64_t *next_row, struct moe_error *err)
{
    struct moe_database *db = &trace->db;
    struct moe_trace_request *request = &trace->requests[index];
    uint64_t id = 0;
    uint64_t prompt = 0;
    uint64_t output = 0;
    uint64_t domain = 0;
    MOE_TRY(moe_trace_column_count(db, stmt, 0, index, index, &id, err));
    MOE_TRY(moe_trace_column_count(db, stmt, 2, 1, UINT32_MAX, &prompt, err));
    MOE_TRY(moe_trace_column_count(db, stmt, 3, 1, UINT32_MAX, &output, err));
    MOE_TRY(moe_trace_column_count(db, stmt, 4, 0, trace->model.domain_count - 1, &domain, err));
    *request = (struct moe_trace_request){
        .first_row = *next_row,
        .arrival_ns =
            sqlite3_column_type(stmt, 1) == SQLITE_NULL ? -1 : sqlite3_column_int64(stmt, 1),
        .prompt_tokens = (uint32_t) prompt,
        .output_tokens = (uint32_t) output,
        .domain = (uint32_t) domain,
    };
    *next_row += moe_trace_request_rows(request);
    return MOE_OK;
}

static enum moe_status load_requests(struct moe_trace *trace, struct moe_error *err)
{
    struct moe_database *db = &trace->db;
    sqlite3_stmt *stmt = NULL;
    uint64_t count = 0;
    uint64_t rows = 0;
    int row = 1;
    trace->requests = calloc((size_t) trace->request_count + 1, sizeof *trace->requests);
    if (trace->requests == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for %llu requests", db->path,
                        (unsigned long long) trace->request_count);
    }
    MOE_TRY(moe_database_prepare(db,
                                 "SELECT id, arrival_ns, prompt_tokens, output_tokens, domain"
                                 " FROM request ORDER BY id",
                                 &stmt, err));
    enum moe_status status = moe_database_step(db, stmt, &row, err);
    while (status == MOE_OK && row != 0 && count < trace->request_count) {
        status = load_request(trace, stmt, count, &rows, err);
        count++;
        if (status == MOE_OK) {
            status = moe_database_step(db, stmt, &row, err);
        }
    }
    (void) sqlite3_finalize(stmt);
    if (status == MOE_OK && (row != 0 || count != trace->request_count)) {
        status = moe_fail(err, MOE_PARSE, "%s: %s than the %llu requests that the import stated",
                          db->path, row != 0 ? "more" : "fewer",
                          (unsigned long long) trace->request_count);
    }
    if (status == MOE_OK && rows != trace->row_count && trace->model.content == MOE_TRACE_ROUTES) {
        status =
            moe_fail(err, MOE_PARSE, "%s: the requests have %llu rows, but %llu are stored",
                     db->path, (unsigned long long) rows, (unsigned long long) trace->row_count);
    }
    return status;
}

static enum moe_status prepare_cache(struct moe_trace *trace, struct moe_error *err)
{
    const uint64_t blobs = moe_trace_layout_blobs(&trace->layout, trace->row_count);
    const uint32_t most = (uint32_t) CACHE_BYTES / MOE_TRACE_BLOB_BYTES;
    trace->slot_limit = blobs < most ? (uint32_t) blobs : most;
    trace->slots = calloc((size_t) trace->slot_limit + 1, sizeof *trace->slots);
    trace->slot_of_blob = malloc(((size_t) blobs + 1) * sizeof *trace->slot_of_blob);
    if (trace->slots == NULL || trace->slot_of_blob == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for the index of %llu blobs", trace->db.path,
                        (unsigned long long) blobs);
    }
    for (uint64_t blob = 0; blob < blobs; blob++) {
        trace->slot_of_blob[blob] = NO_SLOT;
    }
    return moe_database_prepare(
        &trace->db, "SELECT hash, unknown, experts FROM routes WHERE id = ?", &trace->select, err);
}

/* A killed import leaves a rollback journal, which a read-only connection may not undo:
 * say what to do about it instead of SQLite's "readonly database". */
static enum moe_status explain_journal(const char *path, enum moe_status status,
                                       struct moe_error *err)
{
    char journal[4200];
    (void) snprintf(journal, sizeof journal, "%s-journal", path);
    if (status != MOE_IO || access(path, F_OK) != 0 || access(journal, F_OK) != 0) {
        return status;
    }
    return moe_fail(err, MOE_PARSE,
                    "%s: an import was interrupted here; run the same `moesim trace import` again "
                    "and it goes on from there",
                    path);
}

enum moe_status moe_trace_open(struct moe_trace **out, const char *path, struct moe_error *err)
{
    struct moe_trace *trace = NULL;
    MOE_TRY(moe_trace_open_any(&trace, path, err));
    const enum moe_trace_content content = trace->model.content;
    if (content != MOE_TRACE_ROUTES) {
        moe_trace_close(trace);
        return moe_fail(err, MOE_RANGE, "%s: holds %s, and this needs the routes of tokens%s", path,
                        content == MOE_TRACE_LOADS ? "only counts of tokens per expert"
                                                   : "arrivals of requests without routes",
                        content == MOE_TRACE_LOADS
                            ? "; `moesim compare --loads` and `moesim plan --loads` take counts"
                            : "");
    }
    *out = trace;
    return MOE_OK;
}

enum moe_status moe_trace_open_any(struct moe_trace **out, const char *path, struct moe_error *err)
{
    struct moe_trace *trace = calloc(1, sizeof *trace);
    if (trace == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to open it", path);
    }
    enum moe_status status =
        moe_database_open(&trace->db, &moe_trace_kind, path, MOE_DATABASE_READ, err);
    if (status == MOE_OK) {
        status = load_import(trace, err);
    }
    if (status == MOE_OK) {
        status = load_requests(trace, err);
    }
    if (status == MOE_OK) {
        status = prepare_cache(trace, err);
    }
    if (status != MOE_OK) {
        moe_trace_close(trace);
        return explain_journal(path, status, err);
    }
    *out = trace;
    return MOE_OK;
}

void moe_trace_close(struct moe_trace *trace)
{
    if (trace == NULL) {
        return;
    }
    for (uint32_t i = 0; i < trace->slot_count; i++) {
        free(trace->slots[i].experts);
        free(trace->slots[i].mask);
    }
    (void) sqlite3_finalize(trace->select);
    moe_database_close(&trace->db);
    free(trace->slot_of_blob);
    free(trace->slots);
    free(trace->requests);
    free(trace);
}

void moe_trace_limit_cache(struct moe_trace *trace, uint64_t bytes)
{
    const uint64_t slots = bytes / MOE_TRACE_BLOB_BYTES;
    assert(trace->slot_count == 0);
    if (slots < trace->slot_limit) {
        trace->slot_limit = slots == 0 ? 1 : (uint32_t) slots;
    }
}

/* An empty slot while the cache grows, then the one that was read longest ago. The slot
 * holds no blob afterwards. A scan is enough: a miss reads a mebibyte. */
static enum moe_status take_slot(struct moe_trace *trace, uint32_t *out, struct moe_error *err)
{
    if (trace->slot_count < trace->slot_limit) {
        struct slot *slot = &trace->slots[trace->slot_count];
        slot->experts = malloc(MOE_TRACE_BLOB_BYTES);
        if (slot->experts == NULL) {
            return moe_fail(err, MOE_LIMIT, "%s: no memory for another blob of routes",
                            trace->db.path);
        }
        slot->blob = UINT64_MAX;
        *out = trace->slot_count++;
        return MOE_OK;
    }
    uint32_t oldest = 0;
    for (uint32_t i = 1; i < trace->slot_count; i++) {
        if (trace->slots[i].used_at < trace->slots[oldest].used_at) {
            oldest = i;
        }
    }
    if (trace->slots[oldest].blob != UINT64_MAX) {
        trace->slot_of_blob[trace->slots[oldest].blob] = NO_SLOT;
        trace->slots[oldest].blob = UINT64_MAX;
    }
    *out = oldest;
    return MOE_OK;
}

/* The hash shows changed bytes; this shows ids that whoever wrote the store should have
 * refused, which would index outside of every table of experts. */
static enum moe_status check_ids(const struct moe_trace *trace, const struct slot *slot,
                                 uint64_t blob, size_t ids, struct moe_error *err)
{
    const uint32_t limit = trace->model.expert_count;
    const bool narrow = trace->layout.expert_bytes == 1;
    const uint16_t *wide = (const uint16_t *) (const void *) slot->experts;
    const uint32_t max =
        narrow ? moe_expert_max_narrow(slot->experts, ids) : moe_expert_max(wide, ids);
    if (max < limit) {
        return MOE_OK;
    }
    for (size_t i = 0; i < ids; i++) {
        const uint32_t id = narrow ? slot->experts[i] : wide[i];
        if (id >= limit) {
            const uint64_t row = (blob << trace->layout.row_shift) + i / trace->layout.ids_per_row;
            return moe_fail(err, MOE_PARSE,
                            "%s: routes blob %llu, row %llu, layer %zu, k %zu: expert %u; the "
                            "model has experts 0 to %u",
                            trace->db.path, (unsigned long long) blob, (unsigned long long) row,
                            i % trace->layout.ids_per_row / trace->model.top_k,
                            i % trace->model.top_k, id, limit - 1);
        }
    }
    return MOE_OK;
}

/* Copies the row that select stands on into the slot, having checked it. */
static enum moe_status fill_slot(struct moe_trace *trace, struct slot *slot, uint64_t blob,
                                 struct moe_error *err)
{
    const struct moe_trace_layout *layout = &trace->layout;
    sqlite3_stmt *stmt = trace->select;
    const uint64_t rows = moe_trace_layout_rows(layout, blob, trace->row_count);
    const size_t ids = (size_t) rows * layout->ids_per_row;
    const size_t bytes = ids * layout->expert_bytes;
    const size_t mask_bytes = moe_trace_layout_mask_bytes(layout, rows);
    const unsigned long long number = blob;
    const unsigned long long first = blob << layout->row_shift;
    slot->has_mask = sqlite3_column_type(stmt, 1) != SQLITE_NULL;
    const void *experts = sqlite3_column_blob(stmt, 2);
    const void *mask = slot->has_mask ? sqlite3_column_blob(stmt, 1) : NULL;
    if (experts == NULL || (size_t) sqlite3_column_bytes(stmt, 2) != bytes ||
        (slot->has_mask &&
         (mask == NULL || (size_t) sqlite3_column_bytes(stmt, 1) != mask_bytes))) {
        return moe_fail(err, MOE_PARSE,
                        "%s: routes blob %llu (from row %llu) has %d bytes; %zu are expected",
                        trace->db.path, number, first, sqlite3_column_bytes(stmt, 2), bytes);
    }
    const uint64_t hash = moe_trace_blob_hash(experts, bytes, mask, mask_bytes);
    if (hash != (uint64_t) sqlite3_column_int64(stmt, 0)) {
        return moe_fail(err, MOE_PARSE,
                        "%s: routes blob %llu (rows %llu to %llu) is damaged: its content hash is "
                        "%016llx, stored is %016llx",
                        trace->db.path, number, first, first + rows - 1, (unsigned long long) hash,
                        (unsigned long long) sqlite3_column_int64(stmt, 0));
    }
    if (slot->has_mask && slot->mask == NULL) {
        slot->mask = malloc(MOE_TRACE_BLOB_BYTES / 8);
        if (slot->mask == NULL) {
            return moe_fail(err, MOE_LIMIT, "%s: no memory for a mask of routes", trace->db.path);
        }
    }
    memcpy(slot->experts, experts, bytes);
    if (slot->has_mask) {
        memcpy(slot->mask, mask, mask_bytes);
    }
    return check_ids(trace, slot, blob, ids, err);
}

static enum moe_status load_blob(struct moe_trace *trace, uint64_t blob, uint32_t *out,
                                 struct moe_error *err)
{
    uint32_t index = 0;
    int row = 0;
    MOE_TRY(take_slot(trace, &index, err));
    (void) sqlite3_bind_int64(trace->select, 1, (sqlite3_int64) blob);
    enum moe_status status = moe_database_step(&trace->db, trace->select, &row, err);
    if (status == MOE_OK && row == 0) {
        status = moe_fail(err, MOE_PARSE, "%s: routes blob %llu (from row %llu) is missing",
                          trace->db.path, (unsigned long long) blob,
                          (unsigned long long) (blob << trace->layout.row_shift));
    }
    if (status == MOE_OK) {
        status = fill_slot(trace, &trace->slots[index], blob, err);
    }
    (void) sqlite3_reset(trace->select);
    if (status == MOE_OK) {
        trace->slots[index].blob = blob;
        trace->slot_of_blob[blob] = index;
        *out = index;
    }
    return status;
}

enum moe_status moe_trace_read(struct moe_trace *trace, uint64_t first_row, uint64_t row_count,
                               uint16_t *out, struct moe_error *err)
{
    const struct moe_trace_layout layout = trace->layout;
    const uint64_t full = UINT64_C(1) << layout.row_shift;
    assert(first_row <= trace->row_count);
    assert(row_count <= trace->row_count - first_row);
    while (row_count > 0) {
        const uint64_t blob = first_row >> layout.row_shift;
        const uint64_t within = first_row & (full - 1);
        const uint64_t rows = row_count < full - within ? row_count : full - within;
        const size_t first = (size_t) within * layout.ids_per_row;
        const size_t ids = (size_t) rows * layout.ids_per_row;
        uint32_t index = trace->slot_of_blob[blob];
        if (index == NO_SLOT) {
            MOE_TRY(load_blob(trace, blob, &index, err));
        }
        struct slot *slot = &trace->slots[index];
        slot->used_at = ++trace->clock;
        if (layout.expert_bytes == 1) {
            moe_expert_widen(slot->experts + first, ids, out);
        } else {
            memcpy(out, slot->experts + first * sizeof *out, ids * sizeof *out);
        }
        if (slot->has_mask) {
            moe_expert_mark_unknown(slot->mask, first, ids, out);
        }
        first_row += rows;
        row_count -= rows;
        out += ids;
    }
    return MOE_OK;
}
