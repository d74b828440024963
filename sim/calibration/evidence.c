#include "sim/calibration/evidence.h"

#include <assert.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/base/hash.h"
#include "sim/cost/calibration.h"

/* One row being read: what stands in errors, and the hash of all that was read. */
struct cursor {
    struct moe_evidence *evidence;
    sqlite3_stmt *select;
    const char *table;
    int64_t id;
    struct moe_hash *hash;
};

static const char *const kind_names[MOE_EVIDENCE_KIND_COUNT] = {
    "expert",     "gemm",           "permute",        "combine",
    "gate",       "kv_gqa",         "kv_mla",         "stream",
    "launch",     "all_to_all",     "all_to_all_api", "all_to_all_v",
    "all_gather", "reduce_scatter", "all_reduce",     "p2p",
    "p2p_both",   "peer_copy",      "host_to_device", "overlap",
};
static const char *const role_names[MOE_EVIDENCE_ROLE_COUNT] = {
    "anchor", "refine", "heldout", "skew", "sentinel", "sustained", "uneven", "burst",
};

const char *moe_evidence_kind_name(enum moe_evidence_kind kind)
{
    assert(kind < MOE_EVIDENCE_KIND_COUNT);
    return kind_names[kind];
}

const char *moe_evidence_role_name(enum moe_evidence_role role)
{
    assert(role < MOE_EVIDENCE_ROLE_COUNT);
    return role_names[role];
}

static enum moe_status refuse(const struct cursor *cursor, int column, const char *allowed,
                              struct moe_error *err)
{
    const char *text = (const char *) sqlite3_column_text(cursor->select, column);
    return moe_fail(err, MOE_RANGE, "%s: table %s, row id %lld: %s is %.40s; allowed: %s",
                    cursor->evidence->name, cursor->table, (long long) cursor->id,
                    sqlite3_column_name(cursor->select, column), text == NULL ? "NULL" : text,
                    allowed);
}

/* A finite number from min to max. */
static enum moe_status real(const struct cursor *cursor, int column, double min, double max,
                            double *out, struct moe_error *err)
{
    const int type = sqlite3_column_type(cursor->select, column);
    const double value = sqlite3_column_double(cursor->select, column);
    if ((type != SQLITE_INTEGER && type != SQLITE_FLOAT) || !(value >= min && value <= max)) {
        char allowed[80];
        (void) snprintf(allowed, sizeof allowed, "a number from %g to %g", min, max);
        return refuse(cursor, column, allowed, err);
    }
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    moe_hash_add_u64(cursor->hash, bits);
    *out = value;
    return MOE_OK;
}

/* The same, or NULL, which becomes 0. */
static enum moe_status maybe(const struct cursor *cursor, int column, double min, double max,
                             double *out, struct moe_error *err)
{
    *out = 0.0;
    if (sqlite3_column_type(cursor->select, column) == SQLITE_NULL) {
        moe_hash_add_u64(cursor->hash, 0);
        return MOE_OK;
    }
    return real(cursor, column, min, max, out, err);
}

static enum moe_status whole(const struct cursor *cursor, int column, int64_t min, int64_t max,
                             int64_t *out, struct moe_error *err)
{
    const int64_t value = sqlite3_column_int64(cursor->select, column);
    if (sqlite3_column_type(cursor->select, column) != SQLITE_INTEGER || value < min ||
        value > max) {
        char allowed[80];
        (void) snprintf(allowed, sizeof allowed, "a whole number from %lld to %lld",
                        (long long) min, (long long) max);
        return refuse(cursor, column, allowed, err);
    }
    moe_hash_add_u64(cursor->hash, (uint64_t) value);
    *out = value;
    return MOE_OK;
}

static enum moe_status count(const struct cursor *cursor, int column, uint32_t min, uint32_t *out,
                             struct moe_error *err)
{
    int64_t value = 0;
    MOE_TRY(whole(cursor, column, min, INT32_MAX, &value, err));
    *out = (uint32_t) value;
    return MOE_OK;
}

