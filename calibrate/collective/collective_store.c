#include "calibrate/collective/collective_store.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/collective/exchange_matrix.h"
#include "calibrate/collective/overlap.h"
#include "calibrate/samples/sample_store.h"
#include "sim/base/random.h"

struct moe_collective_book {
    struct moe_sample_store *store; /* NULL: nothing is written */
    int64_t run;
    double raw_share;
    uint64_t raw_key;
    const struct moe_collective_gpu *gpus; /* the caller's */
    int64_t *gpu_ids;
    int64_t *series_ids;
    int64_t (*point_ids)[MOE_OVERLAP_PART_COUNT]; /* others than overlap use the first */
    uint32_t point_count;
};

static enum moe_status out_of_memory(struct moe_error *err)
{
    return moe_fail(err, MOE_LIMIT, "no memory for the samples of collectives");
}

/* "NVIDIA H200" is an "H200": the word behind the vendor's. */
static const char *kind_of(const char *name)
{
    static const char vendor[] = "NVIDIA ";
    return strncmp(name, vendor, sizeof vendor - 1) == 0 ? name + sizeof vendor - 1 : name;
}

static enum moe_status add_gpus(struct moe_collective_book *book, uint32_t count,
                                struct moe_error *err)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct moe_collective_gpu *gpu = &book->gpus[i];
        const struct moe_sample_gpu row = {
            .uuid = gpu->uuid,
            .name = gpu->name,
            .kind = kind_of(gpu->name),
            .sm_count = (int64_t) gpu->sm_count,
            .l2_bytes = (int64_t) gpu->l2_bytes,
            .memory_bytes = (int64_t) gpu->memory_bytes,
            .boost_mhz = gpu->boost_mhz,
            .power_limit_w = gpu->power_limit_w,
        };
        MOE_TRY(moe_sample_add_gpu(book->store, &row, &book->gpu_ids[i], err));
    }
    return MOE_OK;
}

static enum moe_status add_series(struct moe_collective_book *book,
                                  const struct moe_collective_plan *plan, uint32_t at,
                                  struct moe_error *err)
{
    const struct moe_collective_series *series = &plan->series[at];
    const bool overlap = series->op == MOE_COLLECTIVE_OVERLAP;
    struct moe_sample_series row = {
        .name = series->name,
        .kind = moe_collective_op_name(series->op),
        .models = "",
        .units = 1,
        .dtype = "bf16",
        .activation = "",
        .backend = moe_collective_op_backend(series->op),
        .ranks = (int32_t) series->ranks,
        .src = series->src < 0 ? -1 : (int32_t) book->gpus[series->src].device,
        .dst = series->dst < 0 ? -1 : (int32_t) book->gpus[series->dst].device,
    };
    char name[sizeof series->name + 64];
    if (overlap) {
        (void) snprintf(
            name, sizeof name, "overlap-%" PRIu32 "x%" PRIu32 "x%" PRIu32 "-bf16-own-%" PRIu32,
            plan->overlap.hidden, plan->overlap.inter, plan->overlap.experts, series->ranks);
        row.name = name;
        row.hidden = (int32_t) plan->overlap.hidden;
        row.inter = (int32_t) plan->overlap.inter;
        row.units = (int32_t) plan->overlap.experts;
        row.activation = "swiglu";
    }
    return moe_sample_add_series(book->store, &row, &book->series_ids[at], err);
}

