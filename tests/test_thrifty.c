/* Balancers that start from the placement in force: what they may move, and what it must bring. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "policies/solve/realign.h"
#include "policies/solve/thrifty.h"
#include "tests/place_case.h"

enum { CASES = 3000 };

static struct moe_arena scratch;
static const struct moe_policy *policy;

static const char *check(const char *name, property *holds, uint32_t cases)
{
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, name, &policy, NULL), MOE_OK);
    cr_assert_eq(moe_arena_init(&scratch, CASE_SCRATCH_BYTES, NULL), MOE_OK);
    const char *text = property_fails(holds, NULL, 1, cases);
    moe_arena_finish(&scratch);
    return text;
}

static bool solved(struct place_case *c, char why[PROPERTY_TEXT_LIMIT])
{
    struct moe_error err = { 0 };
    const enum moe_status status = place_case_solve(c, policy, &scratch, &err);
    (void) snprintf(why, PROPERTY_TEXT_LIMIT, "%s", err.text);
    return status == MOE_OK;
}

/* Imbalance of the placement in force. */
static double before(const struct place_case *c, uint32_t layer)
{
    static struct place_case old;
    old = *c;
    old.plan = c->previous;
    return place_case_imbalance(&old, layer);
}

static uint32_t moves_of(const struct place_case *c, uint32_t layer)
{
    return moe_realign_count_moves(moe_placement_layer(&c->previous, layer),
                                   moe_placement_layer(&c->plan, layer), c->view.shape.slot_count);
}

static bool swift_holds(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    static struct place_case c;
    (void) context;
    const double parameters[] = { 1.0 + draw_below(draws, 100) / 100.0, draw_below(draws, 6),
                                  1 + draw_below(draws, 3) };
    place_case_draw(&c, draws, false, false);
    c.view.parameters = parameters;
    if (!solved(&c, why)) {
        return false;
    }
    for (uint32_t layer = 0; layer < c.view.shape.layer_count; layer++) {
        uint32_t copies[CASE_EXPERTS];
        uint32_t copies_before[CASE_EXPERTS];
        const double was = before(&c, layer);
        const double is = place_case_imbalance(&c, layer);
        const uint32_t moves = moves_of(&c, layer);
        moe_placement_count_copies(&c.plan, layer, copies);
        moe_placement_count_copies(&c.previous, layer, copies_before);
        (void) snprintf(why, PROPERTY_TEXT_LIMIT, "layer %u: %g became %g with %u moves", layer,
                        was, is, moves);
        if (is > was * (1.0 + 1e-12) || moves > 2 * parameters[1] ||
            (was <= parameters[0] && moves > 0) ||
            memcmp(copies, copies_before, c.view.shape.expert_count * sizeof *copies) != 0) {
            return false;
        }
    }
    return true;
}

Test(thrifty, swift_never_hurts_and_keeps_its_limits)
{
    const char *text = check("swift", swift_holds, CASES);
    cr_assert_null(text, "%s", text);
}

/* One batch: the estimate is the load itself, so that what ScalpeLB improves can be measured. */
static bool scalpelb_holds(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    static struct place_case c;
    (void) context;
    const double parameters[] = { 2,   192,
                                  0.2, draw_below(draws, 10) / 10.0,
                                  0.5, draw_below(draws, 4) };
    place_case_draw(&c, draws, false, false);
    c.view.batch_count = 1;
    for (uint32_t i = 0; i < CASE_LAYERS * CASE_EXPERTS; i++) {
        c.load[i] = (double) c.batches[i];
    }
    c.view.parameters = parameters;
    if (!solved(&c, why)) {
        return false;
    }
    bool replaced_any = false;
    uint32_t most = 0;
    for (uint32_t layer = 0; layer < c.view.shape.layer_count; layer++) {
        const uint32_t moves = moves_of(&c, layer);
        replaced_any |= moves > 2 * parameters[5];
        most = moves > most ? moves : most;
    }
    bool far_off = false;
    for (uint32_t layer = 0; layer < c.view.shape.layer_count; layer++) {
        /* Perfect balance is 1, so a layer this near to it is never far off. */
        far_off |= before(&c, layer) > 1.0 + parameters[3] - 1e-9;
    }
    (void) snprintf(why, PROPERTY_TEXT_LIMIT, "%u moves although no layer is far off", most);
    return far_off || !replaced_any;
}

