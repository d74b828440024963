/*
 * Import format "azure": arrivals of Azure's LLM inference traces (2023, 2024), CSV:
 *   TIMESTAMP,ContextTokens,GeneratedTokens
 * with timestamps YYYY-MM-DD hh:mm:ss[.fffffff] (the later ones with +00:00), ascending. The
 * first request arrives at 0.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/csv.h"
#include "traces/import.h"

struct azure {
    struct moe_csv csv;
};

static bool recognise(const struct moe_import_input *input)
{
    return input->file_count == 1 &&
           moe_import_file_begins(&input->files[0], "TIMESTAMP,ContextTokens,GeneratedTokens");
}

/* Days from 1970-01-01 of a date of the Gregorian calendar; months count from March, so that
 * the leap day is a year's last. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    const int64_t y = month <= 2 ? year - 1 : year;
    const int64_t m = month <= 2 ? month + 9 : month - 3;
    return y * 365 + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 719469;
}

/* `count` digits at *at, which moves behind them and over `after`. */
static bool take_digits(const char **at, size_t count, char after, int64_t *out)
{
    *out = 0;
    for (size_t i = 0; i < count; i++) {
        if (!isdigit((unsigned char) (*at)[i])) {
            return false;
        }
        *out = *out * 10 + ((*at)[i] - '0');
    }
    *at += count;
    if (after != '\0' && **at != after) {
        return false;
    }
    *at += after != '\0';
    return true;
}

/* Nanoseconds since 1970; false for another form. */
static bool read_time(const char *text, int64_t *out)
{
    int64_t year = 0;
    int64_t month = 0;
    int64_t day = 0;
    int64_t hour = 0;
    int64_t minute = 0;
    int64_t second = 0;
    int64_t fraction = 0;
    int64_t weight = 100000000;
    if (!take_digits(&text, 4, '-', &year) || !take_digits(&text, 2, '-', &month) ||
        !take_digits(&text, 2, ' ', &day) || !take_digits(&text, 2, ':', &hour) ||
        !take_digits(&text, 2, ':', &minute) || !take_digits(&text, 2, '\0', &second) ||
        year < 1970 || year > 2200 || month < 1 || month > 12 || day < 1 || day > 31 || hour > 23 ||
        minute > 59 || second > 60) {
        return false;
    }
    if (*text == '.') {
        for (text++; isdigit((unsigned char) *text); text++, weight /= 10) {
            fraction += weight * (*text - '0');
        }
    }
    *out = ((days_of(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    *out = *out * 1000000000 + fraction;
    return *text == '\0' || strcmp(text, "+00:00") == 0 || strcmp(text, "Z") == 0;
}

static void close_import(void *state)
{
    struct azure *import = state;
    if (import != NULL) {
        moe_csv_close(&import->csv);
        free(import);
    }
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct azure *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    if (input->file_count != 1) {
        return moe_fail(err, MOE_RANGE, "%zu files; one file of arrivals is expected",
                        input->file_count);
    }
    input->files[0].is_used = true;
    out->model.content = MOE_TRACE_ARRIVALS;
    (void) snprintf(out->record->engine, sizeof out->record->engine, "Azure");
    return moe_csv_open(&import->csv, input->files[0].path, err);
}

static enum moe_status read_request(const struct moe_csv *csv, int64_t *first, int64_t *last,
                                    struct moe_trace_request *out, struct moe_error *err)
{
    uint64_t prompt = 0;
    uint64_t output = 0;
    int64_t time = 0;
    if (csv->field_count != 3 || !read_time(csv->fields[0], &time)) {
        return moe_fail(err, MOE_PARSE,
                        "%s:%" PRIu64 ": '%.40s' and %zu fields; YYYY-MM-DD hh:mm:ss.fff and two "
                        "counts are expected",
                        csv->lines.path, csv->lines.number, csv->fields[0], csv->field_count);
    }
    MOE_TRY(moe_csv_whole(csv, 1, UINT32_MAX, &prompt, err));
    MOE_TRY(moe_csv_whole(csv, 2, UINT32_MAX, &output, err));
    *first = *first < 0 ? time : *first;
    if (time < *last || prompt == 0 || output == 0) {
        return moe_fail(
            err, MOE_RANGE, "%s:%" PRIu64 ": earlier than the line before, or no tokens: %s,%s,%s",
            csv->lines.path, csv->lines.number, csv->fields[0], csv->fields[1], csv->fields[2]);
    }
    *last = time;
    *out = (struct moe_trace_request){
        .arrival_ns = time - *first,
        .prompt_tokens = (uint32_t) prompt,
        .output_tokens = (uint32_t) output,
    };
    return MOE_OK;
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    struct azure *import = state;
    struct moe_trace_request request;
    int64_t first = -1;
    int64_t last = -1;
    bool got = false;
    MOE_TRY(moe_line_reader_rewind(&import->csv.lines, err));
    MOE_TRY(moe_csv_next(&import->csv, &got, err)); /* the header */
    if (!got || import->csv.field_count != 3 || strcmp(import->csv.fields[0], "TIMESTAMP") != 0) {
        return moe_fail(err, MOE_PARSE,
                        "%s:1: the header TIMESTAMP,ContextTokens,GeneratedTokens is expected",
                        import->csv.lines.path);
    }
    for (;;) {
        MOE_TRY(moe_csv_next(&import->csv, &got, err));
        if (!got) {
            return MOE_OK;
        }
        MOE_TRY(read_request(&import->csv, &first, &last, &request, err));
        MOE_TRY(sink->request(sink, &request, NULL, 0, err));
    }
}

const struct moe_import_format moe_import_azure = {
    .name = "azure",
    .summary = "arrivals: Azure's LLM inference traces, CSV",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};