static enum moe_status add_point(struct moe_collective_book *book,
                                 const struct moe_collective_plan *plan, uint32_t at,
                                 struct moe_error *err)
{
    int64_t matrix[MOE_COLLECTIVE_RANK_LIMIT * MOE_COLLECTIVE_RANK_LIMIT];
    char kind[MOE_EXCHANGE_NAME] = "uniform";
    const struct moe_collective_point *point = &plan->points[at];
    const struct moe_collective_call call = moe_collective_plan_call(plan, at, 0, matrix);
    struct moe_sample_point row = {
        .series = book->series_ids[point->series],
        .role = moe_collective_role_name(point->role),
        .active = 1,
        .bytes = (double) moe_collective_wire_bytes(&call),
        .bytes_per_peer = (double) call.bytes_per_peer,
        .histogram = kind,
    };
    if (call.matrix != NULL) {
        (void) moe_exchange_matrix_name(point->matrix, plan->seed, kind);
        row.rows = matrix;
        row.rows_bytes = (size_t) call.ranks * call.ranks * sizeof matrix[0];
    }
    if (call.op != MOE_COLLECTIVE_OVERLAP) {
        return moe_sample_add_point(book->store, &row, &book->point_ids[at][0], err);
    }
    row.tokens = (double) point->rows;
    row.active = (int32_t) plan->overlap.experts;
    row.row_max = (int32_t) point->rows;
    row.tiles64 = (int64_t) plan->overlap.experts * ((int64_t) (point->rows + 63) / 64);
    row.tiles128 = (int64_t) plan->overlap.experts * ((int64_t) (point->rows + 127) / 128);
    row.flops = 6.0 * (double) plan->overlap.hidden * (double) plan->overlap.inter *
                (double) point->rows * (double) plan->overlap.experts;
    for (int part = 0; part < MOE_OVERLAP_PART_COUNT; part++) {
        row.histogram = moe_overlap_part_name((enum moe_overlap_part) part);
        MOE_TRY(moe_sample_add_point(book->store, &row, &book->point_ids[at][part], err));
    }
    return MOE_OK;
}

enum moe_status moe_collective_book_create(struct moe_sample_store *store, int64_t run,
                                           const struct moe_collective_plan *plan,
                                           const struct moe_collective_gpu *gpus, double raw_share,
                                           struct moe_collective_book **out, struct moe_error *err)
{
    struct moe_collective_book *book = calloc(1, sizeof *book);
    if (book == NULL) {
        return out_of_memory(err);
    }
    book->store = store;
    book->run = run;
    book->raw_share = raw_share;
    book->raw_key = moe_random_key(plan->seed + 2, MOE_RANDOM_TEST);
    book->gpus = gpus;
    book->gpu_ids = calloc(plan->rank_count, sizeof book->gpu_ids[0]);
    book->series_ids = calloc(plan->series_count + 1, sizeof book->series_ids[0]);
    enum moe_status status =
        book->gpu_ids == NULL || book->series_ids == NULL ? out_of_memory(err) : MOE_OK;
    if (status == MOE_OK && store != NULL) {
        status = add_gpus(book, plan->rank_count, err);
    }
    for (uint32_t at = 0; status == MOE_OK && store != NULL && at < plan->series_count; at++) {
        status = add_series(book, plan, at, err);
    }
    if (status == MOE_OK) {
        status = moe_collective_book_add(book, plan, 0, err);
    }
    if (status != MOE_OK) {
        moe_collective_book_destroy(book);
        return status;
    }
    *out = book;
    return MOE_OK;
}

void moe_collective_book_destroy(struct moe_collective_book *book)
{
    if (book != NULL) {
        free(book->gpu_ids);
        free(book->series_ids);
        free(book->point_ids);
        free(book);
    }
}

enum moe_status moe_collective_book_add(struct moe_collective_book *book,
                                        const struct moe_collective_plan *plan, uint32_t first,
                                        struct moe_error *err)
{
    if (book->store == NULL || plan->point_count == first) {
        return MOE_OK;
    }
    void *grown = realloc(book->point_ids, plan->point_count * sizeof book->point_ids[0]);
    if (grown == NULL) {
        return out_of_memory(err);
    }
    book->point_ids = grown;
    for (uint32_t at = first; at < plan->point_count; at++) {
        MOE_TRY(add_point(book, plan, at, err));
    }
    book->point_count = plan->point_count;
    return moe_sample_store_commit(book->store, err);
}

/* GPUs that have a sample each after a visit. */
static int64_t gpus_of(const struct moe_collective_plan *plan,
                       const struct moe_collective_series *series)
{
    if (series->op == MOE_COLLECTIVE_PEER_COPY) {
        return 1;
    }
    return (int64_t) (series->op == MOE_COLLECTIVE_HOST_TO_DEVICE ? plan->rank_count
                                                                  : series->ranks);
}

