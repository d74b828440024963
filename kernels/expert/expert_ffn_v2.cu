// Version 2: tiles in shared memory, tensor cores. What it gains over version 1, and why:
//  - Bytes: version 1 reads every weight anew for each row. Here a block of 16, 64 or 128 rows
//    reads it once, and the blocks that share it run side by side, so that it comes from memory
//    once and from the L2 cache after that; in shared memory it serves all rows of the block.
//  - Instructions: version 1 spends two loads, three conversions, a multiplication and an addition
//    of a thread on each product. Here one mma of a warp makes 2048 products, and its operands come
//    by ldmatrix, one for every 2.7 of them in the largest tile.
//  - Waiting: version 1 waits for each load. Here cp.async brings three stages of depth in while
//    the fourth is multiplied, past the registers, so that the loads on their way are bounded by
//    shared memory and not by what threads can hold.
//  - Gate and up of the same columns are summed by the same threads, so SwiGLU needs no
//    exchange, and mid is written once, in fp8 already quantised.
// fp8 becomes f16 in registers, which is exact, and is multiplied as f16: sums of 128 products are
// then as good as fp32 makes them, and GPUs without fp8 run it too.
//
// Nothing here is younger than compute capability 8.0, and a block's shared memory stays within the
// 99 KiB that the smallest of these GPUs have.
#include <cuda_runtime.h>

#include "kernels/expert/expert_epilogue.cuh"
#include "kernels/expert/expert_ffn_parts.h"
#include "kernels/instruction/mma.cuh"
#include "kernels/instruction/number.cuh"
#include "kernels/instruction/warp.cuh"

enum { THREADS = 256, WARPS = THREADS / 32, STAGES = 4, SHARED_MOST = 99 * 1024 };

static constexpr int larger(int a, int b)
{
    return a > b ? a : b;
}

// A block's tile: ROWS rows of x times W_ROWS rows of the weights, which are COLUMNS columns of one
// matrix, or the same ones of gate and up. In fp8 COLUMNS are those of one scale. Warps stand
// in a grid of WARPS_DOWN by WARPS_ALONG, each with M by N products of 16 x 8.
template <int Rows, bool Gated, bool Fp8> struct tile_shape {
    static constexpr bool GATED = Gated;
    static constexpr bool FP8 = Fp8;
    static constexpr int ROWS = Rows;
    static constexpr int MATRICES = Gated ? 2 : 1;
    static constexpr int COLUMNS = Gated && !Fp8 ? 64 : MOE_EXPERT_SCALE_BLOCK;
    static constexpr int W_ROWS = MATRICES * COLUMNS;
    // Depth of a stage. Small tiles wait for memory, which likes whole lines; large ones want
    // two blocks on a multiprocessor.
    static constexpr int ROW_BYTES = Rows + W_ROWS <= 144 ? 128 : 64;
    static constexpr int CHUNKS = ROW_BYTES / 16;
    static constexpr int X_BYTES = Rows * ROW_BYTES;
    static constexpr int STAGE_BYTES = X_BYTES + W_ROWS * ROW_BYTES;
    static constexpr int STAGES_PER_SCALE = MOE_EXPERT_SCALE_BLOCK / ROW_BYTES; // fp8
    static constexpr int WARPS_DOWN = Rows == 16 ? 1 : 2;
    static constexpr int WARPS_ALONG = WARPS / WARPS_DOWN;
    static constexpr int M = Rows / WARPS_DOWN / 16;
    static constexpr int N = W_ROWS / WARPS_ALONG / 8;
    // Floats from one row of staged sums to the next: 8 more than needed, which keeps banks apart.
    static constexpr int STAGED = COLUMNS + 8;
    static constexpr int SHARED_BYTES =
        larger(STAGES * STAGE_BYTES, ROWS *STAGED *(int) sizeof(float));
    // In fp8 there are products of one scale besides the sums: twice the registers.
    static constexpr int BLOCKS_LEAST = Rows == 16 && W_ROWS == 128 ? 3
                                        : Fp8 && M * N == 16        ? 1
                                                                    : 2;
    static_assert(SHARED_BYTES <= SHARED_MOST, "must fit every GPU");
};

// Chunk c (16 bytes) of row r lies at chunk c ^ key(r): eight rows' chunks c then lie in eight
// different groups of banks. Depends on r % 8 only.
template <typename Shape> static __device__ __forceinline__ uint32_t swizzle_key(uint32_t row)
{
    return Shape::CHUNKS == 8 ? row % 8 : row % 8 / 2;
}

