/* One visit: operands, a judged replay, batches until the median is known, a row in the store. */
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "calibrate/measure/measure_gpu.h"
#include "calibrate/measure/measure_series.h"
#include "calibrate/timing/graph_settle.h"
#include "sim/base/random.h"
#include "sim/base/wall_clock.h"

/* Free memory that opening a series leaves to backends, references and the driver; what a series of
 * unknown size is taken for. */
static const double HEADROOM_BYTES = 6e9;
static const double UNKNOWN_BYTES = 16e9;
static const double BUDGET_S = 0.12;
static const double LEAST_S = 0.04;
static const double AFTER_HEAVY_S = 0.05; /* light load at least, and until the clock is free */
static const double REST_MOST_S = 0.3;
static const double BURST_REST_S = 0.1; /* light load before a burst */
static const double BURST_S = 0.018;    /* of timed replays: the limit takes hold after 20 ms */
enum { BURST_ROUNDS = 3, BURST_LEAST = 5 };
static const double SUSTAINED_SHARE = 0.25; /* of the first soak: the GPU is warm by then */
static const double READ_SLACK = 1.02;      /* over the ceilings measured in this run */
static const double FLOP_SLACK = 1.05;
static const double PEAK_SLACK = 1.02; /* of the clock's measurement */
static const double SLOW_CLOCK = 0.75; /* of boost: such a batch says more about the cooling */

/* Extent of a series over its points, and over those that a refinement may add. */
static struct moe_measure_extent extent_of(const struct moe_measure_plan *plan, uint32_t series)
{
    struct moe_measure_extent extent = { 0 };
    for (uint32_t i = 0; i < plan->point_count; i++) {
        const struct moe_measure_point *point = &plan->points[i];
        if (point->series != series) {
            continue;
        }
        extent.tokens = fmax(extent.tokens, point->tokens);
        extent.tokens_context = fmax(extent.tokens_context, point->tokens * point->context);
        const int64_t rows = (int64_t) llround(point->tokens * (double) point->active);
        extent.rows = rows > extent.rows ? rows : extent.rows;
    }
    return extent;
}

static void forget_one(struct moe_measure_gpu *gpu, uint32_t index)
{
    gpu->open[index].work->close(gpu->open[index].state);
    gpu->open[index] = gpu->open[--gpu->open_count];
}

/* The one unused for longest. */
static void forget_oldest(struct moe_measure_gpu *gpu)
{
    uint32_t oldest = 0;
    for (uint32_t i = 1; i < gpu->open_count; i++) {
        oldest = gpu->open[i].used < gpu->open[oldest].used ? i : oldest;
    }
    forget_one(gpu, oldest);
}

void moe_measure_gpu_forget(struct moe_measure_gpu *gpu)
{
    while (gpu->open_count > 0) {
        forget_one(gpu, gpu->open_count - 1);
    }
}

/* Makes room for a series, the ones unused for longest go first. */
static enum moe_status make_room(struct moe_measure_gpu *gpu, uint32_t series,
                                 struct moe_error *err)
{
    const double known = gpu->run->plan->series[series].memory_bytes;
    const double wanted = (known > 0.0 ? known : UNKNOWN_BYTES) + HEADROOM_BYTES;
    while (gpu->open_count > 0) {
        size_t free_bytes = 0;
        size_t all_bytes = 0;
        MOE_TRY(
            moe_device_check((int) cudaMemGetInfo(&free_bytes, &all_bytes), "cudaMemGetInfo", err));
        if ((double) free_bytes >= wanted && gpu->open_count < MOE_MEASURE_OPEN_LIMIT) {
            break;
        }
        forget_oldest(gpu);
    }
    return MOE_OK;
}

