#include "sim/engine/overlap/halves.h"

#include <assert.h>

#include "sim/base/no_malloc.h"

/* Operations of a layer, of either resource. */
enum { FIRST_A, FIRST_B, SECOND_A, SECOND_B, OPERATIONS };

enum moe_status moe_halves_init(struct moe_halves *h, const struct moe_halves_pace *pace,
                                uint32_t layer_count, struct moe_arena *arena,
                                struct moe_error *err)
{
    const size_t rounds = (size_t) OPERATIONS * layer_count + 1;
    *h = (struct moe_halves){
        .pace = *pace,
        .layer_count = layer_count,
        .compute = MOE_NEW(arena, moe_time_ns, rounds * pace->gpu_count),
        .comm = MOE_NEW(arena, moe_time_ns, rounds * pace->gpu_count),
        .barriers = MOE_NEW(arena, struct moe_barrier, moe_halves_barrier_count(layer_count)),
        .clock = MOE_NEW(arena, moe_time_ns, pace->gpu_count),
    };
    return h->compute != NULL && h->comm != NULL && h->barriers != NULL && h->clock != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "no room for a step in halves of %u layers on %u GPUs",
                          layer_count, pace->gpu_count);
}

/* What is left of an operation of rest_ns that ran for ran_ns at a factor; never below 0. */
static moe_time_ns left_of(moe_time_ns rest_ns, moe_time_ns ran_ns, double factor)
{
    const double left = (double) rest_ns - (double) ran_ns / factor;
    return left > 0.0 ? moe_time_round_up(left) : 0;
}

/* Arithmetic and exchange begin together with so much to do; out come the times they take. Returns
 * how long both ran. */
static moe_time_ns share(const struct moe_halves_pace *pace, moe_time_ns *compute,
                         moe_time_ns *comm)
{
    const moe_time_ns slow_compute = moe_time_round_up((double) *compute * pace->compute);
    const moe_time_ns slow_comm = moe_time_round_up((double) *comm * pace->comm);
    if (*compute == 0 || *comm == 0) {
        return 0;
    }
    if (slow_compute <= slow_comm) {
        *comm = slow_compute + left_of(*comm, slow_compute, pace->comm);
        *compute = slow_compute;
        return slow_compute;
    }
    *compute = slow_comm + left_of(*compute, slow_comm, pace->compute);
    *comm = slow_comm;
    return slow_comm;
}

struct moe_barrier moe_halves_round(const struct moe_halves_pace *pace,
                                    const struct moe_halves_work *work,
                                    const struct moe_halves_clock *clock,
                                    struct moe_halves_use *use)
{
    moe_time_ns last_exit = 0;
    for (uint32_t gpu = 0; gpu < pace->gpu_count; gpu++) { /* arrivals */
        if (clock->compute[gpu] > clock->comm[gpu]) {
            clock->comm[gpu] = clock->compute[gpu];
        }
    }
    struct moe_barrier barrier = moe_timeline_barrier(clock->comm, pace->gpu_count);
    const moe_time_ns open = barrier.open_ns;
    barrier.idle_ns = 0;
    for (uint32_t gpu = 0; gpu < pace->gpu_count; gpu++) {
        const moe_time_ns begun = clock->comm[gpu];
        const moe_time_ns computes = (work->first == NULL ? 0 : work->first[gpu]) +
                                     (work->then == NULL ? 0 : work->then[gpu]);
        const moe_time_ns alone = begun + computes < open ? begun + computes : open;
        moe_time_ns rest = begun + computes - alone;
        moe_time_ns exchange = work->exchange[gpu];
        barrier.idle_ns += open - alone;
        use->hidden_ns += share(pace, &rest, &exchange);
        use->exchange_ns += exchange;
        clock->compute[gpu] = alone + rest;
        clock->comm[gpu] = open + exchange;
        last_exit = clock->comm[gpu] > last_exit ? clock->comm[gpu] : last_exit;
    }
    for (uint32_t gpu = 0; pace->common_exit && gpu < pace->gpu_count; gpu++) {
        clock->comm[gpu] = last_exit;
    }
    return barrier;
}

/* Round j of a step: exchange j and the arithmetic after it. */
static struct moe_halves_work work_of(const struct moe_halves *h,
                                      const struct moe_step_times *const half[2], uint32_t round)
{
    const uint32_t layer = round / OPERATIONS;
    const size_t row = (size_t) layer * h->pace.gpu_count;
    switch (round % OPERATIONS) {
    case FIRST_A:
        return (struct moe_halves_work){ .exchange = half[0]->dispatch + row,
                                         .first = half[1]->before + row };
    case FIRST_B:
        return (struct moe_halves_work){ .exchange = half[1]->dispatch + row,
                                         .first = half[0]->shared + row,
                                         .then = half[0]->expert + row };
    case SECOND_A:
        return (struct moe_halves_work){ .exchange = half[0]->combine + row,
                                         .first = half[1]->shared + row,
                                         .then = half[1]->expert + row };
    default:
        return (struct moe_halves_work){
            .exchange = half[1]->combine + row,
            .first = layer + 1 < h->layer_count ? half[0]->before + row + h->pace.gpu_count : NULL,
        };
    }
}