struct row_tile {
    int32_t expert;
    int32_t weight_tile;
    int32_t row;       // first row of x
    int32_t row_count; // 1 .. ROWS
};

// Tile `index` of the launch. They are numbered expert by expert; within an expert the row tiles of
// one block of weights follow each other, so that the blocks that run at the same time share that
// block in the L2 cache. An expert without rows has none. Called by full warps; false when there are
// fewer tiles.
static __device__ __forceinline__ bool find_tile(const moe_expert_gemm &gemm, int32_t tile_rows,
                                                 int32_t tile_columns, int32_t index,
                                                 row_tile &tile)
{
    constexpr unsigned ALL = 0xffffffffU;
    const int32_t lane = (int32_t) threadIdx.x % 32;
    const int32_t weight_tiles = (gemm.columns + tile_columns - 1) / tile_columns;
    for (int32_t first = 0; first < gemm.expert_count; first += 32) {
        const int32_t expert = first + lane;
        const bool exists = expert < gemm.expert_count;
        const int32_t row = exists ? gemm.row_offset_dev[expert] : 0;
        const int32_t rows = exists ? gemm.row_offset_dev[expert + 1] - row : 0;
        const int32_t row_tiles = (rows + tile_rows - 1) / tile_rows;
        int32_t end = row_tiles * weight_tiles; // of this expert's tiles, after the sum
        for (int32_t step = 1; step < 32; step *= 2) {
            const int32_t below = __shfl_up_sync(ALL, end, (unsigned) step);
            end += lane >= step ? below : 0;
        }
        const unsigned beyond = __ballot_sync(ALL, end > index);
        if (beyond != 0) {
            const int owner = __ffs((int) beyond) - 1;
            const int32_t inside = index - __shfl_sync(ALL, end - row_tiles * weight_tiles, owner);
            const int32_t count = __shfl_sync(ALL, row_tiles, owner);
            const int32_t skipped = inside % count * tile_rows;
            tile.expert = first + owner;
            tile.weight_tile = inside / count;
            tile.row = __shfl_sync(ALL, row, owner) + skipped;
            tile.row_count = min(tile_rows, __shfl_sync(ALL, rows, owner) - skipped);
            return true;
        }
        index -= __shfl_sync(ALL, end, 31);
    }
    return false;
}

// Where this thread's chunks of a tile come from, at depth 0.
template <typename Shape> struct tile_source {
    static constexpr int PASS_ROWS = THREADS / Shape::CHUNKS; // rows that all threads copy at once

    const uint8_t *w;
    const uint8_t *x;
    const uint8_t *somewhere; // may be read; a chunk that is not inside names it
    int64_t row_bytes;
    int64_t matrix_bytes;
    int32_t first_row;    // of this thread, in the tile
    int32_t column_count; // of the tile that exist
    int32_t row_count;
    int32_t depth; // bytes into a row, of the next stage

    __device__ __forceinline__ tile_source(const moe_expert_gemm &gemm, const row_tile &tile)
    {
        const int32_t column = tile.weight_tile * Shape::COLUMNS;
        first_row = (int32_t) threadIdx.x / Shape::CHUNKS;
        depth = (int32_t) threadIdx.x % Shape::CHUNKS * 16;
        row_bytes = (int64_t) gemm.depth * (Shape::FP8 ? 1 : 2);
        matrix_bytes = row_bytes * gemm.columns;
        somewhere = (const uint8_t *) gemm.x_dev;
        w = (const uint8_t *) gemm.w_dev + matrix_bytes * tile.expert * Shape::MATRICES +
            row_bytes * (column + first_row);
        x = somewhere + row_bytes * (tile.row + first_row);
        column_count = gemm.columns - column;
        row_count = tile.row_count;
    }

    // Asks for the next stage. Beyond the last row, column or depth there are zeros.
    __device__ __forceinline__ void copy_stage(uint32_t stage)
    {
        const bool inside = depth < row_bytes;
        const uint32_t chunk = threadIdx.x % Shape::CHUNKS;
        // PASS_ROWS is a multiple of 8, so the key is the same in every pass.
        const uint32_t to = stage + (uint32_t) first_row * Shape::ROW_BYTES +
                            ((chunk ^ swizzle_key<Shape>((uint32_t) first_row)) << 4);
#pragma unroll
        for (int row = 0; row < Shape::W_ROWS; row += PASS_ROWS) {
            const int matrix = row / Shape::COLUMNS;
            const int column = row % Shape::COLUMNS;
            const bool exists = inside && first_row + column < column_count;
            const uint8_t *from = w + matrix_bytes * matrix + row_bytes * column + depth;
            copy_async(to + Shape::X_BYTES + (uint32_t) row * Shape::ROW_BYTES,
                       exists ? from : somewhere, exists);
        }
#pragma unroll
        for (int row = 0; row < Shape::ROWS; row += PASS_ROWS) {
            const bool exists = inside && first_row + row < row_count;
            if (PASS_ROWS <= Shape::ROWS || first_row < Shape::ROWS) {
                copy_async(to + (uint32_t) row * Shape::ROW_BYTES,
                           exists ? x + row_bytes * row + depth : somewhere, exists);
            }
        }
        depth += Shape::ROW_BYTES;
    }
};

