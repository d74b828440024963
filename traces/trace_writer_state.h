/*
 * What the two files of the trace writer share: trace_writer.c (the store's life, requests
 * and routes) and trace_writer_loads.c (everything else that a store can hold).
 */
#ifndef MOE_TRACES_TRACE_WRITER_STATE_H
#define MOE_TRACES_TRACE_WRITER_STATE_H

#include "sim/base/database.h"
#include "traces/trace_schema.h"
#include "traces/trace_writer.h"

struct moe_trace_writer {
    struct moe_database db;
    struct moe_trace_model model;
    struct moe_trace_layout layout;
    uint64_t identity;
    char target[4096]; /* where the store belongs; differs from db.path when it replaces */
    bool replaces;
    bool is_finished;
    bool has_committed;    /* there is something on the disk to go on from */
    uint64_t request_done; /* stored requests, of this and earlier runs */
    uint64_t row_done;     /* stored rows, whole blobs */
    uint64_t request_rows; /* rows that the stored requests need */
    uint64_t request_next; /* the producer's position */
    uint64_t row_next;
    uint32_t batch_blobs; /* blobs of the open transaction */
    sqlite3_stmt *insert_request;
    sqlite3_stmt *insert_routes;
    uint8_t *experts; /* the blob in the making, rows row_done .. row_next-1 */
    uint8_t *mask;
    bool has_unknown;
    sqlite3_stmt *insert_load;   /* prepared when first needed */
    sqlite3_stmt *insert_prefix; /* likewise */
    unsigned char *counts;       /* one packed load; allocated when first needed */
    uint64_t step_end;           /* 1 + the last step sent */
    uint64_t batch_bytes;        /* of loads in the open transaction */
};

/* Writes how far the store is and commits. */
enum moe_status moe_trace_writer_commit(struct moe_trace_writer *writer,
                                        struct moe_error *err) MOE_MUST_CHECK;

#endif