/* The operands of a series, made if need be; others go when there is no room. */
static enum moe_status ready(struct moe_measure_gpu *gpu, uint32_t series,
                             struct moe_measure_open_series **out, struct moe_error *err)
{
    const struct moe_measure_plan *plan = gpu->run->plan;
    for (uint32_t i = 0; i < gpu->open_count; i++) {
        if (gpu->open[i].series == series) {
            gpu->open[i].used = ++gpu->clock;
            *out = &gpu->open[i];
            return MOE_OK;
        }
    }
    MOE_TRY(make_room(gpu, series, err));
    const struct moe_measure_work *work = moe_measure_work_of(plan->series[series].kind);
    const struct moe_measure_extent extent = extent_of(plan, series);
    void *state = NULL;
    for (;;) {
        const enum moe_status status =
            work->open(&gpu->tools, &plan->series[series], &extent, &state, err);
        if (status == MOE_OK) {
            break;
        }
        (void) cudaGetLastError();
        if (status != MOE_LIMIT || gpu->open_count == 0) {
            return status;
        }
        forget_oldest(gpu);
    }
    gpu->open[gpu->open_count] = (struct moe_measure_open_series){
        .work = work, .state = state, .series = series, .used = ++gpu->clock
    };
    *out = &gpu->open[gpu->open_count++];
    return MOE_OK;
}

/* Runs set 0 once outside of any graph, which loads kernels, and once as a judged replay. */
static enum moe_status prepare(struct moe_measure_gpu *gpu,
                               const struct moe_measure_open_series *open,
                               const struct moe_measure_point *point,
                               struct moe_measure_launch *launch,
                               struct moe_measure_verdict *verdict, struct moe_error *err)
{
    struct moe_graph_timer *timer = gpu->tools.timer;
    MOE_TRY(open->work->set(open->state, point, launch, err));
    MOE_TRY(launch->launch(launch->context, 0, moe_graph_timer_stream(timer), err));
    MOE_TRY(moe_graph_wait(timer, "a first run", err));
    MOE_TRY(open->work->poison(open->state, point, err));
    MOE_TRY(moe_graph_capture(timer, launch->launch, launch->context, launch->set_count, &gpu->work,
                              err));
    MOE_TRY(moe_graph_replay(timer, &gpu->work, err));
    MOE_TRY(moe_graph_wait(timer, "a replay", err));
    return open->work->judge(open->state, point, verdict, err);
}

static void clear(struct moe_graph_work *work)
{
    work->count = 0;
    work->spent_s = 0.0;
    work->mhz_s = 0.0;
    work->reading_count = 0;
    work->watts_sum = 0.0;
    work->celsius_sum = 0.0;
    work->throttle = 0;
}

/* Keeps the GPU at it until it is as warm and as slow as it gets, then forgets what was
 * measured. */
static enum moe_status soak(struct moe_measure_gpu *gpu, double seconds, struct moe_error *err)
{
    const double end_s = moe_wall_clock_s() + seconds;
    while (moe_wall_clock_s() < end_s && !atomic_load(&gpu->run->stop)) {
        if (gpu->work.count + MOE_GRAPH_BATCH > MOE_TIMING_LIMIT) {
            clear(&gpu->work);
        }
        MOE_TRY(moe_graph_batch(gpu->tools.timer, &gpu->work, err));
    }
    clear(&gpu->work);
    return MOE_OK;
}

/* Idle, so that the clock is at its highest again. */
static void rest(double seconds)
{
    const struct timespec pause = { .tv_sec = (time_t) seconds,
                                    .tv_nsec = (long) ((seconds - floor(seconds)) * 1e9) };
    if (seconds > 0.0) {
        (void) nanosleep(&pause, NULL);
    }
}

/* Work that arithmetic does not hold up keeps its clock; it is settled sooner and timed for
 * less. */
static bool is_light(const struct moe_measure_gpu *gpu, uint32_t point)
{
    const struct moe_measure_plan *plan = gpu->run->plan;
    const struct moe_measure_point *at = &plan->points[point];
    return moe_measure_is_light(&plan->series[at->series], at);
}

/* Lets the work before be forgotten: which it was is an accident of the order. */
static enum moe_status settle(struct moe_measure_gpu *gpu, bool light, bool *settled,
                              struct moe_error *err)
{
    return moe_graph_settle(gpu->tools.timer, &gpu->work, gpu->boost_mhz, light, gpu->run->settle_s,
                            settled, err);
}

