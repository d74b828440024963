#include "tests/cost_twin.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct twin_factor nominal = { 1, 1, 1 };

static double parameter(const struct cost_twin *twin, const char *name)
{
    return twin_number(twin_row_with(&twin->table, "parameter", "name", name), "value");
}

static enum twin_source parameter_source(const struct cost_twin *twin, const char *name)
{
    return twin_source_of(twin_row_with(&twin->table, "parameter", "name", name));
}

static enum twin_source worse(enum twin_source a, enum twin_source b)
{
    return a > b ? a : b;
}

static enum twin_source outside(enum twin_source source)
{
    return source <= TWIN_EXTRAPOLATED ? TWIN_EXTRAPOLATED : TWIN_ASSUMED;
}

static enum twin_source between(enum twin_source a, enum twin_source b)
{
    return worse(a, b) == TWIN_MEASURED ? TWIN_INTERPOLATED : worse(a, b);
}

static const char *dtype_of(double bytes_per_weight)
{
    return bytes_per_weight >= 1.5 ? "bf16" : bytes_per_weight >= 0.75 ? "fp8" : "fp4";
}

static double dtype_bytes(const char *dtype)
{
    return strcmp(dtype, "bf16") == 0 ? 2 : strcmp(dtype, "fp8") == 0 ? 1 : 0.53125;
}

/* --- one series: the p-norm and its correction --- */

static const struct twin_row *find_series(const struct cost_twin *twin, const char *op, double rows,
                                          double columns, bool gated, const char *dtype)
{
    const struct twin_row *generic = NULL;
    for (uint32_t i = 0; i < twin->table.rows; i++) {
        const struct twin_row *row = &twin->table.row[i];
        if (!twin_same(row->table, "series") || !twin_is(row, "op", op) ||
            !twin_is(row, "dtype", dtype)) {
            continue;
        }
        if (twin_number(row, "hidden") == rows && twin_number(row, "expert_size") == columns &&
            (twin_same(op, "gemm") || twin_is(row, "gated", gated ? "yes" : "no"))) {
            return row;
        }
        if (twin_number(row, "hidden") == 0 && generic == NULL) {
            generic = row;
        }
    }
    assert(generic != NULL);
    return generic;
}

/* t0 + (memory^p + compute^p)^(1/p); bytes and flops at the fit's rates. */
static double fitted(const struct cost_twin *twin, const struct twin_row *series, double bytes,
                     double flops, struct twin_factor factor)
{
    const struct twin_row *fit =
        twin_row_with(&twin->table, "fit", "series", twin_text(series, "name"));
    const double p = twin_number(fit, "p");
    const double memory_ns = bytes / twin_number(fit, "bandwidth_bytes_s") * 1e9 * factor.memory;
    const double compute_ns = flops / twin_number(fit, "peak_flop_s") * 1e9 * factor.compute;
    return twin_number(fit, "t0_ns") + pow(pow(memory_ns, p) + pow(compute_ns, p), 1 / p);
}

/* Rows that the fullest expert counts for beside the tiles. */
static double besides(const struct cost_twin *twin, const struct twin_row *series, double fullest)
{
    double rows = 0;
    for (uint32_t i = 0; i < twin->table.rows; i++) {
        const struct twin_row *row = &twin->table.row[i];
        if (twin_same(row->table, "fullest") && twin_is(row, "series", twin_text(series, "name"))) {
            rows = twin_number(row, "weight") * fmin(fullest, twin_number(row, "rows"));
        }
    }
    return rows;
}

