#include "calibrate/measure/measure_gpu.h"

#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/bench/ceilings.h"
#include "calibrate/measure/measure_grid.h"
#include "calibrate/measure/measure_refine.h"
#include "calibrate/timing/launch_cost.h"
#include "sim/base/wall_clock.h"

enum { REFINE_ROUNDS = 3, AGAIN_LIMIT = 4096 };

static const double SENTINEL_EVERY_S = 30.0;
static const double DRIFT = 0.02;
static const double REFINE_SHARE = 0.06; /* of the limit */
static const double SLACK = 1.2;         /* on estimates */
static const double VISIT_S = 0.03;

/* What this thread does from visit to visit. */
struct course {
    struct moe_measure_gpu *gpu;
    double sentinel_s;                /* when the sentinels were last visited */
    double sentinel_level[8];         /* what they said */
    struct moe_measure_visit *recent; /* visits since then */
    uint32_t recent_count;
    struct moe_measure_visit *again; /* to be repeated, since the sentinels moved */
    uint32_t again_count;
};

/* The ceilings of arithmetic, as the run has raised them. */
static enum moe_status keep_raised(struct moe_measure_gpu *gpu, struct moe_error *err)
{
    const int64_t id = gpu->run->gpu_ids[gpu->rank];
    MOE_TRY(moe_sample_add_ceiling(gpu->run->store, gpu->run->id, id, "bf16_flop_s",
                                   gpu->ceilings.bf16_flops_per_s, err));
    return moe_sample_add_ceiling(gpu->run->store, gpu->run->id, id, "fp8_flop_s",
                                  gpu->ceilings.fp8_flops_per_s, err);
}

static enum moe_status keep_ceilings(struct moe_measure_gpu *gpu,
                                     const struct moe_launch_cost *launch, struct moe_error *err)
{
    const struct moe_bench_ceilings *c = &gpu->ceilings;
    const struct {
        const char *name;
        double value;
    } values[] = {
        { "read_bytes_s", c->read_bytes_per_s },
        { "write_bytes_s", c->write_bytes_per_s },
        { "copy_bytes_s", c->copy_bytes_per_s },
        { "bf16_flop_s", c->bf16_flops_per_s },
        { "fp8_flop_s", c->fp8_flops_per_s },
        { "empty_graph_us", c->empty_graph_us },
        { "bf16_sustained_flop_s", c->bf16_sustained_flops_per_s },
        { "fp8_sustained_flop_s", c->fp8_sustained_flops_per_s },
        { "graph_node_ns", launch->graph_node_ns },
        { "launch_ns", launch->launch_ns },
    };
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        MOE_TRY(moe_sample_add_ceiling(gpu->run->store, gpu->run->id, gpu->run->gpu_ids[gpu->rank],
                                       values[i].name, values[i].value, err));
    }
    return MOE_OK;
}

static enum moe_status measure_ceilings(struct moe_measure_gpu *gpu, struct moe_error *err)
{
    struct moe_launch_cost launch = { 0 };
    struct moe_bench_moves *moves = calloc(1, sizeof *moves);
    if (moves == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for ceilings");
    }
    enum moe_status status = moe_ceilings_measure(
        gpu->tools.blas, gpu->tools.timer, (int64_t) gpu->run->request.stream_bytes,
        (int32_t) gpu->run->product_size, moves, &gpu->ceilings, err);
    free(moves);
    if (status == MOE_OK) {
        status = moe_launch_cost_measure(gpu->tools.timer, &launch, err);
    }
    return status == MOE_OK ? keep_ceilings(gpu, &launch, err) : status;
}

static enum moe_status open_gpu(struct moe_measure_gpu *gpu, struct moe_error *err)
{
    struct moe_measure_run *run = gpu->run;
    const int device = (int) run->devices[gpu->rank];
    int cache_bytes = 0;
    int khz = 0;
    MOE_TRY(moe_device_check((int) cudaSetDevice(device), "cudaSetDevice", err));
    MOE_TRY(
        moe_device_check((int) cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize, device),
                         "cudaDeviceGetAttribute", err));
    MOE_TRY(moe_device_check((int) cudaDeviceGetAttribute(&khz, cudaDevAttrClockRate, device),
                             "cudaDeviceGetAttribute", err));
    gpu->boost_mhz = (double) khz / 1e3;
    gpu->tools.cache_bytes = (double) cache_bytes;
    gpu->tools.seed = run->request.seed;
    MOE_TRY(moe_graph_timer_create(&run->gpus[gpu->rank], run->nvml, &gpu->tools.timer, err));
    MOE_TRY(moe_blas_create(&gpu->tools.blas, err));
    return measure_ceilings(gpu, err);
}

