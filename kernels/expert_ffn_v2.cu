// Version 2: tiles of x and w in shared memory, so that a weight is read once per tile of rows
// instead of once per row, and the tensor cores' mma.sync instead of scalar products. Several
// stages of a tile are on their way by cp.async while one is worked on, and a block that finishes a
// tile asks for its next one before it stores. Runs on any GPU from compute capability 8.0.
//
// A stage is 128 bytes of depth: 64 bf16 or 128 e4m3, which is what one scale of the fp8 form
// covers. e4m3 becomes f16 on its way from shared memory to the tensor cores: its bits, moved one
// to the right behind the sign, are the same number times 2^-8, small ones included, so nothing is
// rounded. Which 16 of the 32 depths of a 32-byte step meet in one mma does not matter as long as x
// and w agree: a lane's four bytes of each go to two neighbouring and two later places of it.
#include "kernels/expert_epilogue.cuh"
#include "kernels/expert_ffn_parts.h"
#include "kernels/expert_tiles.cuh"
#include "kernels/launch.cuh"
#include "kernels/number.cuh"
#include "kernels/warp_mma.cuh"

enum { THREADS = 256, WARPS = 8, STAGE_ROW_BYTES = 128, STAGE_STEPS = 4 /* of 32 bytes */ };

// The product of two e4m3 as f16 lacks this factor.
static constexpr float E4M3_PRODUCT = 65536.0F;

template <bool Fp8, int Matrices, int TileRows, int Stages> struct v2_layout {
    static constexpr int ELEMENT_BYTES = Fp8 ? 1 : 2;
    static constexpr int COLUMNS = Fp8 ? 128 : 128 / Matrices; // of each matrix
    static constexpr int W_ROWS = Matrices * COLUMNS;
    static constexpr int ROW_WARPS = TileRows > 16 ? 2 : 1;
    static constexpr int COLUMN_WARPS = WARPS / ROW_WARPS;
    static constexpr int ROW_TILES = TileRows / 16 / ROW_WARPS;     // of 16, of a warp
    static constexpr int COLUMN_TILES = COLUMNS / 8 / COLUMN_WARPS; // of 8, of a warp and matrix
    static constexpr int TILES = Matrices * COLUMN_TILES;           // matrix by matrix
    static constexpr int STAGE_BYTES = (TileRows + W_ROWS) * STAGE_ROW_BYTES;
    static constexpr int RING_BYTES = Stages * STAGE_BYTES;
    static constexpr int BLOCKS_PER_SM = TileRows == 16 ? 2 : Fp8 && Matrices == 2 ? 1 : 2;

    // The same 16-byte chunk of 8 neighbouring rows lies in 8 bank groups.
    static __device__ __forceinline__ int at(int row, int chunk)
    {
        return row * STAGE_ROW_BYTES + (chunk ^ (row & 7)) * 16;
    }
};

// What a thread of a tile needs to know; first_w_row counts over all matrices.
struct v2_tile {
    expert_tile rows;
    int64_t first_w_row;
    int32_t column; // first one, of each matrix
};

// Two e4m3 in the lower half, two in the upper half of v.
static __device__ __forceinline__ void halves(uint32_t v, uint32_t *low, uint32_t *high)
{
    const uint32_t a = __byte_perm(v, 0, 0x1404);
    const uint32_t b = __byte_perm(v, 0, 0x3424);
    *low = (a & 0x80008000U) | (a & 0x7f007f00U) >> 1;
    *high = (b & 0x80008000U) | (b & 0x7f007f00U) >> 1;
}

