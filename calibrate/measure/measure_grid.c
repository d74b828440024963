#include "calibrate/measure/measure_grid.h"

#include <math.h>
#include <string.h>

#include "calibrate/measure/measure_series.h"
#include "sim/base/hash.h"
#include "sim/base/random.h"

/* Both sides of where our kernels take another tile (expert_split.h: tiles of 128, or 192,
 * and the smallest of 8 .. 128 that holds what is left): between two cuts times lie on a plateau,
 * and where one end of it was not measured, points of H200 were foretold 6 to 16 % wrong, else 1 %. */
static const int32_t expert_anchors[] = { 1,   2,   4,   8,   16,  32,  33,  64,  65,  128, 129,
                                          192, 193, 256, 257, 320, 321, 384, 385, 448, 449, 512,
                                          513, 576, 577, 640, 641, 704, 768, 769, 832, 833, 1024 };
/* Of a shape's further numbers of local experts, which are fitted together with the first. */
static const int32_t thin_anchors[] = { 1,   2,   4,   8,   16,  32,  33,  64,  65,  128, 129, 192,
                                        193, 256, 257, 384, 385, 448, 512, 513, 576, 768, 1024 };
static const int32_t gemm_anchors[] = { 1,    2,    4,    8,    16,   24,   32,  48,
                                        64,   96,   128,  192,  256,  384,  512, 768,
                                        1024, 1536, 2048, 3072, 4096, 6144, 8192 };
/* With a part of the experts active; all of them where no series has so many experts. */
static const int32_t few_anchors[] = { 1, 4, 16, 33, 64, 65, 128, 129, 256, 257, 512 };
enum {
    EXPERT_ANCHORS = sizeof expert_anchors / sizeof expert_anchors[0],
    THIN_ANCHORS = sizeof thin_anchors / sizeof thin_anchors[0],
    GEMM_ANCHORS = sizeof gemm_anchors / sizeof gemm_anchors[0],
    FEW_ANCHORS = sizeof few_anchors / sizeof few_anchors[0],
    FEWEST_ANCHORS = 3,
    HELDOUT_UNIFORM = 6,
    HELDOUT_GEMM = 6,
    HELDOUT_KV = 12,
    HELDOUT_ACTIVE = 1,
    HELDOUT_RANDOM = 2,
    DRAWS = 64, /* until one is no anchor */
};

static const char *const skews[] = { "hot8x", "zipf1.0", "zipf1.2", "half-empty" };

/* What one series is filled from. */
struct grid {
    const struct moe_measure_request *request;
    struct moe_measure_plan *plan;
    uint32_t series;
    bool dense;   /* expert: the one of its shape that has all sizes */
    bool halved;  /* expert: a series of its shape has half as many experts */
    uint64_t key; /* of this series, whatever the others of the run */
    uint64_t draw;
};

static double uniform(struct grid *grid)
{
    return moe_random_uniform(grid->key, grid->draw++);
}

/* Log-uniform in low .. high. */
static double draw_between(struct grid *grid, double low, double high)
{
    return low * pow(high / low, uniform(grid));
}

static int32_t rows_most(const struct grid *grid, int32_t active)
{
    const struct moe_measure_series *series = &grid->plan->series[grid->series];
    const int32_t most = moe_measure_row_limit(series) / active;
    return most < grid->request->rows_max ? most : grid->request->rows_max;
}

static bool is_anchor(int32_t rows)
{
    for (int i = 0; i < EXPERT_ANCHORS; i++) {
        if (expert_anchors[i] == rows) {
            return true;
        }
    }
    return false;
}

static enum moe_status add_spread(struct grid *grid, enum moe_measure_role role, const char *name,
                                  int32_t active, int32_t each, struct moe_error *err)
{
    int32_t rows[1024];
    uint32_t index = 0;
    moe_measure_histogram_spread(grid->plan->series[grid->series].units, active, each, rows);
    return moe_measure_expert_point(grid->plan, grid->series, role, name, rows, &index, err);
}

static enum moe_status add_named(struct grid *grid, enum moe_measure_role role, const char *name,
                                 int32_t each, struct moe_error *err)
{
    int32_t rows[1024];
    uint32_t index = 0;
    moe_measure_histogram_make(name, grid->plan->series[grid->series].units, each, rows);
    return moe_measure_expert_point(grid->plan, grid->series, role, name, rows, &index, err);
}

