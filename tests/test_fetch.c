/* Temporary copies: what policies that fetch may name, what becomes of it, and what it gains. */
#include <criterion/criterion.h>
#include <string.h>

#include "policies/copy_index.h"
#include "policies/policy.h"
#include "sim/base/random.h"

enum { GPUS = 8, LASTING = 3, LIMIT = 2, PER_GPU = LASTING + LIMIT, EXPERTS = 16 };
enum { SLOTS = GPUS * PER_GPU, FETCHES = GPUS * LIMIT, CASES = 2000 };

static const char *const fetching[] = { "llep", "ultraep", "harmoeny" };

/* One layer: lasting copies in the first slots of every GPU, the others temporary. */
struct world {
    struct moe_arena arena;
    struct moe_placement placement;
    struct moe_copy_index index;
    uint16_t row[SLOTS];
    uint32_t demand[GPUS * EXPERTS];
    uint64_t total[EXPERTS];
    uint32_t quota[GPUS * SLOTS];
    struct moe_dispatch_fetch fetch[FETCHES];
    uint32_t fetch_count;
    uint64_t gpu_load[GPUS];
    uint64_t most;
};

static const struct moe_placement_shape shape = { 1, EXPERTS, SLOTS, GPUS, 1, 1 };

/* skew 0: even; larger: the first experts get ever more. */
static void draw(struct world *w, uint64_t number, uint64_t skew)
{
    const uint64_t key = moe_random_key(number, MOE_RANDOM_TEST);
    memset(w->row, 0xff, sizeof w->row);
    memset(w->total, 0, sizeof w->total);
    for (uint32_t i = 0; i < GPUS * LASTING; i++) { /* each expert once, then any */
        const uint32_t expert =
            i < EXPERTS ? i : (uint32_t) moe_random_below(key, i, EXPERTS + EXPERTS / 2);
        w->row[i % GPUS * PER_GPU + i / GPUS] =
            expert < EXPERTS ? (uint16_t) expert : MOE_SLOT_EMPTY;
    }
    for (uint32_t i = 0; i < GPUS * EXPERTS; i++) {
        const uint64_t weight = 1 + skew * (i % EXPERTS < 2) * 20;
        w->demand[i] = (uint32_t) (moe_random_below(key, 1000 + i, 100) * weight);
        w->total[i % EXPERTS] += w->demand[i];
    }
}

static struct moe_dispatch_view view_of(const struct world *w, const double *values, uint32_t limit)
{
    return (struct moe_dispatch_view){ .shape = shape,
                                       .fetch_limit = limit,
                                       .copy_count = w->index.copy_count,
                                       .first_copy = w->index.first_copy,
                                       .slot_of_copy = w->index.slot_of_copy,
                                       .gpu_of_copy = w->index.gpu_of_copy,
                                       .demand = w->demand,
                                       .expert_total = w->total,
                                       .parameters = values };
}

/* As an engine does it; the fetched copies come to stand in row. The arena holds index then. */
static void dispatch(struct world *w, const char *name, const char *small, uint32_t limit)
{
    const struct moe_policy *policy = NULL;
    double values[MOE_POLICY_PARAMETER_LIMIT];
    struct moe_error err = { 0 };
    uint64_t dropped = 0;
    uint32_t used[GPUS] = { 0 };
    void *state = NULL;
    cr_assert_eq(moe_arena_init(&w->arena, 1 << 18, NULL), MOE_OK);
    cr_assert_eq(moe_policy_find(MOE_POLICY_DISPATCH, name, &policy, NULL), MOE_OK);
    moe_policy_defaults(policy, values);
    for (uint32_t i = 0; i < policy->parameter_count; i++) { /* the smallest piece: 1 token */
        values[i] = strcmp(policy->parameters[i].name, small) == 0 ? 1.0 : values[i];
    }
    w->placement = (struct moe_placement){ .shape = shape, .expert_of_slot = w->row };
    const struct moe_place_view planning = { .shape = shape, .parameters = values };
    cr_assert_eq(policy->dispatch->init(&planning, &w->placement, &w->arena, &state, &err), MOE_OK);
    cr_assert_eq(moe_copy_index_init(&w->index, &w->placement, 0, &w->arena, NULL), MOE_OK);
    struct moe_dispatch_view view = view_of(w, values, limit);
    cr_assert_eq(moe_policy_fetch(policy, state, &view, w->fetch, &w->fetch_count, &err), MOE_OK,
                 "%s", err.text);
    for (uint32_t i = 0; i < w->fetch_count; i++) {
        const uint32_t gpu = w->fetch[i].gpu;
        w->row[gpu * PER_GPU + LASTING + used[gpu]++] = w->fetch[i].expert;
    }
    moe_copy_index_build(&w->index, &shape, w->row);
    view = view_of(w, values, limit);
    cr_assert_eq(moe_policy_split(policy, state, &view, w->quota, &dropped, &err), MOE_OK, "%s",
                 err.text);
    memset(w->gpu_load, 0, sizeof w->gpu_load);
    w->most = 0;
    for (uint32_t i = 0; i < GPUS * w->index.copy_count; i++) {
        w->gpu_load[w->index.gpu_of_copy[i % w->index.copy_count]] += w->quota[i];
    }
    for (uint32_t gpu = 0; gpu < GPUS; gpu++) {
        w->most = w->gpu_load[gpu] > w->most ? w->gpu_load[gpu] : w->most;
    }
}

