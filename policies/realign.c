/* The exact matching is the Hungarian method with row and column potentials (J. Munkres, 1957;
 * shortest augmenting paths as in R. Jonker, A. Volgenant, 1987), one row at a time. Index 0 of
 * its arrays is the free column, rows and columns count from 1. */
#include "policies/realign.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "policies/placement.h"
#include "sim/base/no_malloc.h"

enum moe_status moe_realign_init(struct moe_realign *realign, struct moe_arena *arena,
                                 uint32_t gpu_count, uint32_t capacity, uint32_t expert_count,
                                 struct moe_error *err)
{
    const size_t gpus = gpu_count;
    if (capacity > UINT8_MAX) {
        return moe_fail(err, MOE_POLICY, "%u slots per GPU; at most %d can be realigned", capacity,
                        UINT8_MAX);
    }
    *realign = (struct moe_realign){
        .gpu_count = gpu_count,
        .capacity = capacity,
        .row = MOE_NEW(arena, uint16_t, gpus * capacity),
        .gpu_of = MOE_NEW(arena, uint32_t, gpus),
        .kept = MOE_NEW(arena, uint32_t, gpus * gpus),
        .held = MOE_NEW(arena, uint8_t, expert_count),
        .potential = MOE_NEW(arena, double, 2 * (gpus + 1)),
        .least = MOE_NEW(arena, double, gpus + 1),
        .matched = MOE_NEW(arena, uint32_t, gpus + 1),
        .way = MOE_NEW(arena, uint32_t, gpus + 1),
        .visited = MOE_NEW(arena, uint8_t, gpus + 1),
    };
    if (realign->row == NULL || realign->gpu_of == NULL || realign->kept == NULL ||
        realign->held == NULL || realign->potential == NULL || realign->least == NULL ||
        realign->matched == NULL || realign->way == NULL || realign->visited == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to realign %u GPUs", gpu_count);
    }
    return MOE_OK;
}

void moe_realign_slots(struct moe_realign *realign, const uint16_t *before, uint16_t *plan)
{
    const uint32_t capacity = realign->capacity;
    uint8_t *held = realign->held;
    for (uint32_t gpu = 0; gpu < realign->gpu_count; gpu++) {
        const uint16_t *old = before + (size_t) gpu * capacity;
        uint16_t *now = plan + (size_t) gpu * capacity;
        uint16_t *row = realign->row;
        memset(row, 0xff, capacity * sizeof *row);
        for (uint32_t slot = 0; slot < capacity; slot++) {
            if (now[slot] != MOE_SLOT_EMPTY) {
                held[now[slot]]++;
            }
        }
        for (uint32_t slot = 0; slot < capacity; slot++) {
            if (old[slot] != MOE_SLOT_EMPTY && held[old[slot]] > 0) {
                row[slot] = old[slot];
                held[old[slot]]--;
            }
        }
        /* Of several copies the first ones in the plan's order still need a slot: which of
         * them does not show. */
        uint32_t free_slot = 0;
        for (uint32_t slot = 0; slot < capacity; slot++) {
            if (now[slot] == MOE_SLOT_EMPTY || held[now[slot]] == 0) {
                continue;
            }
            held[now[slot]]--;
            while (row[free_slot] != MOE_SLOT_EMPTY) {
                free_slot++;
            }
            row[free_slot] = now[slot];
        }
        memcpy(now, row, capacity * sizeof *now);
    }
}

/* kept[old][new] for the GPUs of one block. */
static void count_kept(struct moe_realign *realign, const uint16_t *before, const uint16_t *plan,
                       uint32_t begin, uint32_t block)
{
    const uint32_t capacity = realign->capacity;
    uint8_t *held = realign->held;
    for (uint32_t old = 0; old < block; old++) {
        const uint16_t *slots = before + (size_t) (begin + old) * capacity;
        for (uint32_t now = 0; now < block; now++) {
            const uint16_t *wanted = plan + (size_t) (begin + now) * capacity;
            uint32_t kept = 0;
            for (uint32_t i = 0; i < capacity; i++) {
                if (slots[i] != MOE_SLOT_EMPTY) {
                    held[slots[i]]++;
                }
            }
            for (uint32_t i = 0; i < capacity; i++) {
                if (wanted[i] != MOE_SLOT_EMPTY && held[wanted[i]] > 0) {
                    held[wanted[i]]--;
                    kept++;
                }
            }
            for (uint32_t i = 0; i < capacity; i++) {
                if (slots[i] != MOE_SLOT_EMPTY) {
                    held[slots[i]] = 0;
                }
            }
            realign->kept[(size_t) old * block + now] = kept;
        }
    }
}

