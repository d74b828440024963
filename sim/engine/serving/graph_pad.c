#include "sim/engine/serving/graph_pad.h"

#include "sim/base/no_malloc.h"

uint64_t moe_graph_pad(const struct moe_serving *options, uint32_t rank_count,
                       struct moe_token_work *work)
{
    double most = 1.0; /* the dummy batch of an idle rank */
    uint64_t added = 0;
    uint32_t i = 0;
    for (uint32_t rank = 0; rank < rank_count; rank++) {
        if (work[rank].decode_read < work[rank].kv_read) {
            return 0;
        }
        most = work[rank].tokens > most ? work[rank].tokens : most;
    }
    while (i < options->graph_size_count && options->graph_sizes[i] < most) {
        i++;
    }
    if (i == options->graph_size_count) {
        return 0;
    }
    for (uint32_t rank = 0; rank < rank_count; rank++) {
        added += options->graph_sizes[i] - (uint64_t) work[rank].tokens;
        work[rank].tokens = options->graph_sizes[i];
    }
    return added;
}