/* The first milliseconds of heavy work after light load, at the clock that was left from it. */
static enum moe_status burst(struct moe_measure_gpu *gpu, struct moe_error *err)
{
    struct moe_graph_work *work = &gpu->work;
    double mhz = 0.0;
    MOE_TRY(moe_graph_window(gpu->tools.timer, work, 1e-3, &mhz, err));
    work->batch_s = BURST_S;
    for (int i = 0; i < BURST_ROUNDS && work->count < BURST_LEAST; i++) {
        MOE_TRY(moe_graph_rest(gpu->tools.timer, BURST_REST_S, REST_MOST_S,
                               MOE_SETTLE_BOOST_SHARE * gpu->boost_mhz, err));
        MOE_TRY(moe_graph_batch(gpu->tools.timer, work, err));
    }
    return MOE_OK;
}

/* Batches until the rule of timing.h is met, over LEAST_S at least unless there are as many as can
 * be: the swings at the power limit last tens of milliseconds. One at a clock far below boost for a
 * fault is measured again, at most three times. */
static enum moe_status measure(struct moe_measure_gpu *gpu, bool light, struct moe_error *err)
{
    struct moe_graph_work *work = &gpu->work;
    while (!moe_graph_enough(work, BUDGET_S) ||
           (!light && work->spent_s < LEAST_S && work->count < MOE_TIMING_LIMIT)) {
        MOE_TRY(moe_graph_batch(gpu->tools.timer, work, err));
        const bool faulty = (work->throttle & MOE_NVML_FAULTS) != 0;
        const double mhz = moe_graph_mhz(work);
        if (faulty && work->dropped < 3 && mhz > 0.0 && gpu->boost_mhz > 0.0 &&
            mhz < SLOW_CLOCK * gpu->boost_mhz) {
            const uint32_t dropped = work->dropped + 1;
            clear(work);
            work->dropped = dropped;
        }
    }
    return MOE_OK;
}

static void add_flag(char *flags, size_t size, const char *flag)
{
    const size_t used = strlen(flags);
    (void) snprintf(flags + used, size - used, "%s%s", used == 0 ? "" : " ", flag);
}

/* Arithmetic that the SMs could do at the clock they had, if that is known of this kind of GPU;
 * else what the largest product of this run did, and a little more. */
static double flops_most(const struct moe_measure_gpu *gpu, const struct moe_measure_series *series)
{
    const struct moe_device *device = &gpu->run->gpus[gpu->rank];
    const bool fp8 = series->dtype == MOE_EXPERT_FP8;
    const double mhz = moe_graph_mhz(&gpu->work);
    if (device->capability_major == 9 && device->capability_minor == 0 && mhz > 0.0) {
        return PEAK_SLACK * (double) device->sm_count * mhz * 1e6 *
               (fp8 ? MOE_SM_FLOPS_FP8 : MOE_SM_FLOPS_BF16);
    }
    return FLOP_SLACK * (fp8 ? gpu->ceilings.fp8_flops_per_s : gpu->ceilings.bf16_flops_per_s);
}

/* True when the time says that memory was read, or products were taken, faster than this GPU
 * can. */
static bool unphysical(const struct moe_measure_gpu *gpu, const struct moe_measure_point *point,
                       const struct moe_measure_series *series, double median_us)
{
    const struct moe_bench_ceilings *ceilings = &gpu->ceilings;
    const double rate = fmax(ceilings->read_bytes_per_s,
                             fmax(ceilings->write_bytes_per_s, ceilings->copy_bytes_per_s));
    const double flops = flops_most(gpu, series);
    const double seconds = median_us * 1e-6;
    const bool from_memory =
        point->cold_bytes * (double) gpu->work.set_count > 4.0 * gpu->tools.cache_bytes;
    return (from_memory && rate > 0.0 && point->cold_bytes / seconds > READ_SLACK * rate) ||
           (flops > 0.0 && point->flops / seconds > flops);
}

/* A ceiling is the best that the GPU did in this run: short of what is unphysical, a point may have
 * met a better moment than the product at the beginning. */
