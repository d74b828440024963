/* moesim cal verify, merge, compare and plot: what is done with samples besides fitting. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/base/options.h"
#include "sim/calibration/fit_report.h"
#include "sim/calibration/fit_samples.h"
#include "sim/calibration/sample_compare.h"
#include "sim/calibration/sample_merge.h"
#include "sim/calibration/sample_plot.h"
#include "sim/calibration/sample_verify.h"
#include "sim/command/cal_command.h"
#include "sim/command/command.h"

enum { MERGE_LIMIT = 256 };

enum moe_status moe_cal_command_verify(int argc, char **argv, struct moe_error *err)
{
    const char *path = NULL;
    struct moe_sample_verification result;
    struct moe_positionals positionals = {
        .items = &path, .min = 1, .max = 1, .what = "a calibration"
    };
    uint32_t damaged = 0;
    if (moe_command_wants_help(argc, argv)) {
        (void) puts(
            "usage: moesim cal verify S.cal.db\n"
            "  Reads everything and repairs nothing. Exit code 2 when the file is damaged;\n"
            "  findings are true to the measurement but worth knowing.");
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(NULL, 0, &positionals, argc, argv, err));
    MOE_TRY(moe_sample_verify(&result, path, err));
    for (int i = 0; i < MOE_SAMPLE_CHECK_COUNT; i++) {
        const enum moe_sample_check check = (enum moe_sample_check) i;
        const struct moe_sample_verdict *verdict = &result.verdicts[check];
        const int is_damage = moe_sample_check_is_damage(check);
        (void) printf("%-8s %s\n",
                      verdict->count == 0 ? "ok"
                      : is_damage         ? "DAMAGED"
                                          : "finding",
                      verdict->count == 0 ? moe_sample_check_text(check)
                                          : moe_sample_check_broken(check));
        if (verdict->count > 0) {
            (void) printf("         found %u%s%s\n", verdict->count,
                          verdict->count == 1 ? ": " : ", the first: ", verdict->first.text);
        }
        damaged += verdict->count > 0 && is_damage ? 1 : 0;
    }
    if (result.samples > 0) {
        moe_fit_report_repeats(result.repeats, &result.all_repeats, false, stdout);
    }
    (void) printf("%u samples\n", result.samples);
    return damaged == 0 ? MOE_OK
                        : moe_fail(err, MOE_PARSE, "%s: %u of %d checks say damage", path, damaged,
                                   MOE_SAMPLE_CHECK_COUNT);
}

enum moe_status moe_cal_command_merge(int argc, char **argv, struct moe_error *err)
{
    const char *paths[MERGE_LIMIT];
    const char *output = NULL;
    bool overwrite = false;
    struct moe_sample_merge result;
    const struct moe_option options[] = {
        { "o", MOE_OPTION_TEXT, &output, "C.cal.db", "the file to write", 0, 0 },
        { "overwrite", MOE_OPTION_FLAG, &overwrite, NULL, "replace it when it exists", 0, 0 },
    };
    struct moe_positionals positionals = {
        .items = paths, .min = 2, .max = MERGE_LIMIT, .what = "a calibration"
    };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts(
            "usage: moesim cal merge A.cal.db B.cal.db ... -o C.cal.db\n"
            "  Unites the samples; `moesim fit C.cal.db` then makes the tables. A run that\n"
            "  is in several files is taken once.");
        moe_options_print(stdout, options, 2);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, 2, &positionals, argc, argv, err));
    if (output == NULL) {
        return moe_fail(err, MOE_RANGE, "-o: which file to write is not said");
    }
    MOE_TRY(moe_sample_merge(&result, paths, (uint32_t) positionals.count, output, overwrite, err));
    (void) printf("%s: %u runs (%u were there twice), %u GPUs, %u samples\n", output, result.runs,
                  result.duplicate, result.gpus, result.samples);
    if (result.untied > 0) {
        (void) printf("%u runs share no point with another: nothing ties their levels\n",
                      result.untied);
    }
    return MOE_OK;
}

/* The distinct values of one text of the runs, in order of appearance. */
static void join_runs(const struct moe_evidence *evidence, size_t offset, char *out, size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < evidence->run_count; i++) {
        const char *text = NULL;
        bool seen = false;
        memcpy(&text, (const char *) &evidence->runs[i] + offset, sizeof text);
        for (uint32_t k = 0; k < i && !seen; k++) {
            const char *before = NULL;
            memcpy(&before, (const char *) &evidence->runs[k] + offset, sizeof before);
            seen = strcmp(before, text) == 0;
        }
        if (!seen && used < size - 1) {
            used += (size_t) snprintf(out + used, size - used, "%s%s", used == 0 ? "" : ", ",
                                      text[0] == '\0' ? "-" : text);
        }
    }
}