static void close_gpu(struct moe_measure_gpu *gpu)
{
    if (gpu->tools.timer != NULL && moe_graph_timer_stuck(gpu->tools.timer)) {
        return; /* whatever is left would wait for a kernel that does not end */
    }
    moe_measure_gpu_forget(gpu);
    moe_blas_destroy(gpu->tools.blas);
    moe_graph_timer_destroy(gpu->tools.timer);
}

static enum moe_status keep_clock(struct moe_measure_gpu *gpu, const char *mhz_name,
                                  const char *watts_name, struct moe_error *err)
{
    struct moe_measure_run *run = gpu->run;
    const int64_t id = run->gpu_ids[gpu->rank];
    MOE_TRY(moe_sample_add_ceiling(run->store, run->id, id, mhz_name, gpu->last_mhz, err));
    return watts_name == NULL
               ? MOE_OK
               : moe_sample_add_ceiling(run->store, run->id, id, watts_name, gpu->last_watts, err);
}

/* A planned visit, with what follows from it. */
static enum moe_status visit(struct moe_measure_gpu *gpu, const struct moe_measure_visit *planned,
                             const char *flags, struct moe_error *err)
{
    const struct moe_measure_plan *plan = gpu->run->plan;
    const double before_s = moe_wall_clock_s();
    const double estimate_s = plan->points[planned->point].estimate_s;
    double us = 0.0;
    MOE_TRY(moe_measure_gpu_visit(gpu, planned->point, planned->pass, flags, &us, err));
    if (planned->pass == 1 && us > 0.0 && !(gpu->median_us[planned->point] > 0.0)) {
        gpu->median_us[planned->point] = us;
    }
    gpu->done[planned->point] |= (uint8_t) (1U << planned->pass);
    const double took = (moe_wall_clock_s() - before_s) / estimate_s;
    gpu->pace = fmin(5.0, fmax(0.3, 0.95 * gpu->pace + 0.05 * took));
    if (us > 0.0 && planned->point == plan->soak_point) {
        return keep_clock(gpu, "sustained_mhz", "sustained_w", err);
    }
    if (us > 0.0 && planned->point == plan->burst_point && planned->pass == 1) {
        return keep_clock(gpu, "burst_mhz", NULL, err);
    }
    return MOE_OK;
}

static bool fits(const struct moe_measure_gpu *gpu, uint32_t point)
{
    const struct moe_measure_point *planned = &gpu->run->plan->points[point];
    const double extra = point == gpu->run->plan->soak_point ? gpu->run->soak_s : 0.0;
    return extra + planned->estimate_s * gpu->pace * SLACK <= moe_measure_run_left_s(gpu->run);
}

/* What a sentinel says: time, of the compute-bound one cycles. That a GPU at its power limit slows
 * its clock is known from every sample's own, and no reason to measure anything again. */
static double sentinel_level(const struct moe_measure_gpu *gpu, uint32_t point, double us)
{
    return point == gpu->run->plan->sentinels[0] && gpu->last_mhz > 0.0 ? us * gpu->last_mhz : us;
}

/* The sentinels; when one has moved by more than 2 %, all since the last time is put down for a
 * repeat, once, up to a tenth of all visits. */
static enum moe_status visit_sentinels(struct course *course, uint32_t pass, struct moe_error *err)
{
    struct moe_measure_gpu *gpu = course->gpu;
    const struct moe_measure_plan *plan = gpu->run->plan;
    const uint32_t limit =
        plan->visit_count / 10 < AGAIN_LIMIT ? plan->visit_count / 10 : AGAIN_LIMIT;
    bool moved = false;
    for (uint32_t i = 0; i < plan->sentinel_count; i++) {
        double us = 0.0;
        MOE_TRY(moe_measure_gpu_visit(gpu, plan->sentinels[i], pass, "", &us, err));
        if (us > 0.0) {
            const double level = sentinel_level(gpu, plan->sentinels[i], us);
            const double before = course->sentinel_level[i];
            moved = moved || (before > 0.0 && fabs(level / before - 1.0) > DRIFT);
            course->sentinel_level[i] = level;
        }
    }
    for (uint32_t i = 0; moved && i < course->recent_count && course->again_count < limit; i++) {
        course->again[course->again_count++] = course->recent[i];
    }
    course->recent_count = 0;
    course->sentinel_s = moe_wall_clock_s();
    return MOE_OK;
}

