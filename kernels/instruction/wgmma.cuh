/*
 * wgmma of compute capability 9.0a: D += A B^T, one warpgroup of 128 threads, both operands in
 * shared memory, rows of 128 bytes with the 128-byte swizzle that TMA writes ("K-major").
 * A has 64 rows, B has N rows; one instruction takes 32 bytes of depth (16 bf16 or 32 e4m3).
 * Sums are fp32, N / 2 of them a thread: d[4 j + i] is row 16 * warp + lane / 4 + 8 * (i / 2),
 * column 8 j + 2 * (lane % 4) + i % 2.
 * Source: PTX ISA 9.0, "Asynchronous warpgroup level matrix instructions".
 */
#ifndef MOE_KERNELS_WGMMA_CUH
#define MOE_KERNELS_WGMMA_CUH

#include <stdint.h>

/* Descriptor of a matrix that starts at shared-memory address `address` (1024-byte aligned):
 * groups of 8 rows lie 1024 bytes apart; the leading offset plays no part under a swizzle. */
static __device__ __forceinline__ uint64_t wgmma_descriptor(uint32_t address)
{
    return (uint64_t) ((address & 0x3ffff) >> 4) | (uint64_t) 1 << 16 |
           (uint64_t) (1024 >> 4) << 32 | (uint64_t) 1 << 62;
}

/* Registers and shared memory that wgmma is about to use are ready. */
static __device__ __forceinline__ void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

static __device__ __forceinline__ void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* All but the newest `Pending` groups of this warpgroup are done. */
template <int Pending> static __device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Pending) : "memory");
}

/* Keeps the compiler from moving reads of the sums across a wait. */
template <int Count> static __device__ __forceinline__ void wgmma_keep(float (&d)[Count])
{
#pragma unroll
    for (int i = 0; i < Count; i++) {
        asm volatile("" : "+f"(d[i])::"memory");
    }
}

/* Wgmma<N>::bf16 and ::e4m3 add to the sums d[N / 2]; ::e4m3_first overwrites them. */
template <int N> struct Wgmma;

#define MOE_D4(how, i)   how(d[i]), how(d[i + 1]), how(d[i + 2]), how(d[i + 3])
#define MOE_D8(how, i)   MOE_D4(how, i), MOE_D4(how, i + 4)
#define MOE_D16(how, i)  MOE_D8(how, i), MOE_D8(how, i + 8)
#define MOE_D32(how, i)  MOE_D16(how, i), MOE_D16(how, i + 16)
#define MOE_D64(how, i)  MOE_D32(how, i), MOE_D32(how, i + 32)
#define MOE_D96(how, i)  MOE_D64(how, i), MOE_D32(how, i + 64)
#define MOE_D128(how, i) MOE_D64(how, i), MOE_D64(how, i + 64)
#define MOE_ADD          "+f"
#define MOE_WRITE        "=f"

/* The operands after the sums: the two descriptors A and B. */
#define MOE_WGMMA(N, REGISTERS, OPERANDS, A, B)                                                 \
    template <> struct Wgmma<N> {                                                               \
        static __device__ __forceinline__ void bf16(float *d, uint64_t a, uint64_t b)           \
        {                                                                                       \
            asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" REGISTERS \
                         "}, " A ", " B ", 1, 1, 1, 0, 0;"                                      \
                         : OPERANDS(MOE_ADD, 0)                                                 \
                         : "l"(a), "l"(b));                                                     \
        }                                                                                       \
        static __device__ __forceinline__ void e4m3(float *d, uint64_t a, uint64_t b)           \
        {                                                                                       \
            asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" REGISTERS \
                         "}, " A ", " B ", 1, 1, 1;"                                            \
                         : OPERANDS(MOE_ADD, 0)                                                 \
                         : "l"(a), "l"(b));                                                     \
        }                                                                                       \
        static __device__ __forceinline__ void e4m3_first(float *d, uint64_t a, uint64_t b)     \
        {                                                                                       \
            asm volatile("wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" REGISTERS \
                         "}, " A ", " B ", 0, 1, 1;"                                            \
                         : OPERANDS(MOE_WRITE, 0)                                               \
                         : "l"(a), "l"(b));                                                     \
        }                                                                                       \
    };

#define MOE_R4  "%0,%1,%2,%3"
#define MOE_R8  MOE_R4 ",%4,%5,%6,%7"
#define MOE_R16 MOE_R8 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define MOE_R32 MOE_R16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define MOE_R64                                                                        \
    MOE_R32                                                                            \
    ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51" \
    ",%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define MOE_R96                                                                        \
    MOE_R64                                                                            \
    ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,%80,%81,%82,%83" \
    ",%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define MOE_R128                                                                       \
    MOE_R96                                                                            \
    ",%96,%97,%98,%99,%100,%101,%102"                                                  \
    ",%103,%104,%105,%106,%107,%108,%109,%110,%111,%112,%113,%114,%115,%116,%117,%118" \
    ",%119,%120,%121,%122,%123,%124,%125,%126,%127"

MOE_WGMMA(8, MOE_R4, MOE_D4, "%4", "%5")
MOE_WGMMA(16, MOE_R8, MOE_D8, "%8", "%9")
MOE_WGMMA(32, MOE_R16, MOE_D16, "%16", "%17")
MOE_WGMMA(64, MOE_R32, MOE_D32, "%32", "%33")
MOE_WGMMA(128, MOE_R64, MOE_D64, "%64", "%65")
MOE_WGMMA(192, MOE_R96, MOE_D96, "%96", "%97")
MOE_WGMMA(256, MOE_R128, MOE_D128, "%128", "%129")

#undef MOE_WGMMA
#undef MOE_ADD
#undef MOE_WRITE
#undef MOE_D4
#undef MOE_D8
#undef MOE_D16
#undef MOE_D32
#undef MOE_D64
#undef MOE_D96
#undef MOE_D128
#undef MOE_R4
#undef MOE_R8
#undef MOE_R16
#undef MOE_R32
#undef MOE_R64
#undef MOE_R96
#undef MOE_R128

#endif