static enum moe_status add_expert_anchors(struct grid *grid, struct moe_error *err)
{
    const int32_t experts = grid->plan->series[grid->series].units;
    const int32_t *anchors = grid->dense ? expert_anchors : thin_anchors;
    const int count = grid->dense ? EXPERT_ANCHORS : THIN_ANCHORS;
    for (int i = 0; i < count && anchors[i] <= rows_most(grid, experts); i++) {
        MOE_TRY(add_spread(grid, MOE_ROLE_ANCHOR, "uniform", experts, anchors[i], err));
    }
    for (int32_t part = 2; part <= 4; part *= 2) {
        const int32_t active = experts / part;
        const int few = part == 2 && !grid->halved ? FEW_ANCHORS : FEWEST_ANCHORS;
        for (int i = 0; active >= 1 && i < few; i++) {
            if (few_anchors[i] <= rows_most(grid, active)) {
                MOE_TRY(add_spread(grid, MOE_ROLE_ANCHOR, part == 2 ? "half" : "quarter", active,
                                   few_anchors[i], err));
            }
        }
    }
    return MOE_OK;
}

/* A size that is no anchor, odd more often than not; 0 when the range holds none. */
static int32_t draw_rows(struct grid *grid, int32_t low, int32_t high)
{
    for (int i = 0; i < DRAWS; i++) {
        const int32_t rows = (int32_t) draw_between(grid, (double) low, (double) high + 1.0);
        const int32_t odd = rows | 1;
        const int32_t drawn = odd <= high ? odd : rows;
        if (drawn >= low && drawn <= high && !is_anchor(drawn)) {
            return drawn;
        }
    }
    return 0;
}

/* The same whatever else the run measures. One in each stretch of the range of sizes, so that no
 * seed leaves a regime untested. */
static enum moe_status add_expert_heldout(struct grid *grid, struct moe_error *err)
{
    const int32_t experts = grid->plan->series[grid->series].units;
    const int32_t most = rows_most(grid, experts) < 1024 ? rows_most(grid, experts) : 1024;
    for (int i = 0; i < HELDOUT_UNIFORM; i++) {
        const double low = pow((double) most, (double) i / HELDOUT_UNIFORM);
        const double high = pow((double) most, (double) (i + 1) / HELDOUT_UNIFORM);
        const int32_t rows = draw_rows(grid, (int32_t) ceil(low), (int32_t) high);
        if (rows > 0) {
            MOE_TRY(add_spread(grid, MOE_ROLE_HELDOUT, "uniform", experts, rows, err));
        }
    }
    for (int i = 0; experts > 2 && i < HELDOUT_ACTIVE; i++) {
        const int32_t active = 1 + (int32_t) (uniform(grid) * (double) (experts - 1));
        const int32_t room = rows_most(grid, active) < 32 ? rows_most(grid, active) : 32;
        const int32_t rows = (int32_t) draw_between(grid, 1.0, (double) room);
        MOE_TRY(add_spread(grid, MOE_ROLE_HELDOUT, "some", active, rows < 1 ? 1 : rows, err));
    }
    for (int i = 0; experts > 1 && i < HELDOUT_RANDOM; i++) {
        char name[MOE_MEASURE_HISTOGRAM_NAME];
        const double high = most < 256 ? (double) most : 256.0;
        const int32_t rows = (int32_t) draw_between(grid, i == 0 ? 1.0 : fmin(high, 16.0), high);
        (void) snprintf(name, sizeof name, "random-%u",
                        (unsigned) moe_random_below(grid->key, grid->draw++, 100000));
        MOE_TRY(add_named(grid, MOE_ROLE_HELDOUT, name, rows < 1 ? 1 : rows, err));
    }
    return MOE_OK;
}

/* Rows that a series may reach in the larger sizes. */
static bool reaches(const struct moe_measure_request *request,
                    const struct moe_measure_series *series)
{
    const int32_t most = moe_measure_row_limit(series) / series->units;
    return most >= expert_anchors[EXPERT_ANCHORS - 1] &&
           request->rows_max >= expert_anchors[EXPERT_ANCHORS - 1];
}

static bool is_same_shape(const struct moe_measure_series *one,
                          const struct moe_measure_series *other)
{
    return one->kind == other->kind && one->hidden == other->hidden && one->inter == other->inter &&
           one->dtype == other->dtype && one->activation == other->activation &&
           strcmp(one->backend, other->backend) == 0;
}

static bool is_halved(const struct moe_measure_plan *plan, uint32_t index)
{
    const struct moe_measure_series *own = &plan->series[index];
    for (uint32_t i = 0; i < plan->series_count; i++) {
        if (is_same_shape(own, &plan->series[i]) && plan->series[i].units == own->units / 2) {
            return true;
        }
    }
    return false;
}

