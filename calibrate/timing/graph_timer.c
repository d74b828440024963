#include "calibrate/timing/graph_timer.h"

#include <assert.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>
#include <time.h>

#include "kernels/clock/clock.h"
#include "kernels/clock/hold.h"
#include "sim/base/wall_clock.h"

enum { PROBE_REPLAYS = 3 };

enum { SLOW_READINGS = 2, LATE_LIMIT = 3, WINDOW_REPLAYS = 20000, REST_STAMPS = 128 };

static const double SLOW_READING_S = 1e-3;
static const double BATCH_S = 0.1; /* a batch of long replays is shorter than ten */
static const double FILL_S = 6e-4; /* untimed replays between batches: the host's part and more */
static const double CACHE_PASSES = 5; /* of the set rule */
/* Should the driver refuse to queue more behind a hold, it ends by itself after this; the untimed
 * replay behind it then still covers the queueing. */
static const int64_t HOLD_NS = 20000000;

struct moe_graph_timer {
    cudaStream_t stream;
    cudaEvent_t begin[MOE_GRAPH_BATCH];
    cudaEvent_t end[MOE_GRAPH_BATCH];
    const struct moe_nvml *nvml;
    struct moe_nvml_gpu *gpu;
    cudaEvent_t batch_end; /* behind the second stamp of a batch that flows */
    struct moe_hold *hold;
    bool stuck;
    double reading_s; /* what one reading of the sensors takes */
    int32_t sm_count;
    struct moe_clock_reading *stamps_dev[2];
    struct moe_clock_reading *stamps[2];
};

static enum moe_status make_clock(struct moe_graph_timer *timer, struct moe_error *err)
{
    const size_t bytes = (size_t) timer->sm_count * sizeof(struct moe_clock_reading);
    for (int i = 0; i < 2; i++) {
        MOE_TRY(moe_device_check((int) cudaMalloc((void **) &timer->stamps_dev[i], bytes),
                                 "cudaMalloc of clock stamps", err));
        timer->stamps[i] = calloc(1, bytes);
        if (timer->stamps[i] == NULL) {
            return moe_fail(err, MOE_LIMIT, "no memory for clock stamps");
        }
    }
    return moe_device_check(moe_hold_create(&timer->hold), "moe_hold_create", err);
}

enum moe_status moe_graph_timer_create(const struct moe_device *device, const struct moe_nvml *nvml,
                                       struct moe_graph_timer **out, struct moe_error *err)
{
    struct moe_graph_timer *timer = calloc(1, sizeof *timer);
    if (timer == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a timer");
    }
    enum moe_status status = MOE_OK;
    if (nvml != NULL) {
        struct moe_nvml_load load;
        status = moe_nvml_find(nvml, device->pci_bus_id, &timer->gpu, err);
        timer->nvml = nvml;
        if (status == MOE_OK) {
            const double begin_s = moe_wall_clock_s();
            moe_nvml_read_load(nvml, timer->gpu, &load);
            timer->reading_s = moe_wall_clock_s() - begin_s;
        }
    }
    if (status == MOE_OK) {
        status =
            moe_device_check((int) cudaStreamCreateWithFlags(&timer->stream, cudaStreamNonBlocking),
                             "cudaStreamCreateWithFlags", err);
    }
    for (int i = 0; status == MOE_OK && i < MOE_GRAPH_BATCH; i++) {
        status = moe_device_check((int) cudaEventCreate(&timer->begin[i]), "cudaEventCreate", err);
        if (status == MOE_OK) {
            status =
                moe_device_check((int) cudaEventCreate(&timer->end[i]), "cudaEventCreate", err);
        }
    }
    timer->sm_count = (int32_t) device->sm_count;
    if (status == MOE_OK) {
        status = moe_device_check((int) cudaEventCreate(&timer->batch_end), "cudaEventCreate", err);
    }
    if (status == MOE_OK) {
        status = make_clock(timer, err);
    }
    if (status != MOE_OK) {
        moe_graph_timer_destroy(timer);
        return status;
    }
    *out = timer;
    return MOE_OK;
}

