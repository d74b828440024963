#include "traces/trace_schema.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Hashes are 64 bits in SQLite's signed integers. Columns that a scan needs stand before
 * the blobs, because SQLite walks a blob's pages to reach what lies behind it. */
static const char schema[] =
    /* The traced model's routing shape; sizes that were not recorded are 0. */
    "CREATE TABLE model(id INTEGER PRIMARY KEY CHECK (id = 1), name TEXT NOT NULL,"
    " layer_count INTEGER NOT NULL, expert_count INTEGER NOT NULL, top_k INTEGER NOT NULL,"
    " group_count INTEGER NOT NULL, group_limit INTEGER NOT NULL, hidden_size INTEGER NOT NULL,"
    " expert_size INTEGER NOT NULL, shared_size INTEGER NOT NULL);"
    /* Ids 0 .. n-1. */
    "CREATE TABLE domain(id INTEGER PRIMARY KEY, name TEXT NOT NULL);"
    /* Ids 0 .. n-1 in recorded order. arrival_ns is NULL when it was not recorded. A
     * request has prompt_tokens + output_tokens - 1 rows, after those of the one before. */
    "CREATE TABLE request(id INTEGER PRIMARY KEY, arrival_ns INTEGER,"
    " prompt_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, domain INTEGER NOT NULL);"
    /* Blob b: experts is [row][layer][k], rows b * rows_per_blob and following, ids of
     * expert_bytes bytes, little endian. unknown is NULL or one bit per id, lowest bit
     * first, set where the id was not recorded (experts holds 0 there). hash is XXH64 of
     * experts (seed 0), and with that as the seed of unknown when there is one. */
    "CREATE TABLE routes(id INTEGER PRIMARY KEY, hash INTEGER NOT NULL, unknown BLOB,"
    " experts BLOB NOT NULL);"
    /* How the content came about, oldest first: an import, then cuts. */
    "CREATE TABLE provenance(id INTEGER PRIMARY KEY, engine TEXT NOT NULL, format TEXT NOT NULL,"
    " layer_map TEXT NOT NULL, rows_skipped INTEGER NOT NULL, skip_reason TEXT NOT NULL,"
    " note TEXT NOT NULL);"
    /* The files that a provenance record was made from; hash is XXH64 of the file. */
    "CREATE TABLE source(id INTEGER PRIMARY KEY, provenance INTEGER NOT NULL, name TEXT NOT NULL,"
    " size_bytes INTEGER NOT NULL, hash INTEGER NOT NULL);"
    /* identity: hash of model and provenance, by which an interrupted import knows its own
     * store. request_count and row_count: stored so far; hash: of the content, once
     * finished. */
    "CREATE TABLE import(id INTEGER PRIMARY KEY CHECK (id = 1), identity INTEGER NOT NULL,"
    " rows_per_blob INTEGER NOT NULL, expert_bytes INTEGER NOT NULL,"
    " request_count INTEGER NOT NULL, row_count INTEGER NOT NULL, hash INTEGER NOT NULL,"
    " finished INTEGER NOT NULL);"
    /* From here on schema version 2; a store of version 1 holds routes and has no such tables.
     * What the store holds: 'routes', 'loads' or 'arrivals'. With loads, import's request_count
     * is 0 and its row_count that of the table loads; with arrivals the row_count is 0.
     * block_tokens: tokens of one prefix block, 0 when none are recorded. */
    "CREATE TABLE content(id INTEGER PRIMARY KEY CHECK (id = 1), kind TEXT NOT NULL,"
    " block_tokens INTEGER NOT NULL);"
    /* Loads: ids 0 .. n-1, steps ascending from 0; rank is the source rank whose tokens were
     * counted, NULL for those of all ranks; label is the engine's own number of the step, NULL
     * when it has none. counts is [layer][expert], little endian: u32 when 4 bytes each, IEEE
     * doubles when 8 (fractions, or more than u32 holds). hash is XXH64 of counts. */
    "CREATE TABLE loads(id INTEGER PRIMARY KEY, step INTEGER NOT NULL, rank INTEGER,"
    " domain INTEGER NOT NULL, label INTEGER, hash INTEGER NOT NULL, counts BLOB NOT NULL);"
    /* The placement that was in force: per layer the expert of each physical slot, u16 little
     * endian, 65535 for an empty slot. No rows when none was recorded. */
    "CREATE TABLE placement(layer INTEGER PRIMARY KEY, hash INTEGER NOT NULL,"
    " experts BLOB NOT NULL);"
    /* Hashes of a request's prompt blocks, i64 little endian, for prefix caching: equal
     * numbers are equal prefixes. */
    "CREATE TABLE prefix(request INTEGER PRIMARY KEY, hash INTEGER NOT NULL,"
    " blocks BLOB NOT NULL);";