/* Measured over fitted at one point of a series of a known shape. */
static double point_ratio(const struct cost_twin *twin, const struct twin_row *series,
                          const struct twin_row *point)
{
    const double weights = twin_number(series, "hidden") * twin_number(series, "expert_size") *
                           (twin_is(series, "op", "gemm")     ? 1
                            : twin_is(series, "gated", "yes") ? 3
                                                              : 2);
    const double tile = twin_number(series, "tile_tokens");
    const double active = twin_number(point, "active");
    const double rows = active * ceil(twin_number(point, "tokens") / tile) * tile +
                        besides(twin, series, ceil(twin_number(point, "tokens")));
    return twin_number(point, "median_ns") /
           fitted(twin, series, active * weights * dtype_bytes(twin_text(series, "dtype")),
                  rows * 2 * weights, nominal);
}

/* Of the points with this active count: the nearest at or below, and at or above. */
static void neighbours(const struct cost_twin *twin, const char *series, double active,
                       double tokens, const struct twin_row **low, const struct twin_row **high)
{
    *low = NULL;
    *high = NULL;
    for (uint32_t i = 0; i < twin->table.rows; i++) {
        const struct twin_row *row = &twin->table.row[i];
        if (!twin_same(row->table, "point") || !twin_is(row, "series", series) ||
            twin_number(row, "active") != active) {
            continue;
        }
        const double at = twin_number(row, "tokens");
        if (at <= tokens && (*low == NULL || at > twin_number(*low, "tokens"))) {
            *low = row;
        }
        if (at >= tokens && (*high == NULL || at < twin_number(*high, "tokens"))) {
            *high = row;
        }
    }
}

typedef double point_says(const struct cost_twin *, const struct twin_row *,
                          const struct twin_row *);

static double ratio_along(const struct cost_twin *twin, const struct twin_row *series,
                          point_says *says, double active, double tokens, enum twin_source *source)
{
    const struct twin_row *low = NULL;
    const struct twin_row *high = NULL;
    neighbours(twin, twin_text(series, "name"), active, tokens, &low, &high);
    if (low == high) {
        *source = twin_source_of(low);
        return says(twin, series, low);
    }
    if (low == NULL || high == NULL) {
        const struct twin_row *border = low == NULL ? high : low;
        *source = outside(twin_source_of(border));
        return says(twin, series, border);
    }
    const double from = log2(twin_number(low, "tokens"));
    const double share = (log2(tokens) - from) / (log2(twin_number(high, "tokens")) - from);
    *source = between(twin_source_of(low), twin_source_of(high));
    return (1 - share) * says(twin, series, low) + share * says(twin, series, high);
}

static double averaged(const struct cost_twin *twin, const struct twin_row *series,
                       const struct twin_row *point)
{
    double sum = 0;
    double tiles = 0;
    for (int k = -2; k <= 2; k++) { /* for uneven loads: what is said around the point */
        enum twin_source ignored = TWIN_MEASURED;
        const double at = fmax(twin_number(point, "tokens") * exp2(0.375 * k), 1);
        const double weight = ceil(at / twin_number(series, "tile_tokens"));
        sum += weight *
               ratio_along(twin, series, point_ratio, twin_number(point, "active"), at, &ignored);
        tiles += weight;
    }
    return sum / tiles;
}

static double ratio(const struct cost_twin *twin, const struct twin_row *series, point_says *says,
                    double tokens, double active, enum twin_source *source)
{
    const char *name = twin_text(series, "name");
    double low = 0;
    double high = 0;
    for (uint32_t i = 0; i < twin->table.rows; i++) {
        const struct twin_row *row = &twin->table.row[i];
        if (twin_same(row->table, "point") && twin_is(row, "series", name)) {
            const double at = twin_number(row, "active");
            low = at <= active && at > low ? at : low;
            high = at >= active && (high == 0 || at < high) ? at : high;
        }
    }
    if (low == 0 && high == 0) {
        *source =
            outside(worse(twin_source_of(series),
                          twin_source_of(twin_row_with(&twin->table, "fit", "series", name))));
        return 1;
    }
    if (low == high) {
        return ratio_along(twin, series, says, active, tokens, source);
    }
    if (low == 0 || high == 0) {
        const double r = ratio_along(twin, series, says, low == 0 ? high : low, tokens, source);
        *source = outside(*source);
        return r;
    }
    enum twin_source other = TWIN_MEASURED;
    const double r0 = ratio_along(twin, series, says, low, tokens, source);
    const double r1 = ratio_along(twin, series, says, high, tokens, &other);
    const double share = (log2(active) - log2(low)) / (log2(high) - log2(low));
    *source = between(*source, other);
    return (1 - share) * r0 + share * r1;
}