/* One visit if there is time, sentinels when they are due. */
static enum moe_status go(struct course *course, const struct moe_measure_visit *planned,
                          const char *flags, struct moe_error *err)
{
    struct moe_measure_gpu *gpu = course->gpu;
    if (atomic_load(&gpu->run->stop)) {
        return MOE_OK;
    }
    if (!fits(gpu, planned->point)) {
        atomic_fetch_add(&gpu->run->skipped_count, 1);
        return MOE_OK;
    }
    MOE_TRY(visit(gpu, planned, flags, err));
    if (course->recent_count < AGAIN_LIMIT) {
        course->recent[course->recent_count++] = *planned;
    }
    if (moe_wall_clock_s() - course->sentinel_s > SENTINEL_EVERY_S &&
        gpu->run->plan->sentinel_count) {
        MOE_TRY(visit_sentinels(course, 1, err));
    }
    return MOE_OK;
}

/* Sizes of a series that its refinement goes by, ascending; *last: one of these points. */
static uint32_t list_sizes(const struct moe_measure_gpu *gpu, uint32_t series,
                           struct moe_refine_size *sizes, uint32_t limit)
{
    const struct moe_measure_plan *plan = gpu->run->plan;
    const struct moe_measure_series *of = &plan->series[series];
    uint32_t count = 0;
    for (uint32_t i = 0; i < plan->point_count && count < limit; i++) {
        const struct moe_measure_point *point = &plan->points[i];
        if (point->series != series || !(gpu->median_us[i] > 0.0) ||
            (point->role != MOE_ROLE_ANCHOR && point->role != MOE_ROLE_REFINE) ||
            (of->kind == MOE_MEASURE_EXPERT && point->active != of->units)) {
            continue;
        }
        uint32_t at = count++;
        for (; at > 0 && sizes[at - 1].tokens > point->tokens; at--) {
            sizes[at] = sizes[at - 1];
        }
        sizes[at] = (struct moe_refine_size){ point->tokens, gpu->median_us[i], point->bytes,
                                              point->flops };
    }
    return count;
}

/* Adds the point that this series needs most, if any. Rank 0 decides by its own times. */
static enum moe_status refine_series(struct moe_measure_gpu *gpu, uint32_t series,
                                     struct moe_error *err)
{
    enum { SIZE_LIMIT = 64 };
    struct moe_measure_plan *plan = gpu->run->plan;
    const struct moe_measure_series *of = &plan->series[series];
    struct moe_refine_size sizes[SIZE_LIMIT];
    int32_t rows[1024];
    double score = 0.0;
    uint32_t index = 0;
    if (of->kind != MOE_MEASURE_EXPERT && of->kind != MOE_MEASURE_GEMM) {
        return MOE_OK;
    }
    const uint32_t count = list_sizes(gpu, series, sizes, SIZE_LIMIT);
    const double tokens = moe_refine_choose(sizes, count, VISIT_S, &score);
    if (!(tokens > 0.0)) {
        return MOE_OK;
    }
    if (of->kind == MOE_MEASURE_GEMM) {
        MOE_TRY(moe_measure_plain_point(plan, series, MOE_ROLE_REFINE, tokens, 0.0, &index, err));
    } else {
        moe_measure_histogram_spread(of->units, of->units, (int32_t) tokens, rows);
        MOE_TRY(
            moe_measure_expert_point(plan, series, MOE_ROLE_REFINE, "uniform", rows, &index, err));
    }
    return moe_measure_run_store_point(gpu->run, index, err);
}

static enum moe_status refine_all(struct moe_measure_gpu *gpu, struct moe_error *err)
{
    for (uint32_t s = 0; s < gpu->run->plan->series_count; s++) {
        MOE_TRY(refine_series(gpu, s, err));
    }
    return MOE_OK;
}

/* Rounds of choosing one point per series and measuring it, all GPUs the same ones. */
static enum moe_status refine(struct course *course, struct moe_error *err)
{
    struct moe_measure_gpu *gpu = course->gpu;
    struct moe_measure_run *run = gpu->run;
    const double end_s = moe_wall_clock_s() + REFINE_SHARE * run->limit_s;
    for (int round = 0; round < REFINE_ROUNDS; round++) {
        const uint32_t first = run->plan->point_count;
        if (!moe_measure_run_meet(run)) {
            return MOE_OK;
        }
        if (gpu->rank == 0) {
            MOE_TRY(refine_all(gpu, err));
        }
        if (!moe_measure_run_meet(run)) {
            return MOE_OK;
        }
        for (uint32_t i = first; i < run->plan->point_count && moe_wall_clock_s() < end_s; i++) {
            const struct moe_measure_visit planned = { .point = i, .pass = 1 };
            double us = 0.0;
            MOE_TRY(moe_sample_find_median(run->store, run->id, run->gpu_ids[gpu->rank],
                                           run->point_ids[i], 1, &us, err));
            gpu->median_us[i] = us;
            if (!(us > 0.0)) {
                MOE_TRY(go(course, &planned, "", err));
            }
        }
    }
    return MOE_OK;
}

