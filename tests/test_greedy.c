/* The greedy steps against slow obvious twins. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "policies/solve/greedy.h"
#include "tests/property.h"

enum { LIMIT = 300, ARENA_BYTES = 1 << 16 };

static struct moe_arena arena;

static uint32_t draw_loads(struct draws *draws, double *load)
{
    const uint32_t count = 1 + draw_below(draws, LIMIT);
    const uint32_t kind = draw_below(draws, 3);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t x = draw_below(draws, kind == 0 ? 4 : 1u << 30);
        load[i] = kind == 2 ? x / 7.0 * (x % 2 ? 1e-300 : 1e20) : x;
        load[i] = x == 0 && i % 2 == 1 ? -0.0 : load[i];
    }
    return count;
}

/* Index of the largest (or smallest) load that is not taken; the first of equal ones. */
static uint32_t extreme(const double *load, const bool *taken, uint32_t count, bool largest)
{
    uint32_t best = count;
    for (uint32_t i = 0; i < count; i++) {
        if (!taken[i] &&
            (best == count || (largest ? load[i] > load[best] : load[i] < load[best]))) {
            best = i;
        }
    }
    return best;
}

static bool sort_holds(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    double load[LIMIT] = { 0.0 };
    uint32_t order[LIMIT];
    uint32_t spare[LIMIT];
    bool taken[LIMIT] = { false };
    const uint32_t count = draw_loads(draws, load);
    (void) context;
    moe_greedy_sort(load, count, order, spare);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t expected = extreme(load, taken, count, true);
        (void) snprintf(why, PROPERTY_TEXT_LIMIT, "%u loads, place %u: %u, not %u", count, i,
                        order[i], expected);
        if (order[i] != expected) {
            return false;
        }
        taken[expected] = true;
    }
    return true;
}

static bool replicate_holds(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    double load[LIMIT] = { 0.0 };
    uint32_t copies[LIMIT] = { 0 };
    uint32_t expected[LIMIT] = { 0 };
    uint32_t given[LIMIT];
    struct moe_greedy greedy;
    const uint32_t count = draw_loads(draws, load);
    const uint32_t extra = draw_below(draws, LIMIT);
    const bool highest = draw_below(draws, 2) == 1;
    (void) context;
    for (uint32_t i = 0; i < count; i++) {
        copies[i] = expected[i] = 1 + draw_below(draws, 3);
    }
    moe_arena_reset(&arena);
    if (moe_greedy_init(&greedy, &arena, count, NULL) != MOE_OK) {
        return false;
    }
    moe_greedy_replicate(&greedy, load, count, extra, highest, copies, given);
    for (uint32_t copy = 0; copy < extra; copy++) {
        uint32_t best = 0;
        for (uint32_t i = 1; i < count; i++) {
            const double here = load[i] / expected[i];
            const double there = load[best] / expected[best];
            best = here > there || (highest && here == there) ? i : best;
        }
        expected[best]++;
        (void) snprintf(why, PROPERTY_TEXT_LIMIT, "copy %u of %u experts goes to %u, not %u", copy,
                        count, given[copy], best);
        if (given[copy] != best) {
            return false;
        }
    }
    return memcmp(copies, expected, count * sizeof *copies) == 0;
}

static bool pack_holds(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    double load[LIMIT] = { 0.0 };
    uint32_t slot[LIMIT];
    double sum[LIMIT] = { 0.0 };
    uint32_t fill[LIMIT] = { 0 };
    bool packed[LIMIT] = { false };
    bool full[LIMIT] = { false };
    struct moe_greedy greedy;
    const uint32_t count = draw_loads(draws, load);
    const uint32_t gpus = 1 + draw_below(draws, count);
    const uint32_t capacity = (count + gpus - 1) / gpus + draw_below(draws, 3);
    (void) context;
    moe_arena_reset(&arena);
    if (moe_greedy_init(&greedy, &arena, count, NULL) != MOE_OK) {
        return false;
    }
    moe_greedy_pack(&greedy, load, count, gpus, capacity, slot);
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t item = extreme(load, packed, count, true);
        const uint32_t gpu = extreme(sum, full, gpus, false);
        (void) snprintf(why, PROPERTY_TEXT_LIMIT, "item %u of %u goes to slot %u, not %u", item,
                        count, slot[item], gpu * capacity + fill[gpu]);
        if (slot[item] != gpu * capacity + fill[gpu]) {
            return false;
        }
        sum[gpu] += load[item];
        packed[item] = true;
        full[gpu] = ++fill[gpu] == capacity;
    }
    return true;
}

Test(greedy, equals_its_twins)
{
    cr_assert_eq(moe_arena_init(&arena, ARENA_BYTES, NULL), MOE_OK);
    const char *text = property_fails(sort_holds, NULL, 1, 2000);
    cr_expect_null(text, "%s", text);
    text = property_fails(replicate_holds, NULL, 1, 1000);
    cr_expect_null(text, "%s", text);
    text = property_fails(pack_holds, NULL, 1, 1000);
    cr_expect_null(text, "%s", text);
    moe_arena_finish(&arena);
}
