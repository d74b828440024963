// What each version gains is said in stream.h. Tiles of a block follow each other at a distance of
// the whole grid, so that at any moment all SMs together walk over one stretch of memory.
#include "kernels/memory/stream.h"

#include "kernels/instruction/bulk_copy.cuh"
#include "kernels/instruction/global_access.cuh"
#include "kernels/instruction/launch.cuh"

enum {
    THREADS = 256,
    UNROLL = 8,
    TILE_CHUNKS = THREADS * UNROLL, // of 16 bytes
    BULK_BYTES = 192 * 1024,        // in flight per SM
    READ_WARPS = 8,                 // that add up what the copy engine brings
    SINGLE_THREADS = 128,           // of a block whose threads have one access each
};

// A tile's chunks of one thread. All loads are issued before the first is used: written without a
// bound the compiler keeps them together.
static __device__ __forceinline__ void load_tile(uint4 *v, const uint4 *src, int64_t first,
                                                 int64_t count)
{
    if (first + TILE_CHUNKS <= count) {
#pragma unroll
        for (int j = 0; j < UNROLL; j++) {
            v[j] = load_once(src + first + j * THREADS + threadIdx.x);
        }
    } else {
#pragma unroll
        for (int j = 0; j < UNROLL; j++) {
            const int64_t i = first + j * THREADS + threadIdx.x;
            v[j] = i < count ? load_once(src + i) : make_uint4(0, 0, 0, 0);
        }
    }
}

static __device__ __forceinline__ void store_tile(uint4 *dst, const uint4 *v, int64_t first,
                                                  int64_t count)
{
    if (first + TILE_CHUNKS <= count) {
#pragma unroll
        for (int j = 0; j < UNROLL; j++) {
            store_once(dst + first + j * THREADS + threadIdx.x, v[j]);
        }
    } else {
#pragma unroll
        for (int j = 0; j < UNROLL; j++) {
            const int64_t i = first + j * THREADS + threadIdx.x;
            if (i < count) {
                store_once(dst + i, v[j]);
            }
        }
    }
}

static __device__ __forceinline__ uint32_t word_sum(uint4 v)
{
    return v.x + v.y + v.z + v.w;
}

// Adds up the warp's words; every warp adds its own sum.
static __device__ __forceinline__ void add_sum(uint32_t *sum, uint32_t mine)
{
    for (int step = 16; step > 0; step /= 2) {
        mine += __shfl_xor_sync(0xffffffffU, mine, step);
    }
    if (threadIdx.x % 32 == 0) {
        atomicAdd(sum + (blockIdx.x + threadIdx.x / 32) % MOE_STREAM_SUM_COUNT, mine);
    }
}

static __global__ void read_v1(uint32_t *sum, const uint4 *src, int64_t count)
{
    const int64_t stride = (int64_t) gridDim.x * blockDim.x;
    uint32_t mine = 0;
#pragma unroll 1
    for (int64_t i = (int64_t) blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        mine += word_sum(src[i]);
    }
    add_sum(sum, mine);
}

static __global__ void write_v1(uint4 *dst, uint4 value, int64_t count)
{
    const int64_t stride = (int64_t) gridDim.x * blockDim.x;
#pragma unroll 1
    for (int64_t i = (int64_t) blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        dst[i] = value;
    }
}

static __global__ void copy_v1(uint4 *dst, const uint4 *src, int64_t count)
{
    const int64_t stride = (int64_t) gridDim.x * blockDim.x;
#pragma unroll 1
    for (int64_t i = (int64_t) blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        dst[i] = src[i];
    }
}

// Version 2 and 3 differ in the grid alone.
static __global__ void __launch_bounds__(THREADS)
    read_v2(uint32_t *sum, const uint4 *src, int64_t count)
{
    uint32_t mine = 0;
    for (int64_t first = (int64_t) blockIdx.x * TILE_CHUNKS; first < count;
         first += (int64_t) gridDim.x * TILE_CHUNKS) {
        uint4 v[UNROLL];
        load_tile(v, src, first, count);
#pragma unroll
        for (int j = 0; j < UNROLL; j++) {
            mine += word_sum(v[j]);
        }
    }
    add_sum(sum, mine);
}

