/*
 * Calibration table as CSV: what a person writes, reads and extends.
 *
 *   # a comment line
 *   table,point,series,tokens,active,median_ns,provenance,source
 *   point,deepseek-v3-fp8,1,32,358000,published,"TensorRT-LLM 1.3.0rc20, EP8"
 *
 * A line that begins with `table` names a table of calibration_tables.def and its columns,
 * in any order, each once; all but the quantiles of a point must be there. The rows after it
 * begin with the table's name. Fields are separated by commas, blanks around them do not
 * count, and a field in double quotes may hold commas and doubled quotes, but no line end.
 * Tables may come in any order and again; empty lines and lines that begin with # are
 * skipped. Lines end in LF or CRLF.
 */
#ifndef MOE_SIM_COST_CALIBRATION_CSV_H
#define MOE_SIM_COST_CALIBRATION_CSV_H

#include <stddef.h>

#include "sim/base/database.h"
#include "sim/base/error.h"

enum { MOE_CALIBRATION_CSV_BYTES = 16 << 20 };

/* Inserts every row of text[text_bytes] into an open calibration, in one transaction of its
 * own: all rows or none. name stands in errors, which read "NAME:LINE:COLUMN: ..."; both count
 * from 1, COLUMN in bytes.
 * Errors: MOE_PARSE (syntax), MOE_RANGE (a value, a column, a table, a duplicate row),
 * MOE_LIMIT (over 16 MiB, no memory), MOE_IO from the database. */
enum moe_status moe_calibration_csv_read(struct moe_database *db, const char *text,
                                         size_t text_bytes, const char *name,
                                         struct moe_error *err) MOE_MUST_CHECK;

#endif
