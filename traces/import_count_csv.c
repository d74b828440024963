/*
 * Import format "count_csv": wide tables of counts, a row for each step and layer, a column for
 * each expert, after some key columns:
 *   HarMoEny   ,dataset,iteration,layer_idx,0,1,...   tokens of each expert
 *   Qwen3      Layer,Language,Expert_0,Expert_1,...   share of tokens whose top-k holds it
 * Expert columns are those named N or Expert_N, from 0 on, at the end. Of the key columns,
 * layer, layer_idx and layer_id hold the engine's layer; iteration and step the step; every
 * other one with a name tells domains apart. Rows stand in any order. Tables of tokens per GPU
 * (key scheduling_policy) look the same and are refused.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "traces/csv.h"
#include "traces/load_gather.h"

enum { KEY_LIMIT = 16, NAME_BYTES = 32, NO_COLUMN = -1 };

struct count_csv {
    const char *path;
    struct moe_csv csv;
    struct moe_load_gather gather;
    int layer_column;
    int step_column;
    size_t key_count; /* columns before the experts' */
    char keys[KEY_LIMIT][NAME_BYTES];
};

/* Number of an expert column, or -1. */
static int64_t expert_of(const char *name)
{
    if (strncmp(name, "Expert_", 7) == 0) {
        name += 7;
    }
    size_t digits = 0;
    int64_t value = 0;
    for (; isdigit((unsigned char) name[digits]) && digits < 7; digits++) {
        value = value * 10 + (name[digits] - '0');
    }
    return digits > 0 && name[digits] == '\0' ? value : -1;
}

static bool is_one_of(const char *name, const char *const *names)
{
    while (*names != NULL && strcasecmp(name, *names) != 0) {
        names++;
    }
    return *names != NULL;
}

static enum moe_status read_header(struct count_csv *import, struct moe_error *err)
{
    static const char *const layers[] = { "layer", "layer_idx", "layer_id", NULL };
    static const char *const steps[] = { "iteration", "step", NULL };
    struct moe_csv *csv = &import->csv;
    bool got = false;
    MOE_TRY(moe_line_reader_rewind(&csv->lines, err));
    MOE_TRY(moe_csv_next(csv, &got, err));
    import->layer_column = NO_COLUMN;
    import->step_column = NO_COLUMN;
    import->key_count = 0;
    for (size_t i = 0; got && i < csv->field_count; i++) {
        const char *name = csv->fields[i];
        if (expert_of(name) >= 0) {
            break;
        }
        if (strcmp(name, "scheduling_policy") == 0) {
            return moe_fail(
                err, MOE_PARSE,
                "%s:1: the column scheduling_policy: a table of tokens per GPU, not per "
                "expert",
                import->path);
        }
        if (i == KEY_LIMIT) {
            return moe_fail(err, MOE_RANGE, "%s:1: more than %d key columns", import->path,
                            KEY_LIMIT);
        }
        (void) snprintf(import->keys[i], NAME_BYTES, "%.31s", name);
        import->layer_column = is_one_of(name, layers) ? (int) i : import->layer_column;
        import->step_column = is_one_of(name, steps) ? (int) i : import->step_column;
        import->key_count = i + 1;
    }
    const size_t count = csv->field_count - import->key_count;
    for (size_t i = 0; i < count; i++) {
        if (expert_of(csv->fields[import->key_count + i]) != (int64_t) i) {
            return moe_fail(err, MOE_PARSE, "%s:1: column %zu is '%.40s'; expert %zu is expected",
                            import->path, import->key_count + i + 1,
                            csv->fields[import->key_count + i], i);
        }
    }
    if (!got || import->layer_column == NO_COLUMN || count == 0) {
        return moe_fail(err, MOE_PARSE, "%s:1: no column of layers, or none of experts",
                        import->path);
    }
    import->gather.expert_count = (uint32_t) count;
    return MOE_OK;
}

/* Texts of the columns that tell domains apart, joined. The column without a name is pandas'
 * row number. */