/* Of the series of one shape the one with the most experts that reaches all sizes, or if none does
 * the one with the fewest; ties cannot be. */
static bool is_dense(const struct moe_measure_request *request, const struct moe_measure_plan *plan,
                     uint32_t index)
{
    const struct moe_measure_series *own = &plan->series[index];
    const bool reached = reaches(request, own);
    for (uint32_t i = 0; i < plan->series_count; i++) {
        const struct moe_measure_series *other = &plan->series[i];
        if (i == index || !is_same_shape(own, other)) {
            continue;
        }
        const bool other_reached = reaches(request, other);
        if (reached ? other_reached && other->units > own->units
                    : other_reached || other->units < own->units) {
            return false;
        }
    }
    return true;
}

/* Anchors of powers of two (of products: of every second) that arithmetic holds up, as bursts. */
static enum moe_status add_bursts(struct grid *grid, uint32_t first, struct moe_error *err)
{
    struct moe_measure_plan *plan = grid->plan;
    const struct moe_measure_series *series = &plan->series[grid->series];
    const uint32_t end = plan->point_count;
    for (uint32_t i = first; i < end; i++) {
        struct moe_measure_point point = plan->points[i];
        const int64_t tokens = (int64_t) point.tokens;
        uint32_t index = 0;
        if (point.role != MOE_ROLE_ANCHOR || (tokens & (tokens - 1)) != 0 ||
            (series->kind == MOE_MEASURE_EXPERT && point.active != series->units) ||
            (series->kind == MOE_MEASURE_GEMM && (tokens & 0x2a00) == 0) || /* 512, 2048, 8192 */
            moe_measure_compute_share(series, &point) < 1.0) {
            continue;
        }
        if (point.rows != NULL) {
            MOE_TRY(moe_measure_expert_point(plan, grid->series, MOE_ROLE_BURST, point.histogram,
                                             point.rows, &index, err));
        } else {
            MOE_TRY(moe_measure_plain_point(plan, grid->series, MOE_ROLE_BURST, point.tokens,
                                            point.context, &index, err));
        }
    }
    return MOE_OK;
}

static enum moe_status add_expert_skew(struct grid *grid, struct moe_error *err)
{
    static const int32_t sizes[] = { 8, 64 };
    const int32_t experts = grid->plan->series[grid->series].units;
    for (size_t s = 0; experts > 1 && s < sizeof skews / sizeof skews[0]; s++) {
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            /* Zipf at both sizes shows the regimes; of the others one does. */
            if (sizes[i] <= rows_most(grid, experts) && (i == 1 || s == 2)) {
                MOE_TRY(add_named(grid, MOE_ROLE_SKEW, skews[s], sizes[i], err));
            }
        }
    }
    return MOE_OK;
}

/* Uneven rows to fit by: how far the fullest expert is hidden behind the others is a matter of the
 * shape. Other rows than those that are held out or tested as skew. */
static enum moe_status add_expert_uneven(struct grid *grid, struct moe_error *err)
{
    static const struct {
        const char *name;
        int32_t each;
    } uneven[] = { { "hot8x", 8 }, { "hot8x", 24 }, { "zipf0.8", 48 } };
    const int32_t experts = grid->plan->series[grid->series].units;
    for (size_t i = 0; experts > 1 && i < sizeof uneven / sizeof uneven[0]; i++) {
        if (uneven[i].each <= rows_most(grid, experts)) {
            MOE_TRY(add_named(grid, MOE_ROLE_UNEVEN, uneven[i].name, uneven[i].each, err));
        }
    }
    return MOE_OK;
}

static void derive_gemm(const struct moe_measure_series *series, struct moe_measure_point *point)
{
    const double cell = series->dtype == MOE_EXPERT_BF16 ? 2.0 : 1.0;
    const double weights = (double) series->hidden * (double) series->inter * cell;
    point->bytes =
        weights + point->tokens * ((double) series->hidden * cell + (double) series->inter * 2.0);
    point->cold_bytes = weights;
    point->flops = 2.0 * point->tokens * (double) series->hidden * (double) series->inter;
}

