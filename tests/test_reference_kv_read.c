/* The attention's twin on answers made by hand. */
#include <criterion/criterion.h>
#include <math.h>

#include "kernels/reference/reference_kv_read.h"
#include "kernels/reference/reference_number.h"

Test(reference_kv_read, weighs_values_by_softmax_through_the_page_table)
{
    /* Two kv heads with two q heads each; tokens 0 .. 15 lie in page 1, the last one in page 0. */
    const struct moe_kv_shape shape = { .kind = MOE_KV_GQA,
                                        .sequence_count = 2,
                                        .q_heads = 4,
                                        .kv_heads = 2,
                                        .head_dim = 64,
                                        .page_tokens = 16,
                                        .page_limit = 2,
                                        .context_limit = 32,
                                        .softmax_scale = 0.5F };
    static uint16_t q[2 * 4 * 64];
    static uint16_t k[2 * 16 * 2 * 64];
    static uint16_t v[2 * 16 * 2 * 64];
    static double out[2 * 4 * 64];
    const int32_t page_table[] = { 1, 0, -1, -1 };
    const int32_t context[] = { 17, 0 };
    /* q head 3 (kv head 1) sees one number in the last token's key: 2 * 4 * 0.5 = 4. */
    q[3 * 64 + 5] = moe_bf16_from_float(2.0F);
    k[1 * 64 + 5] = moe_bf16_from_float(4.0F);
    /* Values: kv head 0 has 17 in the last token, kv head 1 has 1 in all others. */
    v[0 * 64 + 7] = moe_bf16_from_float(17.0F);
    for (int t = 0; t < 16; t++) {
        v[((16 + t) * 2 + 1) * 64 + 7] = moe_bf16_from_float(1.0F);
    }
    moe_reference_kv_read(&shape, out, q, k, v, page_table, context);
    cr_assert_float_eq(out[0 * 64 + 7], 1.0, 1e-12);
    cr_assert_float_eq(out[1 * 64 + 7], 1.0, 1e-12);
    cr_assert_float_eq(out[2 * 64 + 7], 16.0 / 17.0, 1e-12);
    cr_assert_float_eq(out[3 * 64 + 7], 16.0 / (16.0 + exp(4.0)), 1e-12);
    cr_assert_eq(out[3 * 64 + 6], 0.0);
    cr_assert_eq(out[4 * 64 + 7], 0.0); /* no context */
}

Test(reference_kv_read, latent_rows_are_keys_and_values_of_all_heads)
{
    const struct moe_kv_shape shape = { .kind = MOE_KV_MLA,
                                        .sequence_count = 1,
                                        .q_heads = 16,
                                        .kv_heads = 1,
                                        .head_dim = MOE_KV_MLA_COLUMNS,
                                        .page_tokens = 16,
                                        .page_limit = 1,
                                        .context_limit = 2,
                                        .softmax_scale = 1.0F };
    static uint16_t q[16 * 576];
    static uint16_t k[16 * 576];
    static double out[16 * 512];
    const int32_t page = 0;
    const int32_t context = 2;
    q[9 * 576 + 575] = moe_bf16_from_float(1.0F);
    k[575] = moe_bf16_from_float(3.0F); /* a score by position alone */
    k[511] = moe_bf16_from_float(8.0F);
    moe_reference_kv_read(&shape, out, q, k, NULL, &page, &context);
    cr_assert_float_eq(out[8 * 512 + 511], 4.0, 1e-12);
    cr_assert_float_eq(out[9 * 512 + 511], 8.0 / (1.0 + exp(-3.0)), 1e-12);
    cr_assert_eq(out[9 * 512 + 510], 0.0);
}