const struct moe_database_kind moe_trace_kind = {
    .noun = "trace store",
    .application_id = 0x6d6f6554, /* "moeT" */
    .version = MOE_TRACE_SCHEMA_VERSION,
    .schema = schema,
};

struct moe_trace_layout moe_trace_layout_of(const struct moe_trace_model *model)
{
    struct moe_trace_layout layout = {
        .ids_per_row = model->layer_count * model->top_k,
        .expert_bytes = model->expert_count <= 256 ? 1 : 2,
    };
    const uint64_t row_bytes = (uint64_t) layout.ids_per_row * layout.expert_bytes;
    if (model->content != MOE_TRACE_ROUTES) {
        return (struct moe_trace_layout){ 0 };
    }
    assert(row_bytes > 0);
    assert(row_bytes <= MOE_TRACE_BLOB_BYTES);
    while (row_bytes << (layout.row_shift + 1) <= MOE_TRACE_BLOB_BYTES) {
        layout.row_shift++;
    }
    return layout;
}

static enum moe_status check_field(const char *what, const char *field, uint64_t value,
                                   uint64_t min, uint64_t max, struct moe_error *err)
{
    return value >= min && value <= max
               ? MOE_OK
               : moe_fail(err, MOE_RANGE, "%s: %s is %llu; %llu to %llu are allowed", what, field,
                          (unsigned long long) value, (unsigned long long) min,
                          (unsigned long long) max);
}

static enum moe_status check_groups(const struct moe_trace_model *model, const char *what,
                                    struct moe_error *err)
{
    MOE_TRY(check_field(what, "the number of routing groups", model->group_count, 1,
                        model->expert_count, err));
    MOE_TRY(check_field(what, "the number of groups of one token", model->group_limit, 1,
                        model->group_count, err));
    if (model->expert_count % model->group_count != 0) {
        return moe_fail(err, MOE_RANGE, "%s: %u experts do not divide into %u routing groups", what,
                        model->expert_count, model->group_count);
    }
    const uint32_t reachable = model->expert_count / model->group_count * model->group_limit;
    if (model->top_k > reachable) {
        return moe_fail(err, MOE_RANGE, "%s: top-%u is more than the %u experts of %u groups", what,
                        model->top_k, reachable, model->group_limit);
    }
    return MOE_OK;
}

static enum moe_status check_shape(const struct moe_trace_model *model, const char *what,
                                   struct moe_error *err)
{
    MOE_TRY(check_field(what, "the number of MoE layers", model->layer_count, 1,
                        MOE_TRACE_LAYER_LIMIT, err));
    MOE_TRY(check_field(what, "the number of experts", model->expert_count, 1,
                        MOE_TRACE_EXPERT_LIMIT, err));
    const uint32_t most =
        model->expert_count < MOE_TRACE_TOP_K_LIMIT ? model->expert_count : MOE_TRACE_TOP_K_LIMIT;
    const uint32_t least = model->content == MOE_TRACE_LOADS ? 0 : 1;
    MOE_TRY(check_field(what, "top_k", model->top_k, least, most, err));
    return check_groups(model, what, err);
}

enum moe_status moe_trace_model_check(const struct moe_trace_model *model, const char *what,
                                      struct moe_error *err)
{
    if (model->name[0] == '\0') {
        return moe_fail(err, MOE_RANGE, "%s: the model has no name; give --name", what);
    }
    MOE_TRY(model->content == MOE_TRACE_ARRIVALS ? MOE_OK : check_shape(model, what, err));
    MOE_TRY(check_field(what, "the number of domains", model->domain_count, 1,
                        MOE_TRACE_DOMAIN_LIMIT, err));
    for (uint32_t i = 0; i < model->domain_count; i++) {
        if (model->domains[i][0] == '\0') {
            return moe_fail(err, MOE_RANGE, "%s: domain %u has no name", what, i);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (strcmp(model->domains[i], model->domains[j]) == 0) {
                return moe_fail(err, MOE_RANGE, "%s: domains %u and %u are both named '%s'", what,
                                j, i, model->domains[i]);
            }
        }
    }
    return MOE_OK;
}

enum moe_status moe_trace_request_check(const struct moe_trace_request *request, uint64_t index,
                                        const struct moe_trace_model *model, const char *what,
                                        struct moe_error *err)
{
    const unsigned long long number = index;
    if (request->prompt_tokens < 1) {
        return moe_fail(err, MOE_RANGE, "%s: request %llu has prompt length 0; at least 1 token",
                        what, number);
    }
    if (request->output_tokens < 1) {
        return moe_fail(err, MOE_RANGE, "%s: request %llu has output length 0; at least 1 token",
                        what, number);
    }
    if (request->domain >= model->domain_count) {
        return moe_fail(err, MOE_RANGE, "%s: request %llu has domain %u; there are domains 0 to %u",
                        what, number, request->domain, model->domain_count - 1);
    }
    if (request->arrival_ns < -1) {
        return moe_fail(err, MOE_RANGE,
                        "%s: request %llu arrives at %lld ns; 0 or later, or -1 for not known",
                        what, number, (long long) request->arrival_ns);
    }
    return MOE_OK;
}

