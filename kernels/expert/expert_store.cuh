/*
 * From the sums in registers to the output in memory, for a warpgroup of version 3, 16 bytes a
 * thread.
 *
 * "Upright" sums have tokens as rows (wgmma's M): four neighbouring lanes hold two columns each
 * of every 8, exchange them so that each has whole eights, and store. "Turned" sums have weight
 * rows there and tokens as columns: they pass through a staging area of 64 rows of 128 bytes a
 * warpgroup, whose 16-byte chunk c of row r lies at chunk c ^ (r % 8), which keeps the banks apart.
 */
#ifndef MOE_KERNELS_EXPERT_STORE_CUH
#define MOE_KERNELS_EXPERT_STORE_CUH

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "kernels/expert/expert_epilogue.cuh"
#include "kernels/expert/expert_tiles.cuh"
#include "kernels/instruction/tma.cuh"

enum {
    STAGING_ROWS = 64,
    STAGING_ROW_BYTES = 128,
    WARPGROUP = 128,
    BOTH_WARPGROUPS = 2 * WARPGROUP,
};

/* Where a warpgroup's results go. */
struct expert_output {
    void *out;
    float *scale; /* fp8 only */
    int64_t scale_stride;
    int32_t columns;
    int32_t row;       /* first row of the tile */
    int32_t row_count; /* of the tile */
    int32_t warpgroup;
    uint8_t *staging; /* of this warpgroup */
    float *exchange;  /* [9][64] shared by both warpgroups */
};

static __device__ __forceinline__ uint32_t staging_offset(int32_t row, int32_t chunk)
{
    return (uint32_t) (row * STAGING_ROW_BYTES + ((chunk ^ (row % 8)) << 4));
}

static __device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *(const uint32_t *) &pair;
}

static __device__ __forceinline__ uint32_t pack_e4m3(float low, float high)
{
    return __nv_cvt_float2_to_fp8x2(make_float2(low, high), __NV_SATFINITE, __NV_E4M3);
}

/* Four 8 x 8 matrices of 2-byte elements, each turned; lane l gives the address of row l % 8 of
 * matrix l / 8. */
static __device__ __forceinline__ void store_matrices(uint32_t address, uint32_t r0, uint32_t r1,
                                                      uint32_t r2, uint32_t r3)
{
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
        "r"(r0), "r"(r1), "r"(r2), "r"(r3)
        : "memory");
}

/* Copies staged rows [first, end) out: row r is row output_row + r of out, staged bytes start at
 * column `column`. Called by `threads` neighbouring threads, `thread` among them. */
template <typename Element>
static __device__ __forceinline__ void copy_out(const expert_output &o, int32_t thread,
                                                int32_t threads, int32_t first, int32_t end,
                                                int32_t output_row, int32_t column, int32_t bytes)
{
    const int32_t chunks = bytes / 16;
    constexpr int32_t PER_CHUNK = 16 / (int32_t) sizeof(Element);
    const int32_t chunk = thread % chunks;
    if (column + chunk * PER_CHUNK >= o.columns) {
        return;
    }
    for (int32_t r = first + thread / chunks; r < end; r += threads / chunks) {
        if (output_row + r < o.row + o.row_count) {
            const uint4 v = *(const uint4 *) (o.staging + staging_offset(r, chunk));
            *(uint4 *) ((Element *) o.out + (int64_t) (output_row + r) * o.columns + column +
                        chunk * PER_CHUNK) = v;
        }
    }
}

/* Lane q of four neighbours holds words[k] for k = 0 .. 3; afterwards words[i] is what lane i had
 * for k = q: a 4 x 4 transpose in two exchanges. */
static __device__ __forceinline__ void transpose_words(uint32_t (&words)[4])
{
    const bool odd = threadIdx.x % 2 != 0;
    const bool upper = threadIdx.x % 4 >= 2;
#pragma unroll
    for (int k = 0; k < 4; k += 2) {
        const uint32_t got = __shfl_xor_sync(0xffffffffU, odd ? words[k] : words[k + 1], 1);
        (odd ? words[k] : words[k + 1]) = got;
    }
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const uint32_t got = __shfl_xor_sync(0xffffffffU, upper ? words[k] : words[k + 2], 2);
        (upper ? words[k] : words[k + 2]) = got;
    }
}

/* Upright: the row of this thread in the tile, the first or the second of its two. */
static __device__ __forceinline__ int32_t upright_row(const expert_output &o, int half)
{
    return o.warpgroup * 64 + (int32_t) threadIdx.x % WARPGROUP / 32 * 16 + half * 8 +
           (int32_t) threadIdx.x % 32 / 4;
}

