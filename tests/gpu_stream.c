/* Read, write and copy against their CPU twins, to the bit, in all versions. Sizes lie around one
 * access, one tile of each version and several rounds of the whole GPU; the bytes behind the last
 * one must stay as they were. */
#include <inttypes.h>

#include "kernels/memory/stream.h"
#include "kernels/reference/reference_stream.h"
#include "tests/gpu_case.h"

enum { BYTES_MAX = 64 << 20, GUARD = 64 };

static const int64_t TILE = 64 << 10;

static unsigned char *src;
static unsigned char *expected;
static unsigned char *found;
static unsigned char *src_dev;
static unsigned char *dst_dev;
static uint32_t *sum_dev;

static uint32_t total(const uint32_t *sums)
{
    uint32_t sum = 0;
    for (int i = 0; i < MOE_STREAM_SUM_COUNT; i++) {
        sum += sums[i];
    }
    return sum;
}

static void compare(const char *what, int64_t bytes, int version)
{
    gpu_download(found, dst_dev, (size_t) bytes + GUARD, what);
    const int equal = memcmp(found, expected, (size_t) bytes + GUARD) == 0;
    for (int64_t i = 0; !equal && i < bytes + GUARD; i++) {
        gpu_require(found[i] == expected[i],
                    "%s version %d of %" PRId64 " bytes: byte %" PRId64 " is %d, its twin says %d",
                    what, version, bytes, i, found[i], expected[i]);
    }
}

/* Twice, so that adding is told from setting. */
static void check_read(int64_t bytes, int version)
{
    uint32_t sums[MOE_STREAM_SUM_COUNT] = { 0 };
    gpu_demand((int) cudaMemset(sum_dev, 0, sizeof sums), "cudaMemset");
    for (int i = 0; i < 2; i++) {
        gpu_demand(moe_stream_read(sum_dev, src_dev, bytes, version, NULL), "moe_stream_read");
    }
    gpu_download(sums, sum_dev, sizeof sums, "moe_stream_read");
    const uint32_t twin = 2 * moe_reference_stream_read(src, bytes);
    gpu_require(total(sums) == twin,
                "read version %d of %" PRId64 " bytes: sum %" PRIu32 ", its twin says %" PRIu32,
                version, bytes, total(sums), twin);
}

static void check(int64_t bytes, int version)
{
    if (version <= MOE_STREAM_READ_VERSION_COUNT) {
        check_read(bytes, version);
    }
    memset(expected, GPU_POISON, (size_t) bytes + GUARD);
    gpu_poison(dst_dev, (size_t) bytes + GUARD);
    moe_reference_stream_write(expected, 0x12345678, bytes);
    gpu_demand(moe_stream_write(dst_dev, 0x12345678, bytes, version, NULL), "moe_stream_write");
    compare("write", bytes, version);

    memset(expected, GPU_POISON, (size_t) bytes + GUARD);
    gpu_poison(dst_dev, (size_t) bytes + GUARD);
    moe_reference_stream_copy(expected, src, bytes);
    gpu_demand(moe_stream_copy(dst_dev, src_dev, bytes, version, NULL), "moe_stream_copy");
    compare("copy", bytes, version);
}

static void check_refusals(void)
{
    const int bad = (int) cudaErrorInvalidValue;
    gpu_require(moe_stream_copy(dst_dev, src_dev, 8, 1, NULL) == bad, "8 bytes are copied");
    gpu_require(moe_stream_copy(dst_dev, src_dev, 24, 1, NULL) == bad, "24 bytes are copied");
    gpu_require(moe_stream_copy(dst_dev, src_dev + 8, 16, 1, NULL) == bad, "unaligned source");
    gpu_require(moe_stream_copy(dst_dev, NULL, 16, 1, NULL) == bad, "no source");
    gpu_require(moe_stream_copy(dst_dev, src_dev, 16, 0, NULL) == bad, "version 0");
    gpu_require(moe_stream_write(dst_dev, 1, 16, MOE_STREAM_VERSION_COUNT + 1, NULL) == bad,
                "a version too many");
    gpu_require(moe_stream_read(NULL, src_dev, 16, 1, NULL) == bad, "no sum");
    gpu_require(moe_stream_read(sum_dev, src_dev, 16, MOE_STREAM_READ_VERSION_COUNT + 1, NULL) ==
                    bad,
                "a version of read too many");
}

int main(int argc, char **argv)
{
    const int64_t sizes[] = {
        16,
        32,
        2048,
        2064,
        TILE / 4 - 16,
        TILE / 4,
        TILE / 2 + 16,
        TILE,
        TILE + 16,
        13 * TILE,
        997 * INT64_C(64),
        (16 << 20) + 48,
        BYTES_MAX,
    };
    const int small = gpu_begin(argc, argv);
    const uint64_t key = moe_random_key(1, MOE_RANDOM_TEST);
    src = gpu_host(BYTES_MAX);
    expected = gpu_host(BYTES_MAX + GUARD);
    found = gpu_host(BYTES_MAX + GUARD);
    for (size_t i = 0; i < BYTES_MAX; i += 8) {
        const uint64_t bits = moe_random_bits(key, i);
        memcpy(src + i, &bits, sizeof bits);
    }
    src_dev = gpu_upload(src, BYTES_MAX);
    dst_dev = gpu_alloc(BYTES_MAX + GUARD);
    sum_dev = gpu_alloc(MOE_STREAM_SUM_COUNT * sizeof *sum_dev);
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        for (int version = 1; version <= MOE_STREAM_VERSION_COUNT; version++) {
            /* The largest size once per way of moving is enough to wrap every ring. */
            if (small ? sizes[s] <= 13 * TILE : sizes[s] < BYTES_MAX || version >= 3) {
                check(sizes[s], version);
            }
        }
    }
    check_refusals();
    gpu_free_all((void *[]){ src_dev, dst_dev, sum_dev }, 3, (void *[]){ src, expected, found }, 3);
    return EXIT_SUCCESS;
}
