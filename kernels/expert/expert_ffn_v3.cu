// Version 3: wgmma fed by TMA. What it gains over version 2, and why:
//  - One thread does nothing but start bulk copies, four stages of 48 KiB ahead: 25 MB are on
//    their way to the chip at any time, several times what its latency asks for, so that
//    decode streams weights at the memory's rate. No thread spends registers on addresses.
//  - wgmma reads both operands from shared memory without passing registers, and four warps
//    share one instruction: twice the rate of mma.sync on this chip.
//  - Small tiles are computed turned (out^T = W x^T): tokens are the operand whose size may be any
//    multiple of 8, so a tile with 3 tokens pays for 8, not for 64 or 128. The choice is made per
//    tile, at run time, so a hot expert and a cold one share a launch.
//  - Gate and up of the same columns are summed by the same threads, so SwiGLU needs no
//    exchange, and mid is written once, in fp8 already quantised.
//  - Both GEMMs are one launch with one queue of tiles (expert_tiles.cuh): no multiprocessor rests
//    while the last tiles of the first GEMM end, and none starts cold on the second.
#include <cuda_runtime.h>

#include "kernels/expert/expert_consume.cuh"
#include "kernels/expert/expert_ffn_parts.h"

enum {
    THREADS = (CONSUMERS + 1) * WARPGROUP,
    PRODUCER = CONSUMERS * WARPGROUP, /* thread; the consumers' are those before it */
    PUBLISHER = PRODUCER + 32,
};

static __device__ __forceinline__ void load_weights(const moe_expert_v3_gemm &p,
                                                    const expert_tile &tile, bool gated,
                                                    uint32_t to, uint32_t barrier, int32_t depth)
{
    const int32_t column = tile.weight_tile * tile_columns(gated);
    const int32_t matrix = gated ? 2 * tile.expert : tile.expert;
    tma_load_3d(to, &p.w, barrier, depth, column, matrix);
    tma_load_3d(to + W_BOX_BYTES, &p.w, barrier, depth,
                gated ? column : column + MOE_V3_WEIGHT_ROWS, gated ? matrix + 1 : matrix);
}

// Asks for one tile, stage by stage. Weights are there from the start; x of the second GEMM only
// when `awaited` tiles of its expert are stored, 0 where it is known that they are. Where they are
// not yet, a ring's worth of weights is asked for first.
template <bool Fp8, bool Wide>
static __device__ __forceinline__ void load_tile(const moe_expert_v3_gemm &p, const int32_t *queue,
                                                 expert_shared<Wide> &sm, const expert_tile &tile,
                                                 bool gated, int32_t awaited, stage_ring<Wide> &at)
{
    constexpr int32_t STEP = Fp8 ? MOE_V3_ROW_BYTES : MOE_V3_ROW_BYTES / 2;
    constexpr uint32_t SCALE_BYTES = Fp8 ? MOE_V3_SCALE_BOX * sizeof(float) : 0;
    const int32_t steps = depth_steps(p.gemm, Fp8);
    const int32_t size = moe_token_tile_class(tile.row_count);
    const uint32_t bytes =
        W_BYTES + (uint32_t) moe_token_tile_rows(size) * MOE_V3_ROW_BYTES + SCALE_BYTES;
    const auto begin = [&](const stage_ring<Wide> &place, int32_t s) {
        const uint32_t barrier = shared_address(&sm.full[place.stage]);
        mbarrier_wait(shared_address(&sm.empty[place.stage]), place.parity ^ 1);
        mbarrier_arrive_expect(barrier, bytes);
        load_weights(p, tile, gated, shared_address(sm.stage[place.stage]), barrier, s * STEP);
    };
    int32_t ahead = 0;
    const int32_t which = QUEUE_EXPERT_STORED + tile.expert;
    if (awaited > 0 && expert_tiles_stored(queue, which) < awaited) {
        stage_ring<Wide> place = at;
        for (; ahead < min(steps, expert_block<Wide>::STAGES); ahead++) {
            begin(place, ahead);
            place.next();
        }
        while (expert_tiles_stored(queue, which) < awaited) {
            __nanosleep(50);
        }
    }
    if (tile.is_second) {
        copy_engine_fence();
    }
    for (int32_t s = 0; s < steps; s++) {
        const uint32_t barrier = shared_address(&sm.full[at.stage]);
        if (s >= ahead) {
            begin(at, s);
        }
        tma_load_2d(shared_address(sm.stage[at.stage]) + W_BYTES, &p.x[size], barrier, s * STEP,
                    tile.row);
        if (Fp8) {
            tma_load_2d(shared_address(sm.x_scale[at.stage]), &p.x_scale, barrier, tile.row / 4 * 4,
                        s);
        }
        at.next();
    }
}