Test(thrifty, scalpelb_only_exchanges_where_the_plan_is_good)
{
    const char *text = check("scalpelb", scalpelb_holds, CASES);
    cr_assert_null(text, "%s", text);
}

/* Eight experts on four GPUs, far out of balance: replaced. Nearly balanced: one exchange. */
Test(thrifty, scalpelb_by_hand)
{
    static struct place_case c;
    static const float heavy[8] = { 90, 80, 1, 1, 1, 1, 1, 1 };
    static const float nearly[8] = { 11, 11, 9, 9, 10, 10, 10, 10 };
    struct moe_error err = { 0 };
    cr_assert_eq(moe_policy_find(MOE_POLICY_PLACE, "scalpelb", &policy, NULL), MOE_OK);
    cr_assert_eq(moe_arena_init(&scratch, CASE_SCRATCH_BYTES, NULL), MOE_OK);
    struct draws draws = { 0 };
    place_case_draw(&c, &draws, false, false);
    c.view.shape = (struct moe_placement_shape){ 1, 8, 8, 4, 1, 1 };
    c.previous.shape = c.view.shape;
    for (uint16_t i = 0; i < 8; i++) {
        c.previous_slots[i] = i;
    }
    c.view.batches = heavy;
    cr_assert_eq(place_case_solve(&c, policy, &scratch, &err), MOE_OK, "%s", err.text);
    cr_assert_neq(c.slots[0] / 2, c.slots[1] / 2, "the two hot experts still share a GPU");
    c.view.batches = nearly;
    cr_assert_eq(place_case_solve(&c, policy, &scratch, &err), MOE_OK, "%s", err.text);
    const uint16_t expected[8] = { 2, 1, 0, 3, 4, 5, 6, 7 }; /* 20 on every GPU */
    cr_assert_eq(memcmp(c.slots, expected, sizeof expected), 0);
    moe_arena_finish(&scratch);
}

static bool stare_holds(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    static struct place_case c;
    (void) context;
    /* oldest, chunk, alpha, safety, bandwidth, horizon, layers */
    double parameters[] = { 0.5, 128, 0.7, 1e-3 * draw_below(draws, 1000), 1e9, 1.0, 0 };
    parameters[6] = draw_below(draws, 3);
    place_case_draw(&c, draws, false, false);
    c.view.batch_count = 1;
    for (uint32_t i = 0; i < CASE_LAYERS * CASE_EXPERTS; i++) {
        c.load[i] = (double) c.batches[i];
    }
    c.view.parameters = parameters;
    if (!solved(&c, why)) {
        return false;
    }
    const double price = c.memory.expert_bytes / 1e9 * c.view.shape.layer_count * parameters[3];
    uint32_t changed = 0;
    for (uint32_t layer = 0; layer < c.view.shape.layer_count; layer++) {
        const double gain = before(&c, layer) - place_case_imbalance(&c, layer);
        const uint32_t moves = moves_of(&c, layer);
        (void) snprintf(why, PROPERTY_TEXT_LIMIT, "layer %u: %u moves at %g gain %g", layer, moves,
                        price, gain);
        changed += moves > 0;
        if (moves > 0 && gain < moves * price * (1.0 - 1e-9) - 1e-9) {
            return false;
        }
    }
    return parameters[6] == 0.0 || changed <= parameters[6];
}

Test(thrifty, stare_moves_only_what_pays)
{
    const char *text = check("stare", stare_holds, CASES);
    cr_assert_null(text, "%s", text);
}

/* --- realignment ---------------------------------------------------------------------------- */

enum { BRUTE_GPUS = 5 };

static uint32_t kept_by(const uint16_t *old, const uint16_t *plan, const uint32_t *gpu_of,
                        uint32_t gpus, uint32_t capacity)
{
    uint32_t kept = 0;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        bool used[CASE_SLOTS] = { false };
        for (uint32_t i = 0; i < capacity; i++) {
            for (uint32_t j = 0; j < capacity; j++) {
                const uint16_t wanted = plan[gpu * capacity + i];
                if (wanted != MOE_SLOT_EMPTY && !used[j] &&
                    old[gpu_of[gpu] * capacity + j] == wanted) {
                    used[j] = true;
                    kept++;
                    break;
                }
            }
        }
    }
    return kept;
}