static void derive_kv(const struct moe_measure_series *series, struct moe_measure_point *point)
{
    const double cells = point->tokens * point->context * (double) series->hidden;
    const bool mla = series->kind == MOE_MEASURE_KV_MLA;
    const double q_row = (double) series->units * (double) series->hidden;
    point->cold_bytes = cells * (mla ? 2.0 : 4.0 * (double) series->inter);
    point->bytes = point->cold_bytes + point->tokens * q_row * 4.0;
    point->flops = point->tokens * point->context * (double) series->units *
                   (mla ? 2176.0 : 4.0 * (double) series->hidden);
}

/* hidden bytes of every token read and of every row written, or the other way round. */
static void derive_route(const struct moe_measure_series *series, struct moe_measure_point *point)
{
    const double rows = point->tokens * (double) series->top_k;
    const double blocks = ceil((double) series->hidden / MOE_EXPERT_SCALE_BLOCK);
    if (series->kind == MOE_MEASURE_GATE) {
        point->bytes = point->tokens * 4.0 * (double) series->units + rows * 8.0;
        return;
    }
    const double row = series->dtype == MOE_EXPERT_BF16 ? 2.0 * (double) series->hidden
                                                        : (double) series->hidden + 4.0 * blocks;
    point->bytes = row * (point->tokens + rows);
}

enum moe_status moe_measure_plain_point(struct moe_measure_plan *plan, uint32_t series_index,
                                        enum moe_measure_role role, double tokens, double context,
                                        uint32_t *index, struct moe_error *err)
{
    const struct moe_measure_series *series = &plan->series[series_index];
    struct moe_measure_point point = {
        .series = series_index, .role = role, .tokens = tokens, .active = 1, .context = context
    };
    if (series->kind == MOE_MEASURE_GEMM) {
        derive_gemm(series, &point);
    } else if (series->kind == MOE_MEASURE_KV_GQA || series->kind == MOE_MEASURE_KV_MLA) {
        derive_kv(series, &point);
    } else if (series->kind == MOE_MEASURE_STREAM) {
        point.bytes = tokens * (strcmp(series->name, "stream-copy") == 0 ? 2.0 : 1.0);
    } else if (series->kind != MOE_MEASURE_LAUNCH) {
        derive_route(series, &point);
    }
    return moe_measure_plan_add_point(plan, &point, index, err);
}

/* Powers of `step` from low up to high, and between them held-out ones at random, one in five. */
static enum moe_status add_powers(struct grid *grid, double low, double high, double step,
                                  double unit, struct moe_error *err)
{
    uint32_t index = 0;
    uint32_t anchors = 0;
    double size = low;
    while (size <= high) {
        MOE_TRY(moe_measure_plain_point(grid->plan, grid->series, MOE_ROLE_ANCHOR, size, 0.0,
                                        &index, err));
        anchors++;
        size *= step;
    }
    const uint32_t heldout = anchors < 2 ? 0 : (anchors + 3) / 4;
    for (uint32_t i = 0; i < heldout; i++) {
        const double from = low * pow(high / low, (double) i / (double) heldout);
        const double to = low * pow(high / low, (double) (i + 1) / (double) heldout);
        double drawn = 0.0;
        for (int d = 0; d < DRAWS; d++) {
            drawn = floor(draw_between(grid, from, to) / unit) * unit;
            const double power = log(fmax(drawn, low) / low) / log(step);
            if (drawn > low && drawn < high && fabs(power - round(power)) > 1e-6) {
                break;
            }
            drawn = 0.0;
        }
        if (drawn > 0.0) {
            MOE_TRY(moe_measure_plain_point(grid->plan, grid->series, MOE_ROLE_HELDOUT, drawn, 0.0,
                                            &index, err));
        }
    }
    return MOE_OK;
}

/* Products: the sizes at which libraries change their tiles, and held-out ones between. */
static enum moe_status add_gemm_grid(struct grid *grid, struct moe_error *err)
{
    const int32_t most = grid->request->rows_max < gemm_anchors[GEMM_ANCHORS - 1]
                             ? grid->request->rows_max
                             : gemm_anchors[GEMM_ANCHORS - 1];
    uint32_t index = 0;
    for (int i = 0; i < GEMM_ANCHORS && gemm_anchors[i] <= most; i++) {
        MOE_TRY(moe_measure_plain_point(grid->plan, grid->series, MOE_ROLE_ANCHOR,
                                        (double) gemm_anchors[i], 0.0, &index, err));
    }
    for (int i = 0; most > 2 && i < HELDOUT_GEMM; i++) {
        const double from = 2.0 * pow((double) most / 2.0, (double) i / HELDOUT_GEMM);
        const double to = 2.0 * pow((double) most / 2.0, (double) (i + 1) / HELDOUT_GEMM);
        bool taken = true;
        int32_t drawn = 0;
        for (int d = 0; d < DRAWS && taken; d++) {
            drawn = (int32_t) draw_between(grid, from, to);
            taken = false;
            for (int a = 0; a < GEMM_ANCHORS; a++) {
                taken = taken || gemm_anchors[a] == drawn;
            }
        }
        if (!taken) {
            MOE_TRY(moe_measure_plain_point(grid->plan, grid->series, MOE_ROLE_HELDOUT,
                                            (double) drawn, 0.0, &index, err));
        }
    }
    return MOE_OK;
}

