/* What several GPUs add to the CUDA runtime of the pretend GPU: peers, pinned memory,
 * priorities. */
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

#include "tests/pretend/pretend_gpu.h"

static double latest_us; /* that any stream has worked until */

void pretend_busy(void *stream, double from_us, double us)
{
    struct pretend_stream *on = stream;
    if (on != NULL) {
        on->busy_us = (on->busy_us > from_us ? on->busy_us : from_us) + us;
        latest_us = on->busy_us > latest_us ? on->busy_us : latest_us;
    }
}

void pretend_hold(void *stream)
{
    pretend_busy(stream, latest_us, 0.0);
}

cudaError_t cudaDeviceCanAccessPeer(int *can, int device, int peer)
{
    *can = device != peer;
    return cudaSuccess;
}

/* As the real one, it may be asked once only. */
cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags)
{
    static unsigned asked;
    (void) flags;
    return peer >= 0 && asked++ == 0 ? cudaSuccess : cudaErrorPeerAccessAlreadyEnabled;
}

cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest)
{
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t *out, unsigned flags, int priority)
{
    return priority <= 0 && priority >= -5 ? cudaStreamCreateWithFlags(out, flags)
                                           : cudaErrorInvalidValue;
}

cudaError_t cudaHostAlloc(void **out, size_t bytes, unsigned flags)
{
    (void) flags;
    *out = malloc(bytes);
    return *out == NULL ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFreeHost(void *pointer)
{
    free(pointer);
    return cudaSuccess;
}

cudaError_t cudaMemcpyPeerAsync(void *to, int to_device, const void *from, int from_device,
                                size_t bytes, cudaStream_t stream)
{
    if (to_device == from_device) {
        return cudaErrorInvalidDevice;
    }
    memmove(to, from, bytes);
    pretend_busy(stream, 0.0, 5.0 + (double) bytes / 400e3);
    return (cudaError_t) pretend_launch(stream);
}
