/*
 * Barriers in shared memory that count arrivals and bytes (mbarrier), by which the copy engine of
 * compute capability 9.0 says that something is there.
 * Source: PTX ISA 9.0, mbarrier. Barriers are named by address, as shared_address gives it.
 *
 * All of it is empty below compute capability 9.0, where launchers refuse to come here.
 */
#ifndef MOE_KERNELS_MBARRIER_CUH
#define MOE_KERNELS_MBARRIER_CUH

#include "kernels/instruction/shared_address.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define MOE_SM90_ASM(...)
#else
#define MOE_SM90_ASM(...) asm volatile(__VA_ARGS__)
#endif

static __device__ __forceinline__ void mbarrier_init(uint32_t barrier, uint32_t arrivals)
{
    MOE_SM90_ASM("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

/* Makes initialised barriers known to the copy engine; a __syncthreads follows. */
static __device__ __forceinline__ void mbarrier_init_fence()
{
    MOE_SM90_ASM("fence.mbarrier_init.release.cluster;" ::: "memory");
}

static __device__ __forceinline__ void mbarrier_arrive(uint32_t barrier)
{
    MOE_SM90_ASM("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* One arrival, and the phase also waits for this many bytes of the copy engine. */
static __device__ __forceinline__ void mbarrier_arrive_expect(uint32_t barrier, uint32_t bytes)
{
    MOE_SM90_ASM(
        "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(barrier),
        "r"(bytes)
        : "memory");
}

/* Returns when the phase of this parity is over: 0 is the first one. */
static __device__ __forceinline__ void mbarrier_wait(uint32_t barrier, uint32_t parity)
{
    MOE_SM90_ASM("{\n.reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

#endif
