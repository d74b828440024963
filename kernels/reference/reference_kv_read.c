#include "kernels/reference/reference_kv_read.h"

#include <math.h>

#include "kernels/reference/reference_number.h"

static double score_of(const struct moe_kv_shape *shape, const uint16_t *q, const uint16_t *k)
{
    double sum = 0.0;
    for (int32_t d = 0; d < shape->head_dim; d++) {
        sum += (double) moe_float_from_bf16(q[d]) * (double) moe_float_from_bf16(k[d]);
    }
    return sum * (double) shape->softmax_scale;
}

/* One q head of one sequence. */
struct head {
    const uint16_t *q;
    const uint16_t *k; /* whole caches */
    const uint16_t *v;
    const int32_t *pages; /* of the sequence */
    int32_t context;
    int32_t kv_head;
};

/* Where the row of a token begins in the cache. */
static int64_t row_of(const struct moe_kv_shape *shape, const struct head *head, int32_t token)
{
    const int64_t row = (int64_t) head->pages[token / shape->page_tokens] * shape->page_tokens +
                        token % shape->page_tokens;
    return (row * shape->kv_heads + head->kv_head) * shape->head_dim;
}

static void attend(const struct moe_kv_shape *shape, const struct head *head, double *out,
                   int32_t columns)
{
    double largest = -INFINITY;
    double sum = 0.0;
    for (int32_t c = 0; c < columns; c++) {
        out[c] = 0.0;
    }
    for (int32_t t = 0; t < head->context; t++) {
        largest = fmax(largest, score_of(shape, head->q, head->k + row_of(shape, head, t)));
    }
    for (int32_t t = 0; t < head->context; t++) {
        const int64_t row = row_of(shape, head, t);
        const double weight = exp(score_of(shape, head->q, head->k + row) - largest);
        sum += weight;
        for (int32_t c = 0; c < columns; c++) {
            out[c] += weight * (double) moe_float_from_bf16(head->v[row + c]);
        }
    }
    for (int32_t c = 0; c < columns && head->context > 0; c++) {
        out[c] /= sum;
    }
}

void moe_reference_kv_read(const struct moe_kv_shape *shape, double *out, const uint16_t *q,
                           const uint16_t *k, const uint16_t *v, const int32_t *page_table,
                           const int32_t *context)
{
    const int is_mla = shape->kind == MOE_KV_MLA;
    const int32_t columns = is_mla ? MOE_KV_MLA_OUT_COLUMNS : shape->head_dim;
    for (int64_t s = 0; s < shape->sequence_count; s++) {
        for (int32_t h = 0; h < shape->q_heads; h++) {
            const int64_t index = s * shape->q_heads + h;
            const struct head head = { .q = q + index * shape->head_dim,
                                       .k = k,
                                       .v = is_mla ? k : v,
                                       .pages = page_table + s * shape->page_limit,
                                       .context = context[s],
                                       .kv_head = h / (shape->q_heads / shape->kv_heads) };
            attend(shape, &head, out + index * columns, columns);
        }
    }
}
