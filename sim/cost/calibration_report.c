#include "sim/cost/calibration_report.h"

#include <jansson.h>
#include <string.h>

#include "sim/cost/calibration_schema.h"
#include "sim/cost/fit.h"

static const void *rows_of(const struct moe_calibration *calibration, const struct moe_table *table)
{
    const char *base = (const char *) calibration;
    return *(const void *const *) (const void *) (base + table->rows_offset);
}

static uint32_t count_of(const struct moe_calibration *calibration, const struct moe_table *table)
{
    const char *base = (const char *) calibration;
    return *(const uint32_t *) (const void *) (base + table->count_offset);
}

/* The index-th of names separated by blanks. */
static size_t choice_name(const char *choices, uint32_t index, const char **name)
{
    for (; index > 0; index--) {
        choices += strcspn(choices, " ") + 1;
    }
    *name = choices;
    return strcspn(choices, " ");
}

static json_t *cell_json(const char *row, const struct moe_column *column)
{
    const void *at = row + column->offset;
    const char *name = NULL;
    size_t bytes = 0;
    switch (column->kind) {
    case MOE_COLUMN_TEXT:
        return json_string(*(const char *const *) at);
    case MOE_COLUMN_REAL:
        return json_real(*(const double *) at);
    case MOE_COLUMN_MAYBE:
        return *(const double *) at == 0.0 ? json_null() : json_real(*(const double *) at);
    case MOE_COLUMN_COUNT:
        return json_integer(*(const uint32_t *) at);
    case MOE_COLUMN_CHOICE:
        bytes = choice_name(column->choices, *(const uint32_t *) at, &name);
        break;
    }
    return json_stringn(name, bytes);
}

static json_t *table_json(const struct moe_calibration *calibration, const struct moe_table *table)
{
    const char *row = rows_of(calibration, table);
    json_t *array = json_array();
    for (uint32_t i = 0; i < count_of(calibration, table); i++, row += table->row_bytes) {
        json_t *object = json_object();
        for (uint32_t c = 0; c < table->column_count; c++) {
            (void) json_object_set_new(object, table->columns[c].name,
                                       cell_json(row, &table->columns[c]));
        }
        (void) json_array_append_new(array, object);
    }
    return array;
}

/* How well each fit meets its points before the correction. */
static struct moe_fit_result fit_result(const struct moe_calibration *calibration,
                                        const struct moe_calibration_series *series)
{
    struct moe_fit_result result = { .fit = *moe_calibration_find_fit(calibration, series->name) };
    moe_fit_errors(&result, calibration, series);
    return result;
}

enum moe_status moe_calibration_report_json(const struct moe_calibration *calibration, FILE *out,
                                            struct moe_error *err)
{
    uint32_t counts[MOE_PROVENANCE_COUNT];
    json_t *facts = json_object();
    json_t *root =
        json_pack("{s:s, s:s}", "schema", "moesim.calibration/1", "name", calibration->name);
    moe_calibration_count(calibration, counts);
    for (uint32_t i = 0; i < MOE_PROVENANCE_COUNT; i++) {
        (void) json_object_set_new(facts, moe_provenance_name(i), json_integer(counts[i]));
    }
    (void) json_object_set_new(root, "facts", facts);
    for (uint32_t i = 0; i < MOE_TABLE_COUNT; i++) {
        const struct moe_table *table = moe_calibration_table(i);
        (void) json_object_set_new(root, table->name, table_json(calibration, table));
    }
    json_t *series = json_object_get(root, "series");
    for (uint32_t i = 0; i < calibration->series_count; i++) {
        const struct moe_fit_result result = fit_result(calibration, &calibration->series_rows[i]);
        json_t *object = json_array_get(series, i);
        (void) json_object_set_new(object, "points", json_integer(result.point_count));
        (void) json_object_set_new(object, "mean_error", json_real(result.mean_error));
        (void) json_object_set_new(object, "worst_error", json_real(result.worst_error));
    }
    if (root == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for the report of %s", calibration->name);
    }
    const bool written = json_dumpf(root, out, JSON_INDENT(1) | JSON_REAL_PRECISION(12)) == 0 &&
                         fputc('\n', out) != EOF;
    json_decref(root);
    return written ? MOE_OK : moe_fail(err, MOE_IO, "cannot write the report");
}