// One thread: takes tiles, from `index` on, tells the other warps which, and brings them in.
template <bool Gated, bool Fp8, bool Wide>
static __device__ __forceinline__ void produce(const moe_expert_v3 &p, expert_shared<Wide> &sm,
                                               int32_t index)
{
    const int32_t expert_count = p.first.gemm.expert_count;
    const int32_t first_weight_tiles = moe_split_ceil(p.first.gemm.columns, tile_columns(Gated));
    const int32_t second_weight_tiles = moe_split_ceil(p.second.gemm.columns, tile_columns(false));
    const int32_t first_total = sm.row_tile_start[expert_count] * first_weight_tiles;
    const int32_t total = first_total + sm.row_tile_start[expert_count] * second_weight_tiles;
    int32_t expert = 0;
    bool is_second = false;
    bool is_stored = false; /* all of the first GEMM, so that nobody need be asked any more */
    stage_ring<Wide> at = { 0, 0 };
    tile_ring slot = { 0, 0 };
    for (;;) {
        expert_tile tile = {};
        if (index < total) {
            if (!is_second && index >= first_total) {
                is_second = true;
                expert = 0;
            }
            tile = expert_tile_find<Wide>(sm.row_tile_start, sm.split, sm.row_offset,
                                          is_second ? second_weight_tiles : first_weight_tiles,
                                          is_second ? index - first_total : index, &expert);
            tile.is_second = is_second;
        }
        mbarrier_wait(shared_address(&sm.tile_empty[slot.stage]), slot.parity ^ 1);
        sm.tile[slot.stage] = tile;
        mbarrier_arrive(shared_address(&sm.tile_full[slot.stage]));
        slot.next();
        if (tile.row_count == 0) {
            break;
        }
        const int32_t next = expert_tile_take(p.queue_dev); /* here long before it is used */
        is_stored = is_second &&
                    (is_stored || expert_tiles_stored(p.queue_dev, QUEUE_STORED) >= first_total);
        const int32_t row_tiles = sm.row_tile_start[expert + 1] - sm.row_tile_start[expert];
        const int32_t awaited = is_second && !is_stored ? row_tiles * first_weight_tiles : 0;
        load_tile<Fp8>(is_second ? p.second : p.first, p.queue_dev, sm, tile, Gated && !is_second,
                       awaited, at);
        index = next;
    }
    expert_tiles_finish(p.queue_dev, expert_count, first_total);
}

// One thread: says of each tile of the first GEMM that it is stored. A thread of its own, because
// stores take about a microsecond to be there for all, and the consumers have better to do.
template <bool Wide>
static __device__ __forceinline__ void publish(int32_t *queue, expert_shared<Wide> &sm)
{
    tile_ring slot = { 0, 0 };
    for (;;) {
        mbarrier_wait(shared_address(&sm.tile_full[slot.stage]), slot.parity);
        const int32_t expert = sm.tile[slot.stage].expert;
        const bool is_second = sm.tile[slot.stage].is_second;
        if (sm.tile[slot.stage].row_count == 0) {
            break;
        }
        mbarrier_wait(shared_address(&sm.tile_stored[slot.stage]), slot.parity);
        mbarrier_arrive(shared_address(&sm.tile_empty[slot.stage]));
        if (!is_second) {
            expert_tile_stored(queue, expert);
        }
        slot.next();
    }
}