static enum moe_status text(const struct cursor *cursor, int column, size_t least_bytes,
                            const char **out, struct moe_error *err)
{
    enum { TEXT_LIMIT = 1 << 16 };
    const char *from = (const char *) sqlite3_column_text(cursor->select, column);
    const size_t bytes = (size_t) sqlite3_column_bytes(cursor->select, column);
    if (from == NULL || sqlite3_column_type(cursor->select, column) != SQLITE_TEXT ||
        bytes < least_bytes || bytes > TEXT_LIMIT || strlen(from) != bytes) {
        return refuse(cursor, column, least_bytes > 0 ? "a text that is not empty" : "a text", err);
    }
    char *copy = MOE_NEW(&cursor->evidence->arena, char, bytes + 1);
    if (copy == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for its texts", cursor->evidence->name);
    }
    memcpy(copy, from, bytes + 1);
    moe_hash_add_text(cursor->hash, copy);
    *out = copy;
    return MOE_OK;
}

/* The index among names[name_count]. */
static enum moe_status choice(const struct cursor *cursor, int column, const char *const *names,
                              int name_count, int *out, struct moe_error *err)
{
    const char *name = (const char *) sqlite3_column_text(cursor->select, column);
    char allowed[300] = "";
    size_t used = 0;
    for (int i = 0; i < name_count; i++) {
        if (name != NULL && strcmp(name, names[i]) == 0) {
            moe_hash_add_text(cursor->hash, name);
            *out = i;
            return MOE_OK;
        }
        used += (size_t) snprintf(allowed + used, sizeof allowed - used, "%s%s", i == 0 ? "" : " ",
                                  names[i]);
        assert(used < sizeof allowed);
    }
    return refuse(cursor, column, allowed, err);
}

