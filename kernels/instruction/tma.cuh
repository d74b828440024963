/*
 * The pieces of compute capability 9.0 that feed a tensor-core kernel: barriers in shared memory
 * that count arrivals and bytes (mbarrier), the bulk tensor copy engine (TMA), overlap of
 * dependent launches, and moving registers between warpgroups.
 * Source: PTX ISA 9.0. Addresses are shared-memory addresses as shared_address gives them.
 */
#ifndef MOE_KERNELS_TMA_CUH
#define MOE_KERNELS_TMA_CUH

#include <cuda.h>
#include <stdint.h>

static __device__ __forceinline__ uint32_t shared_address(const void *pointer)
{
    return (uint32_t) __cvta_generic_to_shared(pointer);
}

static __device__ __forceinline__ void mbarrier_init(uint32_t barrier, uint32_t arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals));
}

/* Makes initialised barriers known to the copy engine; then a __syncthreads. */
static __device__ __forceinline__ void mbarrier_init_fence()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

static __device__ __forceinline__ void mbarrier_arrive(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* One arrival, and the phase also waits for this many bytes of TMA. */
static __device__ __forceinline__ void mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
        "r"(bytes)
        : "memory");
}

/* Returns when the phase of this parity is over. */
static __device__ __forceinline__ void mbarrier_wait(uint32_t barrier, uint32_t parity)
{
    asm volatile("{\n.reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/* How long the L2 cache should care for what a copy reads. */
enum tma_reuse : uint64_t {
    TMA_READ_ONCE = 0x12f0000000000000, /* evict first */
    TMA_READ_SOME = 0x1000000000000000, /* evict normal */
    TMA_READ_OFTEN = 0x14f0000000000000 /* evict last */
};

static __device__ __forceinline__ void tma_load_2d(uint32_t to, const CUtensorMap *map,
                                                   uint32_t barrier, int32_t c0, int32_t c1,
                                                   uint64_t reuse)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(c0), "r"(c1), "l"(reuse)
                 : "memory");
}

static __device__ __forceinline__ void tma_load_3d(uint32_t to, const CUtensorMap *map,
                                                   uint32_t barrier, int32_t c0, int32_t c1,
                                                   int32_t c2, uint64_t reuse)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "l"(reuse)
                 : "memory");
}

/* Between ordinary stores to global memory and reads of them by the copy engine, which does not
 * keep their order otherwise: by whoever stores, before saying so, and by whoever reads, after
 * hearing it. */
static __device__ __forceinline__ void copy_engine_fence()
{
    asm volatile("fence.proxy.async.global;" ::: "memory");
}

template <int Count> static __device__ __forceinline__ void registers_give()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}

template <int Count> static __device__ __forceinline__ void registers_take()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}

/* A barrier of some of the block's warps: id 1 .. 15, threads a multiple of 32. */
static __device__ __forceinline__ void named_barrier(int id, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/* Counts for the barrier without waiting. */
static __device__ __forceinline__ void named_barrier_arrive(int id, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

#endif
