/* Decode attention once more: the words of sim/cost/decode.h, every split tried and every round
 * played. */
#include <math.h>

#include "tests/cost_twin.h"

struct launch {
    double splits;
    double each;
    double blocks;
};

/* Rounds times tiles, with two tiles more for each block; the first of the least. */
static struct launch plan(const struct twin_row *row, double sequences, double tiles)
{
    const double slots = twin_number(row, "slots");
    struct launch best = { 0, 0, 0 };
    double least = INFINITY;
    for (int i = 1; i <= 256 && i <= tiles; i++) {
        const double splits = i;
        const double blocks = ceil(sequences) * twin_number(row, "blocks") * splits;
        const double each = ceil(tiles / splits);
        const double cost = ceil(blocks / slots) * (each + 2);
        if (cost < least) {
            least = cost;
            best = (struct launch){ splits, each, blocks };
        }
    }
    return best;
}

static double fitted(const struct twin_row *row, double sequences, double context,
                     struct twin_factor factor)
{
    const bool mla = twin_is(row, "kind", "mla");
    const double size = twin_number(row, "head_size");
    const double value = twin_number(row, "value_size");
    const double rows = ceil(sequences) * twin_number(row, "q_heads");
    const double ns_per_byte = 1e9 / twin_number(row, "bandwidth_bytes_s") * factor.memory;
    const double cache = 2 * (mla ? size : (size + value) * twin_number(row, "kv_heads"));
    const double tile = twin_number(row, "tile_tokens");
    const double p = twin_number(row, "p");
    const struct launch launch = plan(row, sequences, ceil(ceil(context) / tile));
    double ns = twin_number(row, "t0_ns") + rows * 2 * (size + value) * ns_per_byte;
    const double slots = twin_number(row, "slots");
    for (int round = 0; round * slots < launch.blocks; round++) {
        const double blocks = fmin(launch.blocks - round * slots, slots);
        const double bytes = blocks * tile * cache / twin_number(row, "blocks");
        ns += twin_number(row, "round_ns") +
              launch.each * pow(pow(twin_number(row, "tile_ns") * factor.compute, p) +
                                    pow(bytes * ns_per_byte, p),
                                1 / p);
    }
    if (launch.splits > 1) {
        ns += twin_number(row, "join_ns") + launch.splits * twin_number(row, "split_ns") +
              rows * twin_number(row, "row_ns");
        ns += rows * launch.splits * 2 * (4 * value + 8) * ns_per_byte;
    }
    return ns;
}

struct value {
    double ratio;
    enum twin_source source;
};

static struct value blend(struct value low, struct value high, double share)
{
    const enum twin_source source = low.source > high.source ? low.source : high.source;
    return (struct value){ (1 - share) * low.ratio + share * high.ratio,
                           source == TWIN_MEASURED ? TWIN_INTERPOLATED : source };
}

static struct value beyond(struct value border)
{
    border.source = border.source <= TWIN_EXTRAPOLATED ? TWIN_EXTRAPOLATED : TWIN_ASSUMED;
    return border;
}

static double place(double at, double low, double high)
{
    return (log2(at) - log2(low)) / (log2(high) - log2(low));
}

/* The points of the series with the next smaller and larger cell, itself included, in a column;
 * sequences 0: of any. */
static void around(const struct cost_twin *twin, const struct twin_row *series, double sequences,
                   const char *column, double at, const struct twin_row **low,
                   const struct twin_row **high)
{
    *low = *high = NULL;
    for (uint32_t i = 0; i < twin->table.rows; i++) {
        const struct twin_row *row = &twin->table.row[i];
        if (!twin_same(row->table, "decode_point") ||
            !twin_is(row, "series", twin_text(series, "series")) ||
            (sequences > 0 && twin_number(row, "sequences") != sequences)) {
            continue;
        }
        const double cell = twin_number(row, column);
        *low = cell <= at && (*low == NULL || cell > twin_number(*low, column)) ? row : *low;
        *high = cell >= at && (*high == NULL || cell < twin_number(*high, column)) ? row : *high;
    }
}

static struct value at_point(const struct twin_row *series, const struct twin_row *point)
{
    const struct twin_factor nominal = { 1, 1, 1 };
    const double ns =
        fitted(series, twin_number(point, "sequences"), twin_number(point, "context"), nominal);
    return (struct value){ twin_number(point, "median_ns") / ns, twin_source_of(point) };
}

static struct value along(const struct cost_twin *twin, const struct twin_row *series,
                          double sequences, double context)
{
    const struct twin_row *low = NULL;
    const struct twin_row *high = NULL;
    around(twin, series, sequences, "context", context, &low, &high);
    if (low == NULL || high == NULL) {
        return beyond(at_point(series, low == NULL ? high : low));
    }
    return low == high
               ? at_point(series, low)
               : blend(at_point(series, low), at_point(series, high),
                       place(context, twin_number(low, "context"), twin_number(high, "context")));
}

static struct value correction(const struct cost_twin *twin, const struct twin_row *series,
                               double sequences, double context)
{
    const struct twin_row *low = NULL;
    const struct twin_row *high = NULL;
    around(twin, series, 0, "sequences", sequences, &low, &high);
    if (low == NULL && high == NULL) {
        return beyond((struct value){ 1, twin_source_of(series) });
    }
    const double from = twin_number(low == NULL ? high : low, "sequences");
    const double to = twin_number(high == NULL ? low : high, "sequences");
    if (low == NULL || high == NULL) {
        return beyond(along(twin, series, from, context));
    }
    return from == to ? along(twin, series, from, context)
                      : blend(along(twin, series, from, context), along(twin, series, to, context),
                              place(sequences, from, to));
}

/* The model's row, if it has one. */
static const struct twin_row *find(const struct cost_twin *twin)
{
    const struct twin_model *m = &twin->model;
    for (uint32_t i = 0; i < twin->table.rows && !m->shared && m->kv_bytes == 2; i++) {
        const struct twin_row *row = &twin->table.row[i];
        if (twin_same(row->table, "decode") && twin_is(row, "kind", m->mla ? "mla" : "gqa") &&
            twin_number(row, "q_heads") == m->heads &&
            twin_number(row, "kv_heads") == (m->mla ? 1 : m->kv_heads) &&
            twin_number(row, "head_size") == (m->mla ? m->kv_lora + m->rope : m->head_size) &&
            twin_number(row, "value_size") == (m->mla ? m->kv_lora : m->head_size)) {
            return row;
        }
    }
    return NULL;
}

bool cost_twin_has_decode(const struct cost_twin *twin)
{
    return find(twin) != NULL;
}

double cost_twin_decode_t0(const struct cost_twin *twin)
{
    return twin_number(find(twin), "t0_ns");
}

struct twin_duration cost_twin_decode(const struct cost_twin *twin, double sequences,
                                      double context, struct twin_factor factor)
{
    const struct twin_row *series = find(twin);
    const struct value value = correction(twin, series, sequences, context);
    enum twin_source source = value.source;
    if (source == TWIN_INTERPOLATED && twin_source_of(series) == TWIN_EXTRAPOLATED) {
        source = TWIN_EXTRAPOLATED; /* its held-out points were too far off */
    }
    return (struct twin_duration){ value.ratio * fitted(series, sequences, context, factor),
                                   source };
}
