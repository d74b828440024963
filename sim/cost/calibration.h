/*
 * Calibration: what was measured, published or assumed about the GPUs that a run
 * simulates. A SQLite file (cal.db) that every run reads: moecal puts samples into it (tables
 * sample_*, which a run does not look at), `moesim fit` makes the tables below from them, and
 * `moesim cal import` makes them of other sources. The table that ships inside the program is
 * a CSV imported into memory through the same path. Files of version 1 lack the last tables.
 *
 * The tables, their columns, units and ranges stand in calibration_tables.def. Every row
 * says where it comes from (provenance) and by which source. Reading checks every cell,
 * every reference between tables, and that no figure is faster than the hardware.
 */
#ifndef MOE_SIM_COST_CALIBRATION_H
#define MOE_SIM_COST_CALIBRATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sim/base/arena.h"
#include "sim/base/database.h"
#include "sim/base/error.h"
#include "sim/cost/cost.h"

/* struct moe_calibration_point and so on: one row of each table. */
#define MOE_TABLE(table)            struct moe_calibration_##table {
#define MOE_TEXT(column, bytes)     const char *column;
#define MOE_REAL(column, min, max)  double column;
#define MOE_MAYBE(column, min, max) double column;
#define MOE_COUNT(column, min, max) uint32_t column;
#define MOE_CHOICE(column, names)   uint32_t column;
#define MOE_END(table, ...)         \
    enum moe_provenance provenance; \
    const char *source;             \
    }                               \
    ;
#include "sim/cost/calibration_tables.def"
#undef MOE_TABLE
#undef MOE_TEXT
#undef MOE_REAL
#undef MOE_MAYBE
#undef MOE_COUNT
#undef MOE_CHOICE
#undef MOE_END

/* The values of the choice columns, in the order of their names. */
enum moe_series_op { MOE_SERIES_EXPERT, MOE_SERIES_GEMM };
enum moe_dtype { MOE_DTYPE_BF16, MOE_DTYPE_FP8, MOE_DTYPE_FP4, MOE_DTYPE_COUNT };
enum moe_segment_op {
    MOE_SEGMENT_ALL_TO_ALL,
    MOE_SEGMENT_DISPATCH,
    MOE_SEGMENT_COMBINE,
    MOE_SEGMENT_ALL_GATHER,
    MOE_SEGMENT_REDUCE_SCATTER,
    MOE_SEGMENT_ALL_REDUCE,
    MOE_SEGMENT_P2P,
    MOE_SEGMENT_P2P_BOTH,
    MOE_SEGMENT_PEER_COPY,
    MOE_SEGMENT_HOST_TO_DEVICE,
    MOE_SEGMENT_OP_COUNT
};
enum moe_link { MOE_LINK_NEAR, MOE_LINK_FAR, MOE_LINK_COUNT };
enum moe_decode_kind { MOE_DECODE_GQA, MOE_DECODE_MLA };
enum moe_fit_status { MOE_FIT_CALIBRATED, MOE_FIT_MISSED, MOE_FIT_UNCHECKED };
enum moe_fit_points { MOE_FIT_HELDOUT, MOE_FIT_SKEW };
enum moe_factor_class { MOE_FACTOR_COMPUTE, MOE_FACTOR_MEMORY, MOE_FACTOR_COMM, MOE_FACTOR_COUNT };

/* Those up to MOE_PARAMETER_NEEDED every GPU kind must have. */
enum moe_parameter {
#define MOE_PARAMETER(constant, name, min, max)       MOE_PARAMETER_##constant,
#define MOE_PARAMETER_MAYBE(constant, name, min, max) MOE_PARAMETER_##constant,
#include "sim/cost/calibration_parameters.def"
#undef MOE_PARAMETER
#undef MOE_PARAMETER_MAYBE
    MOE_PARAMETER_COUNT,
    MOE_PARAMETER_NEEDED = MOE_PARAMETER_MLA_BYTES_S
};

