/*
 * Trace writer: the writing half of a trace store.
 *
 * A producer (an import, a cut) states model and provenance, then sends all requests
 * and all rows, each in order, interleaved as it likes, and finishes. Whatever was
 * committed survives a kill at any moment; a producer that is run again on such a store
 * is told how much is there and goes on, and the result is equal in content (same
 * moe_trace_hash) to that of an undisturbed run. The same model and provenance, which
 * holds the hashes of the source files, is what makes a store "the same import".
 *
 * Replacing another store is done beside it (PATH.new) and renamed over it when
 * everything is on the disk, so a failure loses nothing.
 */
#ifndef MOE_TRACES_TRACE_WRITER_H
#define MOE_TRACES_TRACE_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/error.h"
#include "traces/trace_provenance.h"
#include "traces/trace_store.h"

struct moe_trace_writer; /* one per store and process: it holds SQLite's lock */

/* Begins or continues the store at path. model is checked by the caller
 * (moe_trace_model_check); both may go away afterwards.
 * Errors: MOE_RANGE when path holds anything else and overwrite is false, or when it is
 * no trace store at all (never replaced); MOE_PARSE and MOE_UNSUPPORTED for damaged and
 * newer stores without overwrite; MOE_IO. On error nothing has changed. */
enum moe_status moe_trace_writer_open(struct moe_trace_writer **out, const char *path,
                                      bool overwrite, const struct moe_trace_model *model,
                                      const struct moe_trace_history *history,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Whether moe_trace_writer_open would take the path, before work is put into it. An unfinished
 * store of this import is left as it is. Errors: as there. */
enum moe_status moe_trace_writer_try(const char *path, bool overwrite,
                                     const struct moe_trace_model *model,
                                     const struct moe_trace_history *history,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* The store was finished by this very import before: send nothing, just close. */
bool moe_trace_writer_is_finished(const struct moe_trace_writer *writer);

/* Rows that are stored for good in whole blobs, by this and earlier runs. */
uint64_t moe_trace_writer_stored_rows(const struct moe_trace_writer *writer);

/* How much an earlier run stored. A producer that can seek calls this before it sends
 * anything and goes on with request *request and row *row; one that cannot does not
 * call it and sends everything, and the writer passes over what it has. */
void moe_trace_writer_resume(struct moe_trace_writer *writer, uint64_t *request, uint64_t *row);

/* The next requests; first_row is ignored, it follows from the order. Errors: MOE_RANGE
 * (see moe_trace_request_check), MOE_IO. */
enum moe_status moe_trace_writer_requests(struct moe_trace_writer *writer,
                                          const struct moe_trace_request *requests, uint64_t count,
                                          struct moe_error *err) MOE_MUST_CHECK;

/* The next rows, experts[row_count][layer][k]. Errors: MOE_RANGE for an id that is
 * neither below expert_count nor MOE_EXPERT_UNKNOWN, naming row, layer and k; MOE_IO. */
enum moe_status moe_trace_writer_rows(struct moe_trace_writer *writer, const uint16_t *experts,
                                      uint64_t row_count, struct moe_error *err) MOE_MUST_CHECK;

/* For a model of arrivals: the next request with the hashes of its prompt's blocks of
 * block_tokens tokens, blocks[block_count]; a trace has one block size. Errors: also MOE_RANGE
 * for more than MOE_TRACE_BLOCK_LIMIT blocks. */
enum { MOE_TRACE_BLOCK_LIMIT = 1 << 16 };
enum moe_status moe_trace_writer_arrival(struct moe_trace_writer *writer,
                                         const struct moe_trace_request *request,
                                         const int64_t *blocks, size_t block_count,
                                         uint32_t block_tokens,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* For a model of loads: the next load (trace_loads.h), counts[layer_count][expert_count].
 * Steps begin at 0 and ascend by at most one. Errors: MOE_RANGE for a count that is negative,
 * not a number or too large, naming its place, and for steps out of order; MOE_IO. */
struct moe_trace_load;
enum moe_status moe_trace_writer_load(struct moe_trace_writer *writer,
                                      const struct moe_trace_load *load, const double *counts,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* The placement in force, experts[layer_count][slot_count], MOE_EXPERT_UNKNOWN for an empty
 * slot; at most once, at any time. Errors: MOE_RANGE naming layer and slot; MOE_IO. */
enum moe_status moe_trace_writer_placement(struct moe_trace_writer *writer, const uint16_t *experts,
                                           uint32_t slot_count,
                                           struct moe_error *err) MOE_MUST_CHECK;

/* Writes the rest, the content hash and the mark that the store is complete; then moves
 * it into place when it replaces another. Errors: MOE_RANGE when the rows are not as
 * many as the requests need, or there are none; MOE_IO. */
enum moe_status moe_trace_writer_finish(struct moe_trace_writer *writer, uint64_t *hash,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* Ends in any state; safe for NULL. status is how the producer ended. When it was the
 * world's fault (MOE_IO, MOE_LIMIT, MOE_DEVICE) committed batches stay and the same
 * import goes on from them: the result is true when there are any. Otherwise the input
 * is bad and an unfinished store is removed. */
bool moe_trace_writer_close(struct moe_trace_writer *writer, enum moe_status status);

#endif
