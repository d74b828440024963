#include "policies/solve/realign.h"

#include <assert.h>
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
        .expert_count = expert_count,
        .first = MOE_NEW(arena, uint32_t, expert_count + (size_t) 1),
        .host = MOE_NEW(arena, uint32_t, gpus * capacity),
        .seen = MOE_NEW(arena, uint8_t, capacity + (size_t) 1),
        .row = MOE_NEW(arena, uint16_t, gpus * capacity),
        .gpu_of = MOE_NEW(arena, uint32_t, gpus),
        .kept = MOE_NEW(arena, uint32_t, gpus * gpus),
        .held = MOE_NEW(arena, uint8_t, expert_count),
        .taken = MOE_NEW(arena, uint8_t, gpus),
    };
    if (realign->row == NULL || realign->gpu_of == NULL || realign->kept == NULL ||
        realign->held == NULL || realign->taken == NULL || realign->first == NULL ||
        realign->host == NULL || realign->seen == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to realign %u GPUs", gpu_count);
    }
    return moe_matching_init(
        &realign->matching, arena,
        gpu_count < MOE_REALIGN_EXACT_GPUS ? gpu_count : MOE_REALIGN_EXACT_GPUS, err);
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

/* first and host of the new GPUs of one block, which count from 0. */
static void list_hosts(struct moe_realign *realign, const uint16_t *plan, uint32_t begin,
                       uint32_t block)
{
    const uint32_t capacity = realign->capacity;
    const uint16_t *slots = plan + (size_t) begin * capacity;
    uint32_t *first = realign->first;
    memset(first, 0, (realign->expert_count + (size_t) 1) * sizeof *first);
    for (uint32_t i = 0; i < block * capacity; i++) {
        first[slots[i] == MOE_SLOT_EMPTY ? realign->expert_count : slots[i]]++;
    }
    for (uint32_t expert = 0, sum = 0; expert <= realign->expert_count; expert++) {
        sum += first[expert];
        first[expert] = sum; /* the end; moved to the begin below */
    }
    for (uint32_t i = block * capacity; i-- > 0;) {
        const uint32_t expert = slots[i] == MOE_SLOT_EMPTY ? realign->expert_count : slots[i];
        realign->host[--first[expert]] = i / capacity;
    }
}

/* kept[new][old] for the GPUs of one block: of every expert the smaller number of copies. */
static void count_kept(struct moe_realign *realign, const uint16_t *before, const uint16_t *plan,
                       uint32_t begin, uint32_t block)
{
    const uint32_t capacity = realign->capacity;
    uint8_t *held = realign->held;
    list_hosts(realign, plan, begin, block);
    memset(realign->kept, 0, (size_t) block * block * sizeof *realign->kept);
    for (uint32_t old = 0; old < block; old++) {
        const uint16_t *slots = before + (size_t) (begin + old) * capacity;
        for (uint32_t i = 0; i < capacity; i++) {
            if (slots[i] != MOE_SLOT_EMPTY) {
                held[slots[i]]++;
            }
        }
        for (uint32_t i = 0; i < capacity; i++) {
            const uint32_t expert = slots[i];
            if (expert == MOE_SLOT_EMPTY || held[expert] == 0) {
                continue;
            }
            const uint32_t end = realign->first[expert + 1];
            for (uint32_t at = realign->first[expert]; at < end;) {
                const uint32_t now = realign->host[at];
                uint32_t copies = 0;
                for (; at < end && realign->host[at] == now; at++) {
                    copies++;
                }
                realign->kept[(size_t) now * block + old] +=
                    copies < held[expert] ? copies : held[expert];
            }
            held[expert] = 0;
        }
    }
    memset(realign->seen, 0, capacity + (size_t) 1);
    for (size_t i = 0; i < (size_t) block * block; i++) {
        realign->seen[realign->kept[i]] = 1;
    }
}

static void match_greedily(struct moe_realign *realign, uint32_t begin, uint32_t block)
{
    uint8_t *taken = realign->taken;
    memset(taken, 0, block);
    for (uint32_t now = 0; now < block; now++) {
        realign->gpu_of[begin + now] = UINT32_MAX;
    }
    for (uint32_t wanted = realign->capacity + 1; wanted-- > 0;) {
        for (uint32_t old = 0; old < block && realign->seen[wanted]; old++) {
            for (uint32_t now = 0; now < block && !taken[old]; now++) {
                if (realign->gpu_of[begin + now] == UINT32_MAX &&
                    realign->kept[(size_t) now * block + old] == wanted) {
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
            moe_matching_solve(&realign->matching, realign->kept, block_gpus,
                               realign->gpu_of + begin);
            for (uint32_t now = begin; now < begin + block_gpus; now++) {
                realign->gpu_of[now] += begin;
            }
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