// What a lane reads of a stage, as warp_matrices wants it: its address in the first tile of its
// warp, and its place in the first two chunks of the row, to be combined with the depth by xor.
template <typename Shape> struct lane_place {
    uint32_t x;
    uint32_t x_chunk;
    uint32_t w;
    uint32_t w_chunk;
    int32_t row;    // of the warp's sums
    int32_t column; // of one matrix, likewise

    __device__ __forceinline__ lane_place()
    {
        // Tiles come in twos; with one tile of gate and one of up these lie a matrix apart.
        constexpr uint32_t APART = Shape::GATED && Shape::N == 2 ? Shape::COLUMNS : 8;
        const uint32_t lane = threadIdx.x % 32;
        const uint32_t warp = threadIdx.x / 32;
        row = (int32_t) warp / Shape::WARPS_ALONG * Shape::M * 16;
        column = (int32_t) warp % Shape::WARPS_ALONG * Shape::N * 8 / Shape::MATRICES;
        // x: matrices are rows 0-7, 8-15, 0-7, 8-15 of chunks 0, 0, 1, 1, in the order of mma's a.
        x = ((uint32_t) row + lane % 16) * Shape::ROW_BYTES;
        x_chunk = (lane / 16 ^ swizzle_key<Shape>(lane)) << 4;
        // w: both chunks of one tile, then of the next.
        w = Shape::X_BYTES + ((uint32_t) column + lane / 16 * APART + lane % 8) * Shape::ROW_BYTES;
        w_chunk = (lane / 8 % 2 ^ swizzle_key<Shape>(lane)) << 4;
    }
};

// Rows of w from the warp's first tile to tile n. Gate's tiles come first, then up's.
template <typename Shape> static __device__ __forceinline__ constexpr int tile_start_row(int n)
{
    return Shape::GATED && n >= Shape::N / 2 ? Shape::COLUMNS + (n - Shape::N / 2) * 8 : n * 8;
}

template <typename Shape> using tile_sums = float[Shape::M][Shape::N][4];

// e4m3: a lane's four bytes are neighbours in depth. Their order in the sum is free as long as it
// is the same in both operands, so bytes 0 and 1 stand where mma wants k, 2 and 3 where k + 8.
template <typename Shape>
static __device__ __forceinline__ void multiply_e4m3(tile_sums<Shape> &sum,
                                                     const uint32_t (&x)[Shape::M][4],
                                                     const uint32_t (&w)[Shape::N / 2][4])
{
#pragma unroll
    for (int chunk = 0; chunk < 2; chunk++) {
        uint32_t a[Shape::M][4];
#pragma unroll
        for (int m = 0; m < Shape::M; m++) {
            e4m3_widen(x[m][2 * chunk], a[m][0], a[m][2]);
            e4m3_widen(x[m][2 * chunk + 1], a[m][1], a[m][3]);
        }
#pragma unroll
        for (int n = 0; n < Shape::N; n++) {
            uint32_t b0;
            uint32_t b1;
            e4m3_widen(w[n / 2][n % 2 * 2 + chunk], b0, b1);
#pragma unroll
            for (int m = 0; m < Shape::M; m++) {
                mma_f16(sum[m][n], a[m], b0, b1);
            }
        }
    }
}

