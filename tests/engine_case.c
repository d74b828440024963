#include "tests/engine_case.h"

#include <assert.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/random.h"

struct twin_draw twin_draw_of(uint64_t seed)
{
    return (struct twin_draw){ moe_random_key(seed, MOE_RANDOM_TEST), 0 };
}

uint32_t twin_below(struct twin_draw *draw, uint32_t bound)
{
    return (uint32_t) moe_random_below(draw->key, draw->counter++, bound);
}

static bool one_in(struct twin_draw *draw, uint32_t n)
{
    return twin_below(draw, n) == 0;
}

static uint32_t between(struct twin_draw *draw, uint32_t least, uint32_t most)
{
    return least + twin_below(draw, most - least + 1);
}

/* --- calibration --- */

/* Columns that may be moved, with those that must stay in step in one group. */
static uint32_t column_group(const char *column)
{
    static const char *const columns[] = {
        "t0_ns",        "1bandwidth_bytes_s",
        "2peak_flop_s", "3p",
        "4median_ns",   "5from_bytes",
        "5to_bytes",    "6alpha_ns",
        "7value",       "8sd",
        "9tail_min",    "9tail_max",
        ":min",         ":p5",
        ":p25",         ":p50",
        ":p75",         ":p95",
        ":p99",         ";sigma",
    };
    for (uint32_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        const bool lettered = columns[i][0] >= '1' && columns[i][0] <= ';';
        if (strcmp(columns[i] + lettered, column) == 0) {
            return lettered ? (uint32_t) (columns[i][0] - '0') : 12;
        }
    }
    return 0;
}

struct writer {
    char *text;
    size_t size;
    size_t used;
};

static void write_text(struct writer *out, const char *from, size_t bytes)
{
    assert(out->used + bytes < out->size);
    memcpy(out->text + out->used, from, bytes);
    out->used += bytes;
    out->text[out->used] = '\0';
}

static void write_moved(struct writer *out, const char *from, double factor)
{
    char number[40];
    (void) snprintf(number, sizeof number, "%.17g", strtod(from, NULL) * factor);
    write_text(out, number, strlen(number));
}

/* One row, its cells moved by the factors of their columns' groups. */
static void write_row(struct writer *out, const char *line, const char *end,
                      char column[][TWIN_CELL_BYTES], const double *factor)
{
    for (uint32_t i = 0; line <= end; i++) {
        const size_t bytes = strcspn(line, ",\n");
        /* A row's cell i stands under the head's cell i + 1. */
        const uint32_t group = i == 0 ? 0 : column_group(column[i + 1]);
        if (group != 0) {
            write_moved(out, line, factor[group]);
        } else {
            write_text(out, line, bytes);
        }
        write_text(out, line + bytes, 1);
        line += bytes + 1;
    }
}

