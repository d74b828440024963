#include "traces/trace_loads.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/hash.h"

uint32_t moe_trace_load_item_bytes(const double *counts, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (counts[i] != floor(counts[i]) || counts[i] > (double) UINT32_MAX) {
            return 8;
        }
    }
    return 4;
}

enum moe_status moe_trace_loads_begin(struct moe_trace_load_cursor *cursor, struct moe_trace *trace,
                                      struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(trace);
    *cursor = (struct moe_trace_load_cursor){ .trace = trace };
    if (model->content != MOE_TRACE_LOADS) {
        return moe_fail(err, MOE_RANGE, "%s: holds %s, no loads", moe_trace_path(trace),
                        moe_trace_content_text(model->content));
    }
    return moe_database_prepare(
        moe_trace_database(trace),
        "SELECT id, step, rank, domain, label, hash, counts FROM loads ORDER BY id", &cursor->stmt,
        err);
}

void moe_trace_loads_end(struct moe_trace_load_cursor *cursor)
{
    (void) sqlite3_finalize(cursor->stmt);
    cursor->stmt = NULL;
}

static enum moe_status read_columns(struct moe_trace_load_cursor *cursor,
                                    struct moe_trace_load *load, struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(cursor->trace);
    struct moe_database *db = moe_trace_database(cursor->trace);
    sqlite3_stmt *stmt = cursor->stmt;
    uint64_t value = 0;
    MOE_TRY(moe_trace_column_count(db, stmt, 0, cursor->next, cursor->next, &value, err));
    MOE_TRY(moe_trace_column_count(db, stmt, 1, 0, cursor->next, &load->step, err));
    load->rank = MOE_TRACE_ALL_RANKS;
    if (sqlite3_column_type(stmt, 2) != SQLITE_NULL) {
        MOE_TRY(moe_trace_column_count(db, stmt, 2, 0, MOE_TRACE_RANK_LIMIT - 1, &value, err));
        load->rank = (int32_t) value;
    }
    MOE_TRY(moe_trace_column_count(db, stmt, 3, 0, model->domain_count - 1, &value, err));
    load->domain = (uint32_t) value;
    load->label = -1;
    if (sqlite3_column_type(stmt, 4) != SQLITE_NULL) {
        MOE_TRY(moe_trace_column_count(db, stmt, 4, 0, INT64_MAX, &value, err));
        load->label = (int64_t) value;
    }
    return MOE_OK;
}

static enum moe_status read_counts(struct moe_trace_load_cursor *cursor, double *counts,
                                   struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(cursor->trace);
    const size_t cells = (size_t) model->layer_count * model->expert_count;
    const unsigned char *blob = sqlite3_column_blob(cursor->stmt, 6);
    const size_t bytes = (size_t) sqlite3_column_bytes(cursor->stmt, 6);
    const char *path = moe_trace_path(cursor->trace);
    if (blob == NULL || (bytes != 4 * cells && bytes != 8 * cells)) {
        return moe_fail(err, MOE_PARSE,
                        "%s: load %" PRIu64 " has %zu bytes; %zu or %zu are expected", path,
                        cursor->next, bytes, 4 * cells, 8 * cells);
    }
    const uint64_t hash = moe_hash_bytes(blob, bytes, 0);
    if (hash != (uint64_t) sqlite3_column_int64(cursor->stmt, 5)) {
        return moe_fail(err, MOE_PARSE,
                        "%s: load %" PRIu64 " is damaged: its content hash is %016" PRIx64
                        ", stored is %016" PRIx64,
                        path, cursor->next, hash, (uint64_t) sqlite3_column_int64(cursor->stmt, 5));
    }
    for (size_t i = 0; i < cells; i++) {
        if (bytes == 4 * cells) {
            uint32_t value = 0;
            memcpy(&value, blob + 4 * i, 4);
            counts[i] = (double) value;
        } else {
            memcpy(&counts[i], blob + 8 * i, 8);
        }
        if (!(counts[i] >= 0.0 && counts[i] <= MOE_TRACE_COUNT_LIMIT)) {
            return moe_fail(err, MOE_PARSE,
                            "%s: load %" PRIu64 ", layer %zu, expert %zu: %g; 0 to 2^32 is allowed",
                            path, cursor->next, i / model->expert_count, i % model->expert_count,
                            counts[i]);
        }
    }
    return MOE_OK;
}