/* The values of one key over the runs' settings, in order of appearance. */
static void join_values(const struct moe_evidence *evidence, const char *key, char *out,
                        size_t size)
{
    size_t used = 0;
    out[0] = '\0';
    for (uint32_t i = 0; i < evidence->run_count; i++) {
        char value[64] = "-";
        char found[66];
        json_t *settings = json_loads(evidence->runs[i].settings, 0, NULL);
        const json_t *item = json_object_get(settings, key);
        if (json_is_string(item)) {
            (void) snprintf(value, sizeof value, "%s", json_string_value(item));
        } else if (json_is_number(item)) {
            (void) snprintf(value, sizeof value, "%g", json_number_value(item));
        }
        json_decref(settings);
        (void) snprintf(found, sizeof found, "%s/", value);
        if (strstr(out, found) == NULL && used < size - 1) {
            used += (size_t) snprintf(out + used, size - used, "%s", found);
        }
    }
    out[strlen(out) - (used > 0 && used < size ? 1 : 0)] = '\0';
}

/* Settings that differ. Which GPUs there were stands above, and a plan's hash says nothing to
 * anybody. */
static void print_settings(const struct moe_evidence *a, const struct moe_evidence *b)
{
    const char *label = "settings";
    const char *name = NULL;
    json_t *value = NULL;
    json_t *all = json_object();
    for (uint32_t i = 0; i < a->run_count + b->run_count; i++) {
        json_t *settings = json_loads(
            i < a->run_count ? a->runs[i].settings : b->runs[i - a->run_count].settings, 0, NULL);
        (void) json_object_update(all, settings);
        json_decref(settings);
    }
    json_object_foreach(all, name, value)
    {
        char of_a[200];
        char of_b[200];
        join_values(a, name, of_a, sizeof of_a);
        join_values(b, name, of_b, sizeof of_b);
        if (strcmp(name, "plan") != 0 && !json_is_array(value) && strcmp(of_a, of_b) != 0) {
            (void) printf("%-9s %s: %s  ->  %s\n", label, name, of_a, of_b);
            label = "";
        }
    }
    if (label[0] != '\0') {
        (void) printf("%-9s the same\n", label);
    }
    json_decref(all);
}

static void print_change(const struct moe_evidence *a, const struct moe_evidence *b,
                         const char *name, size_t offset)
{
    char of_a[200];
    char of_b[200];
    join_runs(a, offset, of_a, sizeof of_a);
    join_runs(b, offset, of_b, sizeof of_b);
    (void) printf("%-9s %s%s%s\n", name, of_a, strcmp(of_a, of_b) == 0 ? " (both)" : "  ->  ",
                  strcmp(of_a, of_b) == 0 ? "" : of_b);
}

static void print_changes(const struct moe_evidence *a, const struct moe_evidence *b)
{
    uint32_t common = 0;
    for (uint32_t i = 0; i < a->gpu_count; i++) {
        for (uint32_t k = 0; k < b->gpu_count; k++) {
            common += strcmp(a->gpus[i].uuid, b->gpus[k].uuid) == 0 ? 1 : 0;
        }
    }
    (void) printf("GPUs      %u and %u, %u of them the same; power limit %.0f and %.0f W\n",
                  a->gpu_count, b->gpu_count, common, a->gpus[0].power_limit_w,
                  b->gpus[0].power_limit_w);
    print_change(a, b, "moecal", offsetof(struct moe_evidence_run, moecal));
    print_change(a, b, "driver", offsetof(struct moe_evidence_run, driver));
    print_change(a, b, "CUDA", offsetof(struct moe_evidence_run, cuda));
    print_change(a, b, "cuBLAS", offsetof(struct moe_evidence_run, cublas));
    print_change(a, b, "NCCL", offsetof(struct moe_evidence_run, nccl));
    print_settings(a, b);
}

