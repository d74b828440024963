// bf16 rows to e4m3 with a scale per 128 columns; the versions are told apart in permute.h.
#include "kernels/instruction/global_access.cuh"
#include "kernels/instruction/launch.cuh"
#include "kernels/instruction/number.cuh"
#include "kernels/route/permute.h"

enum {
    THREADS = 256,
    BLOCK_COLUMNS = MOE_EXPERT_SCALE_BLOCK,
    LANES = 16,       // that share a scale, 8 columns each
    ROWS_ABREAST = 8, // neighbouring rows at the same time
    ROWS_AHEAD = 4,   // times as many rows in flight
    BLOCKS_ABREAST = THREADS / LANES / ROWS_ABREAST,
    TILE_ROWS = ROWS_ABREAST * ROWS_AHEAD,
};

static __global__ void __launch_bounds__(THREADS)
    quantise_v1(uint8_t *q, float *scale, int64_t scale_stride, const uint16_t *x,
                int32_t row_count, int32_t hidden)
{
    const int64_t i = (int64_t) blockIdx.x * THREADS + threadIdx.x;
    const int64_t row = i % row_count;
    const int64_t block = i / row_count;
    if (block * BLOCK_COLUMNS >= hidden) {
        return;
    }
    const int64_t first = row * hidden + block * BLOCK_COLUMNS;
    const auto count = (int32_t) min((int64_t) BLOCK_COLUMNS, hidden - block * BLOCK_COLUMNS);
    float largest = 0.0F;
    for (int32_t c = 0; c < count; c++) {
        largest = fmaxf(largest, fabsf(bf16_low(x[first + c])));
    }
    const float mine = e4m3_scale(largest);
    const float inverse = 1.0F / mine;
    for (int32_t c = 0; c < count; c++) {
        q[first + c] = (uint8_t) e4m3_pair(bf16_low(x[first + c]) * inverse, 0.0F);
    }
    scale[block * scale_stride + row] = mine;
}

static __global__ void __launch_bounds__(THREADS)
    quantise_v2(uint8_t *q, float *scale, int64_t scale_stride, const uint16_t *x,
                int32_t row_count, int32_t hidden, int32_t column_tiles)
{
    const int32_t group = (int32_t) threadIdx.x / LANES;
    const int32_t lane = (int32_t) threadIdx.x % LANES;
    const int32_t tile_row = (int32_t) (blockIdx.x / (unsigned) column_tiles) * TILE_ROWS;
    const int32_t block =
        (int32_t) (blockIdx.x % (unsigned) column_tiles) * BLOCKS_ABREAST + group / ROWS_ABREAST;
    const int32_t column = block * BLOCK_COLUMNS + lane * 8;
    const int64_t first_row = tile_row + group % ROWS_ABREAST;
    uint4 v[ROWS_AHEAD];
#pragma unroll
    for (int j = 0; j < ROWS_AHEAD; j++) {
        const int64_t row = first_row + j * ROWS_ABREAST;
        v[j] = row < row_count && column < hidden
                   ? load_once((const uint4 *) (x + row * hidden + column))
                   : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int j = 0; j < ROWS_AHEAD; j++) {
        const int64_t row = first_row + j * ROWS_ABREAST;
        float value[8];
        float largest = 0.0F;
        bf16_unpack(value, v[j]);
#pragma unroll
        for (int n = 0; n < 8; n++) {
            largest = fmaxf(largest, fabsf(value[n]));
        }
#pragma unroll
        for (int step = LANES / 2; step > 0; step /= 2) {
            largest = fmaxf(largest, __shfl_xor_sync(0xffffffffU, largest, step));
        }
        const float mine = e4m3_scale(largest);
        const float inverse = 1.0F / mine;
        uint2 bytes;
        bytes.x = e4m3_pair(value[0] * inverse, value[1] * inverse) |
                  e4m3_pair(value[2] * inverse, value[3] * inverse) << 16;
        bytes.y = e4m3_pair(value[4] * inverse, value[5] * inverse) |
                  e4m3_pair(value[6] * inverse, value[7] * inverse) << 16;
        if (row < row_count && column < hidden) {
            *(uint2 *) (q + row * hidden + column) = bytes;
            if (lane == 0) {
                scale[block * scale_stride + row] = mine;
            }
        }
    }
}

extern "C" int moe_quantise_rows(int32_t row_count, int32_t hidden, void *q_dev, float *scale_dev,
                                 int32_t scale_stride, const void *x_dev, int version, void *stream)
{
    const auto to = (cudaStream_t) stream;
    const int64_t blocks = launch_ceil(hidden, BLOCK_COLUMNS);
    const int64_t column_tiles = launch_ceil(blocks, BLOCKS_ABREAST);
    if (row_count < 1 || hidden < 16 || hidden % 16 != 0 || hidden > MOE_PERMUTE_HIDDEN_LIMIT ||
        scale_stride < row_count || version < 1 || version > MOE_QUANTISE_VERSION_COUNT ||
        launch_ceil(row_count * blocks, THREADS) > INT32_MAX || !launch_is_aligned(q_dev, 16) ||
        !launch_is_aligned(scale_dev, 4) || !launch_is_aligned(x_dev, 16)) {
        return (int) cudaErrorInvalidValue;
    }
    if (version == 1) {
        quantise_v1<<<(unsigned) launch_ceil(row_count * blocks, THREADS), THREADS, 0, to>>>(
            (uint8_t *) q_dev, scale_dev, scale_stride, (const uint16_t *) x_dev, row_count,
            hidden);
    } else {
        const int64_t grid = launch_ceil(row_count, TILE_ROWS) * column_tiles;
        quantise_v2<<<(unsigned) grid, THREADS, 0, to>>>((uint8_t *) q_dev, scale_dev, scale_stride,
                                                         (const uint16_t *) x_dev, row_count,
                                                         hidden, (int32_t) column_tiles);
    }
    return (int) cudaGetLastError();
}