static const double KV_BYTES_MAX = 12e9;

static enum moe_status add_kv(struct grid *grid, double sequences, double context,
                              enum moe_measure_role role, struct moe_error *err)
{
    const struct moe_measure_series *series = &grid->plan->series[grid->series];
    uint32_t index = 0;
    const bool mla = series->kind == MOE_MEASURE_KV_MLA;
    const double bytes =
        sequences * context * (double) series->hidden * (mla ? 2.0 : 4.0 * (double) series->inter);
    if (bytes > KV_BYTES_MAX || sequences > (double) grid->request->rows_max ||
        context > (double) grid->request->context_max) {
        return MOE_OK;
    }
    return moe_measure_plain_point(grid->plan, grid->series, role, sequences, context, &index, err);
}

static enum moe_status add_kv_grid(struct grid *grid, struct moe_error *err)
{
    static const double sequences[] = {
        1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512
    };
    static const double contexts[] = { 256, 1024, 4096, 16384, 65536 };
    for (size_t s = 0; s < sizeof sequences / sizeof sequences[0]; s++) {
        for (size_t c = 0; c < sizeof contexts / sizeof contexts[0]; c++) {
            MOE_TRY(add_kv(grid, sequences[s], contexts[c], MOE_ROLE_ANCHOR, err));
        }
    }
    const double most = fmin(256.0, (double) grid->request->rows_max);
    const double longest = fmin(16384.0, (double) grid->request->context_max);
    for (int i = 0; i < HELDOUT_KV; i++) { /* some are too large, and left out */
        const double s = floor(draw_between(grid, 1.0, most + 1.0));
        const double c = floor(draw_between(grid, fmin(128.0, longest), longest));
        MOE_TRY(add_kv(grid, s, c, MOE_ROLE_HELDOUT, err));
    }
    return MOE_OK;
}

enum moe_status moe_measure_grid_add(const struct moe_measure_request *request,
                                     struct moe_measure_plan *plan, uint32_t series,
                                     struct moe_error *err)
{
    const char *name = plan->series[series].name;
    struct grid grid = { .request = request, .plan = plan, .series = series };
    /* Keyed by name: what is held out of a series does not depend on what else is measured. */
    grid.key =
        moe_random_key(request->seed ^ moe_hash_bytes(name, strlen(name), 0), MOE_RANDOM_TEST);
    const uint32_t first = plan->point_count;
    const double tokens_max = fmin(16384.0, (double) request->rows_max * 2.0);
    switch (plan->series[series].kind) {
    case MOE_MEASURE_EXPERT:
        grid.dense = is_dense(request, plan, series);
        grid.halved = is_halved(plan, series);
        MOE_TRY(add_expert_anchors(&grid, err));
        MOE_TRY(add_bursts(&grid, first, err));
        MOE_TRY(add_expert_heldout(&grid, err));
        MOE_TRY(add_expert_uneven(&grid, err));
        return add_expert_skew(&grid, err);
    case MOE_MEASURE_GEMM:
        MOE_TRY(add_gemm_grid(&grid, err));
        return add_bursts(&grid, first, err);
    case MOE_MEASURE_PERMUTE:
    case MOE_MEASURE_COMBINE:
    case MOE_MEASURE_GATE:
        return add_powers(&grid, 1.0, tokens_max, 2.0, 1.0, err);
    case MOE_MEASURE_KV_GQA:
    case MOE_MEASURE_KV_MLA:
        return add_kv_grid(&grid, err);
    case MOE_MEASURE_STREAM:
        return add_powers(&grid, fmin(0x1p16, request->stream_bytes), request->stream_bytes, 4.0,
                          16.0, err);
    case MOE_MEASURE_LAUNCH:
        return add_powers(&grid, 1.0, 256.0, 4.0, 1.0, err);
    case MOE_MEASURE_KIND_COUNT:
        break;
    }
    return MOE_OK;
}
