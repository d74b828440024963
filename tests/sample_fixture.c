#include "tests/sample_fixture.h"

#include <assert.h>
#include <gsl/gsl_cdf.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "calibrate/samples/sample_store.h"
#include "sim/base/random.h"
#include "tests/decode_table.h"

struct writer {
    const struct sample_world *world;
    struct moe_sample_store *store;
    uint64_t key;
    uint64_t counter;
    int64_t run;
    int64_t gpus[16];
    int64_t seq;
    double now_s;
    double mhz; /* of the next sample; 0: not known */
    bool point_has_clock;
};

struct sample_world sample_world_plain(uint64_t seed)
{
    return (struct sample_world){
        .seed = seed,
        .gpu_count = 1,
        .slow_gpu = 1,
        .slow_factor = 1.0,
        .run_factor = 1.0,
        .noise = 0.003,
        .heldout_scale = 1.0,
        .started_at = "2026-01-02T03:04:05Z",
        .driver = "580.1",
        .gpu_kind = "H200",
    };
}

static double weights(void)
{
    return 3.0 * SAMPLE_HIDDEN * SAMPLE_INTER;
}

static double norm(double a, double b)
{
    return pow(pow(a, SAMPLE_P) + pow(b, SAMPLE_P), 1.0 / SAMPLE_P);
}

/* So many padded rows on so many active experts. */
static double rows_ns(double rows, uint32_t active, double compute_factor)
{
    return SAMPLE_T0_NS + norm(active * weights() * 2.0 / SAMPLE_BANDWIDTH * 1e9,
                               rows * 2.0 * weights() / SAMPLE_PEAK * 1e9 * compute_factor);
}

double sample_expert_ns(double tokens, uint32_t active, double compute_factor)
{
    return rows_ns(active * ceil(tokens / SAMPLE_TILE) * SAMPLE_TILE, active, compute_factor);
}

double sample_exchange_ns(double bytes)
{
    return bytes <= SAMPLE_KNEE_BYTES ? 9e3 + bytes / 100.0 : 16e3 + bytes / 280.0;
}

static double normal(struct writer *writer)
{
    return gsl_cdf_ugaussian_Pinv(moe_random_inside(writer->key, writer->counter++));
}

static void ok(enum moe_status status)
{
    assert(status == MOE_OK);
    (void) status;
}

static int64_t add_series(struct writer *writer, struct moe_sample_series series)
{
    int64_t id = 0;
    series.models = "";
    if (series.ranks == 0) {
        series.ranks = 1;
        series.src = -1;
        series.dst = -1;
    }
    ok(moe_sample_add_series(writer->store, &series, &id, NULL));
    return id;
}

static void add_sample(struct writer *writer, int64_t point, uint32_t gpu, int32_t pass, double ns)
{
    const double us = ns * 1e-3 * exp(writer->world->noise * normal(writer));
    const struct moe_sample_row row = {
        .point = point,
        .run = writer->run,
        .gpu = writer->gpus[gpu],
        .gpu_rank = (int32_t) gpu,
        .pass = pass,
        .seq = writer->seq++,
        .begin_s = writer->now_s,
        .n = 20,
        .min_us = us * 0.99,
        .p5_us = us * 0.995,
        .p25_us = us * 0.998,
        .median_us = us,
        .p75_us = us * 1.002,
        .p95_us = us * 1.01,
        .p99_us = us * 1.02,
        .mad_us = us * 0.002,
        .low_us = us * 0.999,
        .high_us = us * 1.001,
        .mhz = writer->mhz,
        .watts = 600,
        .celsius = 50,
        .error = -1,
        .flags = "",
    };
    ok(moe_sample_add_row(writer->store, &row, NULL, NULL));
}

