/*
 * Run store (run.db): one study with everything that is needed to ask it questions in SQL
 * and to repeat it. A SQLite file of one schema version; the tables stand in run_store.c.
 *
 * The same study gives the same file: no wall time and no host are in it.
 */
#ifndef MOE_SIM_REPORT_RUN_STORE_H
#define MOE_SIM_REPORT_RUN_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/database.h"
#include "sim/engine/study.h"

extern const struct moe_database_kind moe_run_store_database;

/* Writes path, all of it or nothing: it is made in memory and moved to its place when it is
 * whole. Errors: as moe_output_file_open and moe_output_file_commit (an existing file is
 * refused unless overwrite is set); MOE_LIMIT when there is no memory. */
enum moe_status moe_run_store_write(const struct moe_study *study, const char *path, bool overwrite,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* What a repeat needs. Texts are owned by the record. */
struct moe_run_record {
    char program_version[32];
    uint64_t trace_hash;
    uint64_t calibration_hash;
    char *scenario; /* canonical YAML */
    char *report;   /* JSON, as moe_report_json_text */
};

/* Errors: as moe_database_open; MOE_PARSE when an entry is missing or malformed, MOE_LIMIT
 * when there is no memory. On error nothing is held. */
enum moe_status moe_run_store_read(struct moe_run_record *record, const char *path,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed record and safe twice. */
void moe_run_record_finish(struct moe_run_record *record);

#endif
