// Where each choice's row goes; the method is told in permute.h.
#include "kernels/instruction/launch.cuh"
#include "kernels/route/permute.h"

enum {
    THREADS = 256,
    WARPS = THREADS / 32,
    WARP_CHOICES = 256,
    CHUNK = WARPS * WARP_CHOICES, // choices of one block
    SCAN_THREADS = 1024,
};

// counts[warp][expert] of the chunk's choices.
static __device__ void count_chunk(int32_t *counts, const int32_t *ids, int32_t choice_count,
                                   int32_t expert_count)
{
    const int32_t warp = (int32_t) threadIdx.x / 32;
    const int32_t first = (int32_t) blockIdx.x * CHUNK + warp * WARP_CHOICES;
    for (int32_t i = (int32_t) threadIdx.x; i < WARPS * expert_count; i += THREADS) {
        counts[i] = 0;
    }
    __syncthreads();
    for (int32_t i = (int32_t) threadIdx.x % 32; i < WARP_CHOICES; i += 32) {
        const int32_t id = first + i < choice_count ? ids[first + i] : -1;
        if (id >= 0 && id < expert_count) {
            atomicAdd(counts + warp * expert_count + id, 1);
        }
    }
    __syncthreads();
}

// Numbers the chunk's choices; starts[warp][expert] is the next free row, and moves on.
static __device__ void number_chunk(int32_t *starts, const int32_t *ids, int32_t choice_count,
                                    int32_t expert_count, int32_t *position, int32_t *row_source)
{
    const int32_t lane = (int32_t) threadIdx.x % 32;
    const int32_t warp = (int32_t) threadIdx.x / 32;
    const int32_t first = (int32_t) blockIdx.x * CHUNK + warp * WARP_CHOICES;
    int32_t *next = starts + warp * expert_count;
    for (int32_t round = 0; round < WARP_CHOICES; round += 32) {
        const int32_t choice = first + round + lane;
        const int32_t read = choice < choice_count ? ids[choice] : -1;
        const int32_t id = read >= 0 && read < expert_count ? read : -1;
        const unsigned same = __match_any_sync(0xffffffffU, (unsigned) id);
        const int32_t before = __popc(same & ((1U << lane) - 1));
        const int32_t row = id >= 0 ? next[id] + before : -1;
        __syncwarp();
        if (id >= 0 && before == 0) {
            next[id] += __popc(same);
        }
        __syncwarp();
        if (choice < choice_count) {
            position[choice] = row;
            if (row_source != nullptr && row >= 0) {
                row_source[row] = choice;
            }
        }
    }
}

// Exclusive sums over all experts of a block of SCAN_THREADS threads, one expert each; the sum of
// all of them comes back in *total.
static __device__ int32_t sum_before(int32_t mine, int32_t *warp_sums, int32_t *total)
{
    const int32_t lane = (int32_t) threadIdx.x % 32;
    const int32_t warp = (int32_t) threadIdx.x / 32;
    const int32_t warps = (int32_t) blockDim.x / 32;
    int32_t sum = mine;
    for (int32_t step = 1; step < 32; step *= 2) {
        const int32_t below = __shfl_up_sync(0xffffffffU, sum, (unsigned) step);
        sum += lane >= step ? below : 0;
    }
    if (lane == 31) {
        warp_sums[warp] = sum;
    }
    __syncthreads();
    int32_t base = 0;
    int32_t all = 0;
    for (int32_t w = 0; w < warps; w++) {
        base += w < warp ? warp_sums[w] : 0;
        all += warp_sums[w];
    }
    __syncthreads();
    *total = all;
    return base + sum - mine;
}

// Everything, for choices that fit one chunk.
static __global__ void __launch_bounds__(THREADS)
    plan_small(const int32_t *ids, int32_t choice_count, int32_t expert_count, int32_t *row_offset,
               int32_t *position, int32_t *row_source)
{
    extern __shared__ __align__(16) unsigned char small_shared[];
    __shared__ int32_t warp_sums[WARPS];
    auto *counts = (int32_t *) small_shared;
    count_chunk(counts, ids, choice_count, expert_count);
    int32_t done = 0; // rows of the experts before these
    for (int32_t first = 0; first < expert_count; first += THREADS) {
        const int32_t expert = first + (int32_t) threadIdx.x;
        int32_t rows = 0;
        if (expert < expert_count) {
            for (int32_t w = 0; w < WARPS; w++) {
                rows += counts[w * expert_count + expert];
            }
        }
        int32_t total = 0;
        int32_t start = done + sum_before(rows, warp_sums, &total);
        done += total;
        if (expert < expert_count) {
            row_offset[expert] = start;
            for (int32_t w = 0; w < WARPS; w++) {
                const int32_t count = counts[w * expert_count + expert];
                counts[w * expert_count + expert] = start;
                start += count;
            }
        }
    }
    if (threadIdx.x == 0) {
        row_offset[expert_count] = done;
    }
    __syncthreads();
    number_chunk(counts, ids, choice_count, expert_count, position, row_source);
}