/* The index in a table of rows that begin with their id, by binary search. */
static enum moe_status reference(const struct cursor *cursor, int column, const void *rows,
                                 uint32_t row_count, size_t row_bytes, uint32_t *out,
                                 struct moe_error *err)
{
    int64_t id = 0;
    MOE_TRY(whole(cursor, column, INT64_MIN, INT64_MAX, &id, err));
    uint32_t low = 0;
    uint32_t high = row_count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        int64_t there = 0;
        memcpy(&there, (const char *) rows + (size_t) middle * row_bytes, sizeof there);
        if (there < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    int64_t there = id - 1;
    if (low < row_count) {
        memcpy(&there, (const char *) rows + (size_t) low * row_bytes, sizeof there);
    }
    if (there != id) {
        return refuse(cursor, column, "the id of a row of the table that it names", err);
    }
    *out = low;
    return MOE_OK;
}

static enum moe_status read_gpu(const struct cursor *c, void *to, struct moe_error *err)
{
    struct moe_evidence_gpu *gpu = to;
    gpu->id = c->id;
    MOE_TRY(text(c, 1, 1, &gpu->uuid, err));
    MOE_TRY(text(c, 2, 1, &gpu->name, err));
    MOE_TRY(text(c, 3, 1, &gpu->kind, err));
    MOE_TRY(count(c, 4, 1, &gpu->sm_count, err));
    MOE_TRY(real(c, 5, 1e9, 1e13, &gpu->memory_bytes, err));
    MOE_TRY(real(c, 6, 0.0, 1e5, &gpu->boost_mhz, err));
    return real(c, 7, 0.0, 1e5, &gpu->power_limit_w, err);
}

/* moecal's "settle_s": the seconds it may take until a point's clock holds; 0 or none: not waited
 * for. Settings are for people to read, so text that is no JSON says nothing. */
static bool says_settled(const char *settings)
{
    json_t *root = json_loads(settings, 0, NULL);
    const bool settled = json_number_value(json_object_get(root, "settle_s")) > 0.0;
    json_decref(root);
    return settled;
}

static enum moe_status read_run(const struct cursor *c, void *to, struct moe_error *err)
{
    struct moe_evidence_run *run = to;
    run->id = c->id;
    MOE_TRY(text(c, 1, 1, &run->started_at, err));
    MOE_TRY(text(c, 2, 0, &run->command, err));
    MOE_TRY(text(c, 3, 0, &run->moecal, err));
    MOE_TRY(text(c, 4, 0, &run->driver, err));
    MOE_TRY(text(c, 5, 0, &run->cuda, err));
    MOE_TRY(text(c, 6, 0, &run->cublas, err));
    MOE_TRY(text(c, 7, 0, &run->nccl, err));
    MOE_TRY(text(c, 8, 0, &run->settings, err));
    run->is_settled = says_settled(run->settings);
    MOE_TRY(whole(c, 9, INT64_MIN, INT64_MAX, &run->seed, err));
    MOE_TRY(count(c, 10, 1, &run->gpu_count, err));
    return maybe(c, 11, 0.0, 1e9, &run->wall_s, err);
}

static enum moe_status read_ceiling(const struct cursor *c, void *to, struct moe_error *err)
{
    struct moe_evidence_ceiling *ceiling = to;
    const struct moe_evidence *e = c->evidence;
    MOE_TRY(reference(c, 1, e->runs, e->run_count, sizeof e->runs[0], &ceiling->run, err));
    MOE_TRY(reference(c, 2, e->gpus, e->gpu_count, sizeof e->gpus[0], &ceiling->gpu, err));
    MOE_TRY(text(c, 3, 1, &ceiling->name, err));
    return real(c, 4, 0.0, 1e18, &ceiling->value, err);
}

static enum moe_status read_series(const struct cursor *c, void *to, struct moe_error *err)
{
    struct moe_evidence_series *series = to;
    int kind = 0;
    int64_t end[2] = { -1, -1 };
    series->id = c->id;
    MOE_TRY(text(c, 1, 1, &series->name, err));
    MOE_TRY(choice(c, 2, kind_names, MOE_EVIDENCE_KIND_COUNT, &kind, err));
    series->kind = (enum moe_evidence_kind) kind;
    MOE_TRY(text(c, 3, 0, &series->models, err));
    MOE_TRY(count(c, 4, 0, &series->hidden, err));
    MOE_TRY(count(c, 5, 0, &series->inter, err));
    MOE_TRY(count(c, 6, 0, &series->units, err));
    MOE_TRY(count(c, 7, 0, &series->top_k, err));
    MOE_TRY(text(c, 8, 0, &series->dtype, err));
    MOE_TRY(text(c, 9, 0, &series->activation, err));
    MOE_TRY(text(c, 10, 0, &series->backend, err));
    MOE_TRY(count(c, 11, 1, &series->ranks, err));
    MOE_TRY(whole(c, 12, -1, 65535, &end[0], err));
    MOE_TRY(whole(c, 13, -1, 65535, &end[1], err));
    series->src = (int32_t) end[0];
    series->dst = (int32_t) end[1];
    return MOE_OK;
}

static enum moe_status read_point(const struct cursor *c, void *to, struct moe_error *err)
{
    struct moe_evidence_point *point = to;
    const struct moe_evidence *e = c->evidence;
    int role = 0;
    point->id = c->id;
    MOE_TRY(reference(c, 1, e->series, e->series_count, sizeof e->series[0], &point->series, err));
    MOE_TRY(choice(c, 2, role_names, MOE_EVIDENCE_ROLE_COUNT, &role, err));
    point->role = (enum moe_evidence_role) role;
    MOE_TRY(real(c, 3, 0.0, 1e15, &point->tokens, err));
    MOE_TRY(count(c, 4, 0, &point->active, err));
    MOE_TRY(count(c, 5, 0, &point->row_max, err));
    MOE_TRY(real(c, 6, 0.0, 1e12, &point->tiles64, err));
    MOE_TRY(real(c, 7, 0.0, 1e12, &point->tiles128, err));
    MOE_TRY(real(c, 8, 0.0, 1e12, &point->context, err));
    MOE_TRY(real(c, 9, 0.0, 1e18, &point->bytes, err));
    MOE_TRY(real(c, 10, 0.0, 1e18, &point->bytes_per_peer, err));
    MOE_TRY(real(c, 11, 0.0, 1e24, &point->flops, err));
    MOE_TRY(text(c, 12, 0, &point->histogram, err));
    const enum moe_evidence_kind kind = e->series[point->series].kind;
    if ((kind == MOE_EVIDENCE_EXPERT || kind == MOE_EVIDENCE_GEMM) &&
        (point->tokens <= 0.0 || point->active == 0)) {
        return refuse(c, point->active == 0 ? 4 : 3, "more than 0 for an expert or a gemm", err);
    }
    const void *rows = sqlite3_column_blob(c->select, 13);
    point->rows_bytes = (size_t) sqlite3_column_bytes(c->select, 13);
    if (rows != NULL) {
        unsigned char *copy = MOE_NEW(&c->evidence->arena, unsigned char, point->rows_bytes);
        if (copy == NULL) {
            return moe_fail(err, MOE_LIMIT, "%s: no memory for its histograms", e->name);
        }
        memcpy(copy, rows, point->rows_bytes);
        moe_hash_add(c->hash, copy, point->rows_bytes);
        point->rows = copy;
    }
    return MOE_OK;
}

/* Whether word stands in a list with blanks between. */
static bool has_word(const char *list, const char *word)
{
    const size_t bytes = strlen(word);
    for (const char *at = strstr(list, word); at != NULL; at = strstr(at + 1, word)) {
        if ((at == list || at[-1] == ' ') && (at[bytes] == ' ' || at[bytes] == '\0')) {
            return true;
        }
    }
    return false;
}

static uint32_t read_flags(const char *flags)
{
    static const struct {
        const char *name;
        enum moe_evidence_flag flag;
    } known[] = {
        { "unphysical", MOE_EVIDENCE_UNPHYSICAL },
        { "wrong", MOE_EVIDENCE_WRONG },
        { "unstable", MOE_EVIDENCE_UNSTABLE },
        { "bimodal", MOE_EVIDENCE_BIMODAL },
        { "repeat-due-to-sentinel", MOE_EVIDENCE_REPEATED },
    };
    uint32_t bits = 0;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        bits |= has_word(flags, known[i].name) ? (uint32_t) known[i].flag : 0U;
    }
    return bits;
}

