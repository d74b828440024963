/*
 * Import format "harmoeny_raw": HarMoEny's raw traces, a folder RANK/moe_layer-LAYER.csv per
 * source rank, one row per iteration, whose last field "expert distribution" is a quoted list
 * of the tokens that this rank sent to each expert. Other files of the folder are not read.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/csv.h"
#include "traces/load_gather.h"

struct harmoeny {
    struct moe_load_gather gather;
    struct moe_import_input *input;
};

/* Rank and layer of a file, from the end of its path; false when it is another one. */
static bool split_path(const char *path, int32_t *rank, int32_t *layer)
{
    const char *file = strrchr(path, '/');
    char folder[64];
    *layer = moe_import_file_number(path, "moe_layer-", ".csv");
    if (file == NULL || *layer < 0) {
        return false;
    }
    const char *begin = file;
    while (begin > path && begin[-1] != '/') {
        begin--;
    }
    (void) snprintf(folder, sizeof folder, "%.*s", (int) (file - begin < 60 ? file - begin : 60),
                    begin);
    *rank = moe_import_file_number(folder, "", "");
    return *rank >= 0 && strspn(folder, "0123456789") == strlen(folder);
}

static bool recognise(const struct moe_import_input *input)
{
    for (size_t i = 0; i < input->file_count; i++) {
        int32_t rank = 0;
        int32_t layer = 0;
        if (split_path(input->files[i].path, &rank, &layer) &&
            moe_import_file_has(&input->files[i], "expert distribution")) {
            return true;
        }
    }
    return false;
}

/* "[12, 166, ...]" into counts[count]; with counts NULL only counted into *found. */
static enum moe_status read_list(const char *text, const char *place, double *counts,
                                 uint32_t *found, struct moe_error *err)
{
    const char *at = text + strspn(text, " ");
    *found = 0;
    if (*at != '[') {
        return moe_fail(err, MOE_PARSE, "%s: '%.30s' is no list of counts", place, text);
    }
    do {
        char *end = NULL;
        at++;
        const unsigned long long value = strtoull(at, &end, 10);
        if (end == at || strchr("-+", at[strspn(at, " ")]) != NULL || value > UINT32_MAX ||
            *found == MOE_TRACE_EXPERT_LIMIT) {
            return moe_fail(err, MOE_PARSE, "%s: '%.20s' (item %u) is no count", place, at, *found);
        }
        if (counts != NULL) {
            counts[*found] = (double) value;
        }
        (*found)++;
        at = end + strspn(end, " ");
    } while (*at == ',');
    return at[0] == ']' && at[1 + strspn(at + 1, " ")] == '\0'
               ? MOE_OK
               : moe_fail(err, MOE_PARSE, "%s: the list of counts does not end with ]", place);
}

static enum moe_status read_row(struct harmoeny *import, const struct moe_csv *csv, int32_t rank,
                                int32_t layer, struct moe_error *err)
{
    struct moe_load_gather *gather = &import->gather;
    char place[4200];
    uint64_t iteration = 0;
    uint32_t count = 0;
    double *counts = NULL;
    const char *list = csv->fields[csv->field_count - 1];
    (void) snprintf(place, sizeof place, "%s:%" PRIu64, csv->lines.path, csv->lines.number);
    MOE_TRY(moe_csv_whole(csv, 0, INT64_MAX, &iteration, err));
    MOE_TRY(read_list(list, place, NULL, &count, err));
    gather->expert_count = gather->expert_count == 0 ? count : gather->expert_count;
    if (count != gather->expert_count) {
        return moe_fail(err, MOE_PARSE, "%s: %u experts; the rows before have %u", place, count,
                        gather->expert_count);
    }
    const struct moe_load_row row = { (int64_t) iteration, rank, 0, (uint32_t) layer };
    MOE_TRY(moe_load_gather_take(gather, &row, place, &counts, err));
    return counts == NULL ? MOE_OK : read_list(list, place, counts, &count, err);
}

static enum moe_status read_file(struct harmoeny *import, const char *path, int32_t rank,
                                 int32_t layer, struct moe_error *err)
{
    struct moe_csv *csv = calloc(1, sizeof *csv);
    bool got = false;
    if (csv == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", path);
    }
    enum moe_status status = moe_csv_open(csv, path, err);
    if (status == MOE_OK) {
        status = moe_csv_next(csv, &got, err);
    }
    if (status == MOE_OK &&
        (!got || strcmp(csv->fields[csv->field_count - 1], "expert distribution") != 0)) {
        status =
            moe_fail(err, MOE_PARSE, "%s:1: the last column is no \"expert distribution\"", path);
    }
    while (status == MOE_OK && got) {
        status = moe_csv_next(csv, &got, err);
        if (status == MOE_OK && got) {
            status = read_row(import, csv, rank, layer, err);
        }
    }
    moe_csv_close(csv);
    free(csv);
    return status;
}

static enum moe_status read_all(struct harmoeny *import, struct moe_error *err)
{
    for (size_t i = 0; i < import->input->file_count; i++) {
        struct moe_import_file *file = &import->input->files[i];
        int32_t rank = 0;
        int32_t layer = 0;
        if (split_path(file->path, &rank, &layer)) {
            file->is_used = true;
            MOE_TRY(read_file(import, file->path, rank, layer, err));
        }
    }
    return MOE_OK;
}

static void close_import(void *state)
{
    struct harmoeny *import = state;
    if (import != NULL) {
        moe_load_gather_finish(&import->gather);
        free(import);
    }
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct harmoeny *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    import->input = input;
    MOE_TRY(read_all(import, err));
    MOE_TRY(moe_load_gather_turn(&import->gather, input->paths[0], err));
    MOE_TRY(read_all(import, err));
    (void) snprintf(out->record->engine, sizeof out->record->engine, "HarMoEny");
    return moe_load_gather_describe(&import->gather, input->paths[0], out, err);
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    const struct harmoeny *import = state;
    return moe_load_gather_feed(&import->gather, sink, err);
}

const struct moe_import_format moe_import_harmoeny_raw = {
    .name = "harmoeny_raw",
    .summary = "HarMoEny's raw traces: a folder of RANK/moe_layer-N.csv",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};
