#include "calibrate/bench/bench_table.h"

#include <stdlib.h>
#include <string.h>

#include "calibrate/bench/bench_plan.h"

void moe_bench_print_ceilings(FILE *out, const struct moe_bench_ceilings *ceilings)
{
    (void) fprintf(out,
                   "ceilings: read %.3f, write %.3f, copy %.3f TB/s; 8192^3 product bf16 %.0f, "
                   "fp8 %.0f TFLOP/s; empty graph %.1f us\n",
                   ceilings->read_bytes_per_s / 1e12, ceilings->write_bytes_per_s / 1e12,
                   ceilings->copy_bytes_per_s / 1e12, ceilings->bf16_flops_per_s / 1e12,
                   ceilings->fp8_flops_per_s / 1e12, ceilings->empty_graph_us);
}

static void print_shape(FILE *out, const struct moe_expert_ffn_shape *shape)
{
    (void) fprintf(out, "%dx%dx%d %s %s", (int) shape->hidden, (int) shape->inter,
                   (int) shape->expert_count, moe_expert_activation_name(shape->activation),
                   moe_expert_dtype_name(shape->dtype));
}

static int order_of_shape(const struct moe_expert_ffn_shape *a,
                          const struct moe_expert_ffn_shape *b)
{
    const int32_t left[] = { (int32_t) a->dtype, a->hidden, a->inter, a->expert_count,
                             (int32_t) a->activation };
    const int32_t right[] = { (int32_t) b->dtype, b->hidden, b->inter, b->expert_count,
                              (int32_t) b->activation };
    for (size_t i = 0; i < sizeof left / sizeof left[0]; i++) {
        if (left[i] != right[i]) {
            return left[i] < right[i] ? -1 : 1;
        }
    }
    return 0;
}

/* One line to be printed. */
struct line {
    const struct moe_bench_row *row;
};

static int compare(const void *left, const void *right)
{
    const struct moe_bench_row *a = ((const struct line *) left)->row;
    const struct moe_bench_row *b = ((const struct line *) right)->row;
    const int shape = order_of_shape(&a->shape, &b->shape);
    if (shape != 0) {
        return shape;
    }
    if (a->histogram != b->histogram) {
        return a->histogram < b->histogram ? -1 : 1;
    }
    if (a->rows_per_expert != b->rows_per_expert) {
        return a->rows_per_expert < b->rows_per_expert ? -1 : 1;
    }
    return (a->begin_s > b->begin_s) - (a->begin_s < b->begin_s);
}

static void print_head(FILE *out, const struct moe_bench_row *row)
{
    (void) fputc('\n', out);
    print_shape(out, &row->shape);
    (void) fprintf(out, "  (%.1f MB per expert)\n%5s %-10s %8s",
                   moe_expert_weight_bytes(&row->shape) / 1e6, "rows", "spread", "floor");
    for (uint32_t i = 0; i < row->cell_count; i++) {
        (void) fprintf(out, " %12.12s", row->cells[i].backend);
    }
    (void) fprintf(out, " | %-8s %6s %6s %7s %5s %4s %6s %s\n", "best own", "xfloor", "TB/s",
                   "TFLOP/s", "MHz", "W", "to lib", "best library");
}

static void print_cell(FILE *out, const struct moe_bench_cell *cell)
{
    if (cell->measured) {
        (void) fprintf(out, " %12.1f", cell->timing.median_us);
    } else {
        (void) fprintf(out, " %12s", strncmp(cell->refusal, "WRONG", 5) == 0 ? "WRONG" : "-");
    }
}

static void print_row(FILE *out, const struct moe_bench_row *row,
                      const struct moe_bench_ceilings *ceilings, const struct moe_bench_gpu *gpu)
{
    const struct moe_bench_cell *own = moe_bench_best(row, false);
    const struct moe_bench_cell *library = moe_bench_best(row, true);
    const struct moe_bench_cell *best = own != NULL ? own : library;
    const double floor_us =
        best == NULL ? 0.0
                     : moe_bench_floor_us(row, best, ceilings, gpu->sm_count, gpu->fallback_mhz);
    (void) fprintf(out, "%5d %-10s %8.1f", (int) row->rows_per_expert,
                   row->sentinel ? "sentinel" : moe_row_histogram_name(row->histogram), floor_us);
    for (uint32_t i = 0; i < row->cell_count; i++) {
        print_cell(out, &row->cells[i]);
    }
    if (best != NULL) {
        const double us = best->timing.median_us;
        (void) fprintf(out, " | %-8.8s %6.3f %6.3f %7.0f %5.0f %4.0f", best->backend, us / floor_us,
                       row->work.weight_bytes / us / 1e6, row->work.flops / us / 1e6, best->mhz,
                       best->watts);
    }
    if (own != NULL && library != NULL) {
        (void) fprintf(out, " %6.3f %s (%.0f MHz, %s)",
                       own->timing.median_us / library->timing.median_us, library->backend,
                       library->mhz, library->detail);
    }
    (void) fputc('\n', out);
}