/* Whatever ran before leaves the card some clock or other: only arithmetic follows it. */
static double next_clock(struct writer *writer)
{
    if (writer->world->clock_spread <= 0.0) {
        return 1.0;
    }
    if (writer->world->settled && writer->point_has_clock) {
        return 1500.0 / writer->mhz;
    }
    writer->point_has_clock = true;
    const double u = moe_random_uniform(writer->key, writer->counter++);
    writer->mhz = 1500.0 * exp(writer->world->clock_spread * (2.0 * u - 1.0));
    return 1500.0 / writer->mhz;
}

static double factor_of(const struct writer *writer, uint32_t gpu)
{
    const double wave =
        writer->world->drift * sqrt(2.0) * sin(writer->now_s / 120.0 * 6.283185307179586 + gpu);
    return (gpu == writer->world->slow_gpu ? writer->world->slow_factor : 1.0) * exp(wave) *
           writer->world->run_factor;
}

static double expert_ns(const struct writer *writer, double tokens, uint32_t active, double factor)
{
    const double rows = active * ceil(tokens / SAMPLE_TILE) * SAMPLE_TILE;
    const double besides = writer->world->fullest_weight * fmin(ceil(tokens), 128.0);
    return rows_ns(rows + besides, active, factor);
}

static int64_t add_point(struct writer *writer, int64_t series, const char *role, double tokens,
                         int32_t active, double bytes, double flops)
{
    int64_t id = 0;
    const struct moe_sample_point point = {
        .series = series,
        .role = role,
        .tokens = tokens,
        .active = active,
        .bytes = bytes,
        .flops = flops,
        .bytes_per_peer = 0.0,
        .histogram = "uniform",
    };
    ok(moe_sample_add_point(writer->store, &point, &id, NULL));
    writer->point_has_clock = false;
    return id;
}

static double scale_of(const struct writer *writer, const char *role)
{
    const bool unseen = strcmp(role, "heldout") == 0 || strcmp(role, "skew") == 0;
    return unseen ? writer->world->heldout_scale : 1.0;
}

static void expert_point(struct writer *writer, int64_t series, const char *role, double tokens,
                         int32_t active)
{
    const struct sample_world *world = writer->world;
    const int64_t point = add_point(writer, series, role, tokens, active, active * weights() * 2.0,
                                    active * tokens * 2.0 * weights());
    const bool slow = world->kernel_switch && tokens > 65.5 && tokens < 95.5;
    writer->now_s += 0.4;
    for (uint32_t gpu = 0; gpu < world->gpu_count; gpu++) {
        const int32_t passes = (int) tokens % 4 == 0 ? 2 : 1;
        for (int32_t pass = 1; pass <= passes; pass++) {
            const double factor = factor_of(writer, gpu) * next_clock(writer);
            add_sample(writer, point, gpu, pass,
                       expert_ns(writer, tokens, (uint32_t) active, factor) * (slow ? 1.25 : 1.0) *
                           scale_of(writer, role));
        }
    }
}

/* Expert i of the active ones has low + step * (i % 7) rows. */
static void uneven_point(struct writer *writer, int64_t series, const char *role, int32_t active,
                         int32_t low, int32_t step)
{
    int32_t rows[SAMPLE_UNITS] = { 0 };
    double tiles = 0.0;
    double total = 0.0;
    for (int i = 0; i < active; i++) {
        rows[i] = low + step * (i % 7);
        tiles += ceil(rows[i] / (double) SAMPLE_TILE);
        total += rows[i];
    }
    const double besides = writer->world->fullest_weight * fmin(low + 6 * step, 128.0);
    int64_t id = 0;
    const struct moe_sample_point point = {
        .series = series,
        .role = role,
        .tokens = total / active,
        .active = active,
        .row_max = low + 6 * step,
        .bytes = active * weights() * 2.0,
        .flops = total * 2.0 * weights(),
        .histogram = "zipf1.0",
        .rows = rows,
        .rows_bytes = sizeof rows,
    };
    ok(moe_sample_add_point(writer->store, &point, &id, NULL));
    for (uint32_t gpu = 0; gpu < writer->world->gpu_count; gpu++) {
        const double factor = factor_of(writer, gpu) * next_clock(writer);
        add_sample(writer, id, gpu, 1,
                   rows_ns(tiles * SAMPLE_TILE + besides, (uint32_t) active, factor));
    }
}

