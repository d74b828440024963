/*
 * Content hash: 64 bits that tell two byte strings apart, for change detection (not
 * against an adversary). The same on every machine.
 *
 * Source: XXH64, after the xxHash fast digest algorithm specification, version 0.1.1
 * (Y. Collet; doc/xxhash_spec.md), section "XXH64 algorithm description". Chosen because
 * it reads faster than a disk gives (about 9 GB/s on one core here) and any tool can recompute it.
 */
#ifndef MOE_SIM_BASE_HASH_H
#define MOE_SIM_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* A hash in the making: feed pieces of any size, the cuts do not matter. */
struct moe_hash {
    uint64_t lane[4];
    uint64_t seed;
    uint64_t total_bytes;
    unsigned char pending[32]; /* the last total_bytes % 32 bytes */
};

void moe_hash_init(struct moe_hash *hash, uint64_t seed);
void moe_hash_add(struct moe_hash *hash, const void *bytes, size_t size);

/* Eight bytes, little endian on every machine. */
void moe_hash_add_u64(struct moe_hash *hash, uint64_t value);

/* The text and a terminator, so that "ab","c" and "a","bc" differ. */
void moe_hash_add_text(struct moe_hash *hash, const char *text);

/* May be asked at any point; the hash can go on afterwards. */
uint64_t moe_hash_value(const struct moe_hash *hash);

/* All at once. */
uint64_t moe_hash_bytes(const void *bytes, size_t size, uint64_t seed);

#endif