const char *moe_parameter_name(enum moe_parameter parameter);
const char *moe_dtype_name(enum moe_dtype dtype);
const char *moe_segment_op_name(enum moe_segment_op op);

/* The whole of a file, in the order of its rows. Lives in the arena it was read into. */
/* Pointers first and counts after them: a pair per table would be a third padding. */
struct moe_calibration {
    const char *name; /* the path, or "builtin" */
#define MOE_TEXT(column, bytes)
#define MOE_REAL(column, min, max)
#define MOE_MAYBE(column, min, max)
#define MOE_COUNT(column, min, max)
#define MOE_CHOICE(column, names)
#define MOE_END(table, ...)
#define MOE_TABLE(table) const struct moe_calibration_##table *table##_rows;
#include "sim/cost/calibration_tables.def"
#undef MOE_TABLE
#define MOE_TABLE(table) uint32_t table##_count;
#include "sim/cost/calibration_tables.def"
#undef MOE_TABLE
#undef MOE_TEXT
#undef MOE_REAL
#undef MOE_MAYBE
#undef MOE_COUNT
#undef MOE_CHOICE
#undef MOE_END
};

extern const struct moe_database_kind moe_calibration_database;

/* Reads a cal.db; path "" or "builtin" is the table that ships with the program.
 * Errors: as moe_database_open; MOE_RANGE naming file, table, row, column, value and what
 * is allowed, or that the file holds samples which nobody has fitted; MOE_LIMIT when the arena
 * is full (1 MiB is ample for the built-in table). */
enum moe_status moe_calibration_load(const struct moe_calibration **out, const char *path,
                                     struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* The same from an open database, whatever wrote it; name stands in errors. */
enum moe_status moe_calibration_read(const struct moe_calibration **out, struct moe_database *db,
                                     const char *name, struct moe_arena *arena,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Whether every series must have a row in table fit: only `moesim cal fit`, which makes
 * those rows, does without. */
enum moe_calibration_state { MOE_CALIBRATION_FITTED, MOE_CALIBRATION_UNFITTED };

/* The same from the text of a CSV table (calibration_csv.h), or from such a file. */
enum moe_status moe_calibration_parse(const struct moe_calibration **out, const char *text,
                                      size_t text_bytes, const char *name,
                                      enum moe_calibration_state state, struct moe_arena *arena,
                                      struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_calibration_parse_file(const struct moe_calibration **out, const char *csv_path,
                                           enum moe_calibration_state state,
                                           struct moe_arena *arena,
                                           struct moe_error *err) MOE_MUST_CHECK;

/* Writes db_path from a CSV table, all of it or nothing. An existing file is refused, or
 * with overwrite replaced at the end in one step.
 * Errors: MOE_IO; MOE_RANGE for an existing file; those of moe_calibration_parse. */
enum moe_status moe_calibration_import(const char *csv_path, const char *db_path, bool overwrite,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* Rows of all tables by provenance: counts[MOE_PROVENANCE_COUNT]. */
void moe_calibration_count(const struct moe_calibration *calibration, uint32_t *counts);

/* NULL when there is none. */
const struct moe_calibration_gpu_kind *
moe_calibration_find_kind(const struct moe_calibration *calibration, const char *name);
const struct moe_calibration_fit *
moe_calibration_find_fit(const struct moe_calibration *calibration, const char *series);
const struct moe_calibration_fullest *
moe_calibration_find_fullest(const struct moe_calibration *calibration, const char *series);

const struct moe_calibration_decode *
moe_calibration_find_decode(const struct moe_calibration *calibration, const char *series);

/* Bytes of a token's keys and values, bf16, of a series of table decode. */
double moe_calibration_decode_bytes(const struct moe_calibration_decode *decode);

/* Weights of the unit that a series counts as active (an expert, a matrix): 0 when
 * generic. Bytes as stored: 2, 1 and 0.53125 (mxfp4 with its scales) per weight. */
double moe_calibration_series_weights(const struct moe_calibration_series *series);
double moe_dtype_bytes(enum moe_dtype dtype);

#endif