moe_time_ns moe_halves_run(struct moe_halves *h, const struct moe_step_times *const half[2],
                           const moe_time_ns *after)
{
    const uint32_t gpus = h->pace.gpu_count;
    const uint32_t rounds = OPERATIONS * h->layer_count;
    h->use = (struct moe_halves_use){ 0 };
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        h->compute[gpu] = half[0]->before[gpu];
        h->comm[gpu] = 0;
    }
    for (uint32_t round = 0; round < rounds; round++) {
        const struct moe_halves_work work = work_of(h, half, round);
        const size_t at = (size_t) round * gpus;
        const struct moe_halves_clock clock = { h->compute + at + gpus, h->comm + at + gpus };
        for (uint32_t gpu = 0; gpu < gpus; gpu++) {
            clock.compute[gpu] = h->compute[at + gpu];
            clock.comm[gpu] = h->comm[at + gpu];
        }
        h->barriers[round] = moe_halves_round(&h->pace, &work, &clock, &h->use);
    }
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        const size_t at = (size_t) rounds * gpus + gpu;
        h->clock[gpu] = (h->compute[at] > h->comm[at] ? h->compute[at] : h->comm[at]) + after[gpu];
    }
    h->barriers[rounds] = moe_timeline_barrier(h->clock, gpus);
    return h->barriers[rounds].open_ns;
}

/* The rank that an exchange's end is told of: with a common exit the first longest one. */
static size_t exit_of(const struct moe_halves *h, const moe_time_ns *duration, uint32_t rank)
{
    uint32_t longest = 0;
    for (uint32_t gpu = 1; gpu < h->pace.gpu_count; gpu++) {
        longest = duration[gpu] > duration[longest] ? gpu : longest;
    }
    return h->pace.common_exit ? longest : rank;
}

static void add_exchange(const struct moe_halves *h, const struct moe_step_times *const half[2],
                         const struct moe_price_sources sources[2], uint32_t round, uint32_t rank,
                         moe_time_ns ns, struct moe_critical_path *path)
{
    const uint32_t which = round % 2;
    const size_t row = (size_t) (round / OPERATIONS) * h->pace.gpu_count;
    if (round % OPERATIONS < SECOND_A) {
        const size_t at = row + exit_of(h, half[which]->dispatch + row, rank);
        path->ns[MOE_COST_DISPATCH][sources[which].dispatch[at]] += ns;
    } else {
        const size_t at = row + exit_of(h, half[which]->combine + row, rank);
        path->ns[MOE_COST_COMBINE][sources[which].combine[at]] += ns;
    }
}

static void add_compute(const struct moe_halves *h, const struct moe_step_times *const half[2],
                        const struct moe_price_sources sources[2], uint32_t operation,
                        uint32_t rank, moe_time_ns ns, struct moe_critical_path *path)
{
    const uint32_t which = operation % 2;
    const uint32_t layer = operation / OPERATIONS;
    const struct moe_duration *part = sources[which].tokens[rank].part;
    const size_t at = (size_t) layer * h->pace.gpu_count + rank;
    if (operation % OPERATIONS < SECOND_A) {
        moe_critical_add_before(
            path, ns, part,
            moe_dense_layers_before(layer, h->layer_count, sources[which].dense_layer_count));
        return;
    }
    const double shared = (double) half[which]->shared[at];
    const double both = shared + (double) half[which]->expert[at];
    const moe_time_ns of_shared = both > 0.0 ? (moe_time_ns) ((double) ns * (shared / both)) : 0;
    path->ns[MOE_COST_SHARED][part[MOE_COST_SHARED].provenance] += of_shared;
    path->ns[MOE_COST_EXPERT][sources[which].expert[at]] += ns - of_shared;
}

void moe_halves_critical(const struct moe_halves *h, const struct moe_step_times *const half[2],
                         const moe_time_ns *after, const struct moe_price_sources *whole,
                         const struct moe_price_sources sources[2], struct moe_critical_path *path)
{
    const uint32_t gpus = h->pace.gpu_count;
    uint32_t round = OPERATIONS * h->layer_count;
    uint32_t rank = h->barriers[round].last_rank;
    moe_critical_add_after(path, after[rank], whole->tokens[rank].part);
    for (; round > 0; round--) { /* at the clock before this round, or after the last one */
        const size_t now = (size_t) round * gpus + rank;
        const struct moe_barrier *barrier = &h->barriers[round - 1];
        if (h->comm[now] >= h->compute[now]) {
            add_exchange(h, half, sources, round - 1, rank, h->comm[now] - barrier->open_ns, path);
            rank = barrier->last_rank;
        } else {
            const size_t before = now - gpus;
            const moe_time_ns begun =
                h->compute[before] > h->comm[before] ? h->compute[before] : h->comm[before];
            add_compute(h, half, sources, round, rank, h->compute[now] - begun, path);
        }
    }
    add_compute(h, half, sources, 0, rank, h->compute[rank], path);
}