static enum moe_status warm_up(struct course *course, struct moe_error *err)
{
    struct moe_measure_gpu *gpu = course->gpu;
    const struct moe_measure_visit burst = { .point = gpu->run->plan->burst_point, .pass = 1 };
    const struct moe_measure_visit soak = { .point = gpu->run->plan->soak_point, .pass = 1 };
    if (gpu->run->is_card) {
        return MOE_OK;
    }
    if ((gpu->done[soak.point] & 2) == 0) {
        MOE_TRY(visit(gpu, &burst, "", err));
        if (fits(gpu, soak.point)) {
            MOE_TRY(visit(gpu, &soak, "", err));
        }
    }
    return visit_sentinels(course, 1, err);
}

/* For logs; a terminal has the progress line. */
static void tell_tier(const struct moe_measure_gpu *gpu, uint32_t tier)
{
    const struct moe_measure_run *run = gpu->run;
    (void) fprintf(
        stderr, "moecal: tier %u done after %.1f s, %u samples, visits take %.2f of the estimate\n",
        tier, moe_wall_clock_s() - run->begin_s, atomic_load(&run->sample_count), gpu->pace);
}

static enum moe_status follow(struct course *course, struct moe_error *err)
{
    struct moe_measure_gpu *gpu = course->gpu;
    const struct moe_measure_plan *plan = gpu->run->plan;
    bool refined = gpu->run->is_card;
    MOE_TRY(warm_up(course, err));
    for (uint32_t i = 0; i < plan->visit_count; i++) {
        const struct moe_measure_visit *planned = &plan->visits[i];
        if (gpu->rank == 0 && i > 0 && planned->tier != planned[-1].tier) {
            tell_tier(gpu, planned[-1].tier);
        }
        if (!refined && planned->tier > MOE_TIER_REFINE) {
            MOE_TRY(refine(course, err));
            refined = true;
        }
        if (((unsigned) gpu->done[planned->point] & 1U << planned->pass) == 0) {
            MOE_TRY(go(course, planned, "", err));
        }
        if (gpu->rank == 0) {
            moe_progress_update(&gpu->run->progress, i + 1);
        }
    }
    if (!refined) {
        MOE_TRY(refine(course, err));
    }
    const uint32_t again_count = course->again_count; /* what they move in turn stays as it is */
    for (uint32_t i = 0; i < again_count; i++) {
        const struct moe_measure_visit planned = course->again[i];
        MOE_TRY(go(course, &planned, "repeat-due-to-sentinel", err));
    }
    return gpu->run->plan->sentinel_count > 0 && !atomic_load(&gpu->run->stop)
               ? visit_sentinels(course, 2, err)
               : MOE_OK;
}

static enum moe_status take_part(struct moe_measure_gpu *gpu, struct moe_error *err)
{
    struct course course = { .gpu = gpu };
    course.recent = calloc(AGAIN_LIMIT, sizeof *course.recent);
    course.again = calloc(AGAIN_LIMIT, sizeof *course.again);
    enum moe_status status = MOE_OK;
    if (course.recent == NULL || course.again == NULL) {
        status = moe_fail(err, MOE_LIMIT, "no memory for a course");
    } else {
        status = open_gpu(gpu, err);
    }
    if (status == MOE_OK) {
        status = follow(&course, err);
    }
    if (status == MOE_OK) {
        status = keep_raised(gpu, err);
    }
    close_gpu(gpu);
    free(course.recent);
    free(course.again);
    return status;
}

void *moe_measure_gpu_main(void *context)
{
    struct moe_measure_gpu *gpu = context;
    gpu->status = take_part(gpu, &gpu->err);
    if (gpu->status != MOE_OK) {
        atomic_store(&gpu->run->stop, true); /* the others end after the visit under way */
    }
    (void) pthread_mutex_lock(&gpu->run->lock);
    gpu->run->present--;
    (void) pthread_cond_broadcast(&gpu->run->arrived);
    (void) pthread_mutex_unlock(&gpu->run->lock);
    return NULL;
}
