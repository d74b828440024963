// Rows into expert order; the versions are told apart in permute.h. Scales lie column by column, so
// that a row's scales are far from each other: they are copied by threads of their own, one scale
// each, which hide their small accesses behind the others' large ones.
#include "kernels/instruction/bulk_copy.cuh"
#include "kernels/instruction/global_access.cuh"
#include "kernels/instruction/launch.cuh"
#include "kernels/route/permute.h"

enum {
    THREADS = 128,
    UNROLL = 8,
    PART_BYTES_MAX = 16 * 1024,
    STAGE_COUNT_MAX = 16,
    STAGES_BYTES = 128 * 1024,
    STORES = 2, // groups of stores that may still read their stage
};

struct rows_case {
    unsigned char *rows;
    const unsigned char *x;
    float *row_scale; // NULL: there are no scales
    const float *x_scale;
    int64_t row_scale_stride;
    int64_t x_scale_stride;
    const int32_t *position;
    int32_t token_count;
    int32_t top_k;
    int32_t row_bytes;
    int32_t scale_columns;
};

static __global__ void __launch_bounds__(THREADS)
    rows_v1(rows_case c, const int32_t *row_source, const int32_t *row_count)
{
    const int64_t row = blockIdx.x;
    if (row >= *row_count) {
        return;
    }
    const int64_t token = row_source[row] / c.top_k;
    const auto *from = (const uint4 *) (c.x + token * c.row_bytes);
    auto *to = (uint4 *) (c.rows + row * c.row_bytes);
    for (int32_t i = (int32_t) threadIdx.x; i < c.row_bytes / 16; i += THREADS) {
        to[i] = from[i];
    }
    for (int32_t i = (int32_t) threadIdx.x; i < c.scale_columns; i += THREADS) {
        c.row_scale[i * c.row_scale_stride + row] = c.x_scale[i * c.x_scale_stride + token];
    }
}

// Scale number `index` of all, token by token within a column, to all of the token's rows.
static __device__ __forceinline__ void copy_scale(const rows_case &c, int64_t index)
{
    const int64_t column = index / c.token_count;
    const int64_t token = index % c.token_count;
    if (column >= c.scale_columns) {
        return;
    }
    const float scale = c.x_scale[column * c.x_scale_stride + token];
    for (int32_t place = 0; place < c.top_k; place++) {
        const int32_t row = c.position[token * c.top_k + place];
        if (row >= 0) {
            c.row_scale[column * c.row_scale_stride + row] = scale;
        }
    }
}

// The blocks behind those of the tokens copy scales.
static __global__ void __launch_bounds__(THREADS) rows_v2(rows_case c)
{
    if (blockIdx.x >= (unsigned) c.token_count) {
        copy_scale(c, (int64_t) (blockIdx.x - (unsigned) c.token_count) * THREADS + threadIdx.x);
        return;
    }
    const int64_t token = blockIdx.x;
    const int32_t chunks = c.row_bytes / 16;
    const auto *from = (const uint4 *) (c.x + token * c.row_bytes);
    for (int32_t first = (int32_t) threadIdx.x; first < chunks; first += THREADS * UNROLL) {
        uint4 v[UNROLL];
#pragma unroll
        for (int j = 0; j < UNROLL; j++) {
            if (first + j * THREADS < chunks) {
                v[j] = load_once(from + first + j * THREADS);
            }
        }
        for (int32_t place = 0; place < c.top_k; place++) {
            const int64_t row = c.position[token * c.top_k + place];
            if (row < 0) {
                continue;
            }
            auto *to = (uint4 *) (c.rows + row * c.row_bytes);
#pragma unroll
            for (int j = 0; j < UNROLL; j++) {
                if (first + j * THREADS < chunks) {
                    store_once(to + first + j * THREADS, v[j]);
                }
            }
        }
    }
}

// Warp 0 moves parts of tokens' rows: lane 0 has each brought to a stage, lane p has it taken from
// there to the row of place p. The other warps copy scales.
static __global__ void __launch_bounds__(THREADS)
    rows_v3(rows_case c, int32_t parts, int32_t part_bytes, int32_t stages)
{
    extern __shared__ __align__(128) unsigned char part_stages[];
    __shared__ uint64_t full[STAGE_COUNT_MAX];
    const int32_t lane = (int32_t) threadIdx.x;
    if (lane >= 32) {
        const int64_t scales = (int64_t) c.scale_columns * c.token_count;
        for (int64_t i = (int64_t) blockIdx.x * (THREADS - 32) + lane - 32; i < scales;
             i += (int64_t) gridDim.x * (THREADS - 32)) {
            copy_scale(c, i);
        }
        return;
    }
    const int64_t all = (int64_t) c.token_count * parts;
    const int64_t mine = (all - blockIdx.x + gridDim.x - 1) / gridDim.x;
    const auto size_of = [&](int64_t part) {
        return (uint32_t) min(part_bytes, c.row_bytes - (int32_t) part * part_bytes);
    };
    const auto load = [&](int64_t i) {
        const int64_t unit = blockIdx.x + i * gridDim.x;
        const int64_t part = unit % parts;
        const int32_t s = (int32_t) (i % stages);
        bulk_load(part_stages + s * part_bytes,
                  c.x + unit / parts * c.row_bytes + part * part_bytes, size_of(part), full + s,
                  BULK_EVICT_FIRST);
    };
    const auto row_of = [&](int64_t i) {
        const int64_t token = (blockIdx.x + i * gridDim.x) / parts;
        return i < mine && lane < c.top_k ? c.position[token * c.top_k + lane] : -1;
    };
    if (lane == 0) {
        for (int32_t s = 0; s < stages; s++) {
            bulk_barrier_init(full + s, 1);
        }
        bulk_barrier_init_fence();
    }
    __syncwarp();
    if (lane == 0) {
        for (int64_t i = 0; i < min(mine, (int64_t) (stages - STORES)); i++) {
            load(i);
        }
    }
    int64_t row = row_of(0);
    for (int64_t i = 0; i < mine; i++) {
        const int64_t part = (blockIdx.x + i * gridDim.x) % parts;
        const int32_t s = (int32_t) (i % stages);
        const int64_t next_row = row_of(i + 1); // on its way while this part is waited for
        bulk_barrier_wait(full + s, (uint32_t) (i / stages) & 1);
        if (row >= 0) {
            bulk_store(c.rows + row * c.row_bytes + part * part_bytes, part_stages + s * part_bytes,
                       size_of(part), BULK_EVICT_FIRST);
        }
        bulk_commit();
        bulk_wait_read<STORES>();
        __syncwarp(); // every lane's stores of STORES parts ago have read their stage
        if (lane == 0 && i + stages - STORES < mine) {
            load(i + stages - STORES);
        }
        row = next_row;
    }
    bulk_wait_all();
}

