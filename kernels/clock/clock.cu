// One warp per SM: on an idle GPU, which a stream's next kernel finds unless other streams are at
// work, the hardware gives every SM one block before it gives any a second. Where that fails an SM
// keeps its zeros and is not counted.
#include "kernels/clock/clock.h"

#include <cuda_runtime.h>

static __device__ __forceinline__ int64_t time_ns()
{
    int64_t now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)::"memory");
    return now;
}

static __global__ void stamp(moe_clock_reading *stamps, int32_t sm_count)
{
    uint32_t sm;
    asm volatile("mov.u32 %0, %smid;" : "=r"(sm));
    if (threadIdx.x != 0 || sm >= (uint32_t) sm_count) {
        return;
    }
    const int64_t begin = time_ns();
    int64_t now = begin;
    while (now == begin) {
        now = time_ns();
    }
    stamps[sm] = { (int64_t) clock64(), now };
}

extern "C" int moe_clock_stamp(struct moe_clock_reading *stamps_dev, int32_t sm_count, void *stream)
{
    const auto to = (cudaStream_t) stream;
    if (sm_count < 1 || stamps_dev == nullptr) {
        return (int) cudaErrorInvalidValue;
    }
    const cudaError_t code =
        cudaMemsetAsync(stamps_dev, 0, (size_t) sm_count * sizeof *stamps_dev, to);
    if (code != cudaSuccess) {
        return (int) code;
    }
    stamp<<<(unsigned) sm_count, 32, 0, to>>>(stamps_dev, sm_count);
    return (int) cudaGetLastError();
}