template <typename Shape>
static __device__ __forceinline__ void multiply_stage(tile_sums<Shape> &sum, uint32_t stage,
                                                      const lane_place<Shape> &place)
{
#pragma unroll
    for (int depth = 0; depth < Shape::ROW_BYTES; depth += 32) {
        uint32_t x[Shape::M][4];
        uint32_t w[Shape::N / 2][4];
#pragma unroll
        for (int m = 0; m < Shape::M; m++) {
            warp_matrices(x[m], stage + place.x + (uint32_t) (m * 16 * Shape::ROW_BYTES) +
                                    (place.x_chunk ^ (uint32_t) depth));
        }
#pragma unroll
        for (int n = 0; n < Shape::N; n += 2) {
            warp_matrices(w[n / 2], stage + place.w +
                                        (uint32_t) (tile_start_row<Shape>(n) * Shape::ROW_BYTES) +
                                        (place.w_chunk ^ (uint32_t) depth));
        }
        if constexpr (Shape::FP8) {
            multiply_e4m3<Shape>(sum, x, w);
        } else {
#pragma unroll
            for (int n = 0; n < Shape::N; n++) {
#pragma unroll
                for (int m = 0; m < Shape::M; m++) {
                    mma_bf16(sum[m][n], x[m], w[n / 2][n % 2 * 2], w[n / 2][n % 2 * 2 + 1]);
                }
            }
        }
    }
}

// fp8: the scales of 128 of depth for this lane's sums. Asked for before the stage is awaited.
template <typename Shape> struct block_scales {
    float x[Shape::M][2]; // rows g and g + 8
    float w[Shape::MATRICES];

    __device__ __forceinline__ void load(const moe_expert_gemm &gemm, const row_tile &tile,
                                         int32_t first_row, int32_t block)
    {
        const int32_t lane_row = first_row + (int32_t) threadIdx.x % 32 / 4;
        const float *x_scale = gemm.x_scale_dev + (int64_t) block * gemm.scale_stride + tile.row;
#pragma unroll
        for (int i = 0; i < 2 * Shape::M; i++) {
            const int32_t row = lane_row + 8 * i;
            x[i / 2][i % 2] = row < tile.row_count ? __ldg(x_scale + row) : 0.0F;
        }
        const int64_t depth_blocks =
            (gemm.depth + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
        const int64_t column_blocks =
            (gemm.columns + MOE_EXPERT_SCALE_BLOCK - 1) / MOE_EXPERT_SCALE_BLOCK;
#pragma unroll
        for (int m = 0; m < Shape::MATRICES; m++) {
            const int64_t matrix = (int64_t) tile.expert * Shape::MATRICES + m;
            w[m] = __ldg(gemm.w_scale_dev +
                         (matrix * column_blocks + tile.weight_tile) * depth_blocks + block) *
                   (1.0F / (E4M3_UNIT * E4M3_UNIT));
        }
    }

    // sum += part * scales, and part is zero for the next block.
    __device__ __forceinline__ void add(tile_sums<Shape> &sum, tile_sums<Shape> &part) const
    {
#pragma unroll
        for (int m = 0; m < Shape::M; m++) {
#pragma unroll
            for (int n = 0; n < Shape::N; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    sum[m][n][i] +=
                        part[m][n][i] * (x[m][i / 2] * w[n * Shape::MATRICES / Shape::N]);
                    part[m][n][i] = 0.0F;
                }
            }
        }
    }
};

// The sums of a tile over the whole depth.
template <typename Shape>
static __device__ __forceinline__ void sum_tile(const moe_expert_gemm &gemm, const row_tile &tile,
                                                uint32_t shared, const lane_place<Shape> &place,
                                                tile_sums<Shape> &sum)
{
    constexpr int STEP = Shape::ROW_BYTES / (Shape::FP8 ? 1 : 2);
    const int32_t steps = (gemm.depth + STEP - 1) / STEP;
    tile_source<Shape> source(gemm, tile);
    block_scales<Shape> scales;
    tile_sums<Shape> part = {}; // fp8 only
    // Beyond the depth stages are zeros, and need no memory: no case of its own for short depths.
    for (uint32_t stage = 0; stage < STAGES - 1; stage++) {
        source.copy_stage(shared + stage * Shape::STAGE_BYTES);
        copy_async_commit();
    }
    uint32_t at = 0;
    uint32_t fill = STAGES - 1;
    for (int32_t step = 0; step < steps; step++) {
        if (Shape::FP8 && step % Shape::STAGES_PER_SCALE == 0) {
            scales.load(gemm, tile, place.row, step / Shape::STAGES_PER_SCALE);
        }
        // The stage has come for all threads, and all have read the one that is filled next.
        copy_async_wait<STAGES - 2>();
        __syncthreads();
        if (step + STAGES - 1 < steps) {
            source.copy_stage(shared + fill * Shape::STAGE_BYTES);
        }
        copy_async_commit();
        if constexpr (Shape::FP8) {
            multiply_stage<Shape>(part, shared + at * Shape::STAGE_BYTES, place);
            if ((step + 1) % Shape::STAGES_PER_SCALE == 0 || step + 1 == steps) {
                scales.add(sum, part);
            }
        } else {
            multiply_stage<Shape>(sum, shared + at * Shape::STAGE_BYTES, place);
        }
        at = at + 1 == STAGES ? 0 : at + 1;
        fill = fill + 1 == STAGES ? 0 : fill + 1;
    }
    // Short depths leave copies of zeros on their way into what becomes the staging area.
    copy_async_wait<0>();
    __syncthreads();
}

