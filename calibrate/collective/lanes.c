#include "calibrate/collective/lanes.h"

#include <assert.h>
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calibrate/collective/exchange_pattern.h"
#include "kernels/memory/random_fill.h"
#include "sim/base/wall_clock.h"

/* Far longer than queueing a batch takes: a hold that ends by itself spoils the batch. */
static const int64_t HOLD_NS = 1000000000;
static const double READ_REST = 30.0; /* times as long as a reading took, none is made */
static const double SPIN_S = 2e-3;    /* short work is waited for without sleeping */

static enum moe_status use(const struct moe_lane *lane, struct moe_error *err)
{
    return moe_device_check((int) cudaSetDevice((int) lane->device), "cudaSetDevice", err);
}

/* Without it NCCL and copies still work, through the host: slower, and so measured. */
static void open_peers(const struct moe_lanes *lanes, const struct moe_lane *lane)
{
    for (uint32_t i = 0; i < lanes->count; i++) {
        int can = 0;
        if (lanes->lanes[i].device != lane->device &&
            cudaDeviceCanAccessPeer(&can, (int) lane->device, (int) lanes->lanes[i].device) ==
                cudaSuccess &&
            can != 0) {
            (void) cudaDeviceEnablePeerAccess((int) lanes->lanes[i].device, 0);
        }
    }
    (void) cudaGetLastError(); /* enabled already is no error that a later call should meet */
}

static enum moe_status make_stream(struct moe_lane *lane, struct moe_error *err)
{
    int low = 0;
    int high = 0;
    MOE_TRY(moe_device_check((int) cudaDeviceGetStreamPriorityRange(&low, &high),
                             "cudaDeviceGetStreamPriorityRange", err));
    MOE_TRY(moe_device_check((int) cudaStreamCreateWithPriority((cudaStream_t *) &lane->stream,
                                                                cudaStreamNonBlocking, high),
                             "cudaStreamCreateWithPriority", err));
    for (int i = 0; i < MOE_LANE_BATCH; i++) {
        MOE_TRY(moe_device_check((int) cudaEventCreate((cudaEvent_t *) &lane->begin[i]),
                                 "cudaEventCreate", err));
        MOE_TRY(moe_device_check((int) cudaEventCreate((cudaEvent_t *) &lane->end[i]),
                                 "cudaEventCreate", err));
    }
    return MOE_OK;
}

/* What is looked at afterwards has the pattern, the rest repeats it. */
static void fill_host(struct moe_lane *lane, int64_t bytes, uint32_t ranks)
{
    const int64_t first = bytes < MOE_LANES_CHECK_BYTES ? bytes : MOE_LANES_CHECK_BYTES;
    moe_exchange_pattern_fill(lane->rank, ranks, first / 2, lane->host);
    for (int64_t at = first; at < bytes; at += first) {
        memcpy((char *) lane->host + at, lane->host,
               (size_t) (bytes - at < first ? bytes - at : first));
    }
}

static enum moe_status make_buffers(struct moe_lane *lane, const struct moe_collective_room *room,
                                    uint32_t ranks, struct moe_error *err)
{
    const int64_t recv_cells = (room->recv + 1) / 2;
    MOE_TRY(moe_device_check((int) cudaMalloc(&lane->recv_dev, (size_t) recv_cells * 2),
                             "cudaMalloc of a receive buffer", err));
    MOE_TRY(moe_device_check(
        moe_kernel_fill_bf16(lane->recv_dev, recv_cells, 1.0F, 77 + lane->rank, NULL),
        "filling a buffer", err));
    if (room->send > 0) {
        MOE_TRY(moe_device_check((int) cudaMalloc(&lane->send_dev, (size_t) room->send),
                                 "cudaMalloc of a send buffer", err));
        MOE_TRY(moe_device_check(
            moe_kernel_fill_bf16(lane->send_dev, room->send / 2, 1.0F, 99 + lane->rank, NULL),
            "filling a buffer", err));
    }
    if (room->host > 0) {
        MOE_TRY(moe_device_check(
            (int) cudaHostAlloc(&lane->host, (size_t) room->host, cudaHostAllocPortable),
            "cudaHostAlloc", err));
        fill_host(lane, room->host, ranks);
    }
    return moe_device_check((int) cudaDeviceSynchronize(), "filling buffers", err);
}