static __device__ __forceinline__ void store_16_bytes(void *to, const uint32_t (&words)[4])
{
    *(uint4 *) to = make_uint4(words[0], words[1], words[2], words[3]);
}

/* Upright, bf16: the warpgroup's 64 tokens, 128 columns from `column`. value(j, i) is element i of
 * the j-th 8 columns. */
template <typename Value>
static __device__ __forceinline__ void store_upright_bf16(const expert_output &o, int32_t column,
                                                          Value value)
{
    const int32_t own = (int32_t) threadIdx.x % 4 * 8;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int32_t row = upright_row(o, half);
        __nv_bfloat16 *to =
            (__nv_bfloat16 *) o.out + (int64_t) (o.row + row) * o.columns + column + own;
#pragma unroll
        for (int j = 0; j < 16; j += 4) {
            uint32_t words[4];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                words[k] = pack_bf16(value(j + k, 2 * half), value(j + k, 2 * half + 1));
            }
            transpose_words(words);
            if (row < o.row_count && column + 8 * j + own < o.columns) {
                store_16_bytes(to + 8 * j, words);
            }
        }
    }
}

/* Upright, e4m3: the warpgroup's 64 tokens, the 128 columns of one scale. */
template <typename Value>
static __device__ __forceinline__ void store_upright_e4m3(const expert_output &o, int32_t column,
                                                          Value value)
{
    const int32_t own = (int32_t) threadIdx.x % 4 * 16;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int32_t row = upright_row(o, half);
        float largest = 0.0F;
#pragma unroll
        for (int j = 0; j < 16; j++) {
            largest =
                fmaxf(largest, fmaxf(fabsf(value(j, 2 * half)), fabsf(value(j, 2 * half + 1))));
        }
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, 2));
        const float scale = expert_scale(largest);
        const float inverse = 1.0F / scale;
        if (own == 0 && row < o.row_count && column < o.columns) {
            o.scale[(int64_t) (column / MOE_EXPERT_SCALE_BLOCK) * o.scale_stride + o.row + row] =
                scale;
        }
        uint8_t *to = (uint8_t *) o.out + (int64_t) (o.row + row) * o.columns + column + own;
#pragma unroll
        for (int j = 0; j < 16; j += 8) {
            uint32_t words[4]; /* two eights each */
#pragma unroll
            for (int k = 0; k < 4; k++) {
                const int g = j + 2 * k;
                words[k] =
                    pack_e4m3(value(g, 2 * half) * inverse, value(g, 2 * half + 1) * inverse) |
                    pack_e4m3(value(g + 1, 2 * half) * inverse,
                              value(g + 1, 2 * half + 1) * inverse)
                        << 16;
            }
            transpose_words(words);
            const uint32_t bytes[4] = { __byte_perm(words[0], words[1], 0x5410),
                                        __byte_perm(words[2], words[3], 0x5410),
                                        __byte_perm(words[0], words[1], 0x7632),
                                        __byte_perm(words[2], words[3], 0x7632) };
            if (row < o.row_count && column + 8 * j + own < o.columns) {
                store_16_bytes(to + 8 * j, bytes);
            }
        }
    }
}

/* Turned, bf16: N tokens, the warpgroup's 64 columns from `column`, by as many tokens at a time as
 * the staging area holds. */
template <int N, typename Value>
static __device__ __forceinline__ void store_turned_bf16(const expert_output &o, int32_t column,
                                                         Value value)
{
    constexpr int32_t ROUND = N < STAGING_ROWS ? N : STAGING_ROWS;
    const int32_t thread = (int32_t) threadIdx.x % WARPGROUP;
    const int32_t lane = thread % 32;
    const int32_t chunk = thread / 32 * 2 + lane / 8 % 2;
    const uint32_t base = shared_address(o.staging);
#pragma unroll
    for (int first = 0; first < N; first += ROUND) {
        named_barrier(1 + o.warpgroup, WARPGROUP);
#pragma unroll
        for (int j = 0; j < ROUND / 8; j += 2) {
            const int here = first / 8 + j;
            /* With one group of 8 tokens the other two matrices fall on rows that nobody reads. */
            const int other = N == 8 ? here : here + 1;
            store_matrices(base + staging_offset(8 * (j + lane / 16) + lane % 8, chunk),
                           pack_bf16(value(here, 0), value(here, 1)),
                           pack_bf16(value(here, 2), value(here, 3)),
                           pack_bf16(value(other, 0), value(other, 1)),
                           pack_bf16(value(other, 2), value(other, 3)));
        }
        named_barrier(1 + o.warpgroup, WARPGROUP);
        copy_out<__nv_bfloat16>(o, thread, WARPGROUP, 0, ROUND, o.row + first, column,
                                STAGING_ROW_BYTES);
    }
}

