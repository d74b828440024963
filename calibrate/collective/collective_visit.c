#include "calibrate/collective/collective_visit.h"

#include <assert.h>
#include <cuda_runtime_api.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calibrate/collective/exchange_pattern.h"

enum { WARM_UP = 2, DROP_LIMIT = 3, LEAST_BATCH = 3 };

static const double BATCH_US = 3000.0; /* longer batches would only be stopped later */
/* For a whole visit, in which connections may be made; calls on the GPU have their own patience. */
static const double PATIENCE_S = 60.0;

struct context {
    struct moe_exchange *exchange;
    const struct moe_collective_call *call;
};

static enum moe_status enqueue(void *context, struct moe_error *err)
{
    const struct context *of = context;
    return moe_exchange_enqueue(of->exchange, of->call, err);
}

static enum moe_status use(const struct moe_lane *lane, struct moe_error *err)
{
    return moe_device_check((int) cudaSetDevice((int) lane->device), "cudaSetDevice", err);
}

/* Patterns into the send buffers, poison into what will be looked at. */
static enum moe_status prepare(const struct moe_visit_tools *tools,
                               const struct moe_collective_call *call, struct moe_error *err)
{
    struct moe_lanes *lanes = tools->lanes;
    for (uint32_t i = 0; i < lanes->count; i++) {
        const struct moe_lane *lane = &lanes->lanes[i];
        const int64_t out = moe_collective_send_bytes(call, lane->rank);
        const int64_t in = moe_collective_recv_bytes(call, lane->rank);
        MOE_TRY(use(lane, err));
        if (out > 0 && call->op != MOE_COLLECTIVE_HOST_TO_DEVICE) {
            moe_exchange_pattern_fill(lane->rank, lanes->rank_count, out / 2, tools->cells);
            MOE_TRY(moe_device_check((int) cudaMemcpy(lane->send_dev, tools->cells, (size_t) out,
                                                      cudaMemcpyHostToDevice),
                                     "cudaMemcpy of a pattern", err));
        }
        MOE_TRY(moe_device_check(
            (int) cudaMemset(lane->recv_dev, 0xff, (size_t) (in + MOE_EXCHANGE_GUARD)),
            "cudaMemset of poison", err));
        MOE_TRY(moe_device_check((int) cudaDeviceSynchronize(), "cudaMemset of poison", err));
    }
    return MOE_OK;
}

/* No number is what the poison reads as. */
static enum moe_status wrong(const struct moe_lane *lane, const char *what,
                             const struct moe_exchange_fault *fault, struct moe_error *err)
{
    char text[80];
    if (isnan(fault->found)) {
        (void) snprintf(text, sizeof text, "nothing was written where %g belongs", fault->wanted);
    } else if (isnan(fault->wanted)) {
        (void) snprintf(text, sizeof text, "%g was written behind the end", fault->found);
    } else {
        (void) snprintf(text, sizeof text, "there is %g where %g belongs", fault->found,
                        fault->wanted);
    }
    return moe_fail(err, MOE_DEVICE,
                    "%s is wrong: at cell %" PRId64 " of rank %" PRIu32 " (GPU %" PRIu32 ") %s",
                    what, fault->cell, lane->rank, lane->device, text);
}

static enum moe_status inspect(const struct moe_visit_tools *tools,
                               const struct moe_collective_call *call, struct moe_error *err)
{
    struct moe_lanes *lanes = tools->lanes;
    for (uint32_t i = 0; i < lanes->count; i++) {
        const struct moe_lane *lane = &lanes->lanes[i];
        const int64_t in = moe_collective_recv_bytes(call, lane->rank);
        struct moe_exchange_fault fault;
        char what[160];
        MOE_TRY(use(lane, err));
        MOE_TRY(moe_device_check((int) cudaMemcpy(tools->cells, lane->recv_dev,
                                                  (size_t) (in + MOE_EXCHANGE_GUARD),
                                                  cudaMemcpyDeviceToHost),
                                 "cudaMemcpy of a result", err));
        if (!moe_exchange_pattern_right(call, lane->rank, lanes->rank_count, tools->cells,
                                        &fault)) {
            return wrong(lane, moe_collective_describe(call, what, sizeof what), &fault, err);
        }
    }
    return MOE_OK;
}

