#include "traces/csv.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum moe_status moe_csv_open(struct moe_csv *csv, const char *path, struct moe_error *err)
{
    csv->field_count = 0;
    return moe_line_reader_open(&csv->lines, path, err);
}

enum moe_status moe_csv_open_memory(struct moe_csv *csv, const char *name, const void *bytes,
                                    size_t size, struct moe_error *err)
{
    csv->field_count = 0;
    return moe_line_reader_open_memory(&csv->lines, name, bytes, size, err);
}

void moe_csv_close(struct moe_csv *csv)
{
    moe_line_reader_close(&csv->lines);
}

/* Takes the quotes of a field away, in place. *at stands behind the first quote; moves behind
 * the last one. */
static bool unquote(char **at)
{
    char *to = *at;
    for (char *from = *at; *from != '\0'; from++) {
        if (*from == '"' && from[1] == '"') {
            from++;
        } else if (*from == '"') {
            *at = from + 1;
            *to = '\0';
            return true;
        }
        *to++ = *from;
    }
    return false;
}

static enum moe_status split(struct moe_csv *csv, struct moe_error *err)
{
    char *at = csv->lines.line;
    csv->field_count = 0;
    for (;;) {
        if (csv->field_count == MOE_CSV_FIELD_LIMIT) {
            return moe_fail(err, MOE_RANGE, "%s:%" PRIu64 ": more than %d fields", csv->lines.path,
                            csv->lines.number, MOE_CSV_FIELD_LIMIT);
        }
        const size_t number = csv->field_count + 1;
        if (*at == '"') {
            csv->fields[csv->field_count++] = ++at;
            if (!unquote(&at) || (*at != ',' && *at != '\0')) {
                return moe_fail(err, MOE_PARSE,
                                "%s:%" PRIu64
                                ": field %zu: a quote does not end, or text follows it",
                                csv->lines.path, csv->lines.number, number);
            }
        } else {
            csv->fields[csv->field_count++] = at;
            at += strcspn(at, ",\"");
            if (*at == '"') {
                return moe_fail(err, MOE_PARSE, "%s:%" PRIu64 ": field %zu: a quote inside of it",
                                csv->lines.path, csv->lines.number, number);
            }
        }
        if (*at == '\0') {
            return MOE_OK;
        }
        *at++ = '\0';
    }
}

enum moe_status moe_csv_next(struct moe_csv *csv, bool *got, struct moe_error *err)
{
    do {
        MOE_TRY(moe_line_reader_next(&csv->lines, got, err));
    } while (*got && csv->lines.length == 0);
    return *got ? split(csv, err) : MOE_OK;
}

enum moe_status moe_csv_real(const struct moe_csv *csv, size_t index, double min, double max,
                             double *out, struct moe_error *err)
{
    const char *text = index < csv->field_count ? csv->fields[index] : "";
    char *end = NULL;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value) || strpbrk(text, "xXpP ") != NULL) {
        return moe_fail(err, MOE_PARSE,
                        "%s:%" PRIu64 ": field %zu is '%.40s'; a number is expected",
                        csv->lines.path, csv->lines.number, index + 1, text);
    }
    if (value < min || value > max) {
        return moe_fail(err, MOE_RANGE, "%s:%" PRIu64 ": field %zu is %.40s; %g to %g is allowed",
                        csv->lines.path, csv->lines.number, index + 1, text, min, max);
    }
    *out = value;
    return MOE_OK;
}

enum moe_status moe_csv_whole(const struct moe_csv *csv, size_t index, uint64_t max, uint64_t *out,
                              struct moe_error *err)
{
    const char *text = index < csv->field_count ? csv->fields[index] : "";
    uint64_t value = 0;
    size_t digits = 0;
    for (; text[digits] >= '0' && text[digits] <= '9' && digits < 19; digits++) {
        value = value * 10 + (uint64_t) (text[digits] - '0');
    }
    if (digits == 0 || text[digits] != '\0' || value > max) {
        return moe_fail(err, MOE_PARSE,
                        "%s:%" PRIu64 ": field %zu is '%.40s'; a whole number from 0 to %" PRIu64
                        " is expected",
                        csv->lines.path, csv->lines.number, index + 1, text, max);
    }
    *out = value;
    return MOE_OK;
}