/* --- blocks of matrices --- */

static struct twin_duration plus(struct twin_duration a, struct twin_duration b)
{
    return (struct twin_duration){ a.ns + b.ns, worse(a.source, b.source) };
}

static struct twin_duration gemm(const struct cost_twin *twin, double rows, double columns,
                                 double bytes_per_weight, double tokens, struct twin_factor factor)
{
    struct twin_duration out = { 0, TWIN_MEASURED };
    const struct twin_row *series =
        find_series(twin, "gemm", floor(rows), floor(columns), false, dtype_of(bytes_per_weight));
    const double tile = twin_number(series, "tile_tokens");
    const double r = ratio(twin, series, point_ratio, tokens, 1, &out.source);
    out.ns = r * fitted(twin, series, rows * columns * bytes_per_weight,
                        2 * rows * columns * ceil(tokens / tile) * tile, factor);
    return out;
}

/* Launches, and bytes copied for each token. */
static struct twin_duration around(const struct cost_twin *twin, double launches,
                                   double bytes_per_token, double tokens, struct twin_factor factor)
{
    return (struct twin_duration){
        launches * parameter(twin, "launch.graph_ns") +
            tokens * bytes_per_token / parameter(twin, "copy.bytes_s") * 1e9 * factor.memory,
        worse(parameter_source(twin, "launch.graph_ns"), parameter_source(twin, "copy.bytes_s")),
    };
}

static struct twin_duration ffn(const struct cost_twin *twin, double size, double tokens,
                                struct twin_factor factor)
{
    const struct twin_model *m = &twin->model;
    const double ups = m->gated ? 2 : 1;
    if (size == 0) {
        return (struct twin_duration){ 0, TWIN_MEASURED };
    }
    struct twin_duration sum = around(twin, 1, (ups + 1) * size * 2, tokens, factor);
    sum = plus(sum, gemm(twin, m->hidden, ups * size, m->dense_bytes, tokens, factor));
    return plus(sum, gemm(twin, size, m->hidden, m->dense_bytes, tokens, factor));
}

static double width_of(const struct twin_model *m)
{
    return m->expert_hidden == 0 ? m->hidden : m->expert_hidden;
}

double cost_twin_copy_bytes(const struct cost_twin *twin, enum twin_part part)
{
    const char *dtype = dtype_of(twin->model.expert_bytes);
    const double value =
        part == TWIN_COMBINE         ? parameter(twin, "combine.bytes_per_value")
        : strcmp(dtype, "bf16") == 0 ? parameter(twin, "dispatch.bf16_bytes_per_value")
        : strcmp(dtype, "fp8") == 0  ? parameter(twin, "dispatch.fp8_bytes_per_value")
                                     : parameter(twin, "dispatch.fp4_bytes_per_value");
    return width_of(&twin->model) * value + parameter(twin, "exchange.header_bytes");
}

static struct twin_duration gate(const struct cost_twin *twin, double tokens,
                                 struct twin_factor factor)
{
    const struct twin_model *m = &twin->model;
    const double gpus = twin->nodes * twin->gpus_per_node;
    const double copies = gpus * (1 - pow(1 - 1 / gpus, m->top_k));
    const double bytes = width_of(m) * 4 + copies * (cost_twin_copy_bytes(twin, TWIN_DISPATCH) +
                                                     cost_twin_copy_bytes(twin, TWIN_COMBINE));
    struct twin_duration sum =
        around(twin, parameter(twin, "gate.launches"), bytes, tokens, factor);
    if (m->expert_hidden != 0) {
        sum = plus(sum, gemm(twin, m->hidden, width_of(m), m->dense_bytes, tokens, factor));
        sum = plus(sum, gemm(twin, width_of(m), m->hidden, m->dense_bytes, tokens, factor));
    }
    return plus(sum, gemm(twin, m->hidden, m->experts, 2, tokens, factor));
}