/* A refusal is told once for each backend of a shape, by its first text. */
static void print_refusals(FILE *out, const struct line *lines, size_t count)
{
    for (uint32_t i = 0; i < lines[0].row->cell_count; i++) {
        const char *told = "";
        for (size_t j = 0; j < count; j++) {
            const struct moe_bench_cell *cell = &lines[j].row->cells[i];
            if (cell->refusal[0] == '\0' || strcmp(told, cell->refusal) == 0) {
                continue;
            }
            told = cell->refusal;
            (void) fprintf(out, "  %s at %d rows, %s: %s\n", cell->backend,
                           (int) lines[j].row->rows_per_expert,
                           moe_row_histogram_name(lines[j].row->histogram), cell->refusal);
        }
    }
}

void moe_bench_print_tables(FILE *out, const struct moe_bench_row *rows, size_t row_count,
                            const struct moe_bench_ceilings *ceilings,
                            const struct moe_bench_gpu *gpu)
{
    struct line *sorted = calloc(row_count + 1, sizeof *sorted);
    size_t count = 0;
    if (sorted == NULL) {
        (void) fputs("no memory for the table\n", out);
        return;
    }
    for (size_t i = 0; i < row_count; i++) {
        if (rows[i].cell_count > 0) {
            sorted[count++].row = &rows[i];
        }
    }
    qsort(sorted, count, sizeof *sorted, compare);
    for (size_t first = 0; first < count;) {
        size_t last = first;
        print_head(out, sorted[first].row);
        for (; last < count &&
               order_of_shape(&sorted[first].row->shape, &sorted[last].row->shape) == 0;
             last++) {
            print_row(out, sorted[last].row, ceilings, gpu);
        }
        print_refusals(out, sorted + first, last - first);
        first = last;
    }
    free(sorted);
}

void moe_bench_print_progress(FILE *out, const struct moe_bench_row *row)
{
    (void) fprintf(out, "%6.1f s ", row->begin_s);
    print_shape(out, &row->shape);
    (void) fprintf(out, " %d %s:", (int) row->rows_per_expert,
                   moe_row_histogram_name(row->histogram));
    for (uint32_t i = 0; i < row->cell_count; i++) {
        const struct moe_bench_cell *cell = &row->cells[i];
        if (cell->measured) {
            (void) fprintf(out, " %s %.1f us (%.0e)", cell->backend, cell->timing.median_us,
                           cell->error);
        } else {
            (void) fprintf(out, " %s [%s]", cell->backend, cell->refusal);
        }
    }
    (void) fputc('\n', out);
}

static double ceiling_of(const struct moe_bench_move *move,
                         const struct moe_bench_ceilings *ceilings)
{
    if (strcmp(move->family, "read") == 0 || strncmp(move->family, "kv ", 3) == 0) {
        return ceilings->read_bytes_per_s;
    }
    return strcmp(move->family, "write") == 0 ? ceilings->write_bytes_per_s
                                              : ceilings->copy_bytes_per_s;
}

void moe_bench_print_moves(FILE *out, const struct moe_bench_moves *moves,
                           const struct moe_bench_ceilings *ceilings)
{
    (void) fprintf(out, "\n%-20s %-36s %-15s %10s %7s %7s %5s %4s\n", "what", "size", "how", "us",
                   "TB/s", "ceiling", "MHz", "W");
    for (uint32_t i = 0; i < moves->count; i++) {
        const struct moe_bench_move *move = &moves->items[i];
        const bool repeated = i > 0 && strcmp(move->family, move[-1].family) == 0 &&
                              strcmp(move->size, move[-1].size) == 0;
        (void) fprintf(out, "%-20s %-36s %-15s", repeated ? "" : move->family,
                       repeated ? "" : move->size, move->variant);
        if (!move->measured) {
            (void) fprintf(out, " %s\n", move->refusal);
            continue;
        }
        const double rate = moe_bench_move_rate(move);
        (void) fprintf(out, " %10.1f %7.3f %6.1f%% %5.0f %4.0f\n", move->timing.median_us,
                       rate / 1e12, 100.0 * rate / ceiling_of(move, ceilings), move->mhz,
                       move->watts);
    }
}

void moe_bench_print_bars(FILE *out, const struct moe_bench_bar bars[MOE_BENCH_BAR_COUNT])
{
    (void) fputc('\n', out);
    for (int i = 0; i < MOE_BENCH_BAR_COUNT; i++) {
        (void) fprintf(out, "%-12s %s", moe_bench_verdict_name(bars[i].verdict), bars[i].name);
        if (bars[i].count > 0) {
            (void) fprintf(out, " (%u of %u)\n             worst: %s", bars[i].met, bars[i].count,
                           bars[i].worst);
        }
        (void) fputc('\n', out);
    }
}