enum moe_status moe_collective_book_done(struct moe_collective_book *book,
                                         const struct moe_collective_plan *plan, uint32_t point,
                                         uint32_t pass, double *median_us, struct moe_error *err)
{
    const struct moe_collective_series *series = &plan->series[plan->points[point].series];
    const bool overlap = series->op == MOE_COLLECTIVE_OVERLAP;
    sqlite3_stmt *stmt = NULL;
    int row = 0;
    *median_us = 0.0;
    if (book->store == NULL) {
        return MOE_OK;
    }
    assert(point < book->point_count);
    struct moe_database *db = moe_sample_store_database(book->store);
    MOE_TRY(moe_database_prepare(db,
                                 "SELECT count(DISTINCT gpu), max(median_us) FROM sample "
                                 "WHERE point = ?1 AND run = ?2 AND pass = ?3",
                                 &stmt, err));
    (void) sqlite3_bind_int64(stmt, 1,
                              book->point_ids[point][overlap ? MOE_OVERLAP_PART_COUNT - 1 : 0]);
    (void) sqlite3_bind_int64(stmt, 2, book->run);
    (void) sqlite3_bind_int64(stmt, 3, (int64_t) pass);
    const enum moe_status status = moe_database_step(db, stmt, &row, err);
    if (status == MOE_OK && row != 0 && sqlite3_column_int64(stmt, 0) >= gpus_of(plan, series)) {
        *median_us = sqlite3_column_double(stmt, 1);
    }
    (void) sqlite3_finalize(stmt);
    return status;
}

/* unstable: the median is known less well than the stopping rule asks for. */
static const char *flags_of(const struct moe_timing *timing)
{
    const double width = timing->median_us < 20.0 ? 0.01 : 0.005;
    const bool unstable = timing->high_us > timing->median_us * (1.0 + width) ||
                          timing->low_us < timing->median_us * (1.0 - width);
    if (timing->bimodal) {
        return unstable ? "bimodal unstable" : "bimodal";
    }
    return unstable ? "unstable" : "";
}

static enum moe_status add_sample(struct moe_collective_book *book,
                                  const struct moe_collective_visit_place *place, uint32_t rank,
                                  const struct moe_visit *visit, struct moe_error *err)
{
    const struct moe_visit_rank *of = &visit->ranks[rank];
    struct moe_timing timing;
    int64_t id = 0;
    moe_timing_summarise(of->us, of->count, &timing);
    const struct moe_sample_row row = {
        .point = book->point_ids[place->point][place->part < 0 ? 0 : place->part],
        .run = book->run,
        .gpu = book->gpu_ids[rank],
        .gpu_rank = (int32_t) rank,
        .pass = (int32_t) place->pass,
        .seq = place->seq,
        .begin_s = place->begin_s,
        .n = timing.count,
        .min_us = timing.min_us,
        .p5_us = timing.p5_us,
        .p25_us = timing.p25_us,
        .median_us = timing.median_us,
        .p75_us = timing.p75_us,
        .p95_us = timing.p95_us,
        .p99_us = timing.p99_us,
        .mad_us = timing.mad_us,
        .low_us = timing.low_us,
        .high_us = timing.high_us,
        .mhz = of->sensors.mhz,
        .watts = of->sensors.watts,
        .celsius = of->sensors.celsius,
        .throttle = of->sensors.throttle,
        .error = visit->error,
        .dropped = visit->dropped,
        .flags = flags_of(&timing),
    };
    MOE_TRY(moe_sample_add_row(book->store, &row, &id, err));
    const uint64_t draw = (uint64_t) place->seq * MOE_COLLECTIVE_RANK_LIMIT + rank;
    if (moe_random_uniform(book->raw_key, draw) < book->raw_share) {
        MOE_TRY(moe_sample_add_raw(book->store, id, of->us, of->count, err));
    }
    return MOE_OK;
}

enum moe_status moe_collective_book_take(struct moe_collective_book *book,
                                         const struct moe_collective_plan *plan,
                                         const struct moe_collective_visit_place *place,
                                         const struct moe_visit *visit, struct moe_error *err)
{
    if (book->store == NULL) {
        return MOE_OK;
    }
    assert(place->point < book->point_count);
    for (uint32_t rank = 0; rank < plan->rank_count; rank++) {
        if (visit->ranks[rank].worked) {
            MOE_TRY(add_sample(book, place, rank, visit, err));
        }
    }
    return MOE_OK;
}
