/* An exchange changes two GPUs only, so its new maximum is that of the two and of the largest
 * time among the rest, which three remembered GPUs suffice to know. */
#include "policies/solve/vibe_solver.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>

#include "sim/base/no_malloc.h"

/* A gain below the rounding of the sums could be undone by the next exchange, for ever. */
#define NOTICEABLE (1.0 - 1e-12)

enum moe_status moe_vibe_init(struct moe_vibe *vibe, struct moe_arena *arena, uint32_t expert_count,
                              uint32_t gpu_count, const struct moe_policy_speed *speed,
                              struct moe_error *err)
{
    *vibe = (struct moe_vibe){
        .expert_count = expert_count,
        .gpu_count = gpu_count,
        .speed = speed,
        .order = MOE_NEW(arena, uint32_t, expert_count),
        .fill = MOE_NEW(arena, uint32_t, gpu_count),
        .tokens = MOE_NEW(arena, double, gpu_count),
        .time_ns = MOE_NEW(arena, double, gpu_count),
        .other = MOE_NEW(arena, uint32_t, expert_count),
    };
    if (vibe->order == NULL || vibe->fill == NULL || vibe->tokens == NULL ||
        vibe->time_ns == NULL || vibe->other == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to place %u experts on %u GPUs", expert_count,
                        gpu_count);
    }
    return MOE_OK;
}

/* order[]: hottest first, stable (insertion into a list that is short and often sorted). */
static void sort_experts(struct moe_vibe *vibe, const double *load)
{
    for (uint32_t expert = 0; expert < vibe->expert_count; expert++) {
        uint32_t hole = expert;
        for (; hole > 0 && load[vibe->order[hole - 1]] < load[expert]; hole--) {
            vibe->order[hole] = vibe->order[hole - 1];
        }
        vibe->order[hole] = expert;
    }
}

/* The GPU that finishes soonest with so many tokens more, among those with room. by_time
 * false: the one with the fewest tokens, and of equal ones the soonest. */
static uint32_t soonest(const struct moe_vibe *vibe, double more, uint32_t fuller_left,
                        bool by_time)
{
    const uint32_t base = vibe->expert_count / vibe->gpu_count;
    uint32_t found = UINT32_MAX;
    double least = INFINITY;
    double least_time = INFINITY;
    for (uint32_t gpu = 0; gpu < vibe->gpu_count; gpu++) {
        if (vibe->fill[gpu] >= base + (fuller_left > 0 ? 1 : 0)) {
            continue;
        }
        const double sum = vibe->tokens[gpu] + more;
        const double time = moe_policy_speed_ns(vibe->speed, gpu, sum);
        const double key = by_time ? time : sum;
        if (found == UINT32_MAX || key < least || (key == least && time < least_time)) {
            found = gpu;
            least = key;
            least_time = time;
        }
    }
    assert(found != UINT32_MAX);
    return found;
}

static void fill_greedily(struct moe_vibe *vibe, const double *load, bool by_time,
                          uint32_t *gpu_of_expert)
{
    const uint32_t base = vibe->expert_count / vibe->gpu_count;
    uint32_t fuller_left = vibe->expert_count % vibe->gpu_count;
    for (uint32_t gpu = 0; gpu < vibe->gpu_count; gpu++) {
        vibe->fill[gpu] = 0;
        vibe->tokens[gpu] = 0.0;
    }
    for (uint32_t i = 0; i < vibe->expert_count; i++) {
        const uint32_t expert = vibe->order[i];
        const uint32_t gpu = soonest(vibe, load[expert], fuller_left, by_time);
        gpu_of_expert[expert] = gpu;
        vibe->tokens[gpu] += load[expert];
        fuller_left -= vibe->fill[gpu]++ == base;
    }
}

static void measure(struct moe_vibe *vibe, const double *load, const uint32_t *gpu_of_expert)
{
    for (uint32_t gpu = 0; gpu < vibe->gpu_count; gpu++) {
        vibe->tokens[gpu] = 0.0;
    }
    for (uint32_t expert = 0; expert < vibe->expert_count; expert++) {
        vibe->tokens[gpu_of_expert[expert]] += load[expert];
    }
    for (uint32_t gpu = 0; gpu < vibe->gpu_count; gpu++) {
        vibe->time_ns[gpu] = moe_policy_speed_ns(vibe->speed, gpu, vibe->tokens[gpu]);
    }
}

/* The slowest three GPUs, slowest first; fewer GPUs repeat the last. */
static void find_slowest(const struct moe_vibe *vibe, uint32_t slowest[3])
{
    for (uint32_t place = 0; place < 3; place++) {
        uint32_t found = UINT32_MAX;
        for (uint32_t gpu = 0; gpu < vibe->gpu_count; gpu++) {
            const bool taken = (place > 0 && gpu == slowest[0]) || (place > 1 && gpu == slowest[1]);
            if (!taken && (found == UINT32_MAX || vibe->time_ns[gpu] > vibe->time_ns[found])) {
                found = gpu;
            }
        }
        slowest[place] = found == UINT32_MAX ? slowest[place - 1] : found;
    }
}