/* The most that any assignment of GPUs keeps: all permutations. */
static uint32_t best_kept(const uint16_t *old, const uint16_t *plan, uint32_t *gpu_of,
                          uint32_t chosen, uint32_t gpus, uint32_t capacity)
{
    uint32_t best = 0;
    if (chosen == gpus) {
        return kept_by(old, plan, gpu_of, gpus, capacity);
    }
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        bool taken = false;
        for (uint32_t i = 0; i < chosen; i++) {
            taken |= gpu_of[i] == gpu;
        }
        gpu_of[chosen] = gpu;
        if (!taken) {
            const uint32_t kept = best_kept(old, plan, gpu_of, chosen + 1, gpus, capacity);
            best = kept > best ? kept : best;
        }
    }
    return best;
}

static int by_value(const void *a, const void *b)
{
    return (int) *(const uint16_t *) a - (int) *(const uint16_t *) b;
}

static bool realign_holds(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    uint16_t old[BRUTE_GPUS * 6] = { 0 };
    uint16_t plan[BRUTE_GPUS * 6] = { 0 };
    uint16_t aligned[BRUTE_GPUS * 6];
    uint32_t gpu_of[BRUTE_GPUS] = { 0 };
    struct moe_realign realign;
    const uint32_t gpus = 1 + draw_below(draws, BRUTE_GPUS);
    const uint32_t capacity = 1 + draw_below(draws, 6);
    const uint32_t experts = 1 + draw_below(draws, 12);
    const size_t slots = (size_t) gpus * capacity;
    (void) context;
    for (size_t i = 0; i < slots; i++) {
        const uint32_t a = draw_below(draws, experts + 1);
        const uint32_t b = draw_below(draws, experts + 1);
        old[i] = a == experts ? MOE_SLOT_EMPTY : (uint16_t) a;
        plan[i] = b == experts ? MOE_SLOT_EMPTY : (uint16_t) b;
    }
    moe_arena_reset(&scratch);
    if (moe_realign_init(&realign, &scratch, gpus, capacity, experts, NULL) != MOE_OK) {
        return false;
    }
    memcpy(aligned, plan, sizeof aligned);
    moe_realign_gpus(&realign, old, aligned, gpus);
    const uint32_t most = best_kept(old, plan, gpu_of, 0, gpus, capacity);
    uint32_t kept = 0;
    for (size_t i = 0; i < slots; i++) {
        kept += aligned[i] == old[i] && old[i] != MOE_SLOT_EMPTY;
    }
    (void) snprintf(why, PROPERTY_TEXT_LIMIT, "%u GPUs of %u slots: kept %u of %u", gpus, capacity,
                    kept, most);
    qsort(plan, slots, sizeof *plan, by_value);
    qsort(aligned, slots, sizeof *aligned, by_value);
    return kept == most && memcmp(plan, aligned, slots * sizeof *plan) == 0;
}

Test(thrifty, realignment_keeps_the_most_that_can_be_kept)
{
    const char *text = check("swift", realign_holds, CASES);
    cr_assert_null(text, "%s", text);
}

/* vLLM's rule by hand: kept experts stay, the others fill the free slots in their order. */
Test(thrifty, slots_are_preserved)
{
    const uint16_t old[8] = { 3, 1, 4, 1, 5, 9, 2, 6 };
    uint16_t plan[8] = { 1, 7, 4, 3, 2, 2, 8, 5 };
    const uint16_t expected[8] = { 3, 1, 4, 7, 5, 2, 2, 8 };
    struct moe_realign realign;
    cr_assert_eq(moe_arena_init(&scratch, 4096, NULL), MOE_OK);
    cr_assert_eq(moe_realign_init(&realign, &scratch, 2, 4, 10, NULL), MOE_OK);
    moe_realign_slots(&realign, old, plan);
    cr_assert_eq(memcmp(plan, expected, sizeof plan), 0);
    moe_arena_finish(&scratch);
}