/* Nothing to do about a failure here: what was measured is measured. */
void moe_graph_timer_destroy(struct moe_graph_timer *timer)
{
    if (timer == NULL || timer->stuck) { /* every call below would wait for ever */
        return;
    }
    for (int i = 0; i < MOE_GRAPH_BATCH; i++) {
        if (timer->begin[i] != NULL) {
            (void) cudaEventDestroy(timer->begin[i]);
        }
        if (timer->end[i] != NULL) {
            (void) cudaEventDestroy(timer->end[i]);
        }
    }
    if (timer->batch_end != NULL) {
        (void) cudaEventDestroy(timer->batch_end);
    }
    if (timer->stream != NULL) {
        (void) cudaStreamSynchronize(timer->stream);
        (void) cudaStreamDestroy(timer->stream);
    }
    moe_hold_destroy(timer->hold);
    for (int i = 0; i < 2; i++) {
        (void) cudaFree(timer->stamps_dev[i]);
        free(timer->stamps[i]);
    }
    free(timer);
}

void *moe_graph_timer_stream(const struct moe_graph_timer *timer)
{
    return timer->stream;
}

bool moe_graph_timer_stuck(const struct moe_graph_timer *timer)
{
    return timer->stuck;
}

static cudaError_t query(const struct moe_graph_timer *timer, cudaEvent_t event)
{
    return event == NULL ? cudaStreamQuery(timer->stream) : cudaEventQuery(event);
}

/* Until the event, or without one until the stream is idle. */
static enum moe_status wait_for(struct moe_graph_timer *timer, cudaEvent_t event, const char *what,
                                struct moe_error *err)
{
    const struct timespec pause = { .tv_nsec = 50000 };
    const double begin_s = moe_wall_clock_s();
    cudaError_t code = query(timer, event);
    while (code == cudaErrorNotReady) {
        if (moe_wall_clock_s() - begin_s > MOE_GRAPH_PATIENCE_S) {
            timer->stuck = true;
            return moe_fail(err, MOE_DEVICE, "%s did not end within %.0f s", what,
                            MOE_GRAPH_PATIENCE_S);
        }
        (void) nanosleep(&pause, NULL);
        code = query(timer, event);
    }
    return moe_device_check((int) code, what, err);
}

enum moe_status moe_graph_wait(struct moe_graph_timer *timer, const char *what,
                               struct moe_error *err)
{
    return wait_for(timer, NULL, what, err);
}

uint32_t moe_graph_set_count(double weight_bytes, double cache_bytes)
{
    const double needed = CACHE_PASSES * cache_bytes;
    if (weight_bytes >= needed) {
        return 1;
    }
    const double sets = ceil(needed / weight_bytes) + 1.0;
    return sets < (double) MOE_GRAPH_SET_LIMIT ? (uint32_t) sets : MOE_GRAPH_SET_LIMIT;
}

static enum moe_status capture_one(struct moe_graph_timer *timer, moe_graph_launch launch,
                                   void *context, uint32_t set, cudaGraphExec_t *exec,
                                   struct moe_error *err)
{
    cudaGraph_t graph = NULL;
    MOE_TRY(moe_device_check(
        (int) cudaStreamBeginCapture(timer->stream, cudaStreamCaptureModeThreadLocal),
        "cudaStreamBeginCapture", err));
    enum moe_status status = launch(context, set, timer->stream, err);
    /* The capture has to be ended also after a failure, or the stream is of no more use. */
    const cudaError_t ended = cudaStreamEndCapture(timer->stream, &graph);
    if (status == MOE_OK) {
        status = moe_device_check((int) ended, "cudaStreamEndCapture", err);
    }
    if (status == MOE_OK) {
        status = moe_device_check((int) cudaGraphInstantiate(exec, graph, 0),
                                  "cudaGraphInstantiate", err);
    }
    if (graph != NULL) {
        (void) cudaGraphDestroy(graph);
    }
    (void) cudaGetLastError(); /* a capture that failed leaves its error behind */
    return status;
}

enum moe_status moe_graph_capture(struct moe_graph_timer *timer, moe_graph_launch launch,
                                  void *context, uint32_t set_count, struct moe_graph_work *work,
                                  struct moe_error *err)
{
    assert(set_count >= 1);
    assert(set_count <= MOE_GRAPH_SET_LIMIT);
    *work = (struct moe_graph_work){ .set_count = set_count };
    /* Set 0 last: where capturing carries out what it captures, as in the tests without a GPU, its
     * result is what moe_graph_replay is asked for. */
    for (uint32_t set = set_count; set-- > 0;) {
        cudaGraphExec_t exec = NULL;
        const enum moe_status status = capture_one(timer, launch, context, set, &exec, err);
        if (status != MOE_OK) {
            moe_graph_release(work);
            return status;
        }
        work->execs[set] = exec;
    }
    return MOE_OK;
}