// 128 bytes of depth from `step` on of the tile's rows of x, then of w; zeros beyond the edges.
template <typename L, int TileRows>
static __device__ __forceinline__ void fetch(const moe_expert_gemm &gemm, const v2_tile &tile,
                                             unsigned char *stage, int32_t step)
{
    const int chunk = (int) threadIdx.x % 8;
    const int thread_row = (int) threadIdx.x / 8; // of 32
    const int64_t row_bytes = (int64_t) gemm.depth * L::ELEMENT_BYTES;
    const int64_t byte = (int64_t) step * STAGE_ROW_BYTES + chunk * 16;
    const auto *x = (const unsigned char *) gemm.x_dev;
    const auto *w = (const unsigned char *) gemm.w_dev;
#pragma unroll
    for (int i = 0; i < L::W_ROWS / 32; i++) {
        const int matrix = i * 32 / L::COLUMNS;
        const int32_t column = tile.column + i * 32 % L::COLUMNS + thread_row;
        const bool wanted = column < gemm.columns && byte < row_bytes;
        const int64_t row = tile.first_w_row + (int64_t) matrix * gemm.columns + column;
        copy_async(stage + L::at(TileRows + i * 32 + thread_row, chunk),
                   w + (wanted ? row * row_bytes + byte : 0), wanted);
    }
#pragma unroll
    for (int i = 0; i < (TileRows + 31) / 32; i++) {
        const int row = i * 32 + thread_row;
        const bool wanted = row < tile.rows.row_count && byte < row_bytes;
        if (TileRows >= 32 || row < TileRows) {
            copy_async(stage + L::at(row, chunk),
                       x + (wanted ? (tile.rows.row + row) * row_bytes + byte : 0), wanted);
        }
    }
}

// Adds a stage's products to sum.
template <typename L, bool Fp8, int TileRows>
static __device__ __forceinline__ void multiply(float sum[L::ROW_TILES][L::TILES][4],
                                                const unsigned char *stage)
{
    const int lane = (int) threadIdx.x % 32;
    const int warp = (int) threadIdx.x / 32;
    const int first_row = warp % L::ROW_WARPS * L::ROW_TILES * 16;
    const int first_tile = warp / L::ROW_WARPS * L::COLUMN_TILES;
#pragma unroll
    for (int step = 0; step < STAGE_STEPS; step++) {
        uint32_t a[L::ROW_TILES][4];
#pragma unroll
        for (int r = 0; r < L::ROW_TILES; r++) {
            warp_matrices(a[r],
                          stage + L::at(first_row + r * 16 + lane % 16, step * 2 + lane / 16));
        }
#pragma unroll
        for (int t = 0; t < L::TILES; t += 2) { // two tiles of 8 columns at a time
            uint32_t b[4];
            const int mine = t + lane / 16;
            const int row = mine / L::COLUMN_TILES * L::COLUMNS +
                            (first_tile + mine % L::COLUMN_TILES) * 8 + lane % 8;
            warp_matrices(b, stage + L::at(TileRows + row, step * 2 + lane / 8 % 2));
            if constexpr (Fp8) {
#pragma unroll
                for (int half = 0; half < 2; half++) { // 16 bytes of depth each
                    uint32_t b16[4];
                    halves(b[half], b16, b16 + 1);
                    halves(b[half + 2], b16 + 2, b16 + 3);
#pragma unroll
                    for (int r = 0; r < L::ROW_TILES; r++) {
                        uint32_t a16[4];
                        halves(a[r][half * 2], a16, a16 + 2);
                        halves(a[r][half * 2 + 1], a16 + 1, a16 + 3);
                        warp_mma_f16(sum[r][t], a16, b16);
                        warp_mma_f16(sum[r][t + 1], a16, b16 + 2);
                    }
                }
            } else {
#pragma unroll
                for (int r = 0; r < L::ROW_TILES; r++) {
                    warp_mma_bf16(sum[r][t], a[r], b);
                    warp_mma_bf16(sum[r][t + 1], a[r], b + 2);
                }
            }
        }
    }
}