/* The largest buffer of any rank: all processes decide alike. */
static bool small_enough(const struct moe_collective_call *call, uint32_t rank_count)
{
    int64_t most = 0;
    for (uint32_t rank = 0; rank < rank_count; rank++) {
        const int64_t out = moe_collective_send_bytes(call, rank);
        const int64_t in = moe_collective_recv_bytes(call, rank);
        most = out > most ? out : most;
        most = in > most ? in : most;
    }
    return most <= MOE_LANES_CHECK_BYTES;
}

/* Runs the call a few times without a hold, since code and connections may only now come to the
 * GPUs; the last time, its result is looked at. */
static enum moe_status warm_up(const struct moe_visit_tools *tools,
                               const struct moe_collective_call *call, bool look,
                               struct moe_error *err)
{
    char what[160];
    (void) moe_collective_describe(call, what, sizeof what);
    for (int i = 0; i < WARM_UP; i++) {
        const bool last = i + 1 == WARM_UP;
        if (last && look) {
            MOE_TRY(moe_lanes_wait(tools->lanes, what, err));
            MOE_TRY(moe_bootstrap_agree(tools->boot, prepare(tools, call, err), err));
        }
        MOE_TRY(moe_exchange_enqueue(tools->exchange, call, err));
    }
    MOE_TRY(moe_lanes_wait(tools->lanes, what, err));
    return look ? inspect(tools, call, err) : MOE_OK;
}

static uint32_t batch_size(const struct moe_visit *visit)
{
    uint32_t size = LEAST_BATCH;
    if (visit->count > 0) {
        const double each = (double) visit->slowest_us[visit->count - 1];
        const double fits = BATCH_US / (each < 1.0 ? 1.0 : each);
        size = fits > MOE_LANE_BATCH ? MOE_LANE_BATCH : (uint32_t) fits;
        size = size < LEAST_BATCH ? LEAST_BATCH : size;
    }
    const uint32_t room = MOE_TIMING_LIMIT - visit->count;
    return size < room ? size : room;
}

/* What each process adds to a batch. */
struct share {
    uint32_t lane_count;
    bool spoilt;
    struct moe_lanes_times times;
};

static bool faulty(const struct moe_lanes *lanes, const struct moe_lanes_times *times)
{
    uint64_t reasons = 0;
    for (uint32_t i = 0; i < lanes->count; i++) {
        reasons |= times->load[i].throttle;
    }
    return (reasons & MOE_NVML_FAULTS) != 0;
}

static void add_load(struct moe_visit_sensors *sensors, const struct moe_nvml_load *load)
{
    sensors->mhz += (double) load->sm_clock_mhz;
    sensors->watts += (double) load->power_mw / 1e3;
    sensors->celsius += (double) load->celsius;
    sensors->throttle |= load->throttle;
}

/* Every rank's times into the visit, and per call the slowest. */
static void take_batch(const struct moe_visit_tools *tools, const struct moe_collective_call *call,
                       const struct share *shares, uint32_t size, struct moe_visit *visit)
{
    const uint32_t lane_count = tools->lanes->count;
    for (uint32_t turn = 0; turn < size; turn++) {
        visit->slowest_us[visit->count + turn] = 0.0F;
    }
    for (uint32_t rank = 0; rank < tools->lanes->rank_count; rank++) {
        const struct share *from = &shares[rank / lane_count];
        const uint32_t lane = rank % lane_count;
        const struct moe_lane as_lane = { .rank = rank };
        struct moe_visit_rank *to = &visit->ranks[rank];
        if (!moe_lane_works(&as_lane, call)) {
            continue;
        }
        to->worked = true;
        add_load(&to->sensors, &from->times.load[lane]);
        for (uint32_t turn = 0; turn < size; turn++) {
            const float us = from->times.us[lane][turn];
            float *slowest = &visit->slowest_us[visit->count + turn];
            to->us[visit->count + turn] = us;
            *slowest = us > *slowest ? us : *slowest;
        }
        to->count = visit->count + size;
    }
    visit->count += size;
}