static __device__ __forceinline__ float swiglu(float gate, float up)
{
    return expert_swiglu(gate, up);
}

static __device__ __forceinline__ float activate(int epilogue, float value)
{
    return expert_activate(epilogue, value);
}

// The warp's sums into the block's staging area, SwiGLU done. Other activations wait for
// store_rows, where a thread has four values at a time and not all of them.
template <typename Shape>
static __device__ __forceinline__ void stage_sums(const tile_sums<Shape> &sum,
                                                  const lane_place<Shape> &place, float *staging)
{
    const int32_t lane = (int32_t) threadIdx.x % 32;
#pragma unroll
    for (int m = 0; m < Shape::M; m++) {
#pragma unroll
        for (int n = 0; n < Shape::N / Shape::MATRICES; n++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float2 v = make_float2(sum[m][n][2 * half], sum[m][n][2 * half + 1]);
                if constexpr (Shape::GATED) {
                    const float(&up)[4] = sum[m][n + Shape::N / 2];
                    v.x = swiglu(v.x, up[2 * half]);
                    v.y = swiglu(v.y, up[2 * half + 1]);
                }
                const int32_t row = place.row + m * 16 + half * 8 + lane / 4;
                const int32_t column = place.column + n * 8 + lane % 4 * 2;
                *(float2 *) (staging + row * Shape::STAGED + column) = v;
            }
        }
    }
}

// Staged rows to memory, four columns a thread. Rows beyond the expert's are left out. Columns
// beyond the last are zeros, which no scale notices.
template <typename Shape>
static __device__ __forceinline__ void store_rows(const moe_expert_gemm &gemm, const row_tile &tile,
                                                  const float *staging)
{
    constexpr int32_t THREADS_PER_ROW = Shape::COLUMNS / 4;
    const int32_t in_tile = (int32_t) threadIdx.x % THREADS_PER_ROW * 4;
    const int32_t column = tile.weight_tile * Shape::COLUMNS + in_tile;
    const int epilogue = Shape::GATED ? (int) MOE_EPILOGUE_NONE : (int) gemm.epilogue;
    for (int32_t row = (int32_t) threadIdx.x / THREADS_PER_ROW; row < tile.row_count;
         row += THREADS / THREADS_PER_ROW) {
        float4 v = *(const float4 *) (staging + row * Shape::STAGED + in_tile);
        v.x = activate(epilogue, v.x);
        v.y = activate(epilogue, v.y);
        v.z = activate(epilogue, v.z);
        v.w = activate(epilogue, v.w);
        const int64_t at = (int64_t) (tile.row + row) * gemm.columns + column;
        if (Shape::FP8 && gemm.out_is_fp8) { // a warp has a row, all columns of a scale
            const float scale = expert_scale(
                warp_max(fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)))));
            if (in_tile == 0) {
                gemm.out_scale_dev[(int64_t) tile.weight_tile * gemm.scale_stride + tile.row +
                                   row] = scale;
            }
            if (column < gemm.columns) {
                *(uint32_t *) ((uint8_t *) gemm.out_dev + at) =
                    e4m3_pair(v.x / scale, v.y / scale) | e4m3_pair(v.z / scale, v.w / scale) << 16;
            }
        } else if (column < gemm.columns) {
            *(uint2 *) ((uint16_t *) gemm.out_dev + at) =
                make_uint2(bf16_pair(v.x, v.y), bf16_pair(v.z, v.w));
        }
    }
}