// Adds one scale block's products to the sums, outside of the tensor cores.
template <typename L, int Matrices>
static __device__ __forceinline__ void promote(const moe_expert_gemm &gemm, const v2_tile &tile,
                                               int32_t block, float sum[L::ROW_TILES][L::TILES][4],
                                               float part[L::ROW_TILES][L::TILES][4])
{
    const int lane = (int) threadIdx.x % 32;
    const int first_row = (int) threadIdx.x / 32 % L::ROW_WARPS * L::ROW_TILES * 16;
    const int64_t column_blocks =
        (gemm.columns + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
    const int64_t depth_blocks = (gemm.depth + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
    float w_scale[Matrices];
#pragma unroll
    for (int m = 0; m < Matrices; m++) {
        const int64_t w_block = ((int64_t) tile.rows.expert * Matrices + m) * column_blocks +
                                tile.column / MOE_EXPERT_SCALE_BLOCK;
        w_scale[m] = gemm.w_scale_dev[w_block * depth_blocks + block] * E4M3_PRODUCT;
    }
#pragma unroll
    for (int i = 0; i < L::ROW_TILES * 2; i++) {
        const int row = first_row + i * 8 + lane / 4;
        const float x_scale =
            row < tile.rows.row_count
                ? gemm.x_scale_dev[(int64_t) block * gemm.scale_stride + tile.rows.row + row]
                : 0.0F;
#pragma unroll
        for (int n = 0; n < L::TILES * 2; n++) {
            const int t = n / 2;
            const int element = i % 2 * 2 + n % 2;
            sum[i / 2][t][element] +=
                part[i / 2][t][element] * (x_scale * w_scale[t / L::COLUMN_TILES]);
            part[i / 2][t][element] = 0.0F;
        }
    }
}

// Sums of the first matrix become values of the result.
template <typename L, int Epilogue>
static __device__ __forceinline__ void finish_sums(float sum[L::ROW_TILES][L::TILES][4])
{
    constexpr int UP = Epilogue == MOE_EPILOGUE_SWIGLU ? L::COLUMN_TILES : 0;
#pragma unroll
    for (int r = 0; r < L::ROW_TILES; r++) {
#pragma unroll
        for (int i = 0; i < L::COLUMN_TILES * 4; i++) {
            float *first = &sum[r][i / 4][i % 4];
            *first = expert_epilogue(Epilogue, *first, sum[r][i / 4 + UP][i % 4]);
        }
    }
}

template <typename L>
static __device__ __forceinline__ void store_bf16(const moe_expert_gemm &gemm, const v2_tile &tile,
                                                  const float sum[L::ROW_TILES][L::TILES][4])
{
    const int lane = (int) threadIdx.x % 32;
    const int warp = (int) threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < L::ROW_TILES * 2; i++) {
        const int row = warp % L::ROW_WARPS * L::ROW_TILES * 16 + i * 8 + lane / 4;
#pragma unroll
        for (int t = 0; t < L::COLUMN_TILES; t++) {
            const int32_t column =
                tile.column + (warp / L::ROW_WARPS * L::COLUMN_TILES + t) * 8 + lane % 4 * 2;
            const float *value = sum[i / 2][t] + i % 2 * 2;
            if (row < tile.rows.row_count && column < gemm.columns) {
                *(uint32_t *) ((uint16_t *) gemm.out_dev +
                               (int64_t) (tile.rows.row + row) * gemm.columns + column) =
                    bf16_pair(value[0], value[1]);
            }
        }
    }
}

// The tile's columns are those of one scale; the warps that share a row tell each other its
// largest magnitude through largest[column warp][row].
template <typename L, int TileRows>
static __device__ __forceinline__ void store_fp8(const moe_expert_gemm &gemm, const v2_tile &tile,
                                                 const float sum[L::ROW_TILES][L::TILES][4],
                                                 float (*largest)[TileRows])
{
    const int lane = (int) threadIdx.x % 32;
    const int warp = (int) threadIdx.x / 32;
    const int side = warp / L::ROW_WARPS;
    const int first_row = warp % L::ROW_WARPS * L::ROW_TILES * 16 + lane / 4;
#pragma unroll
    for (int i = 0; i < L::ROW_TILES * 2; i++) {
        float mine = 0.0F;
#pragma unroll
        for (int t = 0; t < L::COLUMN_TILES; t++) {
            const float *value = sum[i / 2][t] + i % 2 * 2;
            mine = fmaxf(mine, fmaxf(fabsf(value[0]), fabsf(value[1])));
        }
        mine = fmaxf(mine, __shfl_xor_sync(0xffffffffU, mine, 1));
        mine = fmaxf(mine, __shfl_xor_sync(0xffffffffU, mine, 2));
        if (lane % 4 == 0) {
            largest[side][first_row + i * 8] = mine;
        }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < L::ROW_TILES * 2; i++) {
        const int row = first_row + i * 8;
        float all = 0.0F;
        for (int s = 0; s < L::COLUMN_WARPS; s++) {
            all = fmaxf(all, largest[s][row]);
        }
        const float scale = expert_scale(all);
        const float inverse = 1.0F / scale;
        const int64_t out_row = tile.rows.row + row;
        if (row >= tile.rows.row_count) {
            continue;
        }
        if (side == 0 && lane % 4 == 0) {
            gemm.out_scale_dev[(int64_t) (tile.column / MOE_EXPERT_SCALE_BLOCK) *
                                   gemm.scale_stride +
                               out_row] = scale;
        }
#pragma unroll
        for (int t = 0; t < L::COLUMN_TILES; t++) {
            const int32_t column = tile.column + (side * L::COLUMN_TILES + t) * 8 + lane % 4 * 2;
            const float *value = sum[i / 2][t] + i % 2 * 2;
            if (column < gemm.columns) {
                *(uint16_t *) ((uint8_t *) gemm.out_dev + out_row * gemm.columns + column) =
                    (uint16_t) e4m3_pair(value[0] * inverse, value[1] * inverse);
            }
        }
    }
}

template <typename L, int Matrices>
static __device__ __forceinline__ void apply_epilogue(const moe_expert_gemm &gemm,
                                                      float sum[L::ROW_TILES][L::TILES][4])
{
    if (Matrices == 2) {
        finish_sums<L, Matrices == 2 ? MOE_EPILOGUE_SWIGLU : MOE_EPILOGUE_NONE>(sum);
    } else if (gemm.epilogue == MOE_EPILOGUE_RELU) {
        finish_sums<L, MOE_EPILOGUE_RELU>(sum);
    } else if (gemm.epilogue == MOE_EPILOGUE_GELU) {
        finish_sums<L, MOE_EPILOGUE_GELU>(sum);
    }
}

template <bool Fp8, int Matrices, int TileRows, int Stages>
static __global__ void __launch_bounds__(THREADS,
                                         v2_layout<Fp8, Matrices, TileRows, Stages>::BLOCKS_PER_SM)
    gemm_v2(const __grid_constant__ moe_expert_gemm gemm)
{
    extern __shared__ __align__(128) unsigned char v2_shared[];
    using L = v2_layout<Fp8, Matrices, TileRows, Stages>;
    __shared__ float largest[Fp8 ? L::COLUMN_WARPS : 1][TileRows];
    auto *tile_start = (int32_t *) (v2_shared + L::RING_BYTES);
    const int32_t w_tiles = (gemm.columns + L::COLUMNS - 1) / L::COLUMNS;
    const int64_t row_bytes = (int64_t) gemm.depth * L::ELEMENT_BYTES;
    const auto steps = (int32_t) ((row_bytes + STAGE_ROW_BYTES - 1) / STAGE_ROW_BYTES);
    int32_t expert = 0;
    if (threadIdx.x < 32) {
        expert_tiles_count(tile_start, gemm.row_offset_dev, gemm.expert_count, TileRows, w_tiles);
    }
    __syncthreads();
    const int32_t total = tile_start[gemm.expert_count];
    const auto find = [&](int32_t index) {
        const expert_tile rows =
            expert_tile_find(tile_start, gemm.row_offset_dev, TileRows, index, &expert);
        return v2_tile{ rows, (int64_t) rows.expert * Matrices * gemm.columns,
                        rows.weight_tile * L::COLUMNS };
    };
    const auto begin = [&](const v2_tile &tile) {
        for (int32_t s = 0; s < Stages - 1; s++) {
            if (s < steps) {
                fetch<L, TileRows>(gemm, tile, v2_shared + s * L::STAGE_BYTES, s);
            }
            copy_async_commit();
        }
    };
    auto index = (int32_t) blockIdx.x;
    if (index >= total) {
        return;
    }
    v2_tile tile = find(index);
    begin(tile);
    while (index < total) {
        float sum[L::ROW_TILES][L::TILES][4] = {};
        float part[L::ROW_TILES][L::TILES][4] = {};
        for (int32_t step = 0; step < steps; step++) {
            copy_async_wait<Stages - 2>();
            __syncthreads(); // this stage is here, and the one before it is done with
            if (step + Stages - 1 < steps) {
                fetch<L, TileRows>(gemm, tile,
                                   v2_shared + (step + Stages - 1) % Stages * L::STAGE_BYTES,
                                   step + Stages - 1);
            }
            copy_async_commit();
            const unsigned char *stage = v2_shared + step % Stages * L::STAGE_BYTES;
            multiply<L, Fp8, TileRows>(Fp8 ? part : sum, stage);
            if (Fp8) {
                promote<L, Matrices>(gemm, tile, step, sum, part);
            }
        }
        __syncthreads();
        const v2_tile done = tile;
        index += (int32_t) gridDim.x;
        if (index < total) {
            tile = find(index);
            begin(tile); // on its way while this one is stored
        }
        apply_epilogue<L, Matrices>(gemm, sum);
        if (Fp8 && gemm.out_is_fp8) {
            store_fp8<L, TileRows>(gemm, done, sum, largest);
        } else {
            store_bf16<L>(gemm, done, sum);
        }
    }
    copy_async_wait<0>();
}

template <bool Fp8, int Matrices, int TileRows, int Stages>
static cudaError_t launch_v2(const moe_expert_gemm *gemm, const launch_device &device,
                             cudaStream_t stream)
{
    using L = v2_layout<Fp8, Matrices, TileRows, Stages>;
    void (*kernel)(moe_expert_gemm) = gemm_v2<Fp8, Matrices, TileRows, Stages>;
    const int shared_bytes = L::RING_BYTES + (gemm->expert_count + 1) * (int) sizeof(int32_t);
    // Experts may each end in a tile that is not full.
    const int64_t row_tiles = launch_ceil(gemm->row_count, TileRows) + gemm->expert_count;
    const int64_t tiles = row_tiles * launch_ceil(gemm->columns, L::COLUMNS);
    int per_sm = 0;
    const cudaError_t code = launch_prepare(kernel, THREADS, shared_bytes, &per_sm);
    if (code != cudaSuccess) {
        return code;
    }
    const int64_t grid = launch_least(tiles, (int64_t) device.sm_count * per_sm);
    kernel<<<(unsigned) grid, THREADS, (size_t) shared_bytes, stream>>>(*gemm);
    return cudaGetLastError();
}

// Few rows per expert: the weights' bytes count, and small tiles leave room for more of them on
// their way. Many: products count, and large tiles read shared memory less often per product.
template <int Matrices>
static cudaError_t choose_tile(const moe_expert_gemm *gemm, const launch_device &device,
                               cudaStream_t stream)
{
    constexpr int LARGE = v2_layout<false, Matrices, 128, 3>::RING_BYTES;
    const bool is_decode = gemm->largest_row_count <= 16;
    const int table_bytes = (gemm->expert_count + 1) * (int) sizeof(int32_t);
    if (gemm->dtype == MOE_EXPERT_FP8) {
        return is_decode ? launch_v2<true, Matrices, 16, 4 - Matrices>(gemm, device, stream)
                         : launch_v2<true, Matrices, 64, 4 - Matrices>(gemm, device, stream);
    }
    if (is_decode) {
        return launch_v2<false, Matrices, 16, 4>(gemm, device, stream);
    }
    return gemm->row_count / gemm->expert_count >= 96 &&
                   LARGE + table_bytes <= device.shared_bytes_max
               ? launch_v2<false, Matrices, 128, 3>(gemm, device, stream)
               : launch_v2<false, Matrices, 64, 3>(gemm, device, stream);
}

extern "C" int moe_expert_gemm_v2(const struct moe_expert_gemm *gemm, void *stream)
{
    launch_device device;
    cudaError_t code = launch_device_read(&device);
    if (code == cudaSuccess && device.capability < 80) {
        code = cudaErrorNotSupported;
    }
    if (code != cudaSuccess) {
        return (int) code;
    }
    const auto to = (cudaStream_t) stream;
    return (int) (moe_expert_gemm_matrix_count(gemm) == 2 ? choose_tile<2>(gemm, device, to)
                                                          : choose_tile<1>(gemm, device, to));
}