void engine_case_calibration(struct twin_draw *draw, const char *table, char *text, size_t size)
{
    struct writer out = { text, size, 0 };
    double factor[16];
    char column[TWIN_CELLS][TWIN_CELL_BYTES];
    const bool fewer_points = one_in(draw, 3);
    for (uint32_t i = 0; i < 16; i++) {
        factor[i] = 1 + 0.02 * moe_random_uniform(draw->key, draw->counter++);
    }
    for (const char *line = table; *line != '\0';) {
        const char *end = strchr(line, '\n');
        assert(end != NULL);
        if (strncmp(line, "table,", 6) == 0) {
            const char *cell = line;
            for (uint32_t i = 0; cell <= end; i++) {
                const size_t bytes = strcspn(cell, ",\n");
                assert(i < TWIN_CELLS && bytes < TWIN_CELL_BYTES);
                memcpy(column[i], cell, bytes);
                column[i][bytes] = '\0';
                cell += bytes + 1;
            }
        }
        if (strncmp(line, "point,toy-fp8,1,", 16) == 0 && fewer_points) {
            /* Left out: work below the first point is then to be had. */
        } else if (strncmp(line, "table,", 6) == 0 || *line == '#' || *line == '\n') {
            write_text(&out, line, (size_t) (end - line) + 1);
        } else {
            write_row(&out, line, end, column, factor);
        }
        line = end + 1;
    }
    static const char uneven[] = "table,parameter,gpu_kind,name,value,provenance,source\n"
                                 "parameter,toy,exchange.one_way_saving,0.25,measured,made up\n"
                                 "parameter,toy,exchange.own_bytes_s,3e9,assumed,made up\n\n";
    if (factor[14] > 1.01) { /* every other case */
        write_text(&out, uneven, sizeof uneven - 1);
    }
    static const char gemms[] =
        "table,series,name,gpu_kind,op,hidden,expert_size,gated,dtype,backend,tile_tokens,"
        "permutation,provenance,source\n"
        "series,head,toy,gemm,100,640,no,bf16,toy,2,inside,measured,made up\n"
        "table,fit,series,t0_ns,bandwidth_bytes_s,peak_flop_s,p,provenance,source\n"
        "fit,head,123.4,1.1e9,1.3e10,1.5,measured,made up\n"
        "table,point,series,tokens,active,median_ns,provenance,source\n"
        "point,head,2,1,123456.7,measured,made up\n"
        "point,head,5,1,124567.8,published,made up\n"
        "point,head,9,1,145678.9,measured,made up\n";
    write_text(&out, gemms, sizeof gemms - 1);
    if (one_in(draw, 2)) {
        static const char fullest[] = "table,fullest,series,weight,rows,provenance,source\n"
                                      "fullest,toy-fp8,1.7,3,measured,made up\n";
        write_text(&out, fullest, sizeof fullest - 1);
    }
    if (one_in(draw, 4)) {
        static const char cards[] =
            "table,gpu,uuid,gpu_kind,compute,memory,comm,provenance,source\n"
            "gpu,A,toy,1.0123,0.9987,1.0011,measured,made up\n"
            "gpu,B,toy,0.9876,1.0234,1.0301,measured,made up\n"
            "gpu,C,toy,1.1234,1.0456,0.9789,measured,made up\n";
        write_text(&out, cards, sizeof cards - 1);
    }
}

/* A series of the model's decode attention, which small contexts already take in rounds, with
 * points that make no full grid. */
static void add_decode(struct twin_draw *draw, const struct twin_model *m, char *text, size_t size)
{
    struct writer out = { text, size, strlen(text) };
    char line[400];
    const uint32_t splits = between(draw, 1, 4);
    const int bytes = snprintf(
        line, sizeof line,
        "table,decode,series,gpu_kind,kind,q_heads,kv_heads,head_size,value_size,tile_tokens,"
        "blocks,slots,t0_ns,round_ns,tile_ns,bandwidth_bytes_s,p,join_ns,split_ns,row_ns,"
        "provenance,source\n"
        "decode,core,toy,%s,%u,%u,%u,%u,%u,%u,%u,1234.5,345.6,%u,1.3e9,%u.25,234.5,56.7,%u,%s,"
        "made up\n",
        m->mla ? "mla" : "gqa", m->heads, m->mla ? 1 : m->kv_heads,
        m->mla ? m->kv_lora + m->rope : m->head_size, m->mla ? m->kv_lora : m->head_size,
        between(draw, 1, 4), between(draw, 1, 2), splits, between(draw, 100, 9000),
        between(draw, 1, 4), between(draw, 0, 90), one_in(draw, 2) ? "measured" : "extrapolated");
    write_text(&out, line, (size_t) bytes);
    static const char head[] =
        "table,decode_point,series,sequences,context,median_ns,provenance,source\n";
    write_text(&out, head, sizeof head - 1);
    for (uint32_t sequences = 1; sequences < 4; sequences += between(draw, 1, 2)) {
        for (uint32_t context = between(draw, 1, 9); context < 40; context *= 3) {
            const int used = snprintf(
                line, sizeof line, "decode_point,core,%u,%u,%u.5,%s,made up\n", sequences, context,
                between(draw, 20000, 90000), one_in(draw, 4) ? "published" : "measured");
            write_text(&out, line, (size_t) used);
        }
    }
}