static enum moe_status find_domain(struct count_csv *import, const char *place, uint32_t *out,
                                   struct moe_error *err)
{
    char text[128] = "";
    size_t used = 0;
    for (size_t i = 0; i < import->key_count && used < sizeof text; i++) {
        if ((int) i != import->layer_column && (int) i != import->step_column &&
            import->keys[i][0] != '\0') {
            used += (size_t) snprintf(text + used, sizeof text - used, "%s%s", used == 0 ? "" : "/",
                                      import->csv.fields[i]);
        }
    }
    return moe_load_gather_domain(&import->gather, used == 0 ? "all" : text, place, out, err);
}

static enum moe_status read_row(struct count_csv *import, struct moe_error *err)
{
    const struct moe_csv *csv = &import->csv;
    const size_t expected = import->key_count + import->gather.expert_count;
    struct moe_load_row row = { .step = -1, .rank = MOE_TRACE_ALL_RANKS };
    char place[4200];
    double *counts = NULL;
    uint64_t layer = 0;
    uint64_t step = 0;
    (void) snprintf(place, sizeof place, "%s:%" PRIu64, import->path, csv->lines.number);
    if (csv->field_count != expected) {
        return moe_fail(err, MOE_PARSE, "%s: %zu fields; the header has %zu", place,
                        csv->field_count, expected);
    }
    MOE_TRY(moe_csv_whole(csv, (size_t) import->layer_column, MOE_LOAD_GATHER_LAYER_END - 1, &layer,
                          err));
    row.layer = (uint32_t) layer;
    if (import->step_column != NO_COLUMN) {
        MOE_TRY(moe_csv_whole(csv, (size_t) import->step_column, INT64_MAX, &step, err));
        row.step = (int64_t) step;
    }
    MOE_TRY(find_domain(import, place, &row.domain, err));
    MOE_TRY(moe_load_gather_take(&import->gather, &row, place, &counts, err));
    for (uint32_t i = 0; counts != NULL && i < import->gather.expert_count; i++) {
        MOE_TRY(
            moe_csv_real(csv, import->key_count + i, 0.0, MOE_TRACE_COUNT_LIMIT, &counts[i], err));
    }
    return MOE_OK;
}

static enum moe_status read_all(struct count_csv *import, struct moe_error *err)
{
    bool got = true;
    MOE_TRY(read_header(import, err));
    for (;;) {
        MOE_TRY(moe_csv_next(&import->csv, &got, err));
        if (!got) {
            return MOE_OK;
        }
        MOE_TRY(read_row(import, err));
    }
}

static bool recognise(const struct moe_import_input *input)
{
    struct count_csv *import = NULL;
    struct moe_error err;
    bool found = false;
    if (input->file_count != 1 || !moe_import_file_ends(&input->files[0], ".csv")) {
        return false;
    }
    import = calloc(1, sizeof *import);
    if (import != NULL && moe_csv_open(&import->csv, input->files[0].path, NULL) == MOE_OK) {
        import->path = input->files[0].path;
        /* Also tables per GPU: what is wrong with them is said better when it is opened. */
        found = read_header(import, &err) == MOE_OK || strstr(err.text, "per GPU") != NULL;
        moe_csv_close(&import->csv);
    }
    free(import);
    return found;
}

static void close_import(void *state)
{
    struct count_csv *import = state;
    if (import != NULL) {
        moe_csv_close(&import->csv);
        moe_load_gather_finish(&import->gather);
        free(import);
    }
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    struct count_csv *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    if (input->file_count != 1) {
        return moe_fail(err, MOE_RANGE, "%zu files; one table is expected", input->file_count);
    }
    input->files[0].is_used = true;
    import->path = input->files[0].path;
    MOE_TRY(moe_csv_open(&import->csv, import->path, err));
    MOE_TRY(read_all(import, err));
    MOE_TRY(moe_load_gather_turn(&import->gather, import->path, err));
    MOE_TRY(read_all(import, err));
    return moe_load_gather_describe(&import->gather, import->path, out, err);
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    const struct count_csv *import = state;
    return moe_load_gather_feed(&import->gather, sink, err);
}

const struct moe_import_format moe_import_count_csv = {
    .name = "count_csv",
    .summary = "tables of counts, a column for each expert (HarMoEny, Qwen3)",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};