static enum moe_status read_sample(const struct cursor *c, void *to, struct moe_error *err)
{
    enum { FIRST_QUANTILE = 9 };
    struct moe_evidence_sample *s = to;
    const struct moe_evidence *e = c->evidence;
    const char *flags = NULL;
    bool complete = true;
    s->id = c->id;
    MOE_TRY(reference(c, 1, e->points, e->point_count, sizeof e->points[0], &s->point, err));
    MOE_TRY(reference(c, 2, e->runs, e->run_count, sizeof e->runs[0], &s->run, err));
    MOE_TRY(reference(c, 3, e->gpus, e->gpu_count, sizeof e->gpus[0], &s->gpu, err));
    MOE_TRY(count(c, 4, 0, &s->gpu_rank, err));
    MOE_TRY(count(c, 5, 1, &s->pass, err));
    MOE_TRY(real(c, 6, 0.0, 1e9, &s->begin_s, err));
    MOE_TRY(count(c, 7, 1, &s->n, err));
    MOE_TRY(real(c, 8, 1e-3, 1e9, &s->median_us, err));
    for (int i = 0; i < 6; i++) {
        MOE_TRY(maybe(c, FIRST_QUANTILE + i, 1e-3, 1e9, &s->quantile_us[i], err));
        complete = complete && s->quantile_us[i] > 0.0;
        if (i > 0 && complete && s->quantile_us[i] < s->quantile_us[i - 1]) {
            return refuse(c, FIRST_QUANTILE + i, "a quantile not below the one before it", err);
        }
    }
    if (complete && (s->median_us < s->quantile_us[2] || s->median_us > s->quantile_us[3])) {
        return refuse(c, 8, "a median between the 25 % and the 75 % quantile", err);
    }
    if (!complete) {
        memset(s->quantile_us, 0, sizeof s->quantile_us);
    }
    MOE_TRY(real(c, 15, 0.0, 1e5, &s->mhz, err));
    MOE_TRY(text(c, 16, 0, &flags, err));
    s->flags = read_flags(flags);
    return MOE_OK;
}