void moe_graph_plain(moe_graph_launch launch, void *context, struct moe_graph_work *work)
{
    *work = (struct moe_graph_work){ .launch = launch, .context = context, .set_count = 1 };
}

void moe_graph_release(struct moe_graph_work *work)
{
    for (uint32_t set = 0; set < work->set_count; set++) {
        if (work->execs[set] != NULL) {
            (void) cudaGraphExecDestroy(work->execs[set]);
        }
    }
    *work = (struct moe_graph_work){ 0 };
}

double moe_graph_mhz(const struct moe_graph_work *work)
{
    return work->spent_s > 0.0 ? work->mhz_s / work->spent_s : 0.0;
}

bool moe_graph_enough(const struct moe_graph_work *work, double budget_s)
{
    return work->given_up || moe_timing_enough(work->us, work->count, work->spent_s, budget_s);
}

static enum moe_status replay(struct moe_graph_timer *timer, struct moe_graph_work *work,
                              struct moe_error *err)
{
    const uint32_t set = work->next_set;
    cudaGraphExec_t exec = work->execs[set];
    work->next_set = (set + 1) % work->set_count;
    if (work->launch != NULL) {
        return work->launch(work->context, set, timer->stream, err);
    }
    return moe_device_check((int) cudaGraphLaunch(exec, timer->stream), "cudaGraphLaunch", err);
}

enum moe_status moe_graph_replay(struct moe_graph_timer *timer, struct moe_graph_work *work,
                                 struct moe_error *err)
{
    work->next_set = 0;
    return replay(timer, work, err);
}

static enum moe_status replay_timed(struct moe_graph_timer *timer, struct moe_graph_work *work,
                                    uint32_t count, struct moe_error *err)
{
    for (uint32_t i = 0; i < count; i++) {
        MOE_TRY(moe_device_check((int) cudaEventRecord(timer->begin[i], timer->stream),
                                 "cudaEventRecord", err));
        MOE_TRY(replay(timer, work, err));
        MOE_TRY(moe_device_check((int) cudaEventRecord(timer->end[i], timer->stream),
                                 "cudaEventRecord", err));
    }
    return MOE_OK;
}

static uint32_t batch_size(const struct moe_graph_work *work)
{
    uint32_t size = MOE_GRAPH_BATCH;
    const double most_s = work->batch_s > 0.0 ? work->batch_s : BATCH_S;
    const double replay_s = work->count > 0 ? work->spent_s / (double) work->count : work->replay_s;
    if (replay_s * (double) size > most_s) {
        size = (uint32_t) (most_s / replay_s);
    }
    const uint32_t room = MOE_TIMING_LIMIT - work->count;
    size = size < 1 ? 1 : size;
    return size < room ? size : room;
}

/* The sensors are read while the batch runs: afterwards they would tell of an idle GPU. Where a
 * reading is slow, a work gets few, so that measuring does not become waiting. */
static uint64_t read_sensors(struct moe_graph_timer *timer, struct moe_graph_work *work)
{
    struct moe_nvml_load load;
    if (timer->nvml == NULL || !work->warm ||
        (timer->reading_s > SLOW_READING_S && work->reading_count >= SLOW_READINGS)) {
        return 0;
    }
    moe_nvml_read_load(timer->nvml, timer->gpu, &load);
    work->reading_count++;
    work->watts_sum += (double) load.power_mw / 1e3;
    work->celsius_sum += (double) load.celsius;
    work->throttle |= load.throttle;
    return load.throttle;
}

static void rest(void)
{
    const struct timespec pause = { .tv_nsec = 50000000 };
    (void) nanosleep(&pause, NULL);
}

static enum moe_status stamp(struct moe_graph_timer *timer, int which, struct moe_error *err)
{
    return moe_device_check(
        moe_clock_stamp(timer->stamps_dev[which], timer->sm_count, timer->stream),
        "moe_clock_stamp", err);
}

static enum moe_status replay_many(struct moe_graph_timer *timer, struct moe_graph_work *work,
                                   uint32_t count, struct moe_error *err)
{
    for (uint32_t i = 0; i < count; i++) {
        MOE_TRY(replay(timer, work, err));
    }
    return MOE_OK;
}

/* Replays that take so long, at least one. */
static uint32_t replays_in(const struct moe_graph_work *work, double seconds)
{
    const double count = work->replay_s > 0.0 ? ceil(seconds / work->replay_s) : 1.0;
    return count < WINDOW_REPLAYS ? (uint32_t) count : WINDOW_REPLAYS;
}