static __global__ void __launch_bounds__(THREADS) write_v2(uint4 *dst, uint4 value, int64_t count)
{
    const uint4 v[UNROLL] = { value, value, value, value, value, value, value, value };
    for (int64_t first = (int64_t) blockIdx.x * TILE_CHUNKS; first < count;
         first += (int64_t) gridDim.x * TILE_CHUNKS) {
        store_tile(dst, v, first, count);
    }
}

static __global__ void __launch_bounds__(THREADS)
    copy_v2(uint4 *dst, const uint4 *src, int64_t count)
{
    for (int64_t first = (int64_t) blockIdx.x * TILE_CHUNKS; first < count;
         first += (int64_t) gridDim.x * TILE_CHUNKS) {
        uint4 v[UNROLL];
        load_tile(v, src, first, count);
        store_tile(dst, v, first, count);
    }
}

// Version 6: blocks as small as this and as many as there are chunks. Their order over memory is
// the hardware scheduler's.
static __global__ void __launch_bounds__(SINGLE_THREADS)
    write_single(uint4 *dst, uint4 value, int64_t count)
{
    const int64_t i = (int64_t) blockIdx.x * SINGLE_THREADS + threadIdx.x;
    if (i < count) {
        dst[i] = value;
    }
}

static __global__ void __launch_bounds__(SINGLE_THREADS)
    copy_single(uint4 *dst, const uint4 *src, int64_t count)
{
    const int64_t i = (int64_t) blockIdx.x * SINGLE_THREADS + threadIdx.x;
    if (i < count) {
        dst[i] = src[i];
    }
}

static __device__ __forceinline__ uint32_t tile_bytes(int64_t tile, int64_t bytes, int size)
{
    return (uint32_t) min((int64_t) size, bytes - tile * size);
}

// One thread per SM. A stage is free again once the store that empties it has read it, which is
// waited for only when two younger stores are under way.
template <int Size, bulk_reuse Reuse>
static __global__ void __launch_bounds__(32)
    copy_bulk(unsigned char *dst, const unsigned char *src, int64_t bytes)
{
    constexpr int STAGES = BULK_BYTES / Size;
    constexpr int STORES = STAGES > 3 ? 2 : 1;
    extern __shared__ __align__(128) unsigned char stages[];
    __shared__ uint64_t full[STAGES];
    const int64_t tiles = (bytes + Size - 1) / Size;
    const int64_t mine = (tiles - blockIdx.x + gridDim.x - 1) / gridDim.x;
    if (threadIdx.x != 0) {
        return;
    }
    for (int s = 0; s < STAGES; s++) {
        bulk_barrier_init(full + s, 1);
    }
    bulk_barrier_init_fence();
    const auto load = [&](int64_t i) {
        const int64_t tile = blockIdx.x + i * gridDim.x;
        const int s = (int) (i % STAGES);
        bulk_load(stages + s * Size, src + tile * Size, tile_bytes(tile, bytes, Size), full + s,
                  Reuse);
    };
    for (int64_t i = 0; i < min(mine, (int64_t) STAGES - STORES); i++) {
        load(i);
    }
    for (int64_t i = 0; i < mine; i++) {
        const int64_t tile = blockIdx.x + i * gridDim.x;
        const int s = (int) (i % STAGES);
        bulk_barrier_wait(full + s, (uint32_t) (i / STAGES) & 1);
        bulk_store(dst + tile * Size, stages + s * Size, tile_bytes(tile, bytes, Size), Reuse);
        bulk_commit();
        bulk_wait_read<STORES>();
        if (i + STAGES - STORES < mine) {
            load(i + STAGES - STORES);
        }
    }
    bulk_wait_all();
}

// One tile of the word is all there is in shared memory: it is written over and over.
template <int Size, bulk_reuse Reuse>
static __global__ void __launch_bounds__(THREADS)
    write_bulk(unsigned char *dst, uint4 value, int64_t bytes)
{
    extern __shared__ __align__(128) unsigned char tile_of_words[];
    const int64_t tiles = (bytes + Size - 1) / Size;
    for (int i = threadIdx.x; i < Size / 16; i += THREADS) {
        ((uint4 *) tile_of_words)[i] = value;
    }
    bulk_fence();
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            bulk_store(dst + tile * Size, tile_of_words, tile_bytes(tile, bytes, Size), Reuse);
            bulk_commit();
        }
        bulk_wait_all();
    }
}