static struct twin_duration head(const struct cost_twin *twin, const struct twin_tokens *work,
                                 struct twin_factor factor)
{
    const struct twin_model *m = &twin->model;
    const double copy_ns = 1e9 / parameter(twin, "copy.bytes_s") * factor.memory;
    struct twin_duration sum = { 0, TWIN_MEASURED };
    if (work->sampled > 0) {
        sum =
            around(twin, parameter(twin, "head.launches"), m->hidden * 4.0, work->sampled, factor);
        sum = plus(sum, gemm(twin, m->hidden, m->vocabulary, 2, work->sampled, factor));
        sum.ns += work->sampled * m->vocabulary * 12.0 * copy_ns;
    }
    if (work->tokens > work->sampled) {
        sum.ns += (work->tokens - work->sampled) * m->hidden * 4.0 * copy_ns;
        sum.source = worse(sum.source, around(twin, 0, 0, 0, nominal).source);
    }
    return sum;
}

/* --- attention --- */

/* Values of one entry of KV, FLOPs of one pair with it. */
static double pair_flops(const struct twin_model *m)
{
    return m->mla ? 2.0 * m->heads * (2.0 * m->kv_lora + m->rope) : 4.0 * m->heads * m->head_size;
}

/* FLOPs of rows of prompts under MLA: so many pairs in the latent, or all pairs in K and V that
 * are expanded first, tokens of older context too. */
static double prompt_flops(const struct twin_model *m, double latent_pairs, double all_pairs,
                           double older)
{
    const double expanded_pair = 2.0 * m->heads * (m->head_size + m->rope + m->value_size);
    const double expand_token = 2.0 * m->kv_lora * m->heads * (m->head_size + m->value_size);
    return fmin(latent_pairs * pair_flops(m),
                all_pairs * expanded_pair + fmax(older, 0) * expand_token);
}

static double read_and_compute(const struct cost_twin *twin, double bytes, double flops,
                               struct twin_factor factor)
{
    const double p = parameter(twin, "attention.p");
    const double memory_ns = bytes / parameter(twin, "attention.bytes_s") * 1e9 * factor.memory;
    const double compute_ns = flops / parameter(twin, "attention.flop_s") * 1e9 * factor.compute;
    return pow(pow(memory_ns, p) + pow(compute_ns, p), 1 / p);
}

/* Scores and weighted sums of one layer. */
static double core_ns(const struct cost_twin *twin, double tokens, double read, double pairs,
                      double decode, struct twin_factor factor)
{
    const struct twin_model *m = &twin->model;
    double flops = pairs * pair_flops(m);
    if (m->mla) {
        flops = decode * pair_flops(m) +
                prompt_flops(m, pairs - decode, pairs - decode, read - decode - tokens);
    }
    return read_and_compute(twin, read * cost_twin_entry_values(m) * m->kv_bytes, flops, factor);
}

static enum twin_source rates_source(const struct cost_twin *twin)
{
    return worse(
        parameter_source(twin, "attention.bytes_s"),
        worse(parameter_source(twin, "attention.flop_s"), parameter_source(twin, "attention.p")));
}

/* Decoding by its series, if it has one and is known; the rest by the rates. */
static struct twin_duration core(const struct cost_twin *twin, const struct twin_tokens *work,
                                 double read, double pairs, double decode,
                                 struct twin_factor factor)
{
    if (!cost_twin_has_decode(twin) || decode == 0) {
        return (struct twin_duration){ core_ns(twin, work->tokens, read, pairs, decode, factor),
                                       rates_source(twin) };
    }
    struct twin_duration sum =
        cost_twin_decode(twin, work->decode_sequences, decode / work->decode_sequences, factor);
    if (read > decode) {
        sum.ns += cost_twin_decode_t0(twin) +
                  core_ns(twin, work->tokens, read - decode, pairs - decode, 0, factor);
        sum.source = worse(sum.source, rates_source(twin));
    }
    return sum;
}