static void raise_ceiling(struct moe_measure_gpu *gpu, const struct moe_measure_point *point,
                          enum moe_expert_dtype dtype, double median_us)
{
    double *ceiling =
        dtype == MOE_EXPERT_FP8 ? &gpu->ceilings.fp8_flops_per_s : &gpu->ceilings.bf16_flops_per_s;
    *ceiling = fmax(*ceiling, point->flops / (median_us * 1e-6));
}

/* A seeded share of the samples keeps its single times. */
static enum moe_status keep_raw(struct moe_measure_gpu *gpu, int64_t sample, struct moe_error *err)
{
    const uint64_t key = moe_random_key(gpu->run->request.seed + 7, MOE_RANDOM_TEST);
    const uint64_t counter = (uint64_t) gpu->rank << 32 | (uint64_t) gpu->seq;
    if (moe_random_uniform(key, counter) >= gpu->run->raw_share) {
        return MOE_OK;
    }
    return moe_sample_add_raw(gpu->run->store, sample, gpu->work.us, gpu->work.count, err);
}

static enum moe_status keep(struct moe_measure_gpu *gpu, uint32_t index, uint32_t pass,
                            double begin_s, const char *flags,
                            const struct moe_measure_verdict *verdict, double *median_us,
                            struct moe_error *err)
{
    struct moe_measure_run *run = gpu->run;
    const struct moe_graph_work *work = &gpu->work;
    const struct moe_measure_point *point = &run->plan->points[index];
    const double readings = work->reading_count == 0 ? 1.0 : (double) work->reading_count;
    struct moe_timing timing;
    char all[128] = "";
    int64_t sample = 0;
    moe_timing_summarise(work->us, work->count, &timing);
    add_flag(all, sizeof all, flags);
    if (timing.bimodal) {
        add_flag(all, sizeof all, "bimodal");
    }
    if (unphysical(gpu, point, &run->plan->series[point->series], timing.median_us)) {
        add_flag(all, sizeof all, "unphysical");
    } else if (!verdict->wrong) {
        raise_ceiling(gpu, point, run->plan->series[point->series].dtype, timing.median_us);
    }
    if (verdict->wrong) {
        add_flag(all, sizeof all, "wrong");
    }
    if (point->role != MOE_ROLE_BURST &&
        (!moe_timing_enough(work->us, work->count, 0.0, 1.0) || work->count >= MOE_TIMING_LIMIT)) {
        add_flag(all, sizeof all, "unstable");
    }
    const struct moe_sample_row row = {
        .point = run->point_ids[index],
        .run = run->id,
        .gpu = run->gpu_ids[gpu->rank],
        .gpu_rank = (int32_t) gpu->rank,
        .pass = (int32_t) pass,
        .seq = gpu->seq++,
        .begin_s = begin_s,
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
        .mhz = moe_graph_mhz(work),
        .watts = work->watts_sum / readings,
        .celsius = work->celsius_sum / readings,
        .throttle = work->throttle,
        .error = isfinite(verdict->error) ? verdict->error : 1e30,
        .dropped = work->dropped,
        .flags = all[0] == ' ' ? all + 1 : all,
    };
    MOE_TRY(moe_sample_add_row(run->store, &row, &sample, err));
    *median_us = timing.median_us;
    gpu->last_mhz = row.mhz;
    gpu->last_watts = row.watts;
    MOE_TRY(keep_raw(gpu, sample, err));
    const unsigned count = atomic_fetch_add(&run->sample_count, 1) + 1;
    if (run->test_kill > 0 && count >= run->test_kill) {
        _exit(99); /* as a kill would have it: nothing is closed */
    }
    return MOE_OK;
}