static void print_comparison(const struct moe_sample_comparison *comparison)
{
    (void) printf("\n%-44s %6s %8s %17s %8s\n", "times of the second over the first", "points",
                  "ratio", "95 % interval", "p");
    for (uint32_t i = 0; i < comparison->count; i++) {
        const struct moe_sample_comparison_row *row = &comparison->rows[i];
        (void) printf("%s%-*s %6u %8.4f %8.4f %8.4f %8.2g%s\n", row->is_class ? "all " : "",
                      row->is_class ? 40 : 44, row->name, row->points, row->ratio, row->low,
                      row->high, row->p,
                      !row->significant  ? ""
                      : row->ratio > 1.0 ? "  slower"
                                         : "  faster");
    }
    (void) printf("points that only one has: %u and %u\n", comparison->only_first,
                  comparison->only_second);
}

static enum moe_status compare(const struct moe_evidence *a, const struct moe_evidence *b,
                               struct moe_error *err)
{
    struct moe_arena arena;
    struct moe_sample_comparison comparison;
    MOE_TRY(moe_arena_init(&arena, moe_sample_fit_bytes(a) + moe_sample_fit_bytes(b), err));
    const enum moe_status status = moe_sample_compare(&comparison, a, b, &arena, err);
    if (status == MOE_OK) {
        print_changes(a, b);
        print_comparison(&comparison);
    }
    moe_arena_finish(&arena);
    return status;
}

enum moe_status moe_cal_command_compare(int argc, char **argv, struct moe_error *err)
{
    const char *paths[2] = { NULL, NULL };
    struct moe_evidence evidence[2] = { { 0 }, { 0 } };
    struct moe_positionals positionals = {
        .items = paths, .min = 2, .max = 2, .what = "a calibration"
    };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim cal compare A.cal.db B.cal.db\n"
                    "  Ratio of times per series and kind over the points that both have, and\n"
                    "  which of them are significant (sign test, Holm, 5 %).");
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(NULL, 0, &positionals, argc, argv, err));
    enum moe_status status = moe_evidence_load(&evidence[0], paths[0], err);
    if (status == MOE_OK) {
        status = moe_evidence_load(&evidence[1], paths[1], err);
    }
    if (status == MOE_OK) {
        status = compare(&evidence[0], &evidence[1], err);
    }
    moe_evidence_finish(&evidence[0]);
    moe_evidence_finish(&evidence[1]);
    return status;
}

static enum moe_status plot(const struct moe_evidence *evidence, const char *series,
                            uint32_t active, uint32_t width, uint32_t height, struct moe_error *err)
{
    const struct moe_sample_fit_options options = { 0 };
    const struct moe_calibration *base = NULL;
    struct moe_arena arena;
    struct moe_sample_fit fit;
    MOE_TRY(moe_arena_init(&arena, moe_sample_fit_bytes(evidence), err));
    enum moe_status status = moe_calibration_load(&base, "builtin", &arena, err);
    if (status == MOE_OK) {
        status = moe_sample_fit_make(&fit, evidence, base, &options, &arena, err);
    }
    if (status == MOE_OK) {
        status = moe_sample_plot(&fit, series, active, width, height, stdout, err);
    }
    moe_arena_finish(&arena);
    return status;
}

enum moe_status moe_cal_command_plot(int argc, char **argv, struct moe_error *err)
{
    const char *items[2] = { NULL, NULL };
    uint32_t width = 72;
    uint32_t height = 21;
    uint32_t active = 0;
    struct moe_evidence evidence;
    const struct moe_option options[] = {
        { "width", MOE_OPTION_COUNT, &width, "N", "characters across", 40, 400 },
        { "height", MOE_OPTION_COUNT, &height, "N", "lines", 5, 200 },
        { "active", MOE_OPTION_COUNT, &active, "N",
          "points with so many active experts (without: those that are most)", 1, 65536 },
    };
    const size_t option_count = sizeof options / sizeof options[0];
    struct moe_positionals positionals = {
        .items = items, .min = 2, .max = 2, .what = "a calibration"
    };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim cal plot S.cal.db SERIES [--width N] [--height N] [--active N]");
        moe_options_print(stdout, options, option_count);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, option_count, &positionals, argc, argv, err));
    MOE_TRY(moe_evidence_load(&evidence, items[0], err));
    const enum moe_status status = plot(&evidence, items[1], active, width, height, err);
    moe_evidence_finish(&evidence);
    return status;
}