static enum moe_status make_lane(struct moe_lanes *lanes, struct moe_lane *lane,
                                 struct moe_error *err)
{
    MOE_TRY(moe_device_read(lane->device, &lane->about, err));
    if (lanes->nvml != NULL) {
        MOE_TRY(moe_nvml_find(lanes->nvml, lane->about.pci_bus_id, &lane->sensor, err));
    }
    MOE_TRY(use(lane, err));
    open_peers(lanes, lane);
    MOE_TRY(make_stream(lane, err));
    return make_buffers(lane, &lanes->room, lanes->rank_count, err);
}

enum moe_status moe_lanes_create(const uint32_t *devices, uint32_t count, uint32_t rank_first,
                                 uint32_t rank_count, const struct moe_collective_room *room,
                                 const struct moe_nvml *nvml, struct moe_lanes *out,
                                 struct moe_error *err)
{
    assert(count >= 1);
    assert(count <= MOE_LANE_LIMIT);
    *out = (struct moe_lanes){
        .count = count,
        .rank_first = rank_first,
        .rank_count = rank_count,
        .room = *room,
        .nvml = nvml,
    };
    for (uint32_t i = 0; i < count; i++) {
        out->lanes[i].device = devices[i];
        out->lanes[i].rank = rank_first + i;
    }
    enum moe_status status = MOE_OK;
    for (uint32_t i = 0; status == MOE_OK && i < count; i++) {
        status = make_lane(out, &out->lanes[i], err);
    }
    if (status == MOE_OK) {
        status = moe_device_check(moe_hold_create(&out->hold), "moe_hold_create", err);
    }
    if (status != MOE_OK) {
        moe_lanes_destroy(out);
        *out = (struct moe_lanes){ 0 };
    }
    return status;
}

/* Nothing to do about a failure here: what was measured is measured. */
void moe_lanes_destroy(struct moe_lanes *lanes)
{
    if (lanes->stuck) {
        return;
    }
    for (uint32_t i = 0; i < lanes->count; i++) {
        struct moe_lane *lane = &lanes->lanes[i];
        if (cudaSetDevice((int) lane->device) != cudaSuccess) {
            continue;
        }
        for (int k = 0; k < MOE_LANE_BATCH; k++) {
            if (lane->begin[k] != NULL) {
                (void) cudaEventDestroy(lane->begin[k]);
            }
            if (lane->end[k] != NULL) {
                (void) cudaEventDestroy(lane->end[k]);
            }
        }
        if (lane->stream != NULL) {
            (void) cudaStreamSynchronize(lane->stream);
            (void) cudaStreamDestroy(lane->stream);
        }
        (void) cudaFree(lane->send_dev);
        (void) cudaFree(lane->recv_dev);
        if (lane->host != NULL) {
            (void) cudaFreeHost(lane->host);
        }
    }
    moe_hold_destroy(lanes->hold);
    *lanes = (struct moe_lanes){ 0 };
}

bool moe_lane_works(const struct moe_lane *lane, const struct moe_collective_call *call)
{
    if (call->op == MOE_COLLECTIVE_PEER_COPY) {
        return lane->rank == (uint32_t) call->src;
    }
    return moe_collective_joins(call, lane->rank);
}

enum moe_status moe_lanes_wait(struct moe_lanes *lanes, const char *what, struct moe_error *err)
{
    const struct timespec pause = { .tv_nsec = 50000 };
    const double begin_s = moe_wall_clock_s();
    for (uint32_t i = 0; i < lanes->count; i++) {
        cudaError_t code = cudaStreamQuery(lanes->lanes[i].stream);
        while (code == cudaErrorNotReady) {
            const double spent_s = moe_wall_clock_s() - begin_s;
            if (spent_s > MOE_LANES_PATIENCE_S) {
                lanes->stuck = true;
                return moe_fail(err, MOE_DEVICE, "%s did not end within %g s (GPU %u)", what,
                                MOE_LANES_PATIENCE_S, (unsigned) lanes->lanes[i].device);
            }
            if (spent_s > SPIN_S) {
                (void) nanosleep(&pause, NULL);
            }
            code = cudaStreamQuery(lanes->lanes[i].stream);
        }
        MOE_TRY(moe_device_check((int) code, what, err));
    }
    return MOE_OK;
}