/* One augmenting path for new GPU row (from 1) over the old GPUs (columns from 1). */
static void augment(struct moe_realign *realign, uint32_t row, uint32_t block)
{
    double *of_row = realign->potential;
    double *of_column = realign->potential + realign->gpu_count + 1;
    double *least = realign->least;
    uint32_t *matched = realign->matched;
    uint32_t *way = realign->way;
    uint32_t column = 0;
    matched[0] = row;
    for (uint32_t j = 0; j <= block; j++) {
        least[j] = INFINITY;
        realign->visited[j] = 0;
    }
    do {
        const uint32_t current = matched[column];
        double step = INFINITY;
        uint32_t next = 0;
        realign->visited[column] = 1;
        for (uint32_t j = 1; j <= block; j++) {
            if (realign->visited[j]) {
                continue;
            }
            const double cost = -(double) realign->kept[(size_t) (j - 1) * block + current - 1] -
                                of_row[current] - of_column[j];
            if (cost < least[j]) {
                least[j] = cost;
                way[j] = column;
            }
            if (least[j] < step) {
                step = least[j];
                next = j;
            }
        }
        for (uint32_t j = 0; j <= block; j++) {
            if (realign->visited[j]) {
                of_row[matched[j]] += step;
                of_column[j] -= step;
            } else {
                least[j] -= step;
            }
        }
        column = next;
    } while (matched[column] != 0);
    while (column != 0) {
        matched[column] = matched[way[column]];
        column = way[column];
    }
}

static void match_exactly(struct moe_realign *realign, uint32_t begin, uint32_t block)
{
    memset(realign->potential, 0,
           2 * ((size_t) realign->gpu_count + 1) * sizeof *realign->potential);
    memset(realign->matched, 0, ((size_t) block + 1) * sizeof *realign->matched);
    for (uint32_t row = 1; row <= block; row++) {
        augment(realign, row, block);
    }
    for (uint32_t column = 1; column <= block; column++) {
        realign->gpu_of[begin + realign->matched[column] - 1] = begin + column - 1;
    }
}

/* The pair with most in common first. */
static void match_greedily(struct moe_realign *realign, uint32_t begin, uint32_t block)
{
    uint8_t *taken = realign->visited;
    memset(taken, 0, (size_t) block + 1);
    for (uint32_t now = 0; now < block; now++) {
        realign->gpu_of[begin + now] = UINT32_MAX;
    }
    for (uint32_t wanted = realign->capacity + 1; wanted-- > 0;) {
        for (uint32_t old = 0; old < block; old++) {
            for (uint32_t now = 0; now < block && !taken[old]; now++) {
                if (realign->gpu_of[begin + now] == UINT32_MAX &&
                    realign->kept[(size_t) old * block + now] == wanted) {
                    realign->gpu_of[begin + now] = begin + old;
                    taken[old] = 1;
                }
            }
        }
    }
}

void moe_realign_gpus(struct moe_realign *realign, const uint16_t *before, uint16_t *plan,
                      uint32_t block_gpus)
{
    const uint32_t capacity = realign->capacity;
    assert(realign->gpu_count % block_gpus == 0);
    for (uint32_t begin = 0; begin < realign->gpu_count; begin += block_gpus) {
        count_kept(realign, before, plan, begin, block_gpus);
        if (block_gpus <= MOE_REALIGN_EXACT_GPUS) {
            match_exactly(realign, begin, block_gpus);
        } else {
            match_greedily(realign, begin, block_gpus);
        }
    }
    for (uint32_t now = 0; now < realign->gpu_count; now++) {
        memcpy(realign->row + (size_t) realign->gpu_of[now] * capacity,
               plan + (size_t) now * capacity, capacity * sizeof *plan);
    }
    memcpy(plan, realign->row, (size_t) realign->gpu_count * capacity * sizeof *plan);
    moe_realign_slots(realign, before, plan);
}

uint32_t moe_realign_count_moves(const uint16_t *before, const uint16_t *plan, uint32_t slots)
{
    uint32_t moves = 0;
    for (uint32_t slot = 0; slot < slots; slot++) {
        moves += plan[slot] != MOE_SLOT_EMPTY && plan[slot] != before[slot];
    }
    return moves;
}