static void write_experts(struct writer *writer)
{
    static const double anchors[] = { 1,  2,  4,   8,   16,  32,  48,  63,  64,
                                      65, 96, 128, 129, 192, 256, 512, 1024 };
    static const double few[] = { 1, 4, 16, 64, 256 };
    static const double heldout[] = { 3, 24, 72, 80, 90, 160, 333, 700 };
    char name[64];
    (void) snprintf(name, sizeof name, "expert-%dx%dx%d-bf16-swiglu-own", SAMPLE_HIDDEN,
                    SAMPLE_INTER, SAMPLE_UNITS);
    const int64_t series = add_series(writer, (struct moe_sample_series){
                                                  .name = name,
                                                  .kind = "expert",
                                                  .hidden = SAMPLE_HIDDEN,
                                                  .inter = SAMPLE_INTER,
                                                  .units = SAMPLE_UNITS,
                                                  .dtype = "bf16",
                                                  .activation = "swiglu",
                                                  .backend = "own",
                                              });
    const int64_t sentinel =
        add_point(writer, series, "sentinel", 256, SAMPLE_UNITS, SAMPLE_UNITS * weights() * 2.0,
                  SAMPLE_UNITS * 256 * 2.0 * weights());
    for (size_t i = 0; i < sizeof anchors / sizeof anchors[0]; i++) {
        expert_point(writer, series, "anchor", anchors[i], SAMPLE_UNITS);
        for (int visit = 0; visit < 2; visit++) {
            writer->now_s += 6.0;
            for (uint32_t gpu = 0; gpu < writer->world->gpu_count; gpu++) {
                const double factor = factor_of(writer, gpu) * next_clock(writer);
                add_sample(writer, sentinel, gpu, 1, expert_ns(writer, 256, SAMPLE_UNITS, factor));
            }
        }
    }
    for (size_t i = 0; i < sizeof few / sizeof few[0]; i++) {
        expert_point(writer, series, "anchor", few[i], 8);
        expert_point(writer, series, "anchor", few[i], 16);
    }
    for (size_t i = 0; i < sizeof heldout / sizeof heldout[0]; i++) {
        expert_point(writer, series, "heldout", heldout[i], i % 4 == 3 ? 16 : SAMPLE_UNITS);
    }
    uneven_point(writer, series, "skew", SAMPLE_UNITS, 10, 30);
    if (writer->world->uneven) {
        uneven_point(writer, series, "uneven", 8, 2, 2);
        uneven_point(writer, series, "uneven", 8, 20, 16);
        uneven_point(writer, series, "uneven", SAMPLE_UNITS, 5, 7);
        uneven_point(writer, series, "uneven", SAMPLE_UNITS, 40, 25);
        uneven_point(writer, series, "uneven", SAMPLE_UNITS, 10, 30);
    }
    /* Under load that lasts, arithmetic takes 1.2 times as long. */
    const int64_t lasting =
        add_point(writer, series, "sustained", 512, SAMPLE_UNITS, SAMPLE_UNITS * weights() * 2.0,
                  SAMPLE_UNITS * 512 * 2.0 * weights());
    for (uint32_t gpu = 0; gpu < writer->world->gpu_count; gpu++) {
        add_sample(writer, lasting, gpu, 1,
                   expert_ns(writer, 512, SAMPLE_UNITS, 1.2 * factor_of(writer, gpu)));
    }
}