// One block, one tile. Blocks beyond the last tile have nothing to do.
template <typename Shape>
static __global__ void __launch_bounds__(THREADS, Shape::BLOCKS_LEAST)
    grouped_gemm(const __grid_constant__ moe_expert_gemm gemm)
{
    extern __shared__ uint4 shared_memory[];
    row_tile tile;
    if (!find_tile(gemm, Shape::ROWS, Shape::COLUMNS, (int32_t) blockIdx.x, tile)) {
        return;
    }
    const lane_place<Shape> place;
    tile_sums<Shape> sum = {};
    sum_tile<Shape>(gemm, tile, shared_address(shared_memory), place, sum);
    stage_sums<Shape>(sum, place, (float *) shared_memory);
    __syncthreads();
    store_rows<Shape>(gemm, tile, (const float *) shared_memory);
}

template <typename Shape> static int launch(const moe_expert_gemm *gemm, cudaStream_t stream)
{
    const auto kernel = (const void *) grouped_gemm<Shape>;
    if (Shape::SHARED_BYTES > 48 * 1024) {
        const cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, Shape::SHARED_BYTES);
        if (error != cudaSuccess) {
            return (int) error;
        }
    }
    // As many row tiles as there can be, however the rows are shared out: each expert that has any
    // fills its last tile with one row at least.
    const int64_t experts =
        gemm->expert_count < gemm->row_count ? gemm->expert_count : gemm->row_count;
    const int64_t row_tiles = (gemm->row_count + experts * (Shape::ROWS - 1)) / Shape::ROWS;
    const int64_t tiles = row_tiles * ((gemm->columns + Shape::COLUMNS - 1) / Shape::COLUMNS);
    if (tiles < 1 || tiles > INT32_MAX) {
        return (int) cudaErrorInvalidValue;
    }
    void *arguments[] = { (void *) gemm };
    return (int) cudaLaunchKernel(kernel, dim3((unsigned) tiles), dim3(THREADS), arguments,
                                  (size_t) Shape::SHARED_BYTES, stream);
}

// Rows that a tile should hold. What the largest expert has, but not much more than the others
// have: a tile multiplies the rows that are not there too, while an expert that needs several
// tiles has its weights read from the L2 cache again, which costs little as long as it is one of
// many.
static int32_t wanted_rows(const moe_expert_gemm *gemm)
{
    const int32_t mean = (gemm->row_count + gemm->expert_count - 1) / gemm->expert_count;
    const int32_t usual = gemm->largest_row_count / 2 < mean ? gemm->largest_row_count : 2 * mean;
    return usual > gemm->largest_row_count / 4 ? usual : gemm->largest_row_count / 4;
}

template <bool Gated, bool Fp8>
static int launch_sized(const moe_expert_gemm *gemm, cudaStream_t stream)
{
    // Gate, up, and products besides sums: 128 rows of these are more than the registers hold.
    constexpr int LARGEST = Gated && Fp8 ? 64 : 128;
    const int32_t rows = wanted_rows(gemm);
    if (rows <= 16) {
        return launch<tile_shape<16, Gated, Fp8>>(gemm, stream);
    }
    if (rows <= 64) {
        return launch<tile_shape<64, Gated, Fp8>>(gemm, stream);
    }
    return launch<tile_shape<LARGEST, Gated, Fp8>>(gemm, stream);
}

extern "C" int moe_expert_gemm_v2(const struct moe_expert_gemm *gemm, void *stream)
{
    const bool fp8 = gemm->dtype == MOE_EXPERT_FP8;
    const bool gated = gemm->epilogue == MOE_EPILOGUE_SWIGLU;
    const auto queue = (cudaStream_t) stream;
    if (gemm->depth < 16 || gemm->depth % 16 != 0 || gemm->columns < 16 ||
        gemm->columns % 16 != 0 || gemm->expert_count < 1 || gemm->row_count < 1 ||
        (gemm->out_is_fp8 && !fp8)) {
        return (int) cudaErrorInvalidValue;
    }
    if (fp8) {
        return gated ? launch_sized<true, true>(gemm, queue)
                     : launch_sized<false, true>(gemm, queue);
    }
    return gated ? launch_sized<true, false>(gemm, queue) : launch_sized<false, false>(gemm, queue);
}
