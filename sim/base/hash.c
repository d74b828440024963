#include "sim/base/hash.h"

#include <string.h>

/* The specification's PRIME64_1 .. PRIME64_5. */
static const uint64_t prime1 = UINT64_C(0x9E3779B185EBCA87);
static const uint64_t prime2 = UINT64_C(0xC2B2AE3D27D4EB4F);
static const uint64_t prime3 = UINT64_C(0x165667B19E3779F9);
static const uint64_t prime4 = UINT64_C(0x85EBCA77C2B2AE63);
static const uint64_t prime5 = UINT64_C(0x27D4EB2F165667C5);

static inline uint64_t rotate(uint64_t x, int bits)
{
    return (x << bits) | (x >> (64 - bits));
}

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "loads below are little endian");

static inline uint64_t read64(const unsigned char *p)
{
    uint64_t x = 0;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline uint32_t read32(const unsigned char *p)
{
    uint32_t x = 0;
    memcpy(&x, p, sizeof x);
    return x;
}

static inline uint64_t lane_round(uint64_t lane, uint64_t input)
{
    return rotate(lane + input * prime2, 31) * prime1;
}

/* Whole stripes of 32 bytes; the lanes stay in registers. */
static void add_stripes(struct moe_hash *hash, const unsigned char *p, size_t count)
{
    uint64_t a = hash->lane[0];
    uint64_t b = hash->lane[1];
    uint64_t c = hash->lane[2];
    uint64_t d = hash->lane[3];
    for (size_t i = 0; i < count; i++, p += 32) {
        a = lane_round(a, read64(p));
        b = lane_round(b, read64(p + 8));
        c = lane_round(c, read64(p + 16));
        d = lane_round(d, read64(p + 24));
    }
    hash->lane[0] = a;
    hash->lane[1] = b;
    hash->lane[2] = c;
    hash->lane[3] = d;
}

void moe_hash_init(struct moe_hash *hash, uint64_t seed)
{
    *hash = (struct moe_hash){
        .lane = { seed + prime1 + prime2, seed + prime2, seed, seed - prime1 },
        .seed = seed,
    };
}

void moe_hash_add(struct moe_hash *hash, const void *bytes, size_t size)
{
    const unsigned char *p = bytes;
    const size_t pending = (size_t) (hash->total_bytes % 32);
    hash->total_bytes += size;
    if (pending != 0) {
        const size_t missing = 32 - pending;
        const size_t taken = size < missing ? size : missing;
        memcpy(hash->pending + pending, p, taken);
        if (taken < missing) {
            return;
        }
        add_stripes(hash, hash->pending, 1);
        p += taken;
        size -= taken;
    }
    add_stripes(hash, p, size / 32);
    if (size % 32 != 0) {
        memcpy(hash->pending, p + size / 32 * 32, size % 32);
    }
}

void moe_hash_add_u64(struct moe_hash *hash, uint64_t value)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++) {
        bytes[i] = (unsigned char) (value >> (8 * i));
    }
    moe_hash_add(hash, bytes, sizeof bytes);
}

void moe_hash_add_text(struct moe_hash *hash, const char *text)
{
    moe_hash_add(hash, text, strlen(text) + 1);
}

uint64_t moe_hash_value(const struct moe_hash *hash)
{
    uint64_t x = hash->seed + prime5;
    if (hash->total_bytes >= 32) {
        const uint64_t *lane = hash->lane;
        x = rotate(lane[0], 1) + rotate(lane[1], 7) + rotate(lane[2], 12) + rotate(lane[3], 18);
        for (int i = 0; i < 4; i++) {
            x = (x ^ lane_round(0, lane[i])) * prime1 + prime4;
        }
    }
    x += hash->total_bytes;
    const unsigned char *p = hash->pending;
    size_t left = (size_t) (hash->total_bytes % 32);
    for (; left >= 8; left -= 8, p += 8) {
        x = rotate(x ^ lane_round(0, read64(p)), 27) * prime1 + prime4;
    }
    if (left >= 4) {
        x = rotate(x ^ read32(p) * prime1, 23) * prime2 + prime3;
        left -= 4;
        p += 4;
    }
    for (; left > 0; left--, p++) {
        x = rotate(x ^ *p * prime5, 11) * prime1;
    }
    x = (x ^ (x >> 33)) * prime2;
    x = (x ^ (x >> 29)) * prime3;
    return x ^ (x >> 32);
}

uint64_t moe_hash_bytes(const void *bytes, size_t size, uint64_t seed)
{
    struct moe_hash hash;
    moe_hash_init(&hash, seed);
    moe_hash_add(&hash, bytes, size);
    return moe_hash_value(&hash);
}
