// The host and the GPU share two words in pinned memory that every GPU can see. Each enqueued hold
// has a ticket, one higher than the last, and waits until the opened ticket has reached its own;
// tickets wrap, so they are compared by their difference.
#include "kernels/clock/hold.h"

#include <cuda_runtime.h>
#include <new>

enum { WORD_OPENED, WORD_TIMED_OUT, WORD_COUNT };

struct moe_hold {
    volatile uint32_t *words;
    uint32_t ticket; // of the last one enqueued
};

static __device__ __forceinline__ uint64_t time_ns()
{
    uint64_t now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)::"memory");
    return now;
}

static __global__ void wait_for_host(volatile uint32_t *words, uint32_t ticket, uint64_t timeout_ns)
{
    const uint64_t begin = time_ns();
    while ((int32_t) (words[WORD_OPENED] - ticket) < 0) {
        if (time_ns() - begin >= timeout_ns) {
            words[WORD_TIMED_OUT] = 1;
            __threadfence_system();
            return;
        }
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 700
        __nanosleep(100); // each look crosses the bus to the host
#endif
    }
}

extern "C" int moe_hold_create(struct moe_hold **out)
{
    void *words = nullptr;
    const cudaError_t code = cudaHostAlloc(&words, WORD_COUNT * sizeof(uint32_t),
                                           cudaHostAllocMapped | cudaHostAllocPortable);
    if (code != cudaSuccess) {
        return (int) code;
    }
    auto *hold = new (std::nothrow) moe_hold{ (volatile uint32_t *) words, 0 };
    if (hold == nullptr) {
        (void) cudaFreeHost(words);
        return (int) cudaErrorMemoryAllocation;
    }
    hold->words[WORD_OPENED] = 0;
    hold->words[WORD_TIMED_OUT] = 0;
    *out = hold;
    return (int) cudaSuccess;
}

extern "C" void moe_hold_destroy(struct moe_hold *hold)
{
    if (hold != nullptr) {
        (void) cudaFreeHost((void *) hold->words);
        delete hold;
    }
}

extern "C" int moe_hold_enqueue(struct moe_hold *hold, int64_t timeout_ns, void *stream)
{
    void *words_dev = nullptr;
    if (timeout_ns < 1) {
        return (int) cudaErrorInvalidValue;
    }
    cudaError_t code = cudaHostGetDevicePointer(&words_dev, (void *) hold->words, 0);
    if (code == cudaSuccess) {
        wait_for_host<<<1, 1, 0, (cudaStream_t) stream>>>((volatile uint32_t *) words_dev,
                                                          hold->ticket + 1, (uint64_t) timeout_ns);
        code = cudaGetLastError();
    }
    if (code == cudaSuccess) {
        hold->ticket++;
    }
    return (int) code;
}

extern "C" void moe_hold_open(struct moe_hold *hold)
{
    __atomic_store_n((uint32_t *) &hold->words[WORD_OPENED], hold->ticket, __ATOMIC_RELEASE);
}

extern "C" int moe_hold_timed_out(const struct moe_hold *hold)
{
    return hold->words[WORD_TIMED_OUT] != 0;
}
