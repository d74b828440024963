/*
 * Which tile a persistent block does next. The tiles of both GEMMs stand in one queue, the first
 * GEMM's before the second's, each expert by expert; within an expert the row tiles of one block
 * of weights follow each other, so that the blocks that run at the same time share that weight
 * block in the L2 cache. An expert without rows has none. Blocks take the next tile that is left,
 * since tiles differ in size, and a fixed division would give some blocks all the large ones.
 *
 * A tile of the second GEMM waits until all tiles of its expert in the first are stored. This
 * always ends: a block does its tiles in the order of the queue, so the earliest tile of the queue
 * that is not done waits for none that is not done. That holds however many blocks are running,
 * since no tile, not even a block's first, belongs to one that has not started.
 */
#ifndef MOE_KERNELS_EXPERT_TILES_CUH
#define MOE_KERNELS_EXPERT_TILES_CUH

#include <stdint.h>

#include "kernels/expert/expert_ffn_parts.h"
#include "kernels/expert/expert_split.h"

struct alignas(16) expert_tile {
    int32_t expert;
    int32_t weight_tile;
    int32_t row;       /* first row of x */
    int32_t row_count; /* 0 behind the last tile */
    int32_t is_second; /* of the second GEMM */
};

/* row_tile_start[expert_count + 1], row tiles of the experts before each, and in the wide launch
 * split[expert_count]: filled by one full warp. All in shared memory, row_offset too: read from
 * global memory here, 32 experts at a time, the rows of 256 experts would cost eight of its
 * latencies before the first weight is asked for. */
template <bool Wide>
static __device__ __forceinline__ void
expert_tiles_count(int32_t *row_tile_start, moe_expert_split *split, const int32_t *row_offset,
                   int32_t expert_count)
{
    const int32_t lane = (int32_t) threadIdx.x % 32;
    int32_t total = 0;
    for (int32_t first = 0; first < expert_count; first += 32) {
        const int32_t expert = first + lane;
        int32_t tiles = 0;
        if (expert < expert_count) {
            const int32_t rows = row_offset[expert + 1] - row_offset[expert];
            int32_t clocks;
            const moe_expert_split own =
                Wide ? moe_expert_split_wide(rows, &clocks) : moe_expert_split_narrow(rows);
            tiles = own.tile_count;
            if (Wide) {
                split[expert] = own;
            }
        }
        int32_t sum = tiles; /* of this lane and those below */
        for (int32_t step = 1; step < 32; step *= 2) {
            const int32_t below = __shfl_up_sync(0xffffffffU, sum, (unsigned) step);
            sum += lane >= step ? below : 0;
        }
        if (expert < expert_count) {
            row_tile_start[expert] = total + sum - tiles;
        }
        total += __shfl_sync(0xffffffffU, sum, 31);
    }
    if (lane == 0) {
        row_tile_start[expert_count] = total;
    }
}

/* Moves `expert` on to the owner of tile `index` of one GEMM, which must be below the total; each
 * row tile meets weight_tiles blocks of weights. */
template <bool Wide>
static __device__ __forceinline__ expert_tile expert_tile_find(const int32_t *row_tile_start,
                                                               const moe_expert_split *split_of,
                                                               const int32_t *row_offset,
                                                               int32_t weight_tiles, int32_t index,
                                                               int32_t *expert)
{
    while (row_tile_start[*expert + 1] * weight_tiles <= index) {
        ++*expert;
    }
    const int32_t first_row = row_offset[*expert];
    const int32_t rows = row_offset[*expert + 1] - first_row;
    const moe_expert_split split = Wide ? split_of[*expert] : moe_expert_split_narrow(rows);
    const int32_t inside = index - row_tile_start[*expert] * weight_tiles;
    const int32_t row_tile = inside % split.tile_count;
    const int32_t narrow = max(row_tile - split.wide_count, 0); /* of the tiles before this one */
    const int32_t before = (row_tile - narrow) * MOE_V3_WIDE_TILE + narrow * MOE_V3_TOKEN_TILE_MOST;
    const int32_t size = row_tile < split.wide_count ? MOE_V3_WIDE_TILE : MOE_V3_TOKEN_TILE_MOST;
    return { *expert, inside / split.tile_count, first_row + before, min(size, rows - before), 0 };
}

/* The queue in memory, all zero between launches: how many tiles are taken, how many blocks are
 * finished, how many tiles of the first GEMM are stored, and of each expert how many. */
enum { QUEUE_TAKEN, QUEUE_FINISHED, QUEUE_STORED, QUEUE_EXPERT_STORED };
static_assert(QUEUE_EXPERT_STORED == (int) MOE_V3_QUEUE_TOTALS, "the host allocates the queue");

static __device__ __forceinline__ int32_t expert_tile_take(int32_t *queue)
{
    return atomicAdd(queue + QUEUE_TAKEN, 1);
}

/* A tile of the first GEMM, as far as this thread knows of its stores, is stored for all who see it
 * counted; and who sees it counted among all finds it counted for its expert. */
static __device__ __forceinline__ void expert_tile_stored(int32_t *queue, int32_t expert)
{
    __threadfence();
    atomicAdd(queue + QUEUE_EXPERT_STORED + expert, 1);
    __threadfence();
    atomicAdd(queue + QUEUE_STORED, 1);
}

/* Tiles stored of all experts, or with QUEUE_EXPERT_STORED + expert of one. */
static __device__ __forceinline__ int32_t expert_tiles_stored(const int32_t *queue, int32_t which)
{
    int32_t count;
    asm volatile("ld.acquire.gpu.global.s32 %0, [%1];"
                 : "=r"(count)
                 : "l"(queue + which)
                 : "memory");
    return count;
}

/* Once per block, when it has taken and waited for the last time: the last block of the launch sets
 * the queue back, when nobody is left who would add to it. */
static __device__ __forceinline__ void expert_tiles_finish(int32_t *queue, int32_t expert_count,
                                                           int32_t first_total)
{
    __threadfence();
    if (atomicAdd(queue + QUEUE_FINISHED, 1) == (int32_t) gridDim.x - 1) {
        while (expert_tiles_stored(queue, QUEUE_STORED) < first_total) {
        }
        for (int32_t i = 0; i < QUEUE_EXPERT_STORED + expert_count; i++) {
            queue[i] = 0;
        }
    }
}

#endif
