#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/trace_loads.h"
#include "traces/trace_writer_state.h"

/* As many bytes in a transaction as trace_writer.c found best. */
enum { BATCH_BYTES = 16 << 20 };

static enum moe_status store_prefix(struct moe_trace_writer *writer, const int64_t *blocks,
                                    size_t block_count, uint32_t block_tokens,
                                    struct moe_error *err)
{
    char sql[96];
    const size_t bytes = block_count * sizeof *blocks;
    if (writer->insert_prefix == NULL) {
        (void) snprintf(sql, sizeof sql, "UPDATE content SET block_tokens = %u", block_tokens);
        MOE_TRY(moe_database_exec(&writer->db, sql, err));
        MOE_TRY(moe_database_prepare(&writer->db, "INSERT INTO prefix VALUES (?, ?, ?)",
                                     &writer->insert_prefix, err));
    }
    sqlite3_stmt *stmt = writer->insert_prefix;
    (void) sqlite3_bind_int64(stmt, 1, (sqlite3_int64) writer->request_next);
    (void) sqlite3_bind_int64(stmt, 2, (sqlite3_int64) moe_hash_bytes(blocks, bytes, 0));
    (void) sqlite3_bind_blob(stmt, 3, blocks, (int) bytes, SQLITE_STATIC);
    return moe_database_run(&writer->db, stmt, err);
}

enum moe_status moe_trace_writer_arrival(struct moe_trace_writer *writer,
                                         const struct moe_trace_request *request,
                                         const int64_t *blocks, size_t block_count,
                                         uint32_t block_tokens, struct moe_error *err)
{
    assert(writer->model.content == MOE_TRACE_ARRIVALS);
    if (block_count > MOE_TRACE_BLOCK_LIMIT) {
        return moe_fail(err, MOE_RANGE, "request %" PRIu64 ": %zu prefix blocks; at most %d",
                        writer->request_next, block_count, MOE_TRACE_BLOCK_LIMIT);
    }
    if (block_count > 0 && writer->request_next >= writer->request_done) {
        MOE_TRY(store_prefix(writer, blocks, block_count, block_tokens, err));
    }
    return moe_trace_writer_requests(writer, request, 1, err);
}

static enum moe_status check_load(const struct moe_trace_writer *writer,
                                  const struct moe_trace_load *load, const double *counts,
                                  struct moe_error *err)
{
    const struct moe_trace_model *model = &writer->model;
    const size_t cells = (size_t) model->layer_count * model->expert_count;
    if (load->step > writer->step_end || load->step + 1 < writer->step_end) {
        return moe_fail(err, MOE_RANGE, "%s: step %" PRIu64 " after step %" PRIu64, writer->target,
                        load->step, writer->step_end - 1);
    }
    if (load->rank < MOE_TRACE_ALL_RANKS || load->rank >= MOE_TRACE_RANK_LIMIT ||
        load->domain >= model->domain_count) {
        return moe_fail(err, MOE_RANGE, "%s: step %" PRIu64 ": rank %d of domain %u",
                        writer->target, load->step, load->rank, load->domain);
    }
    for (size_t i = 0; i < cells; i++) {
        if (!(counts[i] >= 0.0 && counts[i] <= MOE_TRACE_COUNT_LIMIT)) {
            return moe_fail(err, MOE_RANGE,
                            "%s: step %" PRIu64 ", layer %zu, expert %zu: a count of %g; 0 to 2^32 "
                            "is allowed",
                            writer->target, load->step, i / model->expert_count,
                            i % model->expert_count, counts[i]);
        }
    }
    return MOE_OK;
}

/* One load as it stands in the file; its bytes. */
static size_t pack(struct moe_trace_writer *writer, const double *counts, size_t cells)
{
    const uint32_t item = moe_trace_load_item_bytes(counts, cells);
    for (size_t i = 0; i < cells; i++) {
        if (item == 4) {
            const uint32_t value = (uint32_t) counts[i];
            memcpy(writer->counts + 4 * i, &value, 4);
        } else {
            memcpy(writer->counts + 8 * i, &counts[i], 8);
        }
    }
    return cells * item;
}