/* --- model and cluster --- */

static void make_attention(struct twin_draw *draw, struct twin_model *m)
{
    m->heads = between(draw, 1, 8);
    m->head_size = between(draw, 4, 32);
    m->gated_attention = one_in(draw, 4);
    m->mla = one_in(draw, 2);
    if (m->mla) {
        m->kv_heads = m->heads;
        m->q_lora = one_in(draw, 2) ? 0 : between(draw, 8, 60);
        m->kv_lora = between(draw, 8, 60);
        m->rope = between(draw, 1, 16);
        m->value_size = between(draw, 4, 32);
    } else {
        m->kv_heads = one_in(draw, 2) ? m->heads : 1;
    }
    m->window_layers = one_in(draw, 2) ? twin_below(draw, m->layers) : 0;
    m->window = m->window_layers > 0 ? between(draw, 1, 30) : 0;
    m->kv_layers = m->layers - m->window_layers;
    if (m->kv_layers > 1 && one_in(draw, 4)) {
        m->kv_layers -= between(draw, 1, m->kv_layers - 1);
        m->linear_weights = one_in(draw, 2) ? 0 : between(draw, 1000, 90000);
    }
}

/* Entries of several tokens, and layers that read all of them; a window that they see besides. */
static void make_compressed(struct twin_draw *draw, struct twin_model *m)
{
    m->mla = false;
    m->shared = true;
    m->kv_heads = 1;
    m->q_lora = one_in(draw, 3) ? 0 : between(draw, 8, 60);
    m->kv_lora = m->rope = m->value_size = 0;
    m->output_groups = one_in(draw, 2) ? 0 : m->heads;
    m->output_rank = m->output_groups == 0 ? 0 : between(draw, 4, 30);
    m->pooled_layers = twin_below(draw, m->kv_layers - m->sparse_layers + 1);
    m->pooled_ratio = m->pooled_layers > 0 ? between(draw, 1, 9) : 0;
    m->sparse_ratio = m->sparse_layers == 0 ? 0 : between(draw, 1, 5);
    if (m->pooled_layers > 0 || m->sparse_ratio > 1) {
        m->window = m->window > 0 ? m->window : between(draw, 1, 30);
    }
}

static void make_sparse(struct twin_draw *draw, struct twin_model *m)
{
    if (m->kv_layers == 0 || !one_in(draw, 3)) {
        return;
    }
    m->streams = one_in(draw, 2) ? 0 : 4;
    m->sparse_layers = between(draw, 0, m->kv_layers);
    if (m->sparse_layers > 0) {
        m->index_block = between(draw, 1, 4);
        m->sparse_entries = m->index_block * between(draw, 1, 6);
        m->sparse_ratio = 1;
        m->index_layers = between(draw, 1, m->sparse_layers);
        m->index_heads = between(draw, 1, 5);
        m->index_size = between(draw, 3, 20);
        m->index_bytes = one_in(draw, 2) ? 2 : 1.03125;
    }
    if (one_in(draw, 2)) {
        make_compressed(draw, m);
    }
}