static void print_series(const struct moe_calibration *calibration, FILE *out)
{
    (void) fprintf(out, "\n%-26s %-6s %-12s %-5s %6s %8s %8s %9s %5s %7s %7s\n", "series", "op",
                   "shape", "dtype", "points", "t0 us", "GB/s", "TFLOP/s", "p", "mean %",
                   "worst %");
    for (uint32_t i = 0; i < calibration->series_count; i++) {
        const struct moe_calibration_series *series = &calibration->series_rows[i];
        const struct moe_fit_result result = fit_result(calibration, series);
        char shape[32];
        (void) snprintf(shape, sizeof shape, "%ux%u", series->hidden, series->expert_size);
        (void) fprintf(
            out, "%-26s %-6s %-12s %-5s %6u %8.1f %8.0f %9.1f %5.2f", series->name,
            series->op == MOE_SERIES_GEMM ? "gemm" : "expert", series->hidden == 0 ? "any" : shape,
            moe_dtype_name(series->dtype), result.point_count, result.fit.t0_ns * 1e-3,
            result.fit.bandwidth_bytes_s * 1e-9, result.fit.peak_flop_s * 1e-12, result.fit.p);
        if (result.point_count == 0) {
            (void) fprintf(out, " %7s %7s\n", "-", "-");
        } else {
            (void) fprintf(out, " %7.1f %7.1f\n", 100.0 * result.mean_error,
                           100.0 * result.worst_error);
        }
    }
}

static void print_segments(const struct moe_calibration *calibration, FILE *out)
{
    (void) fprintf(out, "\n%-14s %-5s %6s %12s %12s %9s %8s  %s\n", "exchange", "link", "ranks",
                   "from bytes", "to bytes", "alpha us", "GB/s", "provenance");
    for (uint32_t i = 0; i < calibration->segment_count; i++) {
        const struct moe_calibration_segment *row = &calibration->segment_rows[i];
        (void) fprintf(out, "%-14s %-5s %6u %12.0f %12.0f %9.2f %8.1f  %s\n",
                       moe_segment_op_name(row->op), row->link == MOE_LINK_NEAR ? "near" : "far",
                       row->ranks, row->from_bytes, row->to_bytes, row->alpha_ns * 1e-3,
                       row->bandwidth_bytes_s * 1e-9, moe_provenance_name(row->provenance));
    }
}

enum moe_status moe_calibration_report_text(const struct moe_calibration *calibration, FILE *out,
                                            struct moe_error *err)
{
    uint32_t counts[MOE_PROVENANCE_COUNT];
    moe_calibration_count(calibration, counts);
    (void) fprintf(out, "calibration %s\nfacts:", calibration->name);
    for (uint32_t i = 0; i < MOE_PROVENANCE_COUNT; i++) {
        (void) fprintf(out, " %u %s%s", counts[i], moe_provenance_name(i),
                       i + 1 < MOE_PROVENANCE_COUNT ? "," : "\n");
    }
    for (uint32_t i = 0; i < calibration->gpu_kind_count; i++) {
        const struct moe_calibration_gpu_kind *kind = &calibration->gpu_kind_rows[i];
        (void) fprintf(out, "GPU kind %s: %.0f GB, %u SMs, %.2f GHz, reads %.2f TB/s\n", kind->name,
                       kind->memory_bytes * 1e-9, kind->sm_count, kind->boost_hz * 1e-9,
                       kind->read_bytes_s * 1e-12);
    }
    (void) fprintf(out, "GPUs measured one by one: %u\n", calibration->gpu_count);
    print_series(calibration, out);
    print_segments(calibration, out);
    (void) fprintf(out, "\n%-32s %14s  %-10s %s\n", "parameter", "value", "provenance", "source");
    for (uint32_t i = 0; i < calibration->parameter_count; i++) {
        const struct moe_calibration_parameter *row = &calibration->parameter_rows[i];
        (void) fprintf(out, "%-32s %14.6g  %-10s %s\n", row->name, row->value,
                       moe_provenance_name(row->provenance), row->source);
    }
    return ferror(out) == 0 ? MOE_OK : moe_fail(err, MOE_IO, "cannot write the report");
}