static struct twin_duration part_of(double share, struct twin_duration whole)
{
    return (struct twin_duration){ share * whole.ns, share > 0 ? whole.source : TWIN_MEASURED };
}

static double sparse_core_ns(const struct cost_twin *twin, const struct twin_tokens *work,
                             struct twin_factor factor)
{
    const struct twin_model *m = &twin->model;
    const double window = m->sparse_ratio > 1 ? 1 : 0;
    const double read = work->sparse_read / m->sparse_ratio + window * work->window_read;
    const double pairs = work->sparse_pairs / m->sparse_ratio + window * work->window_pairs;
    double flops = pairs * pair_flops(m);
    if (m->mla) {
        flops = work->sparse_decode * pair_flops(m) +
                prompt_flops(m, pairs - work->sparse_decode, work->pairs - work->decode_read,
                             work->read - work->decode_read - work->tokens);
    }
    return read_and_compute(twin, read * cost_twin_entry_values(m) * m->kv_bytes, flops, factor);
}

/* Per layer with an indexer. */
static struct twin_duration indexer(const struct cost_twin *twin, const struct twin_tokens *work,
                                    struct twin_factor factor)
{
    const struct twin_model *m = &twin->model;
    const double keys = m->index_size * (m->sparse_ratio > 1 ? 4.0 : 1.0);
    const double entries = work->read / m->sparse_ratio;
    const double scores = work->pairs / m->sparse_ratio;
    struct twin_duration sum =
        around(twin, parameter(twin, "attention.launches"), 0, work->tokens, factor);
    sum = plus(sum, gemm(twin, m->q_lora == 0 ? m->hidden : m->q_lora,
                         m->index_heads * m->index_size, m->dense_bytes, work->tokens, factor));
    sum = plus(sum,
               gemm(twin, m->hidden, keys + m->index_heads, m->dense_bytes, work->tokens, factor));
    sum.ns += read_and_compute(twin, entries * m->index_size * m->index_bytes,
                               scores * 2 * m->index_heads * m->index_size, factor);
    sum.ns += scores / m->index_block * 8 / parameter(twin, "copy.bytes_s") * 1e9 * factor.memory;
    return sum;
}

/* What makes entries of several tokens. */
static struct twin_duration compressor(const struct cost_twin *twin, double sizes, double tokens,
                                       struct twin_factor factor)
{
    const struct twin_model *m = &twin->model;
    return plus(around(twin, 1, 0, tokens, factor),
                gemm(twin, m->hidden, sizes * m->head_size, m->dense_bytes, tokens, factor));
}

static struct twin_duration times(double share, struct twin_duration of)
{
    of.ns *= share;
    return of;
}

/* All that sparse and pooled layers add to the projections; of one mean layer. */
static struct twin_duration sparse(const struct cost_twin *twin, const struct twin_tokens *work,
                                   struct twin_factor factor)
{
    const struct twin_model *m = &twin->model;
    const double layers = m->layers;
    struct twin_duration sum = { 0, TWIN_ASSUMED };
    if (m->index_layers > 0) {
        sum = plus(sum, times(m->index_layers / layers, indexer(twin, work, factor)));
    }
    if (m->sparse_layers > 0) {
        sum.ns += m->sparse_layers / layers * sparse_core_ns(twin, work, factor);
    }
    if (m->sparse_ratio > 1) {
        sum =
            plus(sum, times(m->sparse_layers / layers, compressor(twin, 4, work->tokens, factor)));
    }
    if (m->pooled_layers > 0) {
        const double read = work->read / m->pooled_ratio + work->window_read;
        const double pairs = work->pairs / m->pooled_ratio + work->window_pairs;
        sum =
            plus(sum, times(m->pooled_layers / layers, compressor(twin, 2, work->tokens, factor)));
        sum.ns += m->pooled_layers / layers *
                  read_and_compute(twin, read * cost_twin_entry_values(m) * m->kv_bytes,
                                   pairs * pair_flops(m), factor);
    }
    return sum;
}