static void rest(void)
{
    const struct timespec pause = { .tv_nsec = 50000000 };
    (void) nanosleep(&pause, NULL);
}

static enum moe_status one_batch(const struct moe_visit_tools *tools, struct context *context,
                                 struct share *shares, struct moe_visit *visit, uint32_t *batches,
                                 struct moe_error *err)
{
    struct share mine = { .lane_count = tools->lanes->count };
    const uint32_t size = batch_size(visit);
    const enum moe_status status =
        moe_lanes_batch(tools->lanes, context->call, enqueue, context, size, &mine.times, err);
    MOE_TRY(moe_bootstrap_agree(tools->boot, status, err));
    mine.spoilt = mine.times.late || faulty(tools->lanes, &mine.times);
    MOE_TRY(moe_bootstrap_gather(tools->boot, &mine, sizeof mine, shares, err));
    bool spoilt = false;
    bool late = false;
    for (uint32_t i = 0; i < tools->boot->process_count; i++) {
        spoilt = spoilt || shares[i].spoilt;
        late = late || shares[i].times.late;
    }
    if (spoilt && (late || visit->dropped < DROP_LIMIT)) {
        char what[160];
        visit->dropped++;
        rest();
        if (late && visit->dropped > DROP_LIMIT) {
            return moe_fail(err, MOE_DEVICE,
                            "%s could not be queued behind a hold within a second, %" PRIu32
                            " times; is CUDA_LAUNCH_BLOCKING set?",
                            moe_collective_describe(context->call, what, sizeof what),
                            visit->dropped);
        }
        return MOE_OK;
    }
    take_batch(tools, context->call, shares, size, visit);
    (*batches)++;
    return MOE_OK;
}

static double spent_s(const struct moe_visit *visit)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < visit->count; i++) {
        sum += (double) visit->slowest_us[i] * 1e-6;
    }
    return sum;
}

enum moe_status moe_visit_call(const struct moe_visit_tools *tools,
                               const struct moe_collective_call *call, double budget_s, bool look,
                               struct moe_visit *visit, struct moe_error *err)
{
    char what[160];
    struct context context = { tools->exchange, call };
    const uint32_t rank_count = tools->lanes->rank_count;
    const bool looks = look && small_enough(call, rank_count);
    uint32_t batches = 0;
    struct share *shares = calloc(tools->boot->process_count, sizeof *shares);
    if (shares == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for times");
    }
    visit->count = 0;
    visit->dropped = 0;
    visit->error = looks ? 0.0 : -1.0;
    memset(visit->ranks, 0, rank_count * sizeof visit->ranks[0]);
    moe_watchdog_arm(tools->dog, PATIENCE_S, moe_collective_describe(call, what, sizeof what));
    enum moe_status status =
        moe_bootstrap_agree(tools->boot, warm_up(tools, call, looks, err), err);
    while (status == MOE_OK &&
           !moe_timing_enough(visit->slowest_us, visit->count, spent_s(visit), budget_s)) {
        status = one_batch(tools, &context, shares, visit, &batches, err);
    }
    moe_watchdog_disarm(tools->dog);
    free(shares);
    for (uint32_t rank = 0; status == MOE_OK && rank < rank_count; rank++) {
        struct moe_visit_sensors *sensors = &visit->ranks[rank].sensors;
        sensors->mhz /= (double) batches;
        sensors->watts /= (double) batches;
        sensors->celsius /= (double) batches;
    }
    return status;
}