/* How a table is read: the first of its columns is what stands in errors as the id. */
struct table {
    const char *name;
    const char *columns;
    enum moe_status (*read)(const struct cursor *cursor, void *to, struct moe_error *err);
    size_t row_bytes;
    size_t rows_offset;  /* in struct moe_evidence: const row *rows */
    size_t count_offset; /* and uint32_t count */
};

#define FIELD(rows, count)                                                           \
    sizeof(*((struct moe_evidence *) 0)->rows), offsetof(struct moe_evidence, rows), \
        offsetof(struct moe_evidence, count)

/* In an order in which references point back. */
static const struct table sample_tables[] = {
    { "sample_gpu", "id, uuid, name, kind, sm_count, memory_bytes, boost_mhz, power_limit_w",
      read_gpu, FIELD(gpus, gpu_count) },
    { "sample_run",
      "id, started_at, command, moecal, driver, cuda, cublas, nccl, settings, seed, gpu_count, "
      "wall_s",
      read_run, FIELD(runs, run_count) },
    { "sample_ceiling", "rowid, run, gpu, name, value", read_ceiling,
      FIELD(ceilings, ceiling_count) },
    { "sample_series",
      "id, name, kind, models, hidden, inter, units, top_k, dtype, activation, backend, ranks, "
      "src, dst",
      read_series, FIELD(series, series_count) },
    { "sample_point",
      "id, series, role, tokens, active, row_max, tiles64, tiles128, context, bytes, "
      "bytes_per_peer, flops, histogram, rows",
      read_point, FIELD(points, point_count) },
    { "sample",
      "id, point, run, gpu, gpu_rank, pass, begin_s, n, median_us, min_us, p5_us, p25_us, p75_us, "
      "p95_us, p99_us, mhz, flags",
      read_sample, FIELD(samples, sample_count) },
};

/* All rows of one table into to, which has room for total. */
static enum moe_status read_rows(struct cursor *cursor, const struct table *table,
                                 struct moe_database *db, char *to, int64_t total,
                                 struct moe_error *err)
{
    char *base = (char *) cursor->evidence;
    int64_t done = 0;
    for (; done < total; done++) {
        int row = 0;
        MOE_TRY(moe_database_step(db, cursor->select, &row, err));
        if (!row) {
            break;
        }
        cursor->id = sqlite3_column_int64(cursor->select, 0);
        MOE_TRY(table->read(cursor, to + (size_t) done * table->row_bytes, err));
    }
    *(const void **) (void *) (base + table->rows_offset) = to;
    *(uint32_t *) (void *) (base + table->count_offset) = (uint32_t) done;
    return MOE_OK;
}

static enum moe_status read_table(struct moe_evidence *evidence, const struct table *table,
                                  struct moe_database *db, struct moe_hash *hash,
                                  struct moe_error *err)
{
    enum { ROW_LIMIT = 1 << 24 };
    struct cursor cursor = { .evidence = evidence, .table = table->name, .hash = hash };
    char sql[400];
    int64_t total = 0;
    (void) snprintf(sql, sizeof sql, "SELECT count(*) FROM %s", table->name);
    MOE_TRY(moe_database_scalar(db, sql, 0, &total, err));
    char *to = total > ROW_LIMIT
                   ? NULL
                   : moe_arena_alloc(&evidence->arena, (size_t) total + 1, table->row_bytes);
    if (to == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for the %lld rows of table %s",
                        evidence->name, (long long) total, table->name);
    }
    (void) snprintf(sql, sizeof sql, "SELECT %s FROM %s ORDER BY 1", table->columns, table->name);
    moe_hash_add_text(hash, table->name);
    MOE_TRY(moe_database_prepare(db, sql, &cursor.select, err));
    const enum moe_status status = read_rows(&cursor, table, db, to, total, err);
    (void) sqlite3_finalize(cursor.select);
    return status;
}

