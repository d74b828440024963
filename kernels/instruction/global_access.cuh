/* 16-byte accesses to global memory for what is touched once: past the L1 cache when read, first
 * to leave the L2 cache when written. */
#ifndef MOE_KERNELS_GLOBAL_ACCESS_CUH
#define MOE_KERNELS_GLOBAL_ACCESS_CUH

/* Nothing may write there while the kernel runs. */
static __device__ __forceinline__ uint4 load_once(const uint4 *from)
{
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

static __device__ __forceinline__ void store_once(uint4 *to, uint4 v)
{
    asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y),
                 "r"(v.z), "r"(v.w)
                 : "memory");
}

#endif