// chunk_count[chunk][expert]
static __global__ void __launch_bounds__(THREADS)
    plan_count(const int32_t *ids, int32_t choice_count, int32_t expert_count, int32_t *chunk_count)
{
    extern __shared__ __align__(16) unsigned char count_shared[];
    auto *counts = (int32_t *) count_shared;
    count_chunk(counts, ids, choice_count, expert_count);
    for (int32_t e = (int32_t) threadIdx.x; e < expert_count; e += THREADS) {
        int32_t rows = 0;
        for (int32_t w = 0; w < WARPS; w++) {
            rows += counts[w * expert_count + e];
        }
        chunk_count[(int64_t) blockIdx.x * expert_count + e] = rows;
    }
}

// Turns the counts into each chunk's first row of each expert. One block: a thread per expert walks
// over the chunks twice, in which neighbouring threads read neighbouring words.
static __global__ void __launch_bounds__(SCAN_THREADS)
    plan_scan(int32_t *chunk_count, int32_t chunks, int32_t expert_count, int32_t *row_offset)
{
    __shared__ int32_t warp_sums[SCAN_THREADS / 32];
    const int32_t expert = (int32_t) threadIdx.x;
    const bool mine = expert < expert_count;
    int32_t rows = 0;
    if (mine) {
#pragma unroll 8
        for (int32_t c = 0; c < chunks; c++) {
            rows += chunk_count[(int64_t) c * expert_count + expert];
        }
    }
    int32_t total = 0;
    int32_t start = sum_before(rows, warp_sums, &total);
    if (mine) {
        row_offset[expert] = start;
#pragma unroll 8
        for (int32_t c = 0; c < chunks; c++) {
            int32_t *at = chunk_count + (int64_t) c * expert_count + expert;
            const int32_t count = *at;
            *at = start;
            start += count;
        }
    }
    if (expert == 0) {
        row_offset[expert_count] = total;
    }
}

static __global__ void __launch_bounds__(THREADS)
    plan_number(const int32_t *ids, int32_t choice_count, int32_t expert_count,
                const int32_t *chunk_start, int32_t *position, int32_t *row_source)
{
    extern __shared__ __align__(16) unsigned char number_shared[];
    auto *counts = (int32_t *) number_shared;
    count_chunk(counts, ids, choice_count, expert_count);
    for (int32_t e = (int32_t) threadIdx.x; e < expert_count; e += THREADS) {
        int32_t start = chunk_start[(int64_t) blockIdx.x * expert_count + e];
        for (int32_t w = 0; w < WARPS; w++) {
            const int32_t count = counts[w * expert_count + e];
            counts[w * expert_count + e] = start;
            start += count;
        }
    }
    __syncthreads();
    number_chunk(counts, ids, choice_count, expert_count, position, row_source);
}

static int64_t chunk_total(const moe_permute_shape *shape)
{
    return launch_ceil((int64_t) shape->token_count * shape->top_k, CHUNK);
}

extern "C" size_t moe_permute_workspace_bytes(const struct moe_permute_shape *shape)
{
    return (size_t) chunk_total(shape) * (size_t) shape->expert_count * sizeof(int32_t);
}

extern "C" int moe_permute_plan(const struct moe_permute_shape *shape,
                                const int32_t *expert_ids_dev, int32_t *row_offset_dev,
                                int32_t *position_dev, int32_t *row_source_dev, void *workspace_dev,
                                void *stream)
{
    const auto to = (cudaStream_t) stream;
    if (shape->token_count < 1 || shape->top_k < 1 || shape->top_k > MOE_PERMUTE_TOP_K_LIMIT ||
        shape->expert_count < 1 || shape->expert_count > MOE_PERMUTE_EXPERT_LIMIT ||
        (int64_t) shape->token_count * shape->top_k > INT32_MAX - CHUNK ||
        !launch_is_aligned(expert_ids_dev, 4) || !launch_is_aligned(row_offset_dev, 4) ||
        !launch_is_aligned(position_dev, 4) || !launch_is_aligned(workspace_dev, 4)) {
        return (int) cudaErrorInvalidValue;
    }
    const int32_t choices = shape->token_count * shape->top_k;
    const int32_t experts = shape->expert_count;
    const auto chunks = (unsigned) chunk_total(shape);
    const size_t shared_bytes = (size_t) WARPS * (size_t) experts * sizeof(int32_t);
    auto *chunk_start = (int32_t *) workspace_dev;
    if (chunks == 1) {
        plan_small<<<1, THREADS, shared_bytes, to>>>(expert_ids_dev, choices, experts,
                                                     row_offset_dev, position_dev, row_source_dev);
        return (int) cudaGetLastError();
    }
    plan_count<<<chunks, THREADS, shared_bytes, to>>>(expert_ids_dev, choices, experts,
                                                      chunk_start);
    plan_scan<<<1, SCAN_THREADS, 0, to>>>(chunk_start, (int32_t) chunks, experts, row_offset_dev);
    plan_number<<<chunks, THREADS, shared_bytes, to>>>(expert_ids_dev, choices, experts,
                                                       chunk_start, position_dev, row_source_dev);
    return (int) cudaGetLastError();
}