template <bool Gated, bool Fp8, bool Wide>
static __device__ __forceinline__ void
consume_tile(const moe_expert_gemm &gemm, expert_shared<Wide> &sm, const expert_tile &tile,
             int32_t warpgroup, stage_ring<Wide> &at)
{
    const expert_output o = {
        gemm.out_dev,   gemm.out_scale_dev, gemm.scale_stride,     gemm.columns, tile.row,
        tile.row_count, warpgroup,          sm.staging[warpgroup], sm.exchange
    };
    switch (moe_token_tile_class(tile.row_count)) {
    case 0:
        consume_turned<8, Gated, Fp8>(gemm, sm, tile, o, at);
        break;
    case 1:
        consume_turned<16, Gated, Fp8>(gemm, sm, tile, o, at);
        break;
    case 2:
        consume_turned<32, Gated, Fp8>(gemm, sm, tile, o, at);
        break;
    case 3:
        consume_turned<64, Gated, Fp8>(gemm, sm, tile, o, at);
        break;
    case 4:
        consume_upright<Gated, Fp8>(gemm, sm, tile, o, at);
        break;
    default:
        if constexpr (Wide) {
            consume_turned<MOE_V3_WIDE_TILE, Gated, Fp8>(gemm, sm, tile, o, at);
        }
        break;
    }
}

template <bool Gated, bool Fp8, bool Wide>
static __device__ __forceinline__ void consume(const moe_expert_v3 &p, expert_shared<Wide> &sm,
                                               int32_t warpgroup)
{
    stage_ring<Wide> at = { 0, 0 };
    tile_ring slot = { 0, 0 };
    if (Fp8 && warpgroup == 1) {
        named_barrier_arrive(TURN_BARRIER, BOTH_WARPGROUPS); /* the first turn is the other's */
    }
    for (;;) {
        mbarrier_wait(shared_address(&sm.tile_full[slot.stage]), slot.parity);
        const expert_tile tile = sm.tile[slot.stage];
        mbarrier_arrive(shared_address(&sm.tile_empty[slot.stage]));
        if (tile.row_count == 0) {
            break;
        }
        if (Gated && !tile.is_second) {
            consume_tile<true, Fp8>(p.first.gemm, sm, tile, warpgroup, at);
        } else {
            consume_tile<false, Fp8>(tile.is_second ? p.second.gemm : p.first.gemm, sm, tile,
                                     warpgroup, at);
        }
        copy_engine_fence();
        mbarrier_arrive(shared_address(&sm.tile_stored[slot.stage]));
        slot.next();
    }
}

template <bool Fp8, bool Wide>
static __device__ __forceinline__ void init_barriers(expert_shared<Wide> &sm)
{
    for (int s = 0; s < expert_block<Wide>::STAGES; s++) {
        mbarrier_init(shared_address(&sm.full[s]), 1);
        mbarrier_init(shared_address(&sm.empty[s]), READERS<Fp8>);
    }
    for (int s = 0; s < TILE_SLOTS; s++) {
        mbarrier_init(shared_address(&sm.tile_full[s]), 1);
        mbarrier_init(shared_address(&sm.tile_stored[s]), CONSUMERS * WARPGROUP);
        mbarrier_init(shared_address(&sm.tile_empty[s]), CONSUMERS * WARPGROUP + 1);
    }
    mbarrier_init_fence();
}