static void write_permutes(struct writer *writer)
{
    const int64_t series = add_series(writer, (struct moe_sample_series){
                                                  .name = "permute-7168-bf16",
                                                  .kind = "permute",
                                                  .hidden = 7168,
                                                  .units = 32,
                                                  .top_k = 8,
                                                  .dtype = "bf16",
                                                  .activation = "",
                                                  .backend = "own",
                                              });
    for (int i = 4; i < 16; i++) {
        const double tokens = ldexp(1.0, i);
        const double bytes = tokens * 7168 * 2 * 9;
        const char *role = i % 4 == 3 ? "heldout" : "anchor";
        const int64_t point = add_point(writer, series, role, tokens, 1, bytes, 0.0);
        for (uint32_t gpu = 0; gpu < writer->world->gpu_count; gpu++) {
            add_sample(writer, point, gpu, 1,
                       (4e3 + bytes / SAMPLE_COPY_RATE * 1e9) * scale_of(writer, role));
        }
    }
}

/* Rows of a table, those of one series together: times without noise but the world's. */
static void write_decode(struct writer *writer)
{
    struct decode_table_row row;
    char last[80] = "";
    int64_t series = 0;
    FILE *file = fopen(writer->world->decode_csv, "r");
    assert(file != NULL);
    while (decode_table_next(file, &row)) {
        int64_t id = 0;
        if (strcmp(row.series, last) != 0) {
            (void) snprintf(last, sizeof last, "%s", row.series);
            series = add_series(writer, (struct moe_sample_series){
                                            .name = row.series,
                                            .kind = row.kind,
                                            .hidden = (int32_t) row.head_size,
                                            .inter = (int32_t) row.kv_heads,
                                            .units = (int32_t) row.q_heads,
                                            .dtype = "bf16",
                                            .activation = "",
                                            .backend = "own",
                                        });
        }
        const bool latent = strcmp(row.kind, "kv_mla") == 0;
        const double cached = row.head_size * (latent ? 2.0 : 4.0 * row.kv_heads);
        const double pair_flops = row.q_heads * (latent ? 2176.0 : 4.0 * row.head_size);
        const struct moe_sample_point point = {
            .series = series,
            .role = row.role,
            .tokens = row.sequences,
            .context = row.context,
            .active = 1,
            .bytes = row.sequences * (row.context * cached + row.q_heads * row.head_size * 4.0),
            .flops = row.sequences * row.context * pair_flops,
            .histogram = "",
        };
        ok(moe_sample_add_point(writer->store, &point, &id, NULL));
        add_sample(writer, id, 0, 1, row.median_us * 1e3 * scale_of(writer, row.role));
    }
    (void) fclose(file);
}

/* Two ranks' uneven all-to-all: each rank by its fuller direction, less what the other one saves,
 * or by what it keeps. */
static double uneven_ns(const int64_t *matrix)
{
    const double empty = sample_exchange_ns(0.0);
    const double more = fmax((double) matrix[1], (double) matrix[2]);
    const double less = fmin((double) matrix[1], (double) matrix[2]);
    const double own = fmax((double) matrix[0], (double) matrix[3]);
    const double links = empty + (sample_exchange_ns(more) - empty) *
                                     (1.0 - SAMPLE_ONE_WAY_SAVING * (1.0 - less / more));
    return fmax(links, own > 0.0 ? empty + own / SAMPLE_OWN_RATE * 1e9 : 0.0);
}

static void exchange_point(struct writer *writer, int64_t series, const char *role, double bytes,
                           const int64_t *matrix)
{
    int64_t id = 0;
    const struct moe_sample_point point = {
        .series = series,
        .role = role,
        .active = 1,
        .bytes = matrix != NULL ? (double) matrix[1] : bytes,
        .bytes_per_peer = bytes,
        .histogram = matrix != NULL ? "hot8x" : "",
        .rows = matrix,
        .rows_bytes = matrix != NULL ? 4 * sizeof matrix[0] : 0,
    };
    ok(moe_sample_add_point(writer->store, &point, &id, NULL));
    for (uint32_t gpu = 0; gpu < 2; gpu++) {
        /* The first rank is done earlier: the last one counts. */
        add_sample(writer, id, gpu, 1,
                   (matrix == NULL ? sample_exchange_ns(bytes) : uneven_ns(matrix)) *
                       (gpu == 0 ? 0.9 : 1.0) * scale_of(writer, role));
    }
}

