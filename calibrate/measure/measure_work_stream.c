/* Plain reading, writing and copying of memory, and graphs of the smallest kernels. */
#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/device/device.h"
#include "calibrate/measure/measure_work.h"
#include "kernels/memory/random_fill.h"
#include "kernels/memory/stream.h"

enum { NODE_BYTES = 16 };

static const uint32_t WORD = 0x3f3f3f3f;

struct stream {
    struct moe_measure_tools tools;
    struct moe_measure_buffers buffers;
    bool is_launch;
    bool reads;
    bool writes;
    char *src_dev;
    char *dst_dev;
    uint32_t *sum_dev;
    int64_t room; /* bytes of either array */
    int64_t bytes;
    int version;
    uint32_t node_count;
};

static void stream_close(void *state)
{
    struct stream *stream = state;
    moe_measure_give(&stream->buffers);
    free(stream);
}

static enum moe_status take_all(struct stream *stream, struct moe_error *err)
{
    const double room = (double) stream->room;
    MOE_TRY(moe_measure_take(&stream->buffers, MOE_STREAM_SUM_COUNT * sizeof(uint32_t),
                             &stream->sum_dev, err));
    if (stream->reads) {
        MOE_TRY(moe_measure_take(&stream->buffers, room, &stream->src_dev, err));
        MOE_TRY(
            moe_device_check(moe_kernel_fill_bf16(stream->src_dev, stream->room / 2, 1.0F, 1, NULL),
                             "filling", err));
    }
    if (stream->writes) {
        MOE_TRY(moe_measure_take(&stream->buffers, room, &stream->dst_dev, err));
    }
    return moe_device_check((int) cudaDeviceSynchronize(), "filling", err);
}

static enum moe_status stream_open(const struct moe_measure_tools *tools,
                                   const struct moe_measure_series *series,
                                   const struct moe_measure_extent *extent, void **state,
                                   struct moe_error *err)
{
    struct stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a series");
    }
    stream->tools = *tools;
    stream->is_launch = series->kind == MOE_MEASURE_LAUNCH;
    stream->reads = !stream->is_launch && strcmp(series->name, "stream-write") != 0;
    stream->writes = stream->is_launch || strcmp(series->name, "stream-read") != 0;
    stream->room = stream->is_launch ? NODE_BYTES : (int64_t) extent->tokens;
    const enum moe_status status = take_all(stream, err);
    if (status != MOE_OK) {
        stream_close(stream);
        return status;
    }
    *state = stream;
    return MOE_OK;
}

static enum moe_status nodes_launch(void *context, uint32_t set, void *cuda_stream,
                                    struct moe_error *err)
{
    const struct stream *stream = context;
    (void) set;
    for (uint32_t i = 0; i < stream->node_count; i++) {
        MOE_TRY(moe_device_check(
            moe_stream_write(stream->dst_dev, WORD, NODE_BYTES, 1, cuda_stream), "launch", err));
    }
    return MOE_OK;
}

static enum moe_status stream_launch(void *context, uint32_t set, void *cuda_stream,
                                     struct moe_error *err)
{
    const struct stream *stream = context;
    const int64_t offset = (int64_t) set * stream->bytes;
    int code = 0;
    if (stream->reads && stream->writes) {
        code = moe_stream_copy(stream->dst_dev + offset, stream->src_dev + offset, stream->bytes,
                               stream->version, cuda_stream);
    } else if (stream->reads) {
        code = moe_stream_read(stream->sum_dev, stream->src_dev + offset, stream->bytes,
                               stream->version, cuda_stream);
    } else {
        code = moe_stream_write(stream->dst_dev + offset, WORD, stream->bytes, stream->version,
                                cuda_stream);
    }
    return moe_device_check(code, "launch", err);
}

/* The version that is fastest at this size; those that the GPU refuses are passed over. */
static enum moe_status choose_version(struct stream *stream, struct moe_error *err)
{
    float best = 0.0F;
    int chosen = 0;
    struct moe_error own = { 0 };
    for (int version = 1; version <= MOE_STREAM_VERSION_COUNT; version++) {
        float us = 0.0F;
        stream->version = version;
        enum moe_status status =
            stream_launch(stream, 0, moe_graph_timer_stream(stream->tools.timer), &own);
        if (status == MOE_OK) {
            status = moe_graph_probe(stream->tools.timer, stream_launch, stream, &us, &own);
        }
        if (status == MOE_OK && (chosen == 0 || us < best)) {
            chosen = version;
            best = us;
        }
        (void) cudaGetLastError();
    }
    if (chosen == 0) {
        return moe_fail(err, MOE_DEVICE, "no stream kernel runs: %.300s", own.text);
    }
    stream->version = chosen;
    return MOE_OK;
}

static enum moe_status stream_set(void *state, const struct moe_measure_point *point,
                                  struct moe_measure_launch *out, struct moe_error *err)
{
    struct stream *stream = state;
    *out = (struct moe_measure_launch){ .context = stream, .set_count = 1 };
    if (stream->is_launch) {
        stream->node_count = (uint32_t) point->tokens;
        out->launch = nodes_launch;
        return MOE_OK;
    }
    stream->bytes = (int64_t) point->tokens / NODE_BYTES * NODE_BYTES;
    out->launch = stream_launch;
    MOE_TRY(choose_version(stream, err));
    const uint32_t wanted = moe_graph_set_count(point->bytes, stream->tools.cache_bytes);
    const int64_t room = stream->room / stream->bytes;
    out->set_count = (int64_t) wanted < room ? wanted : (uint32_t) room;
    return MOE_OK;
}

static enum moe_status stream_poison(void *state, const struct moe_measure_point *point,
                                     struct moe_error *err)
{
    const struct stream *stream = state;
    const size_t bytes = stream->is_launch ? NODE_BYTES : (size_t) stream->bytes;
    (void) point;
    if (!stream->writes) {
        return MOE_OK;
    }
    MOE_TRY(moe_device_check((int) cudaMemset(stream->dst_dev, 0xff, bytes), "cudaMemset", err));
    return moe_device_check((int) cudaDeviceSynchronize(), "cudaMemset", err);
}

/* Looks at both ends of what was written. */
static enum moe_status stream_judge(void *state, const struct moe_measure_point *point,
                                    struct moe_measure_verdict *out, struct moe_error *err)
{
    const struct stream *stream = state;
    const int64_t bytes = stream->is_launch ? NODE_BYTES : stream->bytes;
    const int64_t places[2] = { 0, bytes - 4 };
    uint32_t wrong = 0;
    (void) point;
    for (int i = 0; stream->writes && i < 2; i++) {
        uint32_t got = 0;
        uint32_t right = WORD;
        MOE_TRY(moe_device_check(
            (int) cudaMemcpy(&got, stream->dst_dev + places[i], 4, cudaMemcpyDeviceToHost),
            "cudaMemcpy", err));
        if (stream->reads) {
            MOE_TRY(moe_device_check(
                (int) cudaMemcpy(&right, stream->src_dev + places[i], 4, cudaMemcpyDeviceToHost),
                "cudaMemcpy", err));
        }
        wrong += got != right;
    }
    out->error = stream->writes ? (double) wrong : -1.0;
    out->wrong = wrong > 0;
    (void) snprintf(out->why, sizeof out->why, "%u of 2 words looked at are wrong", wrong);
    return MOE_OK;
}

const struct moe_measure_work moe_measure_work_stream = {
    .open = stream_open,
    .set = stream_set,
    .poison = stream_poison,
    .judge = stream_judge,
    .close = stream_close,
};