static enum moe_status record(struct moe_graph_timer *timer, cudaEvent_t event,
                              struct moe_error *err)
{
    return moe_device_check((int) cudaEventRecord(event, timer->stream), "cudaEventRecord", err);
}

/* Timed replays between two stamps and untimed ones behind them; *late: the GPU was faster than the
 * host. */
static enum moe_status queue_flow(struct moe_graph_timer *timer, struct moe_graph_work *work,
                                  uint32_t size, bool *late, struct moe_error *err)
{
    const uint32_t filling = replays_in(work, FILL_S * (double) (1U << work->late));
    if (!work->flowing) {
        MOE_TRY(replay_many(timer, work, filling, err));
    }
    MOE_TRY(stamp(timer, 0, err));
    MOE_TRY(replay_timed(timer, work, size, err));
    MOE_TRY(stamp(timer, 1, err));
    MOE_TRY(record(timer, timer->batch_end, err));
    *late = cudaEventQuery(timer->begin[0]) != cudaErrorNotReady;
    MOE_TRY(replay_many(timer, work, filling, err));
    work->flowing = true;
    return wait_for(timer, timer->batch_end, "a graph replay", err);
}

/* Hold, untimed replays, then the timed ones between two stamps of the SMs' clocks. */
static enum moe_status queue_batch(struct moe_graph_timer *timer, struct moe_graph_work *work,
                                   uint32_t size, struct moe_error *err)
{
    /* Each graph once before it is timed: its first launch also brings it to the GPU. */
    const uint32_t first =
        work->set_count > MOE_GRAPH_WARM_UP ? work->set_count : MOE_GRAPH_WARM_UP;
    const uint32_t untimed = work->warm ? 1 : first;
    MOE_TRY(moe_device_check(moe_hold_enqueue(timer->hold, HOLD_NS, timer->stream),
                             "moe_hold_enqueue", err));
    enum moe_status status = MOE_OK;
    for (uint32_t i = 0; status == MOE_OK && i < untimed; i++) {
        status = replay(timer, work, err);
    }
    if (status == MOE_OK) {
        status = stamp(timer, 0, err);
    }
    if (status == MOE_OK) {
        status = replay_timed(timer, work, size, err);
    }
    if (status == MOE_OK) {
        status = stamp(timer, 1, err);
    }
    moe_hold_open(timer->hold);
    return status;
}

static enum moe_status read_clock(struct moe_graph_timer *timer, double *mhz, struct moe_error *err)
{
    const size_t bytes = (size_t) timer->sm_count * sizeof(struct moe_clock_reading);
    for (int i = 0; i < 2; i++) {
        MOE_TRY(moe_device_check(
            (int) cudaMemcpy(timer->stamps[i], timer->stamps_dev[i], bytes, cudaMemcpyDeviceToHost),
            "cudaMemcpy of clock stamps", err));
    }
    *mhz = moe_clock_mhz(timer->stamps[0], timer->stamps[1], timer->sm_count);
    return MOE_OK;
}

static enum moe_status run_held(struct moe_graph_timer *timer, struct moe_graph_work *work,
                                uint32_t size, uint64_t *throttle, struct moe_error *err)
{
    MOE_TRY(queue_batch(timer, work, size, err));
    *throttle = read_sensors(timer, work);
    return moe_graph_wait(timer, "a graph replay", err);
}

enum moe_status moe_graph_batch(struct moe_graph_timer *timer, struct moe_graph_work *work,
                                struct moe_error *err)
{
    const uint32_t size = work->warm ? batch_size(work) : 1;
    const bool flow = work->flow && work->warm && work->late < LATE_LIMIT;
    float ms[MOE_GRAPH_BATCH];
    double mhz = 0.0;
    bool late = false;
    uint64_t throttle = 0;
    MOE_TRY(flow ? queue_flow(timer, work, size, &late, err)
                 : run_held(timer, work, size, &throttle, err));
    if (late) {
        work->late++;
        work->flowing = false; /* more in advance next time */
        return MOE_OK;
    }
    for (uint32_t i = 0; i < size; i++) {
        MOE_TRY(moe_device_check((int) cudaEventElapsedTime(&ms[i], timer->begin[i], timer->end[i]),
                                 "cudaEventElapsedTime", err));
    }
    MOE_TRY(read_clock(timer, &mhz, err));
    work->warm = true;
    if ((throttle & MOE_NVML_FAULTS) != 0 && work->dropped < 3) {
        work->dropped++;
        rest();
        return MOE_OK;
    }
    for (uint32_t i = 0; i < size; i++) {
        work->us[work->count++] = ms[i] * 1e3F;
        work->spent_s += (double) ms[i] * 1e-3;
        work->mhz_s += (double) ms[i] * 1e-3 * mhz;
    }
    return MOE_OK;
}