enum moe_status moe_trace_loads_next(struct moe_trace_load_cursor *cursor,
                                     struct moe_trace_load *load, double *counts, bool *got,
                                     struct moe_error *err)
{
    struct moe_database *db = moe_trace_database(cursor->trace);
    const uint64_t count = moe_trace_load_count(cursor->trace);
    int row = 0;
    MOE_TRY(moe_database_step(db, cursor->stmt, &row, err));
    if ((row != 0) != (cursor->next < count)) {
        return moe_fail(err, MOE_PARSE, "%s: %s than the %" PRIu64 " loads that the import stated",
                        db->path, row != 0 ? "more" : "fewer", count);
    }
    *got = row != 0;
    if (row != 0) {
        MOE_TRY(read_columns(cursor, load, err));
        MOE_TRY(read_counts(cursor, counts, err));
        cursor->next++;
    }
    return MOE_OK;
}

/* Stores of schema version 1 lack the tables of the rest. */
static enum moe_status scalar_of_version_2(struct moe_trace *trace, const char *sql, int64_t *out,
                                           struct moe_error *err)
{
    struct moe_database *db = moe_trace_database(trace);
    int64_t version = 0;
    *out = 0;
    MOE_TRY(moe_database_scalar(db, "PRAGMA user_version", 0, &version, err));
    return version < 2 ? MOE_OK : moe_database_scalar(db, sql, 0, out, err);
}

enum moe_status moe_trace_step_count(struct moe_trace *trace, uint64_t *out, struct moe_error *err)
{
    int64_t steps = 0;
    MOE_TRY(scalar_of_version_2(trace, "SELECT max(step) + 1 FROM loads", &steps, err));
    *out = steps < 0 ? 0 : (uint64_t) steps;
    return MOE_OK;
}

enum moe_status moe_trace_block_tokens(struct moe_trace *trace, uint32_t *out,
                                       struct moe_error *err)
{
    int64_t tokens = 0;
    MOE_TRY(scalar_of_version_2(trace, "SELECT block_tokens FROM content", &tokens, err));
    if (tokens < 0 || tokens > UINT32_MAX) {
        return moe_fail(err, MOE_PARSE, "%s: block_tokens is %" PRId64 "; 0 to %u is allowed",
                        moe_trace_path(trace), tokens, UINT32_MAX);
    }
    *out = (uint32_t) tokens;
    return MOE_OK;
}

static enum moe_status read_layers(struct moe_trace *trace, sqlite3_stmt *stmt, uint32_t slot_count,
                                   uint16_t *experts, struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(trace);
    struct moe_database *db = moe_trace_database(trace);
    const size_t bytes = (size_t) slot_count * 2;
    for (uint32_t layer = 0; layer < model->layer_count; layer++, experts += slot_count) {
        uint64_t number = 0;
        int row = 0;
        MOE_TRY(moe_database_step(db, stmt, &row, err));
        if (row == 0) {
            return moe_fail(err, MOE_PARSE, "%s: the placement lacks layer %u", db->path, layer);
        }
        MOE_TRY(moe_trace_column_count(db, stmt, 0, layer, layer, &number, err));
        const void *blob = sqlite3_column_blob(stmt, 2);
        if (blob == NULL || (size_t) sqlite3_column_bytes(stmt, 2) != bytes ||
            moe_hash_bytes(blob, bytes, 0) != (uint64_t) sqlite3_column_int64(stmt, 1)) {
            return moe_fail(err, MOE_PARSE, "%s: the placement of layer %u is damaged", db->path,
                            layer);
        }
        memcpy(experts, blob, bytes);
        for (uint32_t slot = 0; slot < slot_count; slot++) {
            if (experts[slot] >= model->expert_count && experts[slot] != UINT16_MAX) {
                return moe_fail(err, MOE_PARSE,
                                "%s: the placement of layer %u has expert %u in slot %u; the model "
                                "has experts 0 to %u",
                                db->path, layer, experts[slot], slot, model->expert_count - 1);
            }
        }
    }
    return MOE_OK;
}

