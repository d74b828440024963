#include "calibrate/collective/collective_table.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/collective/exchange_matrix.h"

static const char *title(const struct moe_collective_series *series)
{
    if (series->op == MOE_COLLECTIVE_HOST_TO_DEVICE) {
        return series->ranks == 1 ? "each GPU alone, the slowest" : "all GPUs at once";
    }
    return series->src >= 0 ? "between two GPUs" : "all ranks together";
}

struct row {
    struct moe_collective_point point;
    uint32_t index; /* among the plan's */
};

/* Points of a series by size, then by matrix, then by rows. */
static int by_size(const void *left, const void *right)
{
    const struct moe_collective_point *a = &((const struct row *) left)->point;
    const struct moe_collective_point *b = &((const struct row *) right)->point;
    if (a->bytes_per_peer != b->bytes_per_peer) {
        return a->bytes_per_peer < b->bytes_per_peer ? -1 : 1;
    }
    if (a->matrix != b->matrix) {
        return a->matrix < b->matrix ? -1 : 1;
    }
    return (a->rows > b->rows) - (a->rows < b->rows);
}

static void print_point(FILE *out, const struct moe_collective_plan *plan, const struct row *row)
{
    const struct moe_collective_point *point = &row->point;
    int64_t matrix[MOE_COLLECTIVE_RANK_LIMIT * MOE_COLLECTIVE_RANK_LIMIT];
    char peer[24];
    char sent[24];
    char kind[MOE_EXCHANGE_NAME] = "";
    const struct moe_collective_call call = moe_collective_plan_call(plan, row->index, 0, matrix);
    const int64_t bytes = moe_collective_wire_bytes(&call);
    if (call.matrix != NULL) {
        (void) moe_exchange_matrix_name(point->matrix, plan->seed, kind);
    }
    (void) fprintf(out, "  %12s %12s %11.2f %11.2f %8.1f  %-8s %s\n",
                   moe_collective_size_text(call.bytes_per_peer, peer),
                   moe_collective_size_text(bytes, sent), point->median_us, point->p95_us,
                   (double) bytes / point->median_us * 1e-3, moe_collective_role_name(point->role),
                   kind);
}

static void print_overlap(FILE *out, const struct moe_collective_point *point)
{
    char peer[24];
    const double *us = point->part_us;
    (void) fprintf(out, "  %12s %12" PRIu32 " %11.2f %11.2f %6.2f %11.2f %11.2f %6.2f\n",
                   moe_collective_size_text(point->bytes_per_peer, peer), point->rows, us[0], us[1],
                   us[0] > 0.0 ? us[1] / us[0] : 0.0, us[2], us[3],
                   us[2] > 0.0 ? us[3] / us[2] : 0.0);
}

static void print_head(FILE *out, const struct moe_collective_series *series)
{
    if (series->op == MOE_COLLECTIVE_OVERLAP) {
        (void) fprintf(out,
                       "\n%s, expert GEMMs beside all-to-alls\n  %12s %12s %11s %11s %6s %11s %11s "
                       "%6s\n",
                       series->name, "per peer", "rows/expert", "GEMM us", "under", "times",
                       "exchange us", "under", "times");
        return;
    }
    (void) fprintf(out, "\n%s, %s (%s)\n  %12s %12s %11s %11s %8s  %s\n", series->name,
                   title(series), moe_collective_op_backend(series->op), "per peer", "sent",
                   "median us", "p95 us", "GB/s", "role");
}

void moe_collective_table_print(FILE *out, const struct moe_collective_plan *plan)
{
    struct row *rows = calloc((size_t) plan->point_count + 1, sizeof rows[0]);
    for (uint32_t at = 0; rows != NULL && at < plan->series_count; at++) {
        uint32_t count = 0;
        for (uint32_t i = 0; i < plan->point_count; i++) {
            if (plan->points[i].series == at && plan->points[i].median_us > 0.0) {
                rows[count++] = (struct row){ plan->points[i], i };
            }
        }
        if (count == 0) {
            continue;
        }
        qsort(rows, count, sizeof rows[0], by_size);
        print_head(out, &plan->series[at]);
        for (uint32_t i = 0; i < count; i++) {
            if (plan->series[at].op == MOE_COLLECTIVE_OVERLAP) {
                print_overlap(out, &rows[i].point);
            } else {
                print_point(out, plan, &rows[i]);
            }
        }
    }
    free(rows);
}

void moe_collective_table_plan(FILE *out, const struct moe_collective_plan *plan, double budget_s)
{
    const struct moe_collective_room room = moe_collective_plan_room(plan);
    char texts[3][24];
    (void) fprintf(out, "%-24s %8s %8s %8s %8s\n", "series", "anchor", "heldout", "skew", "refine");
    for (uint32_t at = 0; at < plan->series_count; at++) {
        uint32_t counts[MOE_COLLECTIVE_ROLE_COUNT] = { 0 };
        for (uint32_t i = 0; i < plan->point_count; i++) {
            if (plan->points[i].series == at) {
                counts[plan->points[i].role]++;
            }
        }
        (void) fprintf(out, "%-24s %8" PRIu32 " %8" PRIu32 " %8" PRIu32 " %8s\n",
                       plan->series[at].name, counts[MOE_COLLECTIVE_ANCHOR],
                       counts[MOE_COLLECTIVE_HELD_OUT], counts[MOE_COLLECTIVE_SKEW], "later");
    }
    (void) fprintf(out,
                   "%" PRIu32 " series, %" PRIu32
                   " points and what bends ask for besides; about %.0f s; each GPU needs "
                   "%s to send, %s to receive, and %s of the host's memory\n",
                   plan->series_count, plan->point_count,
                   moe_collective_plan_seconds(plan, budget_s),
                   moe_collective_size_text(room.send, texts[0]),
                   moe_collective_size_text(room.recv, texts[1]),
                   moe_collective_size_text(room.host, texts[2]));
}
