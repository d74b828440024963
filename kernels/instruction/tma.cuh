/*
 * The pieces of compute capability 9.0 that feed a tensor-core kernel: the bulk tensor copy engine
 * (TMA), which arrives at an mbarrier, moving registers between warpgroups, and barriers of some
 * warps.
 * Source: PTX ISA 9.0. Addresses are shared-memory addresses as shared_address gives them.
 */
#ifndef MOE_KERNELS_TMA_CUH
#define MOE_KERNELS_TMA_CUH

#include <cuda.h>
#include <stdint.h>

#include "kernels/instruction/mbarrier.cuh"

/* The L2 cache's care for what a copy reads: none in particular. Weights marked as read once were
 * dropped before the second half of each fetch was used; rows marked to stay pushed out weights. */
static constexpr uint64_t TMA_READ = 0x1000000000000000; /* evict normal */

static __device__ __forceinline__ void tensor_map_prefetch(const CUtensorMap *map)
{
    asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}

static __device__ __forceinline__ void tma_load_2d(uint32_t to, const CUtensorMap *map,
                                                   uint32_t barrier, int32_t c0, int32_t c1)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5;" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(c0), "r"(c1), "l"(TMA_READ)
                 : "memory");
}

static __device__ __forceinline__ void tma_load_3d(uint32_t to, const CUtensorMap *map,
                                                   uint32_t barrier, int32_t c0, int32_t c1,
                                                   int32_t c2)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
                 ".L2::cache_hint [%0], [%1, {%3, %4, %5}], [%2], %6;" ::"r"(to),
                 "l"(map), "r"(barrier), "r"(c0), "r"(c1), "r"(c2), "l"(TMA_READ)
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
