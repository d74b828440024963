/* The CUDA runtime of the pretend GPU. */
#include <cuda_runtime_api.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/pretend/pretend_gpu.h"

enum { STREAM_LIMIT = 256 };

struct pretend_event {
    struct pretend_stream *stream;
    long work;      /* of that stream when it was recorded */
    double busy_us; /* likewise */
    bool asked;     /* since it was recorded: the first time it has not come yet */
};

static struct pretend_stream *streams[STREAM_LIMIT];
static pthread_mutex_t streams_lock = PTHREAD_MUTEX_INITIALIZER;
/* The stream that began the capture under way; NULL: none. Of this thread, as captures of CUDA's
 * mode ThreadLocal are. */
static _Thread_local struct pretend_stream *capture;

/* A GPU that falls off the bus after PRETEND_LOST launches of work: this and every later call
 * fails. */
static bool is_lost(bool launches)
{
    static atomic_long count;
    const char *text = getenv("PRETEND_LOST");
    return text != NULL && atomic_fetch_add(&count, launches ? 1 : 0) >= strtol(text, NULL, 10);
}

static int launch(void *stream, bool counts)
{
    struct pretend_stream *on = stream;
    if (is_lost(counts)) {
        return (int) cudaErrorLaunchFailure;
    }
    if (capture != NULL && (on == NULL || !on->capturing)) {
        return (int) cudaErrorStreamCaptureUnsupported;
    }
    if (on != NULL) {
        on->work++;
    }
    return 0;
}

int pretend_launch(void *stream)
{
    return launch(stream, true);
}

int pretend_stamp(void *stream)
{
    return launch(stream, false);
}

cudaError_t cudaDriverGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    *version = 13000;
    return cudaSuccess;
}

/* One GPU, or as many as the environment says. */
cudaError_t cudaGetDeviceCount(int *count)
{
    const char *text = getenv("PRETEND_GPUS");
    *count = text == NULL ? 1 : (int) strtol(text, NULL, 10);
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int device)
{
    memset(out, 0, sizeof *out);
    out->uuid.bytes[15] = (char) device;
    (void) snprintf(out->name, sizeof out->name, "pretend GPU");
    out->totalGlobalMem = (size_t) 1 << 34;
    out->multiProcessorCount = 132;
    out->major = 9;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *out, int size, int device)
{
    (void) snprintf(out, (size_t) size, "0000:%02x:00.0", (unsigned) device);
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    (void) device;
    *value = attribute == cudaDevAttrL2CacheSize ? 1 << 16 : 1980000;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device)
{
    int count = 0;
    (void) cudaGetDeviceCount(&count);
    return device >= 0 && device < count ? cudaSuccess : cudaErrorInvalidDevice;
}

cudaError_t cudaGetLastError(void)
{
    return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t code)
{
    static char text[40];
    (void) snprintf(text, sizeof text, "pretend error %d", (int) code);
    return text;
}

cudaError_t cudaDeviceSynchronize(void)
{
    if (is_lost(false)) {
        return cudaErrorLaunchFailure;
    }
    return capture == NULL ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
}

cudaError_t cudaMalloc(void **out, size_t bytes)
{
    if (capture != NULL) {
        return cudaErrorStreamCaptureUnsupported;
    }
    *out = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (*out == NULL) {
        return cudaErrorMemoryAllocation;
    }
    memset(*out, 0xff, bytes); /* poison: nothing may count on fresh memory */
    return cudaSuccess;
}

/* Little is free, so that operands kept for later are given up at times. */
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *all_bytes)
{
    static atomic_uint turn;
    *free_bytes = (size_t) (turn++ % 3 == 0 ? 100 : 600) << 24;
    *all_bytes = (size_t) 1000 << 24;
    return cudaSuccess;
}