static const char *piece_of(size_t i)
{
    return ((const char *const[]){ "chunk", "min_tokens", "bucket" })[i];
}

/* The gate holds what was fetched and split; no temporary slot is worse than none on average, every
 * fetched copy works, and without temporary slots nothing is fetched. */
Test(fetch, temporary_copies_level_loads)
{
    static struct world w;
    for (size_t i = 0; i < sizeof fetching / sizeof fetching[0]; i++) {
        uint64_t with = 0;
        uint64_t without = 0;
        uint32_t fetched = 0;
        for (uint64_t number = 0; number < CASES; number++) {
            draw(&w, number, number % 4);
            dispatch(&w, fetching[i], piece_of(i), 0);
            cr_assert_eq(w.fetch_count, 0);
            without += w.most;
            moe_arena_finish(&w.arena);
            draw(&w, number, number % 4);
            dispatch(&w, fetching[i], piece_of(i), LIMIT);
            with += w.most;
            fetched += w.fetch_count;
            for (uint32_t f = 0; f < w.fetch_count; f++) {
                uint64_t tokens = 0;
                uint32_t copy = w.index.first_copy[w.fetch[f].expert];
                while (w.index.gpu_of_copy[copy] != w.fetch[f].gpu) {
                    copy++;
                }
                for (uint32_t source = 0; source < GPUS; source++) {
                    tokens += w.quota[(size_t) source * w.index.copy_count + copy];
                }
                cr_assert_gt(tokens, 0, "%s fetches what nobody uses", fetching[i]);
            }
            moe_arena_finish(&w.arena);
        }
        cr_assert_gt(fetched, CASES / 4, "%s", fetching[i]);
        cr_assert_lt((double) with, 0.8 * (double) without, "%s: %g against %g", fetching[i],
                     (double) with, (double) without);
    }
}

/* Two hot experts on two GPUs and nothing else: two temporary slots everywhere level all. */
Test(fetch, hot_experts_by_hand)
{
    static struct world w;
    for (size_t i = 0; i < sizeof fetching / sizeof fetching[0]; i++) {
        draw(&w, 1, 0);
        memset(w.demand, 0, sizeof w.demand);
        memset(w.total, 0, sizeof w.total);
        for (uint32_t source = 0; source < GPUS; source++) {
            w.demand[(size_t) source * EXPERTS] = 1000;
            w.demand[(size_t) source * EXPERTS + 1] = 1000;
        }
        w.total[0] = w.total[1] = (uint64_t) GPUS * 1000;
        dispatch(&w, fetching[i], piece_of(i), LIMIT);
        cr_assert_leq(w.most, 2200, "%s leaves %llu tokens on one GPU", fetching[i],
                      (unsigned long long) w.most); /* the mean is 2000; LLEP's cap 1.1 of it */
        moe_arena_finish(&w.arena);
    }
}

static enum moe_status fetch_badly(void *state, const struct moe_dispatch_view *view,
                                   struct moe_dispatch_fetch *fetch, uint32_t *count,
                                   struct moe_error *err)
{
    const struct moe_dispatch_fetch *what = state;
    (void) view;
    (void) err;
    for (*count = 0; what[*count].gpu != UINT16_MAX && *count < FETCHES; *count += 1) {
        fetch[*count] = what[*count];
    }
    return MOE_OK;
}

/* What may not be is refused with the reason. */
Test(fetch, gate_refuses)
{
    static struct world w;
    static struct moe_dispatch_fetch none = { 0, UINT16_MAX };
    const struct moe_dispatch_fetch end = none;
    const struct {
        struct moe_dispatch_fetch fetch[4];
        const char *why;
    } cases[] = {
        { { { EXPERTS, 0 }, end }, "there is no such expert or GPU" },
        { { { 0, GPUS }, end }, "there is no such expert or GPU" },
        { { { 0, 0 }, end }, "the GPU holds a copy" },
        { { { 8, 1 }, { 8, 1 }, end }, "it is fetched twice" },
        { { { 8, 1 }, { 10, 1 }, { 11, 1 }, end }, "the GPU has no temporary slot left" },
    };
    const struct moe_dispatch_methods methods = { .fetch = fetch_badly };
    const struct moe_policy policy = { .name = "bad", .dispatch = &methods };
    memset(w.row, 0xff, sizeof w.row);
    for (uint32_t e = 0; e < EXPERTS; e++) {
        w.row[e % GPUS * PER_GPU + e / GPUS] = (uint16_t) e;
    }
    w.placement = (struct moe_placement){ .shape = shape, .expert_of_slot = w.row };
    cr_assert_eq(moe_arena_init(&w.arena, 1 << 16, NULL), MOE_OK);
    cr_assert_eq(moe_copy_index_init(&w.index, &w.placement, 0, &w.arena, NULL), MOE_OK);
    const struct moe_dispatch_view view = view_of(&w, NULL, LIMIT);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct moe_dispatch_fetch what[4];
        struct moe_error err = { 0 };
        memcpy(what, cases[i].fetch, sizeof what);
        cr_assert_eq(moe_policy_fetch(&policy, what, &view, w.fetch, &w.fetch_count, &err),
                     MOE_POLICY);
        cr_assert(strstr(err.text, cases[i].why) != NULL, "case %zu: %s", i, err.text);
    }
    moe_arena_finish(&w.arena);
}
