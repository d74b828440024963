/*
 * What a warp needs for tensor-core products of 16-bit numbers from compute capability 8.0 on:
 * asynchronous copies to shared memory, 8 x 8 matrices from shared memory to registers, and the
 * product itself. Source: PTX ISA 9.0, cp.async, ldmatrix, mma.
 *
 * In one product, C[16][8] += A[16][16] B[16][8], lane l holds, with r = l / 4 and c = l % 4 * 2:
 *   a[0] A[r][c, c+1]   a[1] A[r+8][c, c+1]   a[2] A[r][c+8, c+9]   a[3] A[r+8][c+8, c+9]
 *   b[0] B[c, c+1][r]   b[1] B[c+8, c+9][r]
 *   c[0..1] C[r][c, c+1]                      c[2..3] C[r+8][c, c+1]
 * warp_matrices hands out four matrices whose 8 rows of 16 bytes lie where lanes 0 .. 7, 8 .. 15,
 * 16 .. 23 and 24 .. 31 say: to[m] of lane l is matrix m's [r][c, c+1], transposed [c, c+1][r].
 *
 * All of it is empty below compute capability 8.0, where launchers refuse to come here.
 */
#ifndef MOE_KERNELS_WARP_MMA_CUH
#define MOE_KERNELS_WARP_MMA_CUH

#include <stdint.h>

#include "kernels/instruction/shared_address.cuh"

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define MOE_MMA_ASM(...)
#else
#define MOE_MMA_ASM(...) asm volatile(__VA_ARGS__)
#endif

/* 16 bytes to shared memory, past the L1 cache; zeros instead when not wanted, and then from is
 * not read, but must be an address that could be. Both sides are aligned to 16. */
static __device__ __forceinline__ void copy_async(uint32_t to, const void *from, bool wanted)
{
    MOE_MMA_ASM("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                "r"(wanted ? 16 : 0)
                : "memory");
}

static __device__ __forceinline__ void copy_async(void *to, const void *from, bool wanted)
{
    copy_async(shared_address(to), from, wanted);
}

static __device__ __forceinline__ void copy_async_commit()
{
    MOE_MMA_ASM("cp.async.commit_group;" ::: "memory");
}

/* All but the youngest Pending groups of this thread have arrived. */
template <int Pending> static __device__ __forceinline__ void copy_async_wait()
{
    MOE_MMA_ASM("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

static __device__ __forceinline__ void warp_matrices(uint32_t *to, uint32_t row)
{
    MOE_MMA_ASM("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                : "r"(row)
                : "memory");
}

static __device__ __forceinline__ void warp_matrices(uint32_t *to, const void *row)
{
    warp_matrices(to, shared_address(row));
}

static __device__ __forceinline__ void warp_matrices_transposed(uint32_t *to, const void *row)
{
    MOE_MMA_ASM("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                : "r"(shared_address(row))
                : "memory");
}

static __device__ __forceinline__ void warp_mma_bf16(float *c, const uint32_t *a, const uint32_t *b)
{
    MOE_MMA_ASM("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

#endif