static enum moe_status read_tables(struct moe_evidence *evidence, struct moe_database *db,
                                   struct moe_error *err)
{
    struct moe_hash hash;
    moe_hash_init(&hash, 0);
    for (size_t i = 0; i < sizeof sample_tables / sizeof sample_tables[0]; i++) {
        MOE_TRY(read_table(evidence, &sample_tables[i], db, &hash, err));
    }
    evidence->hash = moe_hash_value(&hash);
    return MOE_OK;
}

/* Texts and blobs are no longer than the file; rows are counted one by one. */
static enum moe_status reserve(struct moe_evidence *e, struct moe_database *db,
                               struct moe_error *err)
{
    int64_t there = 0;
    int64_t pages = 0;
    int64_t page_bytes = 0;
    int64_t rows = 0;
    MOE_TRY(moe_database_scalar(
        db, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'sample'", 0,
        &there, err));
    if (there == 0) {
        return moe_fail(err, MOE_RANGE, "%s: holds no samples; `moecal measure` writes them",
                        e->name);
    }
    MOE_TRY(moe_database_scalar(db, "PRAGMA page_count", 0, &pages, err));
    MOE_TRY(moe_database_scalar(db, "PRAGMA page_size", 0, &page_bytes, err));
    MOE_TRY(moe_database_scalar(db,
                                "SELECT (SELECT count(*) FROM sample) + (SELECT count(*) FROM "
                                "sample_point) + (SELECT count(*) FROM sample_series) + (SELECT "
                                "count(*) FROM sample_ceiling) + (SELECT count(*) FROM sample_run) "
                                "+ (SELECT count(*) FROM sample_gpu)",
                                0, &rows, err));
    const size_t per_row = sizeof(struct moe_evidence_sample) + 512;
    const size_t bytes = ((size_t) (pages * page_bytes)) * 2 + (size_t) rows * per_row + (1 << 20);
    return moe_arena_init(&e->arena, bytes, err);
}

enum moe_status moe_evidence_read(struct moe_evidence *out, struct moe_database *db,
                                  const char *name, struct moe_error *err)
{
    struct moe_evidence evidence = { .name = name };
    MOE_TRY(reserve(&evidence, db, err));
    enum moe_status status = read_tables(&evidence, db, err);
    if (status == MOE_OK && evidence.sample_count == 0) {
        status =
            moe_fail(err, MOE_RANGE, "%s: table sample has no rows; one at least is needed", name);
    }
    if (status != MOE_OK) {
        moe_arena_finish(&evidence.arena);
        return status;
    }
    *out = evidence;
    return MOE_OK;
}

enum moe_status moe_evidence_load(struct moe_evidence *out, const char *path, struct moe_error *err)
{
    struct moe_database db;
    MOE_TRY(moe_database_open(&db, &moe_calibration_database, path, MOE_DATABASE_READ, err));
    const enum moe_status status = moe_evidence_read(out, &db, path, err);
    moe_database_close(&db);
    return status;
}

void moe_evidence_finish(struct moe_evidence *evidence)
{
    moe_arena_finish(&evidence->arena);
}

double moe_evidence_ceiling(const struct moe_evidence *evidence, const char *gpu_kind,
                            const char *name)
{
    double largest = 0.0;
    for (uint32_t i = 0; i < evidence->ceiling_count; i++) {
        const struct moe_evidence_ceiling *ceiling = &evidence->ceilings[i];
        if (strcmp(ceiling->name, name) == 0 &&
            strcmp(evidence->gpus[ceiling->gpu].kind, gpu_kind) == 0 && ceiling->value > largest) {
            largest = ceiling->value;
        }
    }
    return largest;
}