cudaError_t cudaFree(void *pointer)
{
    free(pointer);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    (void) kind;
    memmove(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpy2D(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                         size_t width, size_t height, enum cudaMemcpyKind kind)
{
    (void) kind;
    if (width > to_pitch || width > from_pitch) {
        return cudaErrorInvalidPitchValue;
    }
    for (size_t row = 0; row < height; row++) {
        memmove((char *) to + row * to_pitch, (const char *) from + row * from_pitch, width);
    }
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    (void) kind;
    memmove(to, from, bytes);
    return (cudaError_t) pretend_launch(stream);
}

cudaError_t cudaMemset(void *to, int value, size_t bytes)
{
    memset(to, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *to, int value, size_t bytes, cudaStream_t stream)
{
    memset(to, value, bytes);
    return (cudaError_t) pretend_launch(stream);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    struct pretend_stream *stream = calloc(1, sizeof *stream);
    cudaError_t code = cudaErrorMemoryAllocation;
    (void) flags;
    (void) pthread_mutex_lock(&streams_lock);
    for (int i = 0; stream != NULL && code != cudaSuccess && i < STREAM_LIMIT; i++) {
        if (streams[i] == NULL) {
            streams[i] = stream;
            *out = (cudaStream_t) (void *) stream;
            code = cudaSuccess;
        }
    }
    (void) pthread_mutex_unlock(&streams_lock);
    if (code != cudaSuccess) {
        free(stream);
    }
    return code;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    (void) pthread_mutex_lock(&streams_lock);
    for (int i = 0; i < STREAM_LIMIT; i++) {
        if (streams[i] == (void *) stream) {
            streams[i] = NULL;
        }
    }
    (void) pthread_mutex_unlock(&streams_lock);
    free(stream);
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    (void) stream;
    return capture == NULL ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    const struct pretend_stream *of = (void *) stream;
    if (of->hangs) {
        return cudaErrorNotReady;
    }
    return cudaStreamSynchronize(stream);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned flags)
{
    (void) flags;
    *out = calloc(1, sizeof(struct pretend_event));
    return *out == NULL ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t *out)
{
    return cudaEventCreateWithFlags(out, 0);
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    free(event);
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    static struct pretend_stream default_stream;
    struct pretend_event *made = (void *) event;
    made->stream = stream == NULL ? &default_stream : (void *) stream;
    made->work = made->stream->work;
    made->busy_us = made->stream->busy_us;
    made->asked = false;
    return cudaSuccess;
}

/* The host is ahead of the GPU, by one question. */
cudaError_t cudaEventQuery(cudaEvent_t event)
{
    struct pretend_event *made = (void *) event;
    const bool hangs = made->stream != NULL && made->stream->hangs;
    const bool asked = made->asked;
    made->asked = true;
    return asked && !hangs ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    (void) event;
    return capture == NULL ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
}

/* Where work has said how long it takes, that; else some time with some spread, so that the
 * stopping rule has work to do. */
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t begin, cudaEvent_t end)
{
    static atomic_uint turn;
    const double busy_us = ((struct pretend_event *) (void *) end)->busy_us -
                           ((struct pretend_event *) (void *) begin)->busy_us;
    *ms = busy_us > 0.0 ? (float) (busy_us * 1e-3) : 0.5F + 0.0001F * (float) (turn++ % 17);
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags)
{
    struct pretend_stream *waiting = (void *) stream;
    const struct pretend_event *made = (void *) event;
    (void) flags;
    if (made->stream->capturing) {
        waiting->capturing = true;
        waiting->captured_by = &capture;
    }
    if (waiting == capture) {
        made->stream->joined = made->work;
    }
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode)
{
    (void) mode;
    if (capture != NULL) {
        return cudaErrorStreamCaptureUnsupported;
    }
    capture = (void *) stream;
    capture->capturing = true;
    capture->captured_by = &capture;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *out)
{
    cudaError_t code = capture == (void *) stream ? cudaSuccess : cudaErrorStreamCaptureUnmatched;
    (void) pthread_mutex_lock(&streams_lock);
    for (int i = 0; i < STREAM_LIMIT; i++) {
        if (streams[i] == NULL || streams[i]->captured_by != &capture) {
            continue;
        }
        streams[i]->capturing = false;
        streams[i]->captured_by = NULL;
        if (streams[i] != capture && streams[i]->joined != streams[i]->work) {
            code = cudaErrorStreamCaptureUnjoined;
        }
    }
    (void) pthread_mutex_unlock(&streams_lock);
    capture = NULL;
    *out = code == cudaSuccess ? calloc(1, 8) : NULL;
    return code;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *out, cudaGraph_t graph, unsigned long long flags)
{
    (void) graph;
    (void) flags;
    *out = calloc(1, 8);
    return *out == NULL ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
    free(graph);
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec)
{
    free(exec);
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream)
{
    return exec == NULL ? cudaErrorInvalidValue : (cudaError_t) pretend_launch(stream);
}