static struct twin_duration shared_projections(const struct cost_twin *twin, double tokens,
                                               struct twin_factor factor)
{
    const struct twin_model *m = &twin->model;
    const double b = m->dense_bytes;
    const double all = m->heads * m->head_size;
    struct twin_duration sum = { 0, TWIN_MEASURED };
    if (m->q_lora == 0) {
        sum = plus(sum, gemm(twin, m->hidden, all + m->head_size, b, tokens, factor));
    } else {
        sum = plus(sum, gemm(twin, m->hidden, m->q_lora + m->head_size, b, tokens, factor));
        sum = plus(sum, gemm(twin, m->q_lora, all, b, tokens, factor));
    }
    if (m->gated_attention) {
        sum = plus(sum, gemm(twin, m->hidden, all, b, tokens, factor));
    }
    if (m->output_rank == 0) {
        return plus(sum, gemm(twin, all, m->hidden, b, tokens, factor));
    }
    sum = plus(sum, gemm(twin, all, m->output_rank, b, tokens, factor));
    return plus(sum, gemm(twin, m->output_groups * m->output_rank, m->hidden, b, tokens, factor));
}

static struct twin_duration projections(const struct cost_twin *twin, double tokens,
                                        struct twin_factor factor)
{
    const struct twin_model *m = &twin->model;
    const double query = m->heads * (m->head_size + m->rope);
    const double latent = m->kv_lora + m->rope;
    const double b = m->dense_bytes;
    struct twin_duration sum = { 0, TWIN_MEASURED };
    if (m->shared) {
        return shared_projections(twin, tokens, factor);
    }
    if (!m->mla) {
        const double heads = (m->gated_attention ? 2.0 : 1.0) * m->heads + 2.0 * m->kv_heads;
        sum = plus(sum, gemm(twin, m->hidden, heads * m->head_size, b, tokens, factor));
        return plus(sum, gemm(twin, m->heads * m->head_size, m->hidden, b, tokens, factor));
    }
    if (m->q_lora == 0) {
        sum = plus(sum, gemm(twin, m->hidden, query + latent, b, tokens, factor));
    } else {
        sum = plus(sum, gemm(twin, m->hidden, m->q_lora + latent, b, tokens, factor));
        sum = plus(sum, gemm(twin, m->q_lora, query, b, tokens, factor));
    }
    if (m->gated_attention) {
        sum = plus(sum, gemm(twin, m->hidden, m->heads * m->value_size, b, tokens, factor));
    }
    sum = plus(
        sum, gemm(twin, m->kv_lora, m->heads * (m->head_size + m->value_size), b, tokens, factor));
    return plus(sum, gemm(twin, m->heads * m->value_size, m->hidden, b, tokens, factor));
}