const char *moe_trace_content_text(enum moe_trace_content content)
{
    static const char *const texts[MOE_TRACE_CONTENT_COUNT] = {
        [MOE_TRACE_ROUTES] = "routes",
        [MOE_TRACE_LOADS] = "loads",
        [MOE_TRACE_ARRIVALS] = "arrivals",
    };
    return texts[content];
}

enum moe_status moe_trace_column_text(struct moe_database *db, sqlite3_stmt *stmt, int column,
                                      char *text, size_t size, struct moe_error *err)
{
    const char *value = (const char *) sqlite3_column_text(stmt, column);
    if (value == NULL || strlen(value) >= size) {
        return moe_fail(err, MOE_PARSE, "%s: %s is %s; a text of at most %zu bytes is expected",
                        db->path, sqlite3_column_name(stmt, column),
                        value == NULL ? "missing" : "too long", size - 1);
    }
    (void) snprintf(text, size, "%s", value);
    return MOE_OK;
}

enum moe_status moe_trace_column_count(struct moe_database *db, sqlite3_stmt *stmt, int column,
                                       uint64_t min, uint64_t max, uint64_t *out,
                                       struct moe_error *err)
{
    const sqlite3_int64 value = sqlite3_column_int64(stmt, column);
    if (sqlite3_column_type(stmt, column) != SQLITE_INTEGER || value < 0 ||
        (uint64_t) value < min || (uint64_t) value > max) {
        const char *shown = (const char *) sqlite3_column_text(stmt, column);
        return moe_fail(err, MOE_PARSE, "%s: %s is %.40s; %llu to %llu are expected", db->path,
                        sqlite3_column_name(stmt, column), shown == NULL ? "missing" : shown,
                        (unsigned long long) min, (unsigned long long) max);
    }
    *out = (uint64_t) value;
    return MOE_OK;
}

static enum moe_status load_shape(struct moe_trace_model *model, struct moe_database *db,
                                  sqlite3_stmt *stmt, struct moe_error *err)
{
    uint32_t *const fields[] = {
        &model->layer_count, &model->expert_count, &model->top_k,       &model->group_count,
        &model->group_limit, &model->hidden_size,  &model->expert_size, &model->shared_size,
    };
    int row = 0;
    MOE_TRY(moe_database_step(db, stmt, &row, err));
    if (row == 0) {
        return moe_fail(err, MOE_PARSE, "%s: the table model is empty", db->path);
    }
    MOE_TRY(moe_trace_column_text(db, stmt, 0, model->name, sizeof model->name, err));
    for (int i = 0; i < (int) (sizeof fields / sizeof fields[0]); i++) {
        uint64_t value = 0;
        MOE_TRY(moe_trace_column_count(db, stmt, i + 1, 0, UINT32_MAX, &value, err));
        *fields[i] = (uint32_t) value;
    }
    return MOE_OK;
}

static enum moe_status load_domains(struct moe_trace_model *model, struct moe_database *db,
                                    sqlite3_stmt *stmt, struct moe_error *err)
{
    for (int row = 0;;) {
        MOE_TRY(moe_database_step(db, stmt, &row, err));
        if (row == 0) {
            return MOE_OK;
        }
        uint64_t id = 0;
        MOE_TRY(moe_trace_column_count(db, stmt, 0, model->domain_count, model->domain_count, &id,
                                       err));
        if (id >= MOE_TRACE_DOMAIN_LIMIT) {
            return moe_fail(err, MOE_PARSE, "%s: more than %d domains", db->path,
                            MOE_TRACE_DOMAIN_LIMIT);
        }
        MOE_TRY(
            moe_trace_column_text(db, stmt, 1, model->domains[id], sizeof model->domains[id], err));
        model->domain_count++;
    }
}

/* What the store holds: of schema version 1 always routes. */
static enum moe_status load_content(struct moe_trace_model *model, struct moe_database *db,
                                    struct moe_error *err)
{
    char kind[16] = "";
    sqlite3_stmt *stmt = NULL;
    int64_t version = 0;
    int row = 0;
    MOE_TRY(moe_database_scalar(db, "PRAGMA user_version", 0, &version, err));
    if (version < 2) {
        return MOE_OK;
    }
    MOE_TRY(moe_database_prepare(db, "SELECT kind FROM content", &stmt, err));
    enum moe_status status = moe_database_step(db, stmt, &row, err);
    if (status == MOE_OK && row != 0) {
        status = moe_trace_column_text(db, stmt, 0, kind, sizeof kind, err);
    }
    (void) sqlite3_finalize(stmt);
    MOE_TRY(status);
    for (int i = 0; i < MOE_TRACE_CONTENT_COUNT; i++) {
        if (strcmp(kind, moe_trace_content_text((enum moe_trace_content) i)) == 0) {
            model->content = (enum moe_trace_content) i;
            return MOE_OK;
        }
    }
    return moe_fail(err, MOE_PARSE, "%s: kind is '%s'; routes, loads or arrivals is expected",
                    db->path, kind);
}