enum moe_status moe_lanes_hold(struct moe_lanes *lanes, const struct moe_lane *lane, void *stream,
                               struct moe_error *err)
{
    MOE_TRY(use(lane, err));
    return moe_device_check(moe_hold_enqueue(lanes->hold, HOLD_NS, stream), "moe_hold_enqueue",
                            err);
}

enum moe_status moe_lanes_late(struct moe_lanes *lanes, bool *late, struct moe_error *err)
{
    *late = moe_hold_timed_out(lanes->hold) != 0;
    if (!*late) {
        return MOE_OK;
    }
    moe_hold_destroy(lanes->hold);
    lanes->hold = NULL;
    return moe_device_check(moe_hold_create(&lanes->hold), "moe_hold_create", err);
}

static enum moe_status record(const struct moe_lanes *lanes, const struct moe_collective_call *call,
                              uint32_t turn, bool begin, struct moe_error *err)
{
    for (uint32_t i = 0; i < lanes->count; i++) {
        const struct moe_lane *lane = &lanes->lanes[i];
        if (moe_lane_works(lane, call)) {
            MOE_TRY(moe_device_check(
                (int) cudaEventRecord(begin ? lane->begin[turn] : lane->end[turn], lane->stream),
                "cudaEventRecord", err));
        }
    }
    return MOE_OK;
}

static enum moe_status queue(struct moe_lanes *lanes, const struct moe_collective_call *call,
                             moe_lanes_enqueue enqueue, void *context, uint32_t count,
                             struct moe_error *err)
{
    for (uint32_t i = 0; i < lanes->count; i++) {
        if (moe_lane_works(&lanes->lanes[i], call)) {
            MOE_TRY(moe_lanes_hold(lanes, &lanes->lanes[i], lanes->lanes[i].stream, err));
        }
    }
    MOE_TRY(enqueue(context, err));
    for (uint32_t turn = 0; turn < count; turn++) {
        MOE_TRY(record(lanes, call, turn, true, err));
        MOE_TRY(enqueue(context, err));
        MOE_TRY(record(lanes, call, turn, false, err));
    }
    return MOE_OK;
}

/* A reading may take longer than the batch; then it is made rarely, and the last one stands. */
static void read_sensors(struct moe_lanes *lanes, struct moe_lanes_times *out)
{
    const double begin_s = moe_wall_clock_s();
    if (lanes->nvml != NULL && begin_s - lanes->read_s >= lanes->read_every_s) {
        for (uint32_t i = 0; i < lanes->count; i++) {
            moe_nvml_read_load(lanes->nvml, lanes->lanes[i].sensor, &lanes->lanes[i].load);
        }
        lanes->read_s = moe_wall_clock_s();
        lanes->read_every_s = (lanes->read_s - begin_s) * READ_REST;
    }
    for (uint32_t i = 0; i < lanes->count; i++) {
        out->load[i] = lanes->lanes[i].load;
    }
}

enum moe_status moe_lanes_batch(struct moe_lanes *lanes, const struct moe_collective_call *call,
                                moe_lanes_enqueue enqueue, void *context, uint32_t count,
                                struct moe_lanes_times *out, struct moe_error *err)
{
    char what[160];
    assert(count >= 1);
    assert(count <= MOE_LANE_BATCH);
    const enum moe_status status = queue(lanes, call, enqueue, context, count, err);
    moe_hold_open(lanes->hold); /* also after an error: what was queued must end */
    MOE_TRY(status);
    read_sensors(lanes, out);
    MOE_TRY(moe_lanes_wait(lanes, moe_collective_describe(call, what, sizeof what), err));
    MOE_TRY(moe_lanes_late(lanes, &out->late, err));
    for (uint32_t i = 0; i < lanes->count; i++) {
        const struct moe_lane *lane = &lanes->lanes[i];
        for (uint32_t turn = 0; moe_lane_works(lane, call) && turn < count; turn++) {
            float ms = 0.0F;
            MOE_TRY(moe_device_check(
                (int) cudaEventElapsedTime(&ms, lane->begin[turn], lane->end[turn]),
                "cudaEventElapsedTime", err));
            out->us[i][turn] = ms * 1e3F;
        }
    }
    return MOE_OK;
}