enum moe_status moe_trace_writer_load(struct moe_trace_writer *writer,
                                      const struct moe_trace_load *load, const double *counts,
                                      struct moe_error *err)
{
    const size_t cells = (size_t) writer->model.layer_count * writer->model.expert_count;
    assert(writer->model.content == MOE_TRACE_LOADS);
    MOE_TRY(check_load(writer, load, counts, err));
    writer->step_end = load->step + 1;
    writer->row_next++;
    if (writer->row_next <= writer->row_done) {
        return MOE_OK;
    }
    if (writer->insert_load == NULL) {
        MOE_TRY(moe_database_prepare(&writer->db, "INSERT INTO loads VALUES (?, ?, ?, ?, ?, ?, ?)",
                                     &writer->insert_load, err));
        writer->counts = malloc(cells * 8); /* the wider of the two items */
        if (writer->counts == NULL) {
            return moe_fail(err, MOE_LIMIT, "%s: no memory for %zu counts", writer->target, cells);
        }
    }
    sqlite3_stmt *stmt = writer->insert_load;
    const size_t bytes = pack(writer, counts, cells);
    const uint64_t hash = moe_hash_bytes(writer->counts, bytes, 0);
    (void) sqlite3_clear_bindings(stmt);
    (void) sqlite3_bind_int64(stmt, 1, (sqlite3_int64) writer->row_done);
    (void) sqlite3_bind_int64(stmt, 2, (sqlite3_int64) load->step);
    if (load->rank != MOE_TRACE_ALL_RANKS) {
        (void) sqlite3_bind_int64(stmt, 3, load->rank);
    }
    (void) sqlite3_bind_int64(stmt, 4, load->domain);
    if (load->label >= 0) {
        (void) sqlite3_bind_int64(stmt, 5, load->label);
    }
    (void) sqlite3_bind_int64(stmt, 6, (sqlite3_int64) hash);
    (void) sqlite3_bind_blob(stmt, 7, writer->counts, (int) bytes, SQLITE_STATIC);
    MOE_TRY(moe_database_run(&writer->db, stmt, err));
    writer->row_done++;
    writer->batch_bytes += bytes;
    return writer->batch_bytes < BATCH_BYTES ? MOE_OK : moe_trace_writer_commit(writer, err);
}

static enum moe_status store_layers(struct moe_trace_writer *writer, sqlite3_stmt *stmt,
                                    const uint16_t *experts, uint32_t slot_count,
                                    struct moe_error *err)
{
    const struct moe_trace_model *model = &writer->model;
    const size_t bytes = (size_t) slot_count * sizeof *experts;
    for (uint32_t layer = 0; layer < model->layer_count; layer++, experts += slot_count) {
        for (uint32_t slot = 0; slot < slot_count; slot++) {
            if (experts[slot] >= model->expert_count && experts[slot] != MOE_EXPERT_UNKNOWN) {
                return moe_fail(err, MOE_RANGE,
                                "%s: placement of layer %u, slot %u: expert %u; the model has "
                                "experts 0 to %u",
                                writer->target, layer, slot, experts[slot],
                                model->expert_count - 1);
            }
        }
        (void) sqlite3_bind_int64(stmt, 1, layer);
        (void) sqlite3_bind_int64(stmt, 2, (sqlite3_int64) moe_hash_bytes(experts, bytes, 0));
        (void) sqlite3_bind_blob(stmt, 3, experts, (int) bytes, SQLITE_STATIC);
        MOE_TRY(moe_database_run(&writer->db, stmt, err));
    }
    return MOE_OK;
}

enum moe_status moe_trace_writer_placement(struct moe_trace_writer *writer, const uint16_t *experts,
                                           uint32_t slot_count, struct moe_error *err)
{
    sqlite3_stmt *stmt = NULL;
    if (slot_count < 1 || slot_count > MOE_TRACE_EXPERT_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%s: a placement of %u slots; 1 to %d are allowed",
                        writer->target, slot_count, MOE_TRACE_EXPERT_LIMIT);
    }
    /* Replacing: an interrupted import sends it again. */
    MOE_TRY(moe_database_prepare(&writer->db, "INSERT OR REPLACE INTO placement VALUES (?, ?, ?)",
                                 &stmt, err));
    const enum moe_status status = store_layers(writer, stmt, experts, slot_count, err);
    (void) sqlite3_finalize(stmt);
    return status;
}
