/* A planned step cut in two halves of every rank's rows. */
#include "sim/engine/serving/batch.h"

#include "sim/base/no_malloc.h"

uint64_t moe_batch_first_half(const struct moe_serving_state *s, uint32_t rank)
{
    const struct moe_sequence *sequence = moe_batch_sequences(s, rank);
    uint64_t rows = 0;
    for (uint32_t i = 0; i < s->running_per_gpu; i++) {
        rows += sequence[i].step_rows;
    }
    return (rows + 1) / 2;
}

/* Rows `from` on of those that q runs in this step. */
static void add_rows(const struct moe_serving_state *s, const struct moe_sequence *q, uint32_t from,
                     uint32_t rows, struct moe_token_work *work)
{
    const bool decodes = moe_batch_decodes(q);
    const uint32_t context = q->done_rows + from;
    const bool samples = context + rows >= q->known_rows;
    if (rows > 0) {
        moe_batch_add_work(s, work, context, rows, decodes ? rows : samples, decodes);
    }
}

static void halve_rank(const struct moe_serving_state *s, uint32_t rank,
                       struct moe_token_work *first, struct moe_token_work *second)
{
    const struct moe_sequence *q = moe_batch_sequences(s, rank);
    uint64_t left = moe_batch_first_half(s, rank);
    *first = (struct moe_token_work){ 0 };
    *second = (struct moe_token_work){ 0 };
    for (uint32_t i = 0; i < s->running_per_gpu; i++, q++) {
        const uint32_t rows = q->step_rows < left ? q->step_rows : (uint32_t) left;
        add_rows(s, q, 0, rows, first);
        add_rows(s, q, rows, q->step_rows - rows, second);
        left -= rows;
    }
}

void moe_serving_halve(const struct moe_serving_state *s, struct moe_token_work *const work[2])
{
    for (uint32_t rank = 0; rank < s->setup.rank_count; rank++) {
        halve_rank(s, rank, &work[0][rank], &work[1][rank]);
    }
}