static void write_exchanges(struct writer *writer)
{
    const struct moe_sample_series even = {
        .name = "all_to_all-2",
        .kind = "all_to_all",
        .units = 1,
        .dtype = "bf16",
        .activation = "",
        .backend = "nccl",
        .ranks = 2,
        .src = -1,
        .dst = -1,
    };
    struct moe_sample_series uneven = even;
    uneven.name = "all_to_all_v-2";
    uneven.kind = "all_to_all_v";
    const int64_t series = add_series(writer, even);
    const int64_t series_v = add_series(writer, uneven);
    for (int i = 10; i <= 28; i++) {
        exchange_point(writer, series, "anchor", ldexp(1.0, i), NULL);
    }
    for (int i = 0; i < 12; i++) {
        exchange_point(writer, series, "heldout", ldexp(1.37, 10 + i + i / 2), NULL);
    }
    for (int i = 16; i < 28; i += 2) {
        const int64_t busiest = (int64_t) ldexp(1.0, i) + 16;
        const int64_t matrix[4] = { 0, busiest / 8, busiest, 0 }; /* rank 0 receives the more */
        exchange_point(writer, series_v, "skew", (double) busiest, matrix);
    }
    for (int i = 21; i < 28; i += 2) {
        const int64_t bytes = (int64_t) ldexp(1.0, i);
        const int64_t one_way[4] = { 0, bytes / 8, bytes, 0 };
        const int64_t kept[4] = { 16 * bytes, bytes, bytes, bytes };
        exchange_point(writer, series_v, "anchor", (double) bytes, one_way);
        exchange_point(writer, series_v, "anchor", (double) bytes + 16.0, kept);
    }
}

static int64_t overlap_point(struct writer *writer, int64_t series, const char *part, double rows)
{
    int64_t id = 0;
    const struct moe_sample_point point = {
        .series = series,
        .role = "anchor",
        .tokens = rows,
        .active = 8,
        .bytes = 4194304.0,
        .bytes_per_peer = 4194304.0,
        .flops = 1e9,
        .histogram = part,
    };
    ok(moe_sample_add_point(writer->store, &point, &id, NULL));
    return id;
}

/* GEMMs take 1.3 times as long under exchanges, those 1.6 times under GEMMs. */
static void write_overlap(struct writer *writer)
{
    static const struct {
        const char *part;
        double ns;
    } parts[] = {
        { "gemm-alone", 1e5 },
        { "gemm-under", 1.3e5 },
        { "exchange-alone", 5e4 },
        { "exchange-under", 8e4 },
    };
    const int64_t series = add_series(writer, (struct moe_sample_series){ .name = "overlap-2",
                                                                          .kind = "overlap",
                                                                          .hidden = 7168,
                                                                          .inter = 2048,
                                                                          .units = 8,
                                                                          .dtype = "bf16",
                                                                          .activation = "swiglu",
                                                                          .backend = "own",
                                                                          .ranks = 2,
                                                                          .src = -1,
                                                                          .dst = -1 });
    for (int load = 1; load <= 3; load++) {
        for (int i = 0; i < 4; i++) {
            const int64_t point = overlap_point(writer, series, parts[i].part, 8.0 * load);
            for (uint32_t gpu = 0; gpu < 2; gpu++) {
                add_sample(writer, point, gpu, 1, parts[i].ns * load);
            }
        }
    }
}