struct exchange {
    uint32_t mine; /* on the slowest GPU */
    uint32_t theirs;
    double time_ns; /* of the slowest GPU afterwards */
    double pair_ns; /* of the slower of the two */
};

/* The best exchange; time_ns stays INFINITY when no GPU has a cooler expert. */
static struct exchange best_exchange(const struct moe_vibe *vibe, const double *load,
                                     const uint32_t *gpu_of_expert, const uint32_t slowest[3])
{
    struct exchange best = { .time_ns = INFINITY, .pair_ns = INFINITY };
    const uint32_t from = slowest[0];
    for (uint32_t mine = 0; mine < vibe->expert_count; mine++) {
        if (gpu_of_expert[mine] != from) {
            continue;
        }
        for (uint32_t theirs = 0; theirs < vibe->expert_count; theirs++) {
            const uint32_t to = gpu_of_expert[theirs];
            const double moved = load[mine] - load[theirs];
            if (to == from || !(moved > 0.0)) {
                continue;
            }
            const double here = moe_policy_speed_ns(vibe->speed, from, vibe->tokens[from] - moved);
            const double there = moe_policy_speed_ns(vibe->speed, to, vibe->tokens[to] + moved);
            const uint32_t third = to == slowest[1] ? slowest[2] : slowest[1];
            const double rest = third == to || third == from ? 0.0 : vibe->time_ns[third];
            const double pair = here > there ? here : there;
            const double all = pair > rest ? pair : rest;
            if (all < best.time_ns || (all == best.time_ns && pair < best.pair_ns)) {
                best = (struct exchange){ mine, theirs, all, pair };
            }
        }
    }
    return best;
}

uint32_t moe_vibe_exchange(struct moe_vibe *vibe, const double *load, uint32_t limit,
                           uint32_t *gpu_of_expert)
{
    uint32_t made = 0;
    measure(vibe, load, gpu_of_expert);
    for (; made < limit; made++) {
        uint32_t slowest[3];
        find_slowest(vibe, slowest);
        const struct exchange best = best_exchange(vibe, load, gpu_of_expert, slowest);
        if (!(best.time_ns < vibe->time_ns[slowest[0]] * NOTICEABLE)) {
            break;
        }
        const uint32_t to = gpu_of_expert[best.theirs];
        gpu_of_expert[best.theirs] = slowest[0];
        gpu_of_expert[best.mine] = to;
        measure(vibe, load, gpu_of_expert);
    }
    return made;
}

double moe_vibe_time_ns(struct moe_vibe *vibe, const double *load, const uint32_t *gpu_of_expert)
{
    uint32_t slowest[3];
    measure(vibe, load, gpu_of_expert);
    find_slowest(vibe, slowest);
    return vibe->time_ns[slowest[0]];
}

void moe_vibe_solve(struct moe_vibe *vibe, const double *load, uint32_t *gpu_of_expert)
{
    sort_experts(vibe, load);
    fill_greedily(vibe, load, true, gpu_of_expert);
    fill_greedily(vibe, load, false, vibe->other);
    (void) moe_vibe_exchange(vibe, load, UINT32_MAX, gpu_of_expert);
    (void) moe_vibe_exchange(vibe, load, UINT32_MAX, vibe->other);
    if (moe_vibe_time_ns(vibe, load, vibe->other) < moe_vibe_time_ns(vibe, load, gpu_of_expert)) {
        for (uint32_t expert = 0; expert < vibe->expert_count; expert++) {
            gpu_of_expert[expert] = vibe->other[expert];
        }
    }
}

double moe_vibe_drift(const double *a, const double *b, uint32_t count)
{
    double largest_a = 0.0;
    double largest_b = 0.0;
    double aa = 0.0;
    double bb = 0.0;
    double ab = 0.0;
    for (uint32_t i = 0; i < count; i++) {
        largest_a = a[i] > largest_a ? a[i] : largest_a;
        largest_b = b[i] > largest_b ? b[i] : largest_b;
    }
    if (largest_a == 0.0 || largest_b == 0.0) {
        return largest_a == largest_b ? 0.0 : 1.0;
    }
    for (uint32_t i = 0; i < count; i++) { /* scaled, so that no square overflows */
        const double x = a[i] / largest_a;
        const double y = b[i] / largest_b;
        aa += x * x;
        bb += y * y;
        ab += x * y;
    }
    const double distance = 1.0 - ab / sqrt(aa * bb);
    return distance > 0.0 ? distance : 0.0;
}