/* A point that this GPU or library refuses is no reason to end the run; a GPU that fails is. */
static enum moe_status absorb(struct moe_measure_gpu *gpu, uint32_t point, enum moe_status status,
                              const struct moe_error *own, struct moe_error *err)
{
    const char *name = gpu->run->plan->series[gpu->run->plan->points[point].series].name;
    if (!moe_graph_timer_stuck(gpu->tools.timer)) {
        (void) cudaGetLastError();
        if (status == MOE_UNSUPPORTED || status == MOE_LIMIT || cudaDeviceSynchronize() == 0) {
            moe_measure_run_note(gpu->run, point, own->text);
            return MOE_OK;
        }
    }
    return moe_fail(err, MOE_DEVICE, "GPU %u (%s), measuring %s: %.250s",
                    gpu->run->devices[gpu->rank], gpu->run->gpus[gpu->rank].uuid, name, own->text);
}

/* What a point's role asks for before and while it is timed. */
static enum moe_status run_point(struct moe_measure_gpu *gpu, uint32_t point, bool *settled,
                                 struct moe_error *err)
{
    const struct moe_measure_run *run = gpu->run;
    const enum moe_measure_role role = run->plan->points[point].role;
    const bool light = is_light(gpu, point);
    const uint32_t series = run->plan->points[point].series;
    /* Light points of one series draw alike; others may hold each other's clock down. */
    const bool may_be_held =
        gpu->was_heavy || (gpu->last_series != series && gpu->last_mhz > 0.0 &&
                           gpu->last_mhz < MOE_SETTLE_BOOST_SHARE * gpu->boost_mhz);
    gpu->was_heavy = !light;
    gpu->last_series = series;
    if (role == MOE_ROLE_BURST) {
        return burst(gpu, err);
    }
    if (role == MOE_ROLE_SUSTAINED) {
        gpu->work.flow = true;
        MOE_TRY(
            soak(gpu, run->soak_s * (point == run->plan->soak_point ? 1.0 : SUSTAINED_SHARE), err));
    } else {
        rest(run->rest_s);
        gpu->work.flow = run->settle_s > 0.0;
        if (light && may_be_held && run->settle_s > 0.0) {
            MOE_TRY(moe_graph_rest(gpu->tools.timer, AFTER_HEAVY_S, REST_MOST_S,
                                   MOE_SETTLE_BOOST_SHARE * gpu->boost_mhz, err));
        }
        MOE_TRY(settle(gpu, light, settled, err));
    }
    MOE_TRY(measure(gpu, light, err));
    return moe_graph_wait(gpu->tools.timer, "the last replays", err); /* a flow's tail */
}

enum moe_status moe_measure_gpu_visit(struct moe_measure_gpu *gpu, uint32_t point, uint32_t pass,
                                      const char *flags, double *median_us, struct moe_error *err)
{
    struct moe_measure_run *run = gpu->run;
    struct moe_measure_open_series *open = NULL;
    struct moe_measure_launch launch = { 0 };
    struct moe_measure_verdict verdict = { .error = -1.0 };
    struct moe_error own = { 0 };
    const double begin_s = moe_wall_clock_s() - run->begin_s + run->earlier_s;
    char all[48];
    double found_us = 0.0;
    bool settled = true;
    gpu->work = (struct moe_graph_work){ 0 };
    enum moe_status status = ready(gpu, run->plan->points[point].series, &open, &own);
    if (status == MOE_OK) {
        status = prepare(gpu, open, &run->plan->points[point], &launch, &verdict, &own);
    }
    if (status == MOE_OK) {
        status = run_point(gpu, point, &settled, &own);
    }
    if (status == MOE_OK && verdict.wrong) {
        atomic_fetch_add(&run->wrong_count, 1);
        moe_measure_run_note(run, point, verdict.why);
    }
    if (status == MOE_OK) {
        (void) snprintf(all, sizeof all, "%s%s", flags, settled ? "" : " unsettled");
        status = keep(gpu, point, pass, begin_s, all, &verdict, &found_us, err);
        if (status == MOE_OK && median_us != NULL) {
            *median_us = found_us;
        }
    } else {
        status = absorb(gpu, point, status, &own, err);
    }
    if (!moe_graph_timer_stuck(gpu->tools.timer)) {
        moe_graph_release(&gpu->work);
        if (open != NULL && open->work->leave != NULL) {
            open->work->leave(open->state);
        }
    }
    return status;
}