/* So that the first copies do not wait for their maps. */
template <bool Fp8>
static __device__ __forceinline__ void tensor_maps_prefetch(const moe_expert_v3 &p)
{
    tensor_map_prefetch(&p.first.w);
    for (int c = 0; c < MOE_V3_TOKEN_TILE_COUNT; c++) {
        tensor_map_prefetch(&p.first.x[c]);
    }
    if (Fp8) {
        tensor_map_prefetch(&p.first.x_scale);
    }
    tensor_map_prefetch(&p.second.w);
}

template <bool Gated, bool Fp8, bool Wide>
static __global__ void __launch_bounds__(THREADS, 1)
    grouped_ffn(const __grid_constant__ moe_expert_v3 p)
{
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint8_t raw[];
    auto &sm = *(expert_shared<Wide> *) (raw + (1024 - shared_address(raw) % 1024) % 1024);
    const int32_t warpgroup = (int32_t) threadIdx.x / WARPGROUP;
    const int32_t expert_count = p.first.gemm.expert_count;
    int32_t first_tile = 0;
    if (threadIdx.x == PRODUCER) {
        first_tile = expert_tile_take(p.queue_dev); /* on its way while the tiles are counted */
    } else if (threadIdx.x == PUBLISHER) {
        tensor_maps_prefetch<Fp8>(p);
    } else if (threadIdx.x < BOTH_WARPGROUPS) {
        for (int32_t e = (int32_t) threadIdx.x; e <= expert_count; e += BOTH_WARPGROUPS) {
            sm.row_offset[e] = p.first.gemm.row_offset_dev[e];
        }
    }
    if (threadIdx.x == 0) {
        init_barriers<Fp8>(sm);
    }
    __syncthreads();
    if (threadIdx.x / 32 == 1) {
        expert_tiles_count<Wide>(sm.row_tile_start, sm.split, sm.row_offset, expert_count);
    }
    __syncthreads();
    if (warpgroup == CONSUMERS) {
        registers_give<Fp8 || Wide ? 40 : 56>();
        if (threadIdx.x == PRODUCER) {
            produce<Gated, Fp8>(p, sm, first_tile);
        } else if (threadIdx.x == PUBLISHER) {
            publish(p.queue_dev, sm);
        }
    } else {
        registers_take<Fp8 || Wide ? 232 : 224>();
        consume<Gated, Fp8>(p, sm, warpgroup);
    }
#endif
}

// Each block takes the whole shared memory of a multiprocessor, so one each is all that fits.
template <bool Gated, bool Fp8, bool Wide>
static int launch(const moe_expert_v3 *v3, cudaStream_t stream)
{
    constexpr size_t bytes = sizeof(expert_shared<Wide>) + 1024;
    static_assert(bytes <= 227 * 1024, "more than a multiprocessor has");
    int device = 0;
    int sm_count = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) {
        error = cudaDeviceGetAttribute(&sm_count, cudaDevAttrMultiProcessorCount, device);
    }
    if (error == cudaSuccess) {
        error = cudaFuncSetAttribute(grouped_ffn<Gated, Fp8, Wide>,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, (int) bytes);
    }
    if (error != cudaSuccess) {
        return (int) error;
    }
    grouped_ffn<Gated, Fp8, Wide><<<(unsigned) sm_count, THREADS, bytes, stream>>>(*v3);
    return (int) cudaGetLastError();
}

extern "C" int moe_expert_v3_run(const struct moe_expert_v3 *v3, void *stream)
{
    const auto s = (cudaStream_t) stream;
    const bool gated = v3->first.gemm.epilogue == MOE_EPILOGUE_SWIGLU;
    if (v3->first.gemm.dtype == MOE_EXPERT_FP8) {
        return gated ? launch<true, true, false>(v3, s) : launch<false, true, false>(v3, s);
    }
    if (v3->is_wide) {
        return gated ? launch<true, false, true>(v3, s) : launch<false, false, true>(v3, s);
    }
    return gated ? launch<true, false, false>(v3, s) : launch<false, false, false>(v3, s);
}
