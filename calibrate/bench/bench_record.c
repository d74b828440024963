#include "calibrate/bench/bench_record.h"

#include "calibrate/bench/bench_plan.h"

/* CSV: a text in quotes, quotes inside doubled. */
static void put_quoted(FILE *out, const char *text)
{
    (void) fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '"') {
            (void) fputc('"', out);
        }
        (void) fputc(*text, out);
    }
    (void) fputc('"', out);
}

static void csv_cell(FILE *out, const struct moe_bench_record *record,
                     const struct moe_bench_row *row, const struct moe_bench_cell *cell)
{
    const struct moe_bench_gpu *gpu = record->gpu;
    const struct moe_timing *t = &cell->timing;
    (void) fprintf(out, "%s,%s,%s,%s,", gpu->uuid, gpu->driver, gpu->cuda, gpu->cublas);
    (void) fprintf(
        out, "%s,%d,%d,%d,%s,%s,%s,%d,%d,%d,%d,%lld,%lld,%.0f,%.0f,%.0f,",
        row->sentinel ? "sentinel" : "point", (int) row->shape.hidden, (int) row->shape.inter,
        (int) row->shape.expert_count, moe_expert_activation_name(row->shape.activation),
        moe_expert_dtype_name(row->shape.dtype), moe_row_histogram_name(row->histogram),
        (int) row->rows_per_expert, (int) row->load.row_count, (int) row->load.active_count,
        (int) row->load.row_max, (long long) row->load.tiles64, (long long) row->load.tiles128,
        row->work.weight_bytes, row->work.row_bytes, row->work.flops);
    (void) fprintf(out, "%s,%d,", cell->backend, cell->is_library);
    put_quoted(out, cell->detail);
    (void) fputc(',', out);
    put_quoted(out, cell->refusal);
    if (!cell->measured) {
        (void) fputs(",,,,,,,,,,,,,,,,,,\n", out);
        return;
    }
    const double floor_us =
        moe_bench_floor_us(row, cell, record->ceilings, gpu->sm_count, gpu->fallback_mhz);
    (void) fprintf(out, ",%.3e,%u,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,%.3f,", cell->error,
                   t->count, t->min_us, t->p5_us, t->p25_us, t->median_us, t->p75_us, t->p95_us,
                   t->p99_us, t->mad_us, t->low_us, t->high_us);
    (void) fprintf(out, "%.0f,%.0f,%.0f,0x%llx,%.3f,%.4f\n", cell->mhz, cell->watts, cell->celsius,
                   (unsigned long long) cell->throttle, floor_us, t->median_us / floor_us);
}

static void csv_rows(FILE *out, const struct moe_bench_record *record,
                     const struct moe_bench_row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < rows[i].cell_count; j++) {
            csv_cell(out, record, &rows[i], &rows[i].cells[j]);
        }
    }
}

void moe_bench_write_csv(FILE *out, const struct moe_bench_record *record)
{
    (void) fputs("gpu,driver,cuda,cublas,role,hidden,inter,experts,activation,dtype,spread,"
                 "rows_per_expert,rows,active_experts,rows_max,tiles64,tiles128,weight_bytes,"
                 "row_bytes,flops,backend,library,detail,refusal,relative_error,count,min_us,p5_us,"
                 "p25_us,median_us,p75_us,p95_us,p99_us,mad_us,low_us,high_us,sm_mhz,watts,celsius,"
                 "throttle,floor_us,over_floor\n",
                 out);
    csv_rows(out, record, record->rows, record->row_count);
    csv_rows(out, record, record->sentinels, record->sentinel_count);
}

/* JSON: a string with what must be escaped escaped. */
static void put_string(FILE *out, const char *text)
{
    (void) fputc('"', out);
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char) *text;
        if (c == '"' || c == '\\') {
            (void) fprintf(out, "\\%c", c);
        } else if (c < 0x20) {
            (void) fprintf(out, "\\u%04x", c);
        } else {
            (void) fputc(c, out);
        }
    }
    (void) fputc('"', out);
}

static void put_member(FILE *out, const char *name, const char *text)
{
    (void) fprintf(out, "\"%s\": ", name);
    put_string(out, text);
    (void) fputs(", ", out);
}

static void put_timing(FILE *out, const struct moe_timing *t)
{
    (void) fprintf(out,
                   "\"count\": %u, \"min_us\": %.3f, \"p5_us\": %.3f, \"p25_us\": %.3f, "
                   "\"median_us\": %.3f, \"p75_us\": %.3f, \"p95_us\": %.3f, \"p99_us\": %.3f, "
                   "\"mad_us\": %.3f, \"low_us\": %.3f, \"high_us\": %.3f, \"bimodal\": %s",
                   t->count, t->min_us, t->p5_us, t->p25_us, t->median_us, t->p75_us, t->p95_us,
                   t->p99_us, t->mad_us, t->low_us, t->high_us, t->bimodal ? "true" : "false");
}

static void json_cell(FILE *out, const struct moe_bench_record *record,
                      const struct moe_bench_row *row, const struct moe_bench_cell *cell)
{
    (void) fputs("\n      { ", out);
    put_member(out, "backend", cell->backend);
    put_member(out, "detail", cell->detail);
    (void) fprintf(out, "\"library\": %s, ", cell->is_library ? "true" : "false");
    if (!cell->measured) {
        (void) fputs("\"refusal\": ", out);
        put_string(out, cell->refusal);
        (void) fputs(" }", out);
        return;
    }
    put_timing(out, &cell->timing);
    (void) fprintf(out,
                   ", \"relative_error\": %.3e, \"sm_mhz\": %.0f, \"watts\": %.0f, "
                   "\"celsius\": %.0f, \"throttle\": %llu, \"floor_us\": %.3f }",
                   cell->error, cell->mhz, cell->watts, cell->celsius,
                   (unsigned long long) cell->throttle,
                   moe_bench_floor_us(row, cell, record->ceilings, record->gpu->sm_count,
                                      record->gpu->fallback_mhz));
}

