#include "policies/solve/predict_lag.h"

#include <assert.h>
#include <string.h>

#include "sim/base/no_malloc.h"

enum moe_status moe_predict_lag_init(struct moe_predict_lag *lag, struct moe_arena *arena,
                                     uint32_t stream_count, uint32_t width, uint32_t limit,
                                     struct moe_error *err)
{
    const size_t rows = (size_t) stream_count * (limit + 1);
    *lag = (struct moe_predict_lag){
        .stream_count = stream_count,
        .width = width,
        .limit = limit,
        .row = MOE_NEW(arena, uint32_t, rows * width),
        .seen = MOE_NEW(arena, uint64_t, stream_count),
    };
    if (lag->row == NULL || lag->seen == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to keep the loads of %u steps", limit + 1);
    }
    return MOE_OK;
}

const uint32_t *moe_predict_lag_push(struct moe_predict_lag *lag, uint32_t stream,
                                     const uint32_t *row, uint32_t back)
{
    assert(back <= lag->limit);
    assert(stream < lag->stream_count);
    const uint64_t turns = (uint64_t) lag->limit + 1;
    uint32_t *ring = lag->row + stream * turns * lag->width;
    memcpy(ring + lag->seen[stream]++ % turns * lag->width, row, lag->width * sizeof *row);
    return moe_predict_lag_at(lag, stream, back);
}

const uint32_t *moe_predict_lag_at(const struct moe_predict_lag *lag, uint32_t stream,
                                   uint32_t back)
{
    const uint64_t turns = (uint64_t) lag->limit + 1;
    const uint64_t seen = lag->seen[stream];
    assert(back <= lag->limit);
    return seen <= back ? NULL
                        : lag->row + (stream * turns + (seen - 1 - back) % turns) * lag->width;
}

void moe_predict_lag_reset(struct moe_predict_lag *lag, uint32_t stream)
{
    lag->seen[stream] = 0;
}
