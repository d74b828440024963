/*
 * Split plan: over how many blocks a kernel divides one context, so that its blocks fill a GPU
 * that runs so many at once. The kernel of kernels/attention/kv_read.h launches by it, and the
 * cost of decode attention (sim/cost/decode.h) counts its rounds by it: one rule for both.
 *
 * The time is taken as rounds of blocks times the tiles of each; filling the pipeline and writing
 * the parts cost about two tiles more:
 *   cost(s) = ceil(blocks * s / slots) * (ceil(tiles / s) + MOE_SPLIT_LEAD_TILES)
 * The least cost wins, of equals the fewest splits. s: 1 .. min(tiles, MOE_SPLIT_LIMIT).
 */
#ifndef MOE_SIM_BASE_SPLIT_PLAN_H
#define MOE_SIM_BASE_SPLIT_PLAN_H

#include <stdint.h>

enum { MOE_SPLIT_LIMIT = 256, MOE_SPLIT_LEAD_TILES = 2 };

static inline int64_t moe_split_ceil(int64_t count, int64_t size)
{
    return (count + size - 1) / size;
}

/* blocks: of one split, at least 1; tiles: of the longest context, at least 1; slots: blocks that
 * run at once, at least 1. Of the splits with as many rounds only the most can be best, so the
 * search goes by rounds and ends where the work alone, with the lead of so many rounds, takes
 * longer than the best so far: some ten turns where trying all would take 256. */
static inline int32_t moe_split_count(int64_t blocks, int64_t tiles, int64_t slots)
{
    const int64_t most = tiles < MOE_SPLIT_LIMIT ? tiles : MOE_SPLIT_LIMIT;
    const int64_t work = moe_split_ceil(blocks * tiles, slots);
    int64_t best_cost = INT64_MAX;
    int64_t best = 1;
    for (int64_t rounds = moe_split_ceil(blocks, slots);; rounds++) {
        int64_t splits = rounds * slots / blocks;
        splits = splits < most ? splits : most;
        const int64_t each = moe_split_ceil(tiles, splits);
        const int64_t cost = rounds * (each + MOE_SPLIT_LEAD_TILES);
        if (cost < best_cost) {
            best_cost = cost;
            best = moe_split_ceil(tiles, each); /* the fewest that leave so few tiles to each */
        }
        if (splits == most || work + (rounds + 1) * MOE_SPLIT_LEAD_TILES > best_cost) {
            return (int32_t) best;
        }
    }
}

#endif