enum moe_status moe_trace_model_load(struct moe_trace_model *model, struct moe_database *db,
                                     struct moe_error *err)
{
    sqlite3_stmt *stmt = NULL;
    *model = (struct moe_trace_model){ 0 };
    MOE_TRY(load_content(model, db, err));
    MOE_TRY(moe_database_prepare(
        db,
        "SELECT name, layer_count, expert_count, top_k, group_count, group_limit,"
        " hidden_size, expert_size, shared_size FROM model",
        &stmt, err));
    enum moe_status status = load_shape(model, db, stmt, err);
    (void) sqlite3_finalize(stmt);
    if (status != MOE_OK) {
        return status;
    }
    MOE_TRY(moe_database_prepare(db, "SELECT id, name FROM domain ORDER BY id", &stmt, err));
    status = load_domains(model, db, stmt, err);
    (void) sqlite3_finalize(stmt);
    return status == MOE_OK ? moe_trace_model_check(model, db->path, err) : status;
}

uint64_t moe_trace_blob_hash(const void *experts, size_t experts_bytes, const void *mask,
                             size_t mask_bytes)
{
    const uint64_t hash = moe_hash_bytes(experts, experts_bytes, 0);
    return mask == NULL ? hash : moe_hash_bytes(mask, mask_bytes, hash);
}

void moe_trace_model_hash(struct moe_hash *hash, const struct moe_trace_model *model)
{
    const uint32_t fields[] = {
        model->layer_count, model->expert_count, model->top_k,
        model->group_count, model->group_limit,  model->hidden_size,
        model->expert_size, model->shared_size,  model->domain_count,
    };
    moe_hash_add_text(hash, model->name);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        moe_hash_add_u64(hash, fields[i]);
    }
    for (uint32_t i = 0; i < model->domain_count; i++) {
        moe_hash_add_text(hash, model->domains[i]);
    }
    /* Nothing for routes, so that they have the hashes that schema version 1 gave them. */
    if (model->content != MOE_TRACE_ROUTES) {
        moe_hash_add_text(hash, moe_trace_content_text(model->content));
    }
}

/* All columns of all rows, as integers; NULL counts as -1. */
static enum moe_status hash_rows(struct moe_hash *hash, struct moe_database *db, const char *sql,
                                 struct moe_error *err)
{
    sqlite3_stmt *stmt = NULL;
    int row = 1;
    MOE_TRY(moe_database_prepare(db, sql, &stmt, err));
    const int columns = sqlite3_column_count(stmt);
    enum moe_status status = moe_database_step(db, stmt, &row, err);
    while (status == MOE_OK && row != 0) {
        for (int i = 0; i < columns; i++) {
            const bool missing = sqlite3_column_type(stmt, i) == SQLITE_NULL;
            moe_hash_add_u64(hash, missing ? UINT64_MAX : (uint64_t) sqlite3_column_int64(stmt, i));
        }
        status = moe_database_step(db, stmt, &row, err);
    }
    (void) sqlite3_finalize(stmt);
    return status;
}

enum moe_status moe_trace_content_hash(struct moe_database *db, const struct moe_trace_model *model,
                                       uint64_t *out, struct moe_error *err)
{
    struct moe_hash hash;
    int64_t version = 0;
    moe_hash_init(&hash, 0);
    moe_trace_model_hash(&hash, model);
    MOE_TRY(hash_rows(&hash, db,
                      "SELECT arrival_ns, prompt_tokens, output_tokens, domain FROM request"
                      " ORDER BY id",
                      err));
    MOE_TRY(hash_rows(&hash, db, "SELECT id, hash FROM routes ORDER BY id", err));
    MOE_TRY(moe_database_scalar(db, "PRAGMA user_version", 0, &version, err));
    if (version >= 2) {
        MOE_TRY(hash_rows(
            &hash, db, "SELECT id, step, rank, domain, label, hash FROM loads ORDER BY id", err));
        MOE_TRY(hash_rows(&hash, db, "SELECT layer, hash FROM placement ORDER BY layer", err));
        MOE_TRY(hash_rows(&hash, db, "SELECT request, hash FROM prefix ORDER BY request", err));
    }
    *out = moe_hash_value(&hash);
    return MOE_OK;
}
