#include <criterion/criterion.h>

#include "sim/base/hash.h"

/* Reference values: xxhash 0.8.1's XXH64. */
Test(hash, gives_the_published_values)
{
    unsigned char bytes[100];
    for (unsigned i = 0; i < sizeof bytes; i++) {
        bytes[i] = (unsigned char) i;
    }
    cr_assert_eq(moe_hash_bytes("", 0, 0), UINT64_C(0xef46db3751d8e999));
    cr_assert_eq(moe_hash_bytes("abc", 3, 0), UINT64_C(0x44bc2cf5ad770999));
    cr_assert_eq(moe_hash_bytes("abc", 3, 12345), UINT64_C(0x01700e64f6f23509));
    cr_assert_eq(moe_hash_bytes(bytes, sizeof bytes, 0), UINT64_C(0x6ac1e58032166597));
    cr_assert_eq(moe_hash_bytes(bytes, sizeof bytes, 12345), UINT64_C(0x028ba1ae2de4de27));
}

Test(hash, does_not_depend_on_how_the_bytes_were_cut)
{
    unsigned char bytes[200];
    for (unsigned i = 0; i < sizeof bytes; i++) {
        bytes[i] = (unsigned char) (i * 7);
    }
    const uint64_t whole = moe_hash_bytes(bytes, sizeof bytes, 9);
    for (size_t first = 0; first <= sizeof bytes; first++) {
        for (size_t second = first; second <= sizeof bytes; second += 13) {
            struct moe_hash hash;
            moe_hash_init(&hash, 9);
            moe_hash_add(&hash, bytes, first);
            moe_hash_add(&hash, bytes + first, second - first);
            moe_hash_add(&hash, bytes + second, sizeof bytes - second);
            cr_assert_eq(moe_hash_value(&hash), whole, "cuts at %zu and %zu", first, second);
        }
    }
}
