/*
 * Bulk copies between global and shared memory by the copy engine of compute capability 9.0,
 * without a tensor map. Loads arrive at a barrier (mbarrier.cuh).
 * Global and shared addresses and sizes are multiples of 16 bytes; one copy has less than 1 MiB,
 * which is what a barrier can count.
 * Source: PTX ISA 9.0, cp.async.bulk.
 *
 * A copy engine's store may read what a copy engine's load wrote once the load's barrier was
 * waited for. What ordinary stores wrote to shared memory needs bulk_fence in each writing
 * thread, then a block barrier, before the copy engine may read it.
 *
 * All of it is empty below compute capability 9.0, where launchers refuse to come here.
 */
#ifndef MOE_KERNELS_BULK_COPY_CUH
#define MOE_KERNELS_BULK_COPY_CUH

#include <stdint.h>

#include "kernels/instruction/mbarrier.cuh"

/* The barriers by pointer. */
static __device__ __forceinline__ void bulk_barrier_init(uint64_t *barrier, uint32_t arrivals)
{
    mbarrier_init(shared_address(barrier), arrivals);
}

static __device__ __forceinline__ void bulk_barrier_init_fence()
{
    mbarrier_init_fence();
}

static __device__ __forceinline__ void bulk_barrier_arrive(uint64_t *barrier)
{
    mbarrier_arrive(shared_address(barrier));
}

static __device__ __forceinline__ void bulk_barrier_wait(uint64_t *barrier, uint32_t parity)
{
    mbarrier_wait(shared_address(barrier), parity);
}

static __device__ __forceinline__ void bulk_fence()
{
    MOE_SM90_ASM("fence.proxy.async.shared::cta;" ::: "memory");
}

/* How long the L2 cache should care for what is copied: createpolicy's own words for all of it. */
enum bulk_reuse : uint64_t {
    BULK_EVICT_NORMAL = 0x1000000000000000,
    BULK_EVICT_FIRST = 0x12f0000000000000,
};

/* One arrival at barrier, whose phase then also waits for these bytes, and the copy. */
static __device__ __forceinline__ void bulk_load(void *to, const void *from, uint32_t bytes,
                                                 uint64_t *barrier, bulk_reuse reuse)
{
    mbarrier_arrive_expect(shared_address(barrier), bytes);
    MOE_SM90_ASM("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
                 "[%0], [%1], %2, [%3], %4;" ::"r"(shared_address(to)),
                 "l"(from), "r"(bytes), "r"(shared_address(barrier)), "l"((uint64_t) reuse)
                 : "memory");
}

/* Belongs to the calling thread's current group, which bulk_commit closes. */
static __device__ __forceinline__ void bulk_store(void *to, const void *from, uint32_t bytes,
                                                  bulk_reuse reuse)
{
    MOE_SM90_ASM(
        "cp.async.bulk.global.shared::cta.bulk_group.L2::cache_hint [%0], [%1], %2, %3;" ::"l"(to),
        "r"(shared_address(from)), "r"(bytes), "l"((uint64_t) reuse)
        : "memory");
}

static __device__ __forceinline__ void bulk_commit()
{
    MOE_SM90_ASM("cp.async.bulk.commit_group;" ::: "memory");
}

/* All but the youngest Pending groups of this thread have read their shared memory. */
template <int Pending> static __device__ __forceinline__ void bulk_wait_read()
{
    MOE_SM90_ASM("cp.async.bulk.wait_group.read %0;" ::"n"(Pending) : "memory");
}

/* All groups of this thread are written. */
static __device__ __forceinline__ void bulk_wait_all()
{
    MOE_SM90_ASM("cp.async.bulk.wait_group 0;" ::: "memory");
}

#endif