static void make_model(struct twin_draw *draw, struct twin_model *m)
{
    static const double bytes[] = { 2, 1, 1, 0.53125 };
    memset(m, 0, sizeof *m);
    m->moe_layers = between(draw, 1, 6);
    m->dense_size = one_in(draw, 2) ? 0 : between(draw, 20, 300);
    m->layers = m->moe_layers + (m->dense_size > 0 ? between(draw, 1, 2 * m->moe_layers) : 0);
    m->hidden = one_in(draw, 3) ? between(draw, 20, 300) : 100;
    m->vocabulary = one_in(draw, 2) ? 640 : between(draw, 100, 2000);
    m->tied = one_in(draw, 2);
    do {
        m->groups = between(draw, 1, 4);
        m->experts = m->groups * between(draw, 1, 20 / m->groups);
    } while (m->experts < 4);
    m->top_k = between(draw, 1, TWIN_TOP_K);
    m->expert_size = one_in(draw, 3) ? between(draw, 20, 300) : 50;
    m->expert_hidden = one_in(draw, 4) ? between(draw, 10, m->hidden) : 0;
    m->shared_size = one_in(draw, 2) ? 0 : between(draw, 20, 400);
    m->gated = !one_in(draw, 4);
    m->expert_bytes = bytes[twin_below(draw, 4)];
    m->dense_bytes = bytes[twin_below(draw, 4)];
    m->kv_bytes = one_in(draw, 2) ? 1 : 2;
    /* A stream of its own, so that what else is drawn stays as it is without it. */
    struct twin_draw own = *draw;
    own = twin_draw_of(twin_below(&own, 1 << 30) + 77);
    make_attention(draw, m);
    make_sparse(&own, m);
}

static void swap_slots(uint16_t *a, uint16_t *b)
{
    const uint16_t kept = *a;
    *a = *b;
    *b = kept;
}

/* Every expert once, then copies of any or nothing, shuffled: copies may share a GPU. */
static void make_plan(struct twin_draw *draw, struct twin_case *c)
{
    const uint32_t experts = c->cost.model.experts;
    const uint32_t gpus = c->cost.nodes * c->cost.gpus_per_node;
    const uint32_t extra = one_in(draw, 3) ? 0 : twin_below(draw, 3);
    c->slots = gpus * ((experts + gpus - 1) / gpus + extra);
    assert(c->slots + 3 * gpus <= TWIN_SLOTS);
    for (uint32_t l = 0; l < c->cost.model.moe_layers; l++) {
        for (uint32_t s = 0; s < c->slots; s++) {
            const uint32_t e = s < experts ? s : twin_below(draw, experts + experts / 4 + 1);
            c->plan[l][s] = e < experts ? (uint16_t) e : TWIN_EMPTY;
        }
        for (uint32_t s = c->slots; s-- > 1;) {
            swap_slots(&c->plan[l][s], &c->plan[l][twin_below(draw, s + 1)]);
        }
    }
}

/* --- requests --- */

static void make_routes(struct twin_draw *draw, struct twin_case *c)
{
    const struct twin_model *m = &c->cost.model;
    const uint32_t rarely = one_in(draw, 2) ? 30 : 1000000;
    for (uint32_t row = 0; row < c->rows; row++) {
        for (uint32_t l = 0; l < c->trace_layers; l++) {
            for (uint32_t k = 0; k < m->top_k; k++) {
                const uint32_t a = twin_below(draw, m->experts);
                const uint32_t b = twin_below(draw, m->experts);
                c->route[row][l][k] = (uint16_t) (a < b ? a : b);
                if (one_in(draw, rarely)) {
                    c->route[row][l][k] = TWIN_UNKNOWN;
                }
            }
        }
    }
}

static void make_requests(struct twin_draw *draw, struct twin_case *c)
{
    c->requests = between(draw, one_in(draw, 8) ? 2 : 24, TWIN_REQUESTS);
    c->rows = 0;
    for (uint32_t i = 0; i < c->requests; i++) {
        c->prompt[i] = one_in(draw, 6)   ? 1
                       : one_in(draw, 4) ? between(draw, 1, 60)
                                         : between(draw, 1, 12);
        c->output[i] = one_in(draw, 5) ? 1 : between(draw, 1, 9);
        c->first_row[i] = c->rows;
        const uint32_t rows = c->prompt[i] + c->output[i] - 1;
        if (c->rows + rows > TWIN_CASE_ROWS) {
            c->requests = i;
            break;
        }
        c->rows += rows;
    }
    make_routes(draw, c);
}

