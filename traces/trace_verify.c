#include "traces/trace_verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/trace_loads.h"
#include "traces/trace_schema.h"

static const struct {
    const char *text;
    bool is_damage;
} checks[MOE_TRACE_CHECK_COUNT] = {
    [MOE_TRACE_CHECK_BLOBS] = { "every row and count is there, unchanged, and of the model", true },
    [MOE_TRACE_CHECK_EXTRA_BLOBS] = { "no blobs beyond the last row", true },
    [MOE_TRACE_CHECK_CONTENT_HASH] = { "content hash as at the import", true },
    [MOE_TRACE_CHECK_DATABASE] = { "database file in order", true },
    [MOE_TRACE_CHECK_GROUP_LIMIT] = { "no token uses more groups than the model allows", false },
    [MOE_TRACE_CHECK_DUPLICATES] = { "no expert twice in one top-k", false },
};

const char *moe_trace_check_text(enum moe_trace_check check)
{
    return checks[check].text;
}

bool moe_trace_check_is_damage(enum moe_trace_check check)
{
    return checks[check].is_damage;
}

/* Everything that one pass needs. seen_by[x] is the number of the last top-k that held
 * expert (or group) x, which spares clearing the tables 60 million times. */
struct pass {
    struct moe_trace *trace;
    const struct moe_trace_model *model;
    struct moe_trace_verification *out;
    uint16_t *rows;
    uint64_t *expert_seen_by;
    uint64_t *group_seen_by;
    uint64_t list;
};

/* Counts; only the first of a kind gets its text, for there may be millions. */
#define report(pass, check, ...)                                               \
    do {                                                                       \
        struct moe_trace_check_result *result_ = &(pass)->out->results[check]; \
        if (result_->count++ == 0) {                                           \
            (void) moe_fail(&result_->first, MOE_PARSE, __VA_ARGS__);          \
        }                                                                      \
    } while (0)

/* One top-k: experts[top_k] of a row and layer. */
static void check_list(struct pass *pass, const uint16_t *experts, uint64_t row, uint32_t layer)
{
    const struct moe_trace_model *model = pass->model;
    const uint32_t group_size = model->expert_count / model->group_count;
    uint32_t groups = 0;
    pass->list++;
    for (uint32_t k = 0; k < model->top_k; k++) {
        const uint16_t expert = experts[k];
        if (expert == MOE_EXPERT_UNKNOWN) {
            pass->out->unknown_count++;
            continue;
        }
        if (pass->expert_seen_by[expert] == pass->list) {
            report(pass, MOE_TRACE_CHECK_DUPLICATES,
                   "row %" PRIu64 ", layer %u: expert %u stands twice, again at k %u", row, layer,
                   expert, k);
        }
        pass->expert_seen_by[expert] = pass->list;
        const uint32_t group = expert / group_size;
        groups += pass->group_seen_by[group] != pass->list;
        pass->group_seen_by[group] = pass->list;
    }
    if (groups > model->group_limit) {
        report(pass, MOE_TRACE_CHECK_GROUP_LIMIT,
               "row %" PRIu64 ", layer %u: experts of %u groups; the model allows %u", row, layer,
               groups, model->group_limit);
    }
}

static enum moe_status check_blob(struct pass *pass, uint64_t first, uint64_t count,
                                  struct moe_error *err)
{
    const struct moe_trace_model *model = pass->model;
    struct moe_error reason = { 0 };
    const enum moe_status status = moe_trace_read(pass->trace, first, count, pass->rows, &reason);
    if (status == MOE_PARSE) {
        report(pass, MOE_TRACE_CHECK_BLOBS, "%s", reason.text);
        return MOE_OK;
    }
    if (status != MOE_OK) {
        return moe_fail(err, status, "%s", reason.text);
    }
    const uint16_t *experts = pass->rows;
    for (uint64_t row = first; row < first + count; row++) {
        for (uint32_t layer = 0; layer < model->layer_count; layer++, experts += model->top_k) {
            check_list(pass, experts, row, layer);
        }
    }
    pass->out->row_count += count;
    pass->out->choice_count += count * model->layer_count * model->top_k;
    return MOE_OK;
}

/* Damage ends the pass over loads: what follows cannot be placed. */
static enum moe_status check_loads(struct pass *pass, struct moe_trace_load_cursor *cursor,
                                   double *counts, struct moe_progress *progress,
                                   struct moe_error *err)
{
    struct moe_trace_load load = { 0 };
    bool got = true;
    while (got) {
        struct moe_error reason = { 0 };
        const enum moe_status status = moe_trace_loads_next(cursor, &load, counts, &got, &reason);
        if (status == MOE_PARSE) {
            report(pass, MOE_TRACE_CHECK_BLOBS, "%s", reason.text);
            return MOE_OK;
        }
        if (status != MOE_OK) {
            return moe_fail(err, status, "%s", reason.text);
        }
        pass->out->row_count += got;
        moe_progress_update(progress, pass->out->row_count);
    }
    return MOE_OK;
}

static enum moe_status check_placement(struct pass *pass, struct moe_error *err)
{
    struct moe_error reason = { 0 };
    uint16_t *experts = NULL;
    uint32_t slot_count = 0;
    const enum moe_status status =
        moe_trace_placement_read(pass->trace, &slot_count, &experts, &reason);
    free(experts);
    if (status == MOE_PARSE) {
        report(pass, MOE_TRACE_CHECK_BLOBS, "%s", reason.text);
        return MOE_OK;
    }
    return status == MOE_OK ? MOE_OK : moe_fail(err, status, "%s", reason.text);
}