static cudaError_t run_v3(const rows_case &c, cudaStream_t stream)
{
    launch_device device;
    int per_sm = 0;
    const auto parts = (int32_t) launch_ceil(c.row_bytes, PART_BYTES_MAX);
    const auto part_bytes = (int32_t) launch_ceil(launch_ceil(c.row_bytes, parts), 16) * 16;
    const auto stages = (int32_t) launch_least(STAGES_BYTES / part_bytes, STAGE_COUNT_MAX);
    const int32_t shared_bytes = stages * part_bytes;
    cudaError_t code = launch_device_read(&device);
    if (code == cudaSuccess && device.capability < 90) {
        code = cudaErrorNotSupported;
    }
    if (code == cudaSuccess) {
        code = launch_prepare(rows_v3, THREADS, shared_bytes, &per_sm);
    }
    if (code != cudaSuccess) {
        return code;
    }
    const int64_t grid =
        launch_least((int64_t) c.token_count * parts, (int64_t) device.sm_count * per_sm);
    rows_v3<<<(unsigned) grid, THREADS, (size_t) shared_bytes, stream>>>(c, parts, part_bytes,
                                                                         stages);
    return cudaGetLastError();
}

// What the contract says of the operands.
static bool is_valid(const struct moe_permute_shape *shape,
                     const struct moe_permute_operands *operands, int version)
{
    const int64_t choices = (int64_t) shape->token_count * shape->top_k;
    if (shape->token_count < 1 || shape->top_k < 1 || shape->top_k > MOE_PERMUTE_TOP_K_LIMIT ||
        choices > INT32_MAX || shape->hidden < 16 || shape->hidden % 16 != 0 ||
        shape->hidden > MOE_PERMUTE_HIDDEN_LIMIT || version < 1 ||
        version > MOE_PERMUTE_VERSION_COUNT || !launch_is_aligned(operands->rows_dev, 16) ||
        !launch_is_aligned(operands->x_dev, 16) || !launch_is_aligned(operands->position_dev, 4)) {
        return false;
    }
    if (version == 1 && (!launch_is_aligned(operands->row_source_dev, 4) ||
                         !launch_is_aligned(operands->row_offset_dev, 4))) {
        return false;
    }
    if (operands->dtype != MOE_EXPERT_FP8) {
        return operands->dtype == MOE_EXPERT_BF16;
    }
    return launch_is_aligned(operands->row_scale_dev, 4) &&
           launch_is_aligned(operands->x_scale_dev, 4) &&
           operands->x_scale_stride >= shape->token_count && operands->row_scale_stride >= 1;
}

extern "C" int moe_permute_rows(const struct moe_permute_shape *shape,
                                const struct moe_permute_operands *operands, int version,
                                void *stream)
{
    const auto to = (cudaStream_t) stream;
    const bool scaled = operands->dtype == MOE_EXPERT_FP8;
    const int64_t choices = (int64_t) shape->token_count * shape->top_k;
    if (!is_valid(shape, operands, version)) {
        return (int) cudaErrorInvalidValue;
    }
    const rows_case c = {
        (unsigned char *) operands->rows_dev,
        (const unsigned char *) operands->x_dev,
        operands->row_scale_dev,
        operands->x_scale_dev,
        operands->row_scale_stride,
        operands->x_scale_stride,
        operands->position_dev,
        shape->token_count,
        shape->top_k,
        scaled ? shape->hidden : shape->hidden * 2,
        scaled ? (int32_t) launch_ceil(shape->hidden, MOE_EXPERT_SCALE_BLOCK) : 0,
    };
    if (version == 1) {
        rows_v1<<<(unsigned) choices, THREADS, 0, to>>>(
            c, operands->row_source_dev, operands->row_offset_dev + shape->expert_count);
    } else if (version == 2) {
        const int64_t scale_blocks =
            launch_ceil((int64_t) c.scale_columns * c.token_count, THREADS);
        rows_v2<<<(unsigned) (c.token_count + scale_blocks), THREADS, 0, to>>>(c);
    } else {
        return (int) run_v3(c, to);
    }
    return (int) cudaGetLastError();
}
