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
//  - The second GEMM starts while the first drains: its first weights are on their way before
//    it waits for mid.
#include <cuda_runtime.h>

#include "kernels/expert_consume.cuh"
#include "kernels/expert_ffn_parts.h"

enum { THREADS = (CONSUMERS + 1) * WARPGROUP };

template <bool Gated>
static __device__ __forceinline__ void load_weights(const moe_expert_v3 &p, const expert_tile &tile,
                                                    uint32_t to, uint32_t barrier, int32_t depth)
{
    const int32_t column = tile.weight_tile * tile_columns(Gated);
    const int32_t matrix = Gated ? 2 * tile.expert : tile.expert;
    tma_load_3d(to, &p.w, barrier, depth, column, matrix, TMA_READ_SOME);
    tma_load_3d(to + W_BOX_BYTES, &p.w, barrier, depth,
                Gated ? column : column + MOE_V3_WEIGHT_ROWS, Gated ? matrix + 1 : matrix,
                TMA_READ_SOME);
}

// Asks for one tile, stage by stage. Weights do not depend on the launch before this one, tokens
// do: a block's first round of the ring asks for its weights, then waits for that launch,
// then asks for its tokens.
template <bool Gated, bool Fp8, bool Wide>
static __device__ __forceinline__ void load_tile(const moe_expert_v3 &p, expert_shared<Wide> &sm,
                                                 const expert_tile &tile, bool first,
                                                 stage_ring<Wide> &at)
{
    constexpr int32_t STEP = Fp8 ? MOE_V3_ROW_BYTES : MOE_V3_ROW_BYTES / 2;
    constexpr uint32_t SCALE_BYTES = Fp8 ? MOE_V3_SCALE_BOX * sizeof(float) : 0;
    const int32_t steps = depth_steps(p.gemm, Fp8);
    const int32_t size = moe_token_tile_class(tile.row_count);
    const uint32_t bytes =
        W_BYTES + (uint32_t) moe_token_tile_rows(size) * MOE_V3_ROW_BYTES + SCALE_BYTES;
    const int32_t ahead = first ? min(steps, expert_block<Wide>::STAGES) : 0;
    for (int32_t s = 0; s < ahead; s++) {
        const uint32_t barrier = shared_address(&sm.full[s]);
        mbarrier_arrive_expect(barrier, bytes);
        load_weights<Gated>(p, tile, shared_address(sm.stage[s]), barrier, s * STEP);
    }
    if (first) {
        wait_for_previous_launch();
    }
    for (int32_t s = 0; s < steps; s++) {
        const uint32_t barrier = shared_address(&sm.full[at.stage]);
        if (s >= ahead) {
            mbarrier_wait(shared_address(&sm.empty[at.stage]), at.parity ^ 1);
            mbarrier_arrive_expect(barrier, bytes);
            load_weights<Gated>(p, tile, shared_address(sm.stage[at.stage]), barrier, s * STEP);
        }
        tma_load_2d(shared_address(sm.stage[at.stage]) + W_BYTES, &p.x[size], barrier, s * STEP,
                    tile.row, TMA_READ_SOME);
        if (Fp8) {
            tma_load_2d(shared_address(sm.x_scale[at.stage]), &p.x_scale, barrier, tile.row / 4 * 4,
                        s, TMA_READ_SOME);
        }
        at.next();
    }
}

// One thread: takes tiles, tells the consumers which, and brings them in.
template <bool Gated, bool Fp8, bool Wide>
static __device__ __forceinline__ void produce(const moe_expert_v3 &p, expert_shared<Wide> &sm)
{
    const int32_t weight_tiles = moe_split_ceil(p.gemm.columns, tile_columns(Gated));
    const int32_t total = sm.row_tile_start[p.gemm.expert_count] * weight_tiles;
    int32_t expert = 0;
    stage_ring<Wide> at = { 0, 0 };
    tile_ring slot = { 0, 0 };
    bool first = true;
    for (int32_t index = (int32_t) blockIdx.x;;) {
        expert_tile tile = {};
        if (index < total) {
            tile = expert_tile_find<Wide>(sm.row_tile_start, sm.split, p.gemm.row_offset_dev,
                                          weight_tiles, index, &expert);
        }
        mbarrier_wait(shared_address(&sm.tile_empty[slot.stage]), slot.parity ^ 1);
        sm.tile[slot.stage] = tile;
        mbarrier_arrive(shared_address(&sm.tile_full[slot.stage]));
        slot.next();
        if (tile.row_count == 0) {
            break;
        }
        const int32_t next = expert_tile_take(p.gemm.counter_dev); /* here long before it is used */
        load_tile<Gated, Fp8, Wide>(p, sm, tile, first, at);
        first = false;
        index = next;
    }
    expert_tiles_finish(p.gemm.counter_dev);
}