/* Every set once, for its first launch brings it to the GPU; how long one took, roughly. */
static enum moe_status warm_up(struct moe_graph_timer *timer, struct moe_graph_work *work,
                               struct moe_error *err)
{
    float ms = 0.0F;
    const uint32_t count =
        work->set_count > MOE_GRAPH_WARM_UP ? work->set_count : MOE_GRAPH_WARM_UP;
    MOE_TRY(replay_many(timer, work, count, err));
    MOE_TRY(replay_timed(timer, work, 1, err));
    MOE_TRY(moe_graph_wait(timer, "a graph replay", err));
    MOE_TRY(moe_device_check((int) cudaEventElapsedTime(&ms, timer->begin[0], timer->end[0]),
                             "cudaEventElapsedTime", err));
    work->replay_s = fmax((double) ms * 1e-3, 1e-6);
    work->warm = true;
    return MOE_OK;
}

enum moe_status moe_graph_window(struct moe_graph_timer *timer, struct moe_graph_work *work,
                                 double seconds, double *mhz, struct moe_error *err)
{
    float ms = 0.0F;
    if (!work->warm || !(work->replay_s > 0.0)) {
        MOE_TRY(warm_up(timer, work, err));
    }
    const uint32_t count = replays_in(work, seconds);
    MOE_TRY(stamp(timer, 0, err));
    MOE_TRY(record(timer, timer->begin[0], err));
    MOE_TRY(replay_many(timer, work, count, err));
    MOE_TRY(record(timer, timer->end[0], err));
    MOE_TRY(stamp(timer, 1, err));
    work->reading_count = 0; /* of what is steady, only the last is of use */
    work->watts_sum = 0.0;
    work->celsius_sum = 0.0;
    if (timer->reading_s < seconds / 2.0) { /* else the GPU would wait for the sensors */
        (void) read_sensors(timer, work);
    }
    MOE_TRY(moe_graph_wait(timer, "a graph replay", err));
    MOE_TRY(moe_device_check((int) cudaEventElapsedTime(&ms, timer->begin[0], timer->end[0]),
                             "cudaEventElapsedTime", err));
    work->replay_s = fmax((double) ms * 1e-3 / (double) count, 1e-7);
    work->flowing = false;
    return read_clock(timer, mhz, err);
}

enum moe_status moe_graph_rest(struct moe_graph_timer *timer, double least_s, double most_s,
                               double mhz, struct moe_error *err)
{
    const double begin_s = moe_wall_clock_s();
    double found = 0.0;
    double rested_s = 0.0;
    while (rested_s < least_s || (rested_s < most_s && found < mhz)) {
        for (int i = 0; i < REST_STAMPS; i++) {
            MOE_TRY(stamp(timer, i > 0, err));
        }
        MOE_TRY(moe_graph_wait(timer, "light load", err));
        MOE_TRY(read_clock(timer, &found, err));
        rested_s = moe_wall_clock_s() - begin_s;
    }
    return MOE_OK;
}

enum moe_status moe_graph_probe(struct moe_graph_timer *timer, moe_graph_launch launch,
                                void *context, float *us, struct moe_error *err)
{
    struct moe_graph_work work;
    float least = INFINITY;
    MOE_TRY(moe_graph_capture(timer, launch, context, 1, &work, err));
    enum moe_status status = replay(timer, &work, err);
    if (status == MOE_OK) {
        status = replay_timed(timer, &work, PROBE_REPLAYS, err);
    }
    if (status == MOE_OK) {
        status = moe_graph_wait(timer, "a graph replay", err);
    }
    for (int i = 0; status == MOE_OK && i < PROBE_REPLAYS; i++) {
        float ms = 0.0F;
        status = moe_device_check((int) cudaEventElapsedTime(&ms, timer->begin[i], timer->end[i]),
                                  "cudaEventElapsedTime", err);
        least = ms < least ? ms : least;
    }
    moe_graph_release(&work);
    if (status == MOE_OK) {
        *us = least * 1e3F;
    }
    return status;
}