/* One-way copies between the first two GPUs; the second sends 4 % slower. */
static void write_pairs(struct writer *writer)
{
    for (int src = 0; src < 2; src++) {
        char name[32];
        (void) snprintf(name, sizeof name, "p2p-%d-%d", src, 1 - src);
        const int64_t series = add_series(writer, (struct moe_sample_series){ .name = name,
                                                                              .kind = "p2p",
                                                                              .units = 1,
                                                                              .dtype = "bf16",
                                                                              .activation = "",
                                                                              .backend = "nccl",
                                                                              .ranks = 2,
                                                                              .src = src,
                                                                              .dst = 1 - src });
        for (int i = 10; i <= 28; i++) {
            int64_t id = 0;
            const struct moe_sample_point point = {
                .series = series,
                .role = "anchor",
                .active = 1,
                .bytes = ldexp(1.0, i),
                .bytes_per_peer = ldexp(1.0, i),
                .histogram = "",
            };
            ok(moe_sample_add_point(writer->store, &point, &id, NULL));
            for (uint32_t gpu = 0; gpu < 2; gpu++) {
                add_sample(writer, id, gpu, 1,
                           (8e3 + ldexp(1.0, i) / 360.0) * (src == 1 ? 1.04 : 1.0));
            }
        }
    }
}

static void add_ceiling(struct writer *writer, uint32_t gpu, const char *name, double value)
{
    ok(moe_sample_add_ceiling(writer->store, writer->run, writer->gpus[gpu], name, value, NULL));
}

static void write_gpus(struct writer *writer)
{
    const struct sample_world *world = writer->world;
    for (uint32_t i = 0; i < world->gpu_count; i++) {
        char uuid[48];
        (void) snprintf(uuid, sizeof uuid, "GPU-%08u-0000", world->first_gpu + i);
        const struct moe_sample_gpu gpu = {
            .uuid = uuid,
            .name = "made up",
            .kind = world->gpu_kind,
            .sm_count = 132,
            .l2_bytes = 60 << 20,
            .memory_bytes = INT64_C(150000000000),
            .boost_mhz = 1980,
            .power_limit_w = 700,
        };
        ok(moe_sample_add_gpu(writer->store, &gpu, &writer->gpus[i], NULL));
        add_ceiling(writer, i, "read_bytes_s", SAMPLE_READ_CEILING);
        add_ceiling(writer, i, "copy_bytes_s", 4.2e12);
        add_ceiling(writer, i, "bf16_flop_s", 800e12);
        add_ceiling(writer, i, "fp8_flop_s", 1500e12);
        add_ceiling(writer, i, "graph_node_ns", 510.0);
    }
}

void sample_world_write(const struct sample_world *world, const char *path)
{
    struct writer writer = {
        .world = world,
        .key = moe_random_key(world->seed, MOE_RANDOM_TEST),
    };
    const struct moe_sample_run run = {
        .started_at = world->started_at,
        .command = "measure",
        .moecal = "0.1.0",
        .driver = world->driver,
        .cuda = "13.0",
        .cublas = "13.1.0",
        .nccl = "2.28.9",
        .seed = world->seed,
        .gpu_count = world->gpu_count,
        .settings = world->settled ? "{\"settle_s\":0.4}" : "{}",
    };
    assert(world->gpu_count >= 1 && world->gpu_count <= 16);
    ok(moe_sample_store_open(path, &writer.store, NULL));
    ok(moe_sample_begin_run(writer.store, &run, &writer.run, NULL));
    write_gpus(&writer);
    write_experts(&writer);
    if (world->decode_csv != NULL) {
        write_decode(&writer);
    }
    if (!world->experts_only) {
        write_permutes(&writer);
        if (world->gpu_count >= 2) {
            write_exchanges(&writer);
            write_pairs(&writer);
            write_overlap(&writer);
        }
    }
    ok(moe_sample_end_run(writer.store, writer.run, writer.now_s, NULL));
    moe_sample_store_close(writer.store);
}