// Warp 0 has the copy engine fill the stages, the others add up what came.
template <int Size, bulk_reuse Reuse>
static __global__ void __launch_bounds__(32 + 32 * READ_WARPS)
    read_bulk(uint32_t *sum, const unsigned char *src, int64_t bytes)
{
    constexpr int STAGES = BULK_BYTES / Size;
    extern __shared__ __align__(128) unsigned char read_stages[];
    __shared__ uint64_t full[STAGES];
    __shared__ uint64_t empty[STAGES];
    const int64_t tiles = (bytes + Size - 1) / Size;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            bulk_barrier_init(full + s, 1);
            bulk_barrier_init(empty + s, READ_WARPS);
        }
        bulk_barrier_init_fence();
    }
    __syncthreads();
    int64_t i = 0;
    uint32_t mine = 0;
    for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x, i++) {
        const int s = (int) (i % STAGES);
        const uint32_t round = (uint32_t) (i / STAGES);
        const uint32_t now = tile_bytes(tile, bytes, Size);
        if (threadIdx.x == 0) {
            if (round > 0) {
                bulk_barrier_wait(empty + s, (round - 1) & 1);
            }
            bulk_load(read_stages + s * Size, src + tile * Size, now, full + s, Reuse);
        } else if (threadIdx.x >= 32) {
            bulk_barrier_wait(full + s, round & 1);
            const auto *words = (const uint4 *) (read_stages + s * Size);
            for (uint32_t c = threadIdx.x - 32; c < now / 16; c += 32 * READ_WARPS) {
                mine += word_sum(words[c]);
            }
            __syncwarp();
            if (threadIdx.x % 32 == 0) {
                bulk_barrier_arrive(empty + s);
            }
        }
    }
    __syncwarp();
    add_sum(sum, mine);
}

// How many blocks: all that fit the GPU at once, or one per tile, and never more than tiles.
template <typename Kernel>
static cudaError_t grid_for(Kernel kernel, int threads, int shared_bytes, int64_t tiles,
                            int one_each, unsigned *grid)
{
    launch_device device;
    int per_sm = 0;
    cudaError_t code = launch_device_read(&device);
    if (code == cudaSuccess) {
        code = launch_prepare(kernel, threads, shared_bytes, &per_sm);
    }
    if (code == cudaSuccess) {
        const int64_t most = one_each ? INT32_MAX : (int64_t) device.sm_count * per_sm;
        *grid = (unsigned) launch_least(tiles, most);
    }
    return code;
}

static cudaError_t refuse(const void *a, const void *b, int64_t bytes, int version,
                          int version_count)
{
    launch_device device;
    if (bytes < 16 || bytes % 16 != 0 || !launch_is_aligned(a, 16) || !launch_is_aligned(b, 16) ||
        version < 1 || version > version_count) {
        return cudaErrorInvalidValue;
    }
    const cudaError_t code = launch_device_read(&device);
    const int bulk = version == 4 || version == 5;
    return code == cudaSuccess && bulk && device.capability < 90 ? cudaErrorNotSupported : code;
}

// Kernels of one operation; all take (to, from, count), a word in place of one of them.
template <typename Chunks, typename Bytes> struct versions {
    Chunks plain;
    Chunks unrolled;
    Bytes small;
    Bytes large;
    Chunks single;
    int threads; // of the bulk kernels
    int shared_small;
    int shared_large;
};

template <typename Chunks, typename Bytes, typename LaunchChunks, typename LaunchBytes>
static cudaError_t run(const versions<Chunks, Bytes> &v, int version, int64_t bytes,
                       LaunchChunks launch_chunks, LaunchBytes launch_bytes)
{
    unsigned grid = 0;
    cudaError_t code;
    if (version <= 3 || version == 6) {
        const Chunks kernel = version == 1 ? v.plain : version == 6 ? v.single : v.unrolled;
        const int threads = version == 6 ? SINGLE_THREADS : THREADS;
        const int64_t tile = version == 1 || version == 6 ? threads : TILE_CHUNKS;
        code = grid_for(kernel, threads, 0, launch_ceil(bytes / 16, tile),
                        version == 3 || version == 6, &grid);
        if (code == cudaSuccess) {
            launch_chunks(kernel, grid, threads);
        }
    } else {
        const Bytes kernel = version == 4 ? v.small : v.large;
        const int size = version == 4 ? 16 * 1024 : 64 * 1024;
        const int shared_bytes = version == 4 ? v.shared_small : v.shared_large;
        code = grid_for(kernel, v.threads, shared_bytes, launch_ceil(bytes, size), 0, &grid);
        if (code == cudaSuccess) {
            launch_bytes(kernel, grid, shared_bytes);
        }
    }
    return code == cudaSuccess ? cudaGetLastError() : code;
}