static struct twin_duration attention(const struct cost_twin *twin, const struct twin_tokens *work,
                                      struct twin_factor factor)
{
    const struct twin_model *m = &twin->model;
    const double layers = m->layers;
    const double linear = layers - m->kv_layers - m->window_layers;
    struct twin_duration surround =
        around(twin, parameter(twin, "attention.launches"),
               m->hidden * (parameter(twin, "norm.bytes_per_value") + 12.0 * m->streams),
               work->tokens, factor);
    struct twin_duration sum = plus(surround, projections(twin, work->tokens, factor));
    if (linear > 0 && m->linear_weights > 0) {
        const double inner = m->linear_weights / 2 / m->hidden;
        struct twin_duration other =
            plus(surround, gemm(twin, m->hidden, inner, m->dense_bytes, work->tokens, factor));
        other = plus(other, gemm(twin, inner, m->hidden, m->dense_bytes, work->tokens, factor));
        sum.ns = sum.ns * (1 - linear / layers) + other.ns * linear / layers;
        sum.source = worse(sum.source, other.source);
    }
    if (m->sparse_layers + m->pooled_layers > 0) {
        sum = plus(sum, sparse(twin, work, factor));
    }
    /* In a window nobody knows which reads are whose, but where all are of decoding. */
    const bool all = cost_twin_has_decode(twin) && work->decode_read == work->read;
    sum = plus(sum, part_of((m->kv_layers - m->sparse_layers - m->pooled_layers) / layers,
                            core(twin, work, work->read, work->pairs, work->decode_read, factor)));
    sum = plus(sum, part_of(m->window_layers / layers,
                            core(twin, work, work->window_read, work->window_pairs,
                                 all ? work->window_read : 0, factor)));
    if (!cost_twin_has_decode(twin) || m->sparse_layers + m->pooled_layers > 0) {
        sum.source = worse(sum.source, rates_source(twin));
    }
    return sum;
}

struct twin_duration cost_twin_own(const struct cost_twin *twin, enum twin_part part,
                                   const struct twin_tokens *work, struct twin_factor factor)
{
    if (part == TWIN_HOST) {
        return (struct twin_duration){ parameter(twin, "host.step_ns"),
                                       parameter_source(twin, "host.step_ns") };
    }
    if (work->tokens == 0) {
        return (struct twin_duration){ 0, TWIN_MEASURED };
    }
    return part == TWIN_ATTENTION ? attention(twin, work, factor)
           : part == TWIN_DENSE   ? ffn(twin, twin->model.dense_size, work->tokens, factor)
           : part == TWIN_SHARED  ? ffn(twin, twin->model.shared_size, work->tokens, factor)
           : part == TWIN_GATE    ? gate(twin, work->tokens, factor)
                                  : head(twin, work, factor);
}

static const struct twin_row *expert_series(const struct cost_twin *twin)
{
    const struct twin_model *m = &twin->model;
    return find_series(twin, "expert", width_of(m), m->expert_size, m->gated,
                       dtype_of(m->expert_bytes));
}

uint32_t cost_twin_tile(const struct cost_twin *twin)
{
    return (uint32_t) twin_number(expert_series(twin), "tile_tokens");
}

struct twin_duration cost_twin_expert(const struct cost_twin *twin, double tokens, double active,
                                      double tiles, double fullest, struct twin_factor factor)
{
    const struct twin_model *m = &twin->model;
    const struct twin_row *series = expert_series(twin);
    struct twin_duration out = { 0, TWIN_MEASURED };
    if (tokens == 0) {
        return out;
    }
    const double weights = (m->gated ? 3 : 2) * width_of(m) * m->expert_size;
    const double mean = tokens / active;
    const double share =
        fullest < mean + 1 || besides(twin, series, 1) == 0 ? 0 : fmin(1, 4 * (fullest / mean - 1));
    const double r = share * ratio(twin, series, averaged, mean, active, &out.source) +
                     (1 - share) * ratio(twin, series, point_ratio, mean, active, &out.source);
    out.ns =
        r * fitted(twin, series, active * weights * m->expert_bytes,
                   (tiles * cost_twin_tile(twin) + besides(twin, series, fullest)) * 2 * weights,
                   factor);
    if (twin_is(series, "permutation", "outside")) {
        const double both = cost_twin_copy_bytes(twin, TWIN_DISPATCH) +
                            cost_twin_copy_bytes(twin, TWIN_COMBINE) -
                            2 * parameter(twin, "exchange.header_bytes");
        out.ns += tokens * 2 * both / parameter(twin, "copy.bytes_s") * 1e9 * factor.memory;
    }
    return out;
}