template <bool Gated, bool Fp8, bool Wide>
static __device__ __forceinline__ void consume(const moe_expert_gemm &gemm, expert_shared<Wide> &sm,
                                               int32_t warpgroup)
{
    expert_output o = { gemm.out_dev, gemm.out_scale_dev,    gemm.scale_stride, gemm.columns, 0, 0,
                        warpgroup,    sm.staging[warpgroup], sm.exchange };
    stage_ring<Wide> at = { 0, 0 };
    tile_ring slot = { 0, 0 };
    if (Fp8 && warpgroup == 1) {
        named_barrier_arrive(TURN_BARRIER, BOTH_WARPGROUPS); /* the first turn is the other's */
    }
    for (;;) {
        mbarrier_wait(shared_address(&sm.tile_full[slot.stage]), slot.parity);
        const expert_tile tile = sm.tile[slot.stage];
        mbarrier_arrive(shared_address(&sm.tile_empty[slot.stage]));
        slot.next();
        if (tile.row_count == 0) {
            break;
        }
        o.row = tile.row;
        o.row_count = tile.row_count;
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
}

template <bool Gated, bool Fp8, bool Wide>
static __global__ void __launch_bounds__(THREADS, 1)
    grouped_gemm(const __grid_constant__ moe_expert_v3 p)
{
#if __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint8_t raw[];
    auto &sm = *(expert_shared<Wide> *) (raw + (1024 - shared_address(raw) % 1024) % 1024);
    const int32_t warpgroup = (int32_t) threadIdx.x / WARPGROUP;
    allow_next_launch();
    if (threadIdx.x == 0) {
        for (int s = 0; s < expert_block<Wide>::STAGES; s++) {
            mbarrier_init(shared_address(&sm.full[s]), 1);
            mbarrier_init(shared_address(&sm.empty[s]), CONSUMERS);
        }
        for (int s = 0; s < TILE_SLOTS; s++) {
            mbarrier_init(shared_address(&sm.tile_full[s]), 1);
            mbarrier_init(shared_address(&sm.tile_empty[s]), CONSUMERS * WARPGROUP);
        }
        mbarrier_init_fence();
    } else if (threadIdx.x / 32 == 1) {
        expert_tiles_count<Wide>(sm.row_tile_start, sm.split, p.gemm.row_offset_dev,
                                 p.gemm.expert_count);
    }
    __syncthreads();
    if (warpgroup == CONSUMERS) {
        registers_give<40>();
        if (threadIdx.x == CONSUMERS * WARPGROUP) {
            produce<Gated, Fp8>(p, sm);
        }
    } else {
        registers_take<232>();
        consume<Gated, Fp8>(p.gemm, sm, warpgroup);
    }
#endif
}

// Each block takes the whole shared memory of a multiprocessor, so one each is all that fits.
template <bool Gated, bool Fp8, bool Wide>
static int launch(const moe_expert_v3 *v3, int second, cudaStream_t stream)
{
    const size_t bytes = sizeof(expert_shared<Wide>) + 1024;
    int device = 0;
    int sm_count = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) {
        error = cudaDeviceGetAttribute(&sm_count, cudaDevAttrMultiProcessorCount, device);
    }
    if (error == cudaSuccess) {
        error = cudaFuncSetAttribute(grouped_gemm<Gated, Fp8, Wide>,
                                     cudaFuncAttributeMaxDynamicSharedMemorySize, (int) bytes);
    }
    if (error != cudaSuccess) {
        return (int) error;
    }
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned) sm_count);
    config.blockDim = dim3((unsigned) THREADS);
    config.dynamicSmemBytes = bytes;
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = second ? 1 : 0;
    return (int) cudaLaunchKernelEx(&config, grouped_gemm<Gated, Fp8, Wide>, *v3);
}

extern "C" int moe_expert_v3_run(const struct moe_expert_v3 *v3, int second, void *stream)
{
    const auto s = (cudaStream_t) stream;
    const bool gated = v3->gemm.epilogue == MOE_EPILOGUE_SWIGLU;
    if (v3->gemm.dtype == MOE_EXPERT_FP8) {
        return gated ? launch<true, true, false>(v3, second, s)
                     : launch<false, true, false>(v3, second, s);
    }
    if (v3->gemm.is_wide) {
        return gated ? launch<true, false, true>(v3, second, s)
                     : launch<false, false, true>(v3, second, s);
    }
    return gated ? launch<true, false, false>(v3, second, s)
                 : launch<false, false, false>(v3, second, s);
}
