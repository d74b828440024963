/* How instructions name a place in shared memory: 32 bits, of the block's own. */
#ifndef MOE_KERNELS_SHARED_ADDRESS_CUH
#define MOE_KERNELS_SHARED_ADDRESS_CUH

#include <stdint.h>

static __device__ __forceinline__ uint32_t shared_address(const void *pointer)
{
    return (uint32_t) __cvta_generic_to_shared(pointer);
}

#endif