/* scale[token] of N tokens over the 128 columns that both warpgroups hold together, in
 * exchange[8][.]; also written to memory. Both warpgroups call it. */
template <int N, typename Value>
static __device__ __forceinline__ void find_turned_scales(const expert_output &o, int32_t column,
                                                          Value value)
{
    const int32_t lane = (int32_t) threadIdx.x % 32;
    float *mine = o.exchange + (int32_t) threadIdx.x / 32 * STAGING_ROWS;
    float *scales = o.exchange + 8 * STAGING_ROWS;
#pragma unroll
    for (int j = 0; j < N / 8; j++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float largest = fmaxf(fabsf(value(j, i)), fabsf(value(j, i + 2)));
#pragma unroll
            for (int step = 4; step < 32; step *= 2) {
                largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, step));
            }
            if (lane < 4) {
                mine[8 * j + 2 * lane + i] = largest;
            }
        }
    }
    named_barrier(3, BOTH_WARPGROUPS);
    const int32_t token = (int32_t) threadIdx.x;
    if (token < N) {
        float largest = 0.0F;
        for (int warp = 0; warp < 8; warp++) {
            largest = fmaxf(largest, o.exchange[warp * STAGING_ROWS + token]);
        }
        const float scale = expert_scale(largest);
        scales[token] = scale;
        if (token < o.row_count && column < o.columns) {
            o.scale[(int64_t) (column / MOE_EXPERT_SCALE_BLOCK) * o.scale_stride + o.row + token] =
                scale;
        }
    }
    named_barrier(3, BOTH_WARPGROUPS);
}

/* Four lanes, 4 apart, hold the bytes of four neighbouring columns; afterwards lane t of them
 * holds byte t of all four: a 4 x 4 transpose of bytes in two exchanges. */
static __device__ __forceinline__ uint32_t transpose_bytes(uint32_t word, int32_t member)
{
    const uint32_t far = __shfl_xor_sync(0xffffffffU, word, 8);
    word = member & 2 ? __byte_perm(far, word, 0x7632) : __byte_perm(word, far, 0x5410);
    const uint32_t near = __shfl_xor_sync(0xffffffffU, word, 4);
    return member & 1 ? __byte_perm(near, word, 0x7351) : __byte_perm(word, near, 0x6240);
}

/* Turned, e4m3: N tokens, the warpgroup's 64 of the 128 columns of the scale block at `column`.
 * Both warpgroups call it. */
template <int N, typename Value>
static __device__ __forceinline__ void store_turned_e4m3(const expert_output &o, int32_t column,
                                                         Value value)
{
    const int32_t thread = (int32_t) threadIdx.x % WARPGROUP;
    const int32_t lane = thread % 32;
    const int32_t member = lane / 4 % 4;
    const float *scales = o.exchange + 8 * STAGING_ROWS;
    find_turned_scales<N>(o, column, value);
#pragma unroll
    for (int j = 0; j < N / 8; j++) {
        const int32_t token = 8 * j + 2 * (lane % 4);
        const float even = 1.0F / scales[token];
        const float odd = 1.0F / scales[token + 1];
        const uint32_t word =
            transpose_bytes(pack_e4m3(value(j, 0) * even, value(j, 1) * odd) |
                                pack_e4m3(value(j, 2) * even, value(j, 3) * odd) << 16,
                            member);
        /* This lane now holds four columns from 4 * (lane / 16), 8 further for bytes 2 and 3. */
        const int32_t byte = thread / 32 * 16 + member / 2 * 8 + lane / 16 * 4;
        const int32_t row = token + member % 2;
        *(uint32_t *) (o.staging + staging_offset(row, byte / 16) + byte % 16) = word;
    }
    named_barrier(3, BOTH_WARPGROUPS);
    copy_out<__nv_fp8_e4m3>(o, thread, WARPGROUP, 0, N, o.row, column + o.warpgroup * 64, 64);
    named_barrier(3, BOTH_WARPGROUPS);
}

/* Either type of output: 128 columns from `column`, of which upright each warpgroup has all and
 * turned its 64. */
template <int N, bool Fp8, typename Value>
static __device__ __forceinline__ void store_turned(const expert_output &o, int32_t column,
                                                    Value value)
{
    if (Fp8) {
        store_turned_e4m3<N>(o, column, value);
    } else {
        store_turned_bf16<N>(o, column + o.warpgroup * 64, value);
    }
}

template <bool Fp8, typename Value>
static __device__ __forceinline__ void store_upright(const expert_output &o, int32_t column,
                                                     Value value)
{
    if (Fp8) {
        store_upright_e4m3(o, column, value);
    } else {
        store_upright_bf16(o, column, value);
    }
}

#endif