enum moe_status moe_trace_placement_read(struct moe_trace *trace, uint32_t *slot_count,
                                         uint16_t **experts, struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(trace);
    sqlite3_stmt *stmt = NULL;
    int64_t bytes = 0;
    *slot_count = 0;
    *experts = NULL;
    MOE_TRY(scalar_of_version_2(trace, "SELECT length(experts) FROM placement WHERE layer = 0",
                                &bytes, err));
    if (bytes <= 0) {
        return MOE_OK;
    }
    if (bytes % 2 != 0 || bytes / 2 > MOE_TRACE_EXPERT_LIMIT) {
        return moe_fail(err, MOE_PARSE, "%s: a placement of %" PRId64 " bytes for layer 0",
                        moe_trace_path(trace), bytes);
    }
    const uint32_t slots = (uint32_t) bytes / 2;
    uint16_t *read = malloc((size_t) model->layer_count * slots * sizeof *read);
    if (read == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its placement", moe_trace_path(trace));
    }
    enum moe_status status = moe_database_prepare(
        moe_trace_database(trace), "SELECT layer, hash, experts FROM placement ORDER BY layer",
        &stmt, err);
    if (status == MOE_OK) {
        status = read_layers(trace, stmt, slots, read, err);
    }
    (void) sqlite3_finalize(stmt);
    if (status != MOE_OK) {
        free(read);
        return status;
    }
    *slot_count = slots;
    *experts = read;
    return MOE_OK;
}

static enum moe_status copy_blocks(struct moe_trace *trace, sqlite3_stmt *stmt, uint64_t request,
                                   int64_t **blocks, size_t *count, struct moe_error *err)
{
    const void *blob = sqlite3_column_blob(stmt, 1);
    const size_t bytes = (size_t) sqlite3_column_bytes(stmt, 1);
    if (blob == NULL || bytes == 0 || bytes % sizeof **blocks != 0 ||
        moe_hash_bytes(blob, bytes, 0) != (uint64_t) sqlite3_column_int64(stmt, 0)) {
        return moe_fail(err, MOE_PARSE, "%s: the prefix blocks of request %" PRIu64 " are damaged",
                        moe_trace_path(trace), request);
    }
    *blocks = malloc(bytes);
    if (*blocks == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for prefix blocks", moe_trace_path(trace));
    }
    memcpy(*blocks, blob, bytes);
    *count = bytes / sizeof **blocks;
    return MOE_OK;
}

enum moe_status moe_trace_blocks_read(struct moe_trace *trace, uint64_t request, int64_t **blocks,
                                      size_t *count, struct moe_error *err)
{
    struct moe_database *db = moe_trace_database(trace);
    sqlite3_stmt *stmt = NULL;
    uint32_t block_tokens = 0;
    int row = 0;
    *blocks = NULL;
    *count = 0;
    MOE_TRY(moe_trace_block_tokens(trace, &block_tokens, err));
    if (block_tokens == 0) {
        return MOE_OK;
    }
    MOE_TRY(
        moe_database_prepare(db, "SELECT hash, blocks FROM prefix WHERE request = ?", &stmt, err));
    enum moe_status status = sqlite3_bind_int64(stmt, 1, (sqlite3_int64) request) == SQLITE_OK
                                 ? moe_database_step(db, stmt, &row, err)
                                 : moe_database_error(db, err);
    if (status == MOE_OK && row != 0) {
        status = copy_blocks(trace, stmt, request, blocks, count, err);
    }
    (void) sqlite3_finalize(stmt);
    return status;
}