static enum moe_status check_all_loads(struct pass *pass, struct moe_progress *progress,
                                       struct moe_error *err)
{
    const struct moe_trace_model *model = pass->model;
    struct moe_trace_load_cursor cursor = { 0 };
    double *counts = malloc((size_t) model->layer_count * model->expert_count * sizeof *counts);
    if (counts == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to verify it", moe_trace_path(pass->trace));
    }
    enum moe_status status = moe_trace_loads_begin(&cursor, pass->trace, err);
    if (status == MOE_OK) {
        status = check_loads(pass, &cursor, counts, progress, err);
    }
    moe_trace_loads_end(&cursor);
    free(counts);
    return status;
}

static enum moe_status check_tables(struct pass *pass, uint64_t blob_count, struct moe_error *err)
{
    struct moe_database *db = moe_trace_database(pass->trace);
    char sql[96];
    int64_t extra = 0;
    uint64_t hash = 0;
    (void) snprintf(sql, sizeof sql, "SELECT count(*) FROM routes WHERE id < 0 OR id >= %" PRIu64,
                    blob_count);
    MOE_TRY(moe_database_scalar(db, sql, 0, &extra, err));
    if (extra != 0) {
        report(pass, MOE_TRACE_CHECK_EXTRA_BLOBS,
               "%s: %" PRId64 " routes blobs besides the %" PRIu64 " that the rows need", db->path,
               extra, blob_count);
    }
    MOE_TRY(moe_trace_content_hash(db, pass->model, &hash, err));
    if (hash != moe_trace_hash(pass->trace)) {
        report(pass, MOE_TRACE_CHECK_CONTENT_HASH,
               "%s: the content hash is %016" PRIx64 ", at the import it was %016" PRIx64, db->path,
               hash, moe_trace_hash(pass->trace));
    }
    return MOE_OK;
}

static enum moe_status check_database(struct pass *pass, struct moe_error *err)
{
    struct moe_database *db = moe_trace_database(pass->trace);
    sqlite3_stmt *stmt = NULL;
    int row = 0;
    MOE_TRY(moe_database_prepare(db, "PRAGMA integrity_check(1)", &stmt, err));
    const enum moe_status status = moe_database_step(db, stmt, &row, err);
    const char *text = row != 0 ? (const char *) sqlite3_column_text(stmt, 0) : NULL;
    if (status == MOE_OK && (text == NULL || strcmp(text, "ok") != 0)) {
        report(pass, MOE_TRACE_CHECK_DATABASE, "%s: %s", db->path,
               text == NULL ? "no answer from SQLite's integrity check" : text);
    }
    (void) sqlite3_finalize(stmt);
    return status;
}

static enum moe_status check_all(struct pass *pass, struct moe_progress *progress,
                                 struct moe_error *err)
{
    const struct moe_trace_model *model = pass->model;
    const struct moe_trace_layout layout = moe_trace_layout_of(model);
    const uint64_t row_count = moe_trace_row_count(pass->trace);
    const uint64_t blob_count = moe_trace_layout_blobs(&layout, row_count);
    MOE_TRY(check_placement(pass, err));
    if (model->content != MOE_TRACE_ROUTES) {
        MOE_TRY(model->content == MOE_TRACE_LOADS ? check_all_loads(pass, progress, err) : MOE_OK);
        MOE_TRY(check_tables(pass, 0, err));
        return check_database(pass, err);
    }
    const size_t ids = (size_t) layout.ids_per_row << layout.row_shift;
    pass->rows = malloc(ids * sizeof *pass->rows);
    pass->expert_seen_by = calloc(model->expert_count, sizeof *pass->expert_seen_by);
    pass->group_seen_by = calloc(model->group_count, sizeof *pass->group_seen_by);
    if (pass->rows == NULL || pass->expert_seen_by == NULL || pass->group_seen_by == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to verify it", moe_trace_path(pass->trace));
    }
    for (uint64_t blob = 0; blob < blob_count; blob++) {
        MOE_TRY(check_blob(pass, blob << layout.row_shift,
                           moe_trace_layout_rows(&layout, blob, row_count), err));
        moe_progress_update(progress, blob << layout.row_shift);
    }
    MOE_TRY(check_tables(pass, blob_count, err));
    return check_database(pass, err);
}

enum moe_status moe_trace_verify(struct moe_trace_verification *out, struct moe_trace *trace,
                                 struct moe_progress *progress, struct moe_error *err)
{
    struct moe_trace_verification verification = { 0 };
    struct pass pass = {
        .trace = trace,
        .model = moe_trace_model(trace),
        .out = &verification,
    };
    const enum moe_status status = check_all(&pass, progress, err);
    free(pass.group_seen_by);
    free(pass.expert_seen_by);
    free(pass.rows);
    if (status == MOE_OK) {
        *out = verification;
    }
    return status;
}

enum moe_status moe_trace_verification_status(const struct moe_trace_verification *verification,
                                              struct moe_error *err)
{
    for (int check = 0; check < MOE_TRACE_CHECK_COUNT; check++) {
        const struct moe_trace_check_result *result = &verification->results[check];
        if (checks[check].is_damage && result->count > 0) {
            return moe_fail(err, MOE_PARSE, "%s", result->first.text);
        }
    }
    return MOE_OK;
}
