#include "traces/trace_cut.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "traces/trace_schema.h"
#include "traces/trace_writer.h"

enum { PIECE_IDS = 1 << 18, PACK_BYTES = 16 << 20 };

_Static_assert(PIECE_IDS >= MOE_TRACE_LAYER_LIMIT * MOE_TRACE_TOP_K_LIMIT, "a piece holds a row");

static enum moe_status describe(struct moe_trace_history *history, struct moe_trace *trace,
                                uint64_t request_count, struct moe_error *err)
{
    struct moe_trace_provenance *record = NULL;
    MOE_TRY(moe_trace_history_load(history, moe_trace_database(trace), err));
    MOE_TRY(moe_trace_history_add(history, &record, err));
    (void) snprintf(record->engine, sizeof record->engine, "none");
    (void) snprintf(record->format, sizeof record->format, "cut");
    (void) snprintf(record->layer_map, sizeof record->layer_map, "unchanged");
    (void) snprintf(record->note, sizeof record->note,
                    "requests 0 to %" PRIu64 " of %" PRIu64
                    ", of the trace with content %016" PRIx64,
                    request_count - 1, moe_trace_request_count(trace), moe_trace_hash(trace));
    return MOE_OK;
}

static enum moe_status copy(struct moe_trace *trace, struct moe_trace_writer *writer,
                            uint64_t request_count, uint16_t *piece, struct moe_error *err)
{
    const struct moe_trace_request *requests = moe_trace_requests(trace);
    const struct moe_trace_request *last = &requests[request_count - 1];
    const struct moe_trace_model *model = moe_trace_model(trace);
    const uint64_t row_count = last->first_row + moe_trace_request_rows(last);
    const uint64_t most = PIECE_IDS / ((uint64_t) model->layer_count * model->top_k);
    uint64_t request = 0;
    uint64_t row = 0;
    moe_trace_writer_resume(writer, &request, &row);
    MOE_TRY(moe_trace_writer_requests(writer, requests + request, request_count - request, err));
    while (row < row_count) {
        const uint64_t rows = row_count - row < most ? row_count - row : most;
        MOE_TRY(moe_trace_read(trace, row, rows, piece, err));
        MOE_TRY(moe_trace_writer_rows(writer, piece, rows, err));
        row += rows;
    }
    return MOE_OK;
}

static enum moe_status write_cut(struct moe_trace *trace, const char *path, uint64_t request_count,
                                 bool overwrite, const struct moe_trace_history *history,
                                 struct moe_error *err)
{
    struct moe_trace_writer *writer = NULL;
    uint64_t hash = 0;
    uint16_t *piece = malloc((size_t) PIECE_IDS * sizeof *piece);
    if (piece == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to cut from it", moe_trace_path(trace));
    }
    enum moe_status status =
        moe_trace_writer_open(&writer, path, overwrite, moe_trace_model(trace), history, err);
    if (status == MOE_OK && !moe_trace_writer_is_finished(writer)) {
        status = copy(trace, writer, request_count, piece, err);
        if (status == MOE_OK) {
            status = moe_trace_writer_finish(writer, &hash, err);
        }
    }
    (void) moe_trace_writer_close(writer, status);
    free(piece);
    return status;
}

/* Large pages write fast but leave each of the small tables a page of its own. The store is
 * complete already, so one that cannot be packed (the disk has no room for a second copy) is
 * only larger: SQLite takes a failed VACUUM back. */
static void pack(const char *path)
{
    struct moe_database db;
    struct stat info;
    int64_t page_size = 0;
    if (stat(path, &info) != 0 || info.st_size > PACK_BYTES ||
        moe_database_open(&db, &moe_trace_kind, path, MOE_DATABASE_RESUME, NULL) != MOE_OK) {
        return;
    }
    if (moe_database_scalar(&db, "PRAGMA page_size", 0, &page_size, NULL) == MOE_OK &&
        page_size != 4096) {
        const enum moe_status status =
            moe_database_exec(&db, "PRAGMA page_size = 4096; VACUUM", NULL);
        (void) status;
    }
    moe_database_close(&db);
}

enum moe_status moe_trace_cut(struct moe_trace *trace, const char *path, uint64_t request_count,
                              bool overwrite, struct moe_error *err)
{
    struct moe_trace_history history = { 0 };
    if (request_count < 1 || request_count > moe_trace_request_count(trace)) {
        return moe_fail(err, MOE_RANGE,
                        "%s: %" PRIu64 " requests wanted; 1 to %" PRIu64 " can be had",
                        moe_trace_path(trace), request_count, moe_trace_request_count(trace));
    }
    enum moe_status status = describe(&history, trace, request_count, err);
    if (status == MOE_OK) {
        status = write_cut(trace, path, request_count, overwrite, &history, err);
    }
    moe_trace_history_finish(&history);
    if (status == MOE_OK) {
        pack(path);
    }
    return status;
}
