/*
 * CSV: records of comma-separated fields, quoted where needed (RFC 4180; a quoted field ends on
 * its line). Fields point into the record until the next one is read.
 */
#ifndef MOE_TRACES_CSV_H
#define MOE_TRACES_CSV_H

#include "traces/line_reader.h"

enum { MOE_CSV_FIELD_LIMIT = 4096 };

struct moe_csv {
    struct moe_line_reader lines;
    size_t field_count;
    char *fields[MOE_CSV_FIELD_LIMIT]; /* quotes taken away */
};

enum moe_status moe_csv_open(struct moe_csv *csv, const char *path,
                             struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_csv_open_memory(struct moe_csv *csv, const char *name, const void *bytes,
                                    size_t size, struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_csv_close(struct moe_csv *csv);

/* The next record that is no empty line; *got is false at the end. Errors: MOE_IO; MOE_PARSE
 * naming line and field for a quote that does not end or stands inside of a field; MOE_RANGE for
 * more fields than MOE_CSV_FIELD_LIMIT. */
enum moe_status moe_csv_next(struct moe_csv *csv, bool *got, struct moe_error *err) MOE_MUST_CHECK;

/* Field `index` as a number; the whole of it. Errors: MOE_PARSE for what is none, or infinite,
 * MOE_RANGE outside of min .. max; both name line, field and text. */
enum moe_status moe_csv_real(const struct moe_csv *csv, size_t index, double min, double max,
                             double *out, struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_csv_whole(const struct moe_csv *csv, size_t index, uint64_t max, uint64_t *out,
                              struct moe_error *err) MOE_MUST_CHECK;

#endif