extern "C" int moe_stream_read(uint32_t *sum_dev, const void *src_dev, int64_t bytes, int version,
                               void *stream)
{
    static const versions<void (*)(uint32_t *, const uint4 *, int64_t),
                          void (*)(uint32_t *, const unsigned char *, int64_t)>
        kernels = { read_v1,
                    read_v2,
                    read_bulk<16 * 1024, BULK_EVICT_NORMAL>,
                    read_bulk<64 * 1024, BULK_EVICT_FIRST>,
                    nullptr,
                    32 + 32 * READ_WARPS,
                    BULK_BYTES,
                    BULK_BYTES };
    const auto to = (cudaStream_t) stream;
    const cudaError_t code =
        refuse(src_dev, src_dev, bytes, version, MOE_STREAM_READ_VERSION_COUNT);
    if (code != cudaSuccess || !launch_is_aligned(sum_dev, 4)) {
        return (int) (code != cudaSuccess ? code : cudaErrorInvalidValue);
    }
    return (int) run(
        kernels, version, bytes,
        [=](auto kernel, unsigned grid, int threads) {
            kernel<<<grid, threads, 0, to>>>(sum_dev, (const uint4 *) src_dev, bytes / 16);
        },
        [=](auto kernel, unsigned grid, int shared_bytes) {
            kernel<<<grid, 32 + 32 * READ_WARPS, shared_bytes, to>>>(
                sum_dev, (const unsigned char *) src_dev, bytes);
        });
}

extern "C" int moe_stream_write(void *dst_dev, uint32_t word, int64_t bytes, int version,
                                void *stream)
{
    static const versions<void (*)(uint4 *, uint4, int64_t),
                          void (*)(unsigned char *, uint4, int64_t)>
        kernels = { write_v1,
                    write_v2,
                    write_bulk<16 * 1024, BULK_EVICT_NORMAL>,
                    write_bulk<64 * 1024, BULK_EVICT_FIRST>,
                    write_single,
                    THREADS,
                    16 * 1024,
                    64 * 1024 };
    const auto to = (cudaStream_t) stream;
    const uint4 value = make_uint4(word, word, word, word);
    const cudaError_t code = refuse(dst_dev, dst_dev, bytes, version, MOE_STREAM_VERSION_COUNT);
    if (code != cudaSuccess) {
        return (int) code;
    }
    return (int) run(
        kernels, version, bytes,
        [=](auto kernel, unsigned grid, int threads) {
            kernel<<<grid, threads, 0, to>>>((uint4 *) dst_dev, value, bytes / 16);
        },
        [=](auto kernel, unsigned grid, int shared_bytes) {
            kernel<<<grid, THREADS, shared_bytes, to>>>((unsigned char *) dst_dev, value, bytes);
        });
}

extern "C" int moe_stream_copy(void *dst_dev, const void *src_dev, int64_t bytes, int version,
                               void *stream)
{
    static const versions<void (*)(uint4 *, const uint4 *, int64_t),
                          void (*)(unsigned char *, const unsigned char *, int64_t)>
        kernels = { copy_v1,
                    copy_v2,
                    copy_bulk<16 * 1024, BULK_EVICT_NORMAL>,
                    copy_bulk<64 * 1024, BULK_EVICT_FIRST>,
                    copy_single,
                    32,
                    BULK_BYTES,
                    BULK_BYTES };
    const auto to = (cudaStream_t) stream;
    const cudaError_t code = refuse(dst_dev, src_dev, bytes, version, MOE_STREAM_VERSION_COUNT);
    if (code != cudaSuccess) {
        return (int) code;
    }
    return (int) run(
        kernels, version, bytes,
        [=](auto kernel, unsigned grid, int threads) {
            kernel<<<grid, threads, 0, to>>>((uint4 *) dst_dev, (const uint4 *) src_dev,
                                             bytes / 16);
        },
        [=](auto kernel, unsigned grid, int shared_bytes) {
            kernel<<<grid, 32, shared_bytes, to>>>((unsigned char *) dst_dev,
                                                   (const unsigned char *) src_dev, bytes);
        });
}