/* first: whether nothing stands before in the list; the result says it for the next. */
static bool json_rows(FILE *out, const struct moe_bench_record *record,
                      const struct moe_bench_row *rows, size_t count, bool first)
{
    for (size_t i = 0; i < count; i++) {
        const struct moe_bench_row *row = &rows[i];
        if (row->cell_count == 0) {
            continue;
        }
        (void) fprintf(out, "%s\n    { \"role\": \"%s\", \"begin_s\": %.3f, ", first ? "" : ",",
                       row->sentinel ? "sentinel" : "point", row->begin_s);
        (void) fprintf(out, "\"hidden\": %d, \"inter\": %d, \"experts\": %d, ",
                       (int) row->shape.hidden, (int) row->shape.inter,
                       (int) row->shape.expert_count);
        put_member(out, "activation", moe_expert_activation_name(row->shape.activation));
        put_member(out, "dtype", moe_expert_dtype_name(row->shape.dtype));
        put_member(out, "spread", moe_row_histogram_name(row->histogram));
        (void) fprintf(out,
                       "\"rows_per_expert\": %d, \"rows\": %d, \"active_experts\": %d, "
                       "\"rows_max\": %d, \"tiles64\": %lld, \"tiles128\": %lld, "
                       "\"weight_bytes\": %.0f, \"row_bytes\": %.0f, \"flops\": %.0f, "
                       "\"backends\": [",
                       (int) row->rows_per_expert, (int) row->load.row_count,
                       (int) row->load.active_count, (int) row->load.row_max,
                       (long long) row->load.tiles64, (long long) row->load.tiles128,
                       row->work.weight_bytes, row->work.row_bytes, row->work.flops);
        for (uint32_t j = 0; j < row->cell_count; j++) {
            (void) fputs(j == 0 ? "" : ",", out);
            json_cell(out, record, row, &row->cells[j]);
        }
        (void) fputs(" ] }", out);
        first = false;
    }
    return first;
}

static void json_moves(FILE *out, const struct moe_bench_moves *moves)
{
    for (uint32_t i = 0; i < moves->count; i++) {
        const struct moe_bench_move *move = &moves->items[i];
        (void) fputs(i == 0 ? "\n    { " : ",\n    { ", out);
        put_member(out, "family", move->family);
        put_member(out, "size", move->size);
        put_member(out, "variant", move->variant);
        (void) fprintf(out, "\"library\": %s, \"bytes\": %.0f, \"tokens\": %d, ",
                       move->is_library ? "true" : "false", move->bytes, (int) move->tokens);
        if (move->measured) {
            put_timing(out, &move->timing);
            (void) fprintf(out, ", \"sm_mhz\": %.0f, \"watts\": %.0f }", move->mhz, move->watts);
        } else {
            (void) fputs("\"refusal\": ", out);
            put_string(out, move->refusal);
            (void) fputs(" }", out);
        }
    }
}

static void json_bars(FILE *out, const struct moe_bench_bar *bars)
{
    for (int i = 0; i < MOE_BENCH_BAR_COUNT; i++) {
        (void) fputs(i == 0 ? "\n    { " : ",\n    { ", out);
        put_member(out, "bar", bars[i].name);
        put_member(out, "verdict", moe_bench_verdict_name(bars[i].verdict));
        put_member(out, "worst", bars[i].worst);
        (void) fprintf(out, "\"met\": %u, \"count\": %u }", bars[i].met, bars[i].count);
    }
}

void moe_bench_write_json(FILE *out, const struct moe_bench_record *record)
{
    const struct moe_bench_gpu *gpu = record->gpu;
    const struct moe_bench_ceilings *c = record->ceilings;
    (void) fputs("{ \"format\": \"moecal.bench/1\",\n  \"argv\": [", out);
    for (int i = 0; i < record->argc; i++) {
        (void) fputs(i == 0 ? "" : ", ", out);
        put_string(out, record->argv[i]);
    }
    (void) fputs("],\n  ", out);
    put_member(out, "gpu", gpu->name);
    put_member(out, "uuid", gpu->uuid);
    put_member(out, "driver", gpu->driver);
    put_member(out, "cuda", gpu->cuda);
    put_member(out, "cublas", gpu->cublas);
    put_member(out, "failure", record->failure);
    (void) fprintf(out,
                   "\"sm_count\": %u,\n  \"ceilings\": { \"read_gb_per_s\": %.1f, "
                   "\"write_gb_per_s\": %.1f, \"copy_gb_per_s\": %.1f, \"bf16_tflops\": %.1f, "
                   "\"fp8_tflops\": %.1f, \"empty_graph_us\": %.2f },\n  \"points\": [",
                   gpu->sm_count, c->read_bytes_per_s / 1e9, c->write_bytes_per_s / 1e9,
                   c->copy_bytes_per_s / 1e9, c->bf16_flops_per_s / 1e12, c->fp8_flops_per_s / 1e12,
                   c->empty_graph_us);
    const bool first = json_rows(out, record, record->rows, record->row_count, true);
    (void) json_rows(out, record, record->sentinels, record->sentinel_count, first);
    (void) fputs(" ],\n  \"moves\": [", out);
    json_moves(out, record->moves);
    (void) fputs(" ],\n  \"bars\": [", out);
    json_bars(out, record->bars);
    (void) fputs(" ] }\n", out);
}