static uint32_t longest_request(const struct twin_case *c)
{
    uint32_t longest = 0;
    for (uint32_t i = 0; i < c->requests; i++) {
        const uint32_t tokens = c->prompt[i] + c->output[i];
        longest = tokens > longest ? tokens : longest;
    }
    return longest;
}

/* Memory that leaves about as many tokens of KV as a few requests need, or too few. */
static void make_memory(struct twin_draw *draw, struct twin_case *c)
{
    const struct twin_model *m = &c->cost.model;
    c->reserve_bytes = twin_below(draw, 3) * 1000003.0;
    c->memory_bytes = 0;
    if (!one_in(draw, 3)) {
        return;
    }
    const uint32_t longest = longest_request(c);
    const double wanted = one_in(draw, 8) ? longest - 1 : between(draw, longest, 3 * longest);
    const uint32_t gpus = c->cost.nodes * c->cost.gpus_per_node;
    const uint32_t slots = m->moe_layers * c->slots / gpus;
    c->memory_bytes = cost_twin_nonexpert_bytes(m) + slots * cost_twin_expert_bytes(m) +
                      (wanted + 0.5) * cost_twin_kv_bytes(m) + c->reserve_bytes;
    if (one_in(draw, 20)) {
        c->memory_bytes = cost_twin_nonexpert_bytes(m);
    }
}

void engine_case_make(uint64_t seed, const char *table, struct twin_case *c, char *text,
                      size_t size)
{
    static const uint32_t budgets[] = { 1, 2, 3, 8, 20, 64, 8192, 8192 };
    static const double overlaps[] = { 0.0, 0.0, 0.375, 1.0 };
    static const double shares[] = { 0.01, 0.1, 0.2, 0.5 };
    struct twin_draw draw = twin_draw_of(seed);
    memset(c, 0, sizeof *c);
    engine_case_calibration(&draw, table, text, size);
    make_model(&draw, &c->cost.model);
    struct twin_draw own = twin_draw_of(seed + 7777); /* what else is drawn stays as it is */
    if (one_in(&own, 2)) {
        add_decode(&own, &c->cost.model, text, size);
    }
    const bool read = calibration_twin_read(&c->cost.table, text);
    assert(read);
    (void) read;
    c->cost.nodes = between(&draw, 1, 4);
    c->cost.gpus_per_node = between(&draw, 1, 4);
    c->trace_layers = between(&draw, 1, TWIN_TRACE_LAYERS);
    make_plan(&draw, c);
    make_requests(&draw, c);
    make_memory(&draw, c);
    const uint32_t gpus = c->cost.nodes * c->cost.gpus_per_node;
    c->running_per_gpu = one_in(&draw, 6) ? between(&draw, 1, TWIN_RUNNING)
                         : gpus < 6       ? between(&draw, 1, 3)
                                          : 1;
    if (c->memory_bytes > 0) {
        c->memory_bytes += c->running_per_gpu * cost_twin_window_bytes(&c->cost.model);
    }
    c->step_tokens = budgets[twin_below(&draw, 8)];
    c->plan_share = shares[twin_below(&draw, 4)];
    c->passes = between(&draw, 1, TWIN_PASSES);
    c->exchange = twin_below(&draw, 4);
    c->common_exit = one_in(&draw, 2);
    c->serial = one_in(&draw, 2);
    c->noise = !one_in(&draw, 3);
    c->seed = twin_below(&draw, 1000);
    c->dispatch = twin_below(&draw, 3);
    c->group = twin_below(&draw, 2);
    c->fetch_slots = one_in(&draw, 2) ? between(&draw, 1, 3) : 0;
    c->fetch_overlap = overlaps[twin_below(&draw, 4)];
    c->fetch_relay = one_in(&draw, 2);
}
