/*
 * Import measure: the first pass over a dump: how much it holds, which layers hold anything,
 * how large the ids are, and how many leading rows are identical (an engine's warm-up runs one
 * made-up prompt over and over before the first real request).
 */
#ifndef MOE_TRACES_IMPORT_MEASURE_H
#define MOE_TRACES_IMPORT_MEASURE_H

#include "traces/import.h"

/* So many identical leading rows are no accident. */
enum { MOE_IMPORT_WARMUP_ROWS = 1000 };

struct moe_import_measure {
    struct moe_import_sink sink; /* first, so that the one is the other */
    const struct moe_import_description *description;
    uint64_t request_count;
    uint64_t row_count;
    uint64_t rows_wanted; /* by the requests */
    uint64_t load_count;
    uint64_t step_count;
    uint32_t id_end; /* 1 + the largest id */
    uint32_t k_end;  /* 1 + the last column that holds a known id */
    /* Whether a recorded layer holds anything but zeros and unknowns. */
    bool layer_is_used[MOE_TRACE_LAYER_LIMIT];
    uint64_t equal_count; /* leading rows or loads equal to the first one */
    void *first;          /* that one; owned */
};

/* Errors: MOE_LIMIT; MOE_RANGE when the recorded axes are beyond the store's limits. */
enum moe_status moe_import_measure_init(struct moe_import_measure *measure,
                                        const struct moe_import_description *description,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* After everything was sent: whether it is something, and rows fit requests. what begins the
 * error. Errors: MOE_PARSE. */
enum moe_status moe_import_measure_check(const struct moe_import_measure *measure, const char *what,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* Leading rows or loads that look like a warm-up: 0, or at least MOE_IMPORT_WARMUP_ROWS. */
uint64_t moe_import_measure_warmup(const struct moe_import_measure *measure);

/* Safe on a zeroed struct and safe twice. */
void moe_import_measure_finish(struct moe_import_measure *measure);

#endif
