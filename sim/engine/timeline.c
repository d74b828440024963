#include "sim/engine/timeline.h"

#include <assert.h>

#include "sim/base/no_malloc.h"

struct moe_barrier moe_timeline_barrier(const moe_time_ns *arrive, uint32_t gpu_count)
{
    moe_time_ns last = arrive[0];
    moe_time_ns second = INT64_MIN;
    moe_time_ns sum = arrive[0];
    uint32_t last_rank = 0;
    for (uint32_t gpu = 1; gpu < gpu_count; gpu++) {
        const moe_time_ns t = arrive[gpu];
        sum += t;
        if (t > last) {
            second = last;
            last = t;
            last_rank = gpu;
        } else if (t > second) {
            second = t;
        }
    }
    return (struct moe_barrier){
        .open_ns = last,
        .idle_ns = last * gpu_count - sum,
        .lead_ns = gpu_count == 1 ? 0 : last - second,
        .last_rank = last_rank,
    };
}

static moe_time_ns longest(const moe_time_ns *duration, uint32_t gpu_count)
{
    moe_time_ns max = 0;
    for (uint32_t gpu = 0; gpu < gpu_count; gpu++) {
        max = duration[gpu] > max ? duration[gpu] : max;
    }
    return max;
}

void moe_timeline_layer(const struct moe_layer_times *layer, moe_time_ns *clock,
                        struct moe_barrier pair[2])
{
    const uint32_t gpus = layer->gpu_count;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        clock[gpu] += layer->before[gpu];
    }
    pair[0] = moe_timeline_barrier(clock, gpus);
    const moe_time_ns open = pair[0].open_ns;
    const moe_time_ns out = layer->common_exit ? longest(layer->dispatch, gpus) : 0;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        const moe_time_ns data = open + (layer->common_exit ? out : layer->dispatch[gpu]);
        if (layer->shared_mode == MOE_SHARED_SERIAL) {
            clock[gpu] = data + layer->shared[gpu] + layer->expert[gpu];
        } else {
            const moe_time_ns unshared = clock[gpu] + layer->shared[gpu];
            clock[gpu] = (data > unshared ? data : unshared) + layer->expert[gpu];
        }
    }
    pair[1] = moe_timeline_barrier(clock, gpus);
    const moe_time_ns done = pair[1].open_ns;
    const moe_time_ns back = layer->common_exit ? longest(layer->combine, gpus) : 0;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        clock[gpu] = done + (layer->common_exit ? back : layer->combine[gpu]);
    }
}

moe_time_ns moe_timeline_run(const struct moe_step_times *times, moe_time_ns *clock,
                             struct moe_barrier *barriers)
{
    const uint32_t gpus = times->gpu_count;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        clock[gpu] = 0;
    }
    for (uint32_t layer = 0; layer < times->layer_count; layer++) {
        const size_t row = (size_t) layer * gpus;
        const struct moe_layer_times view = {
            .gpu_count = gpus,
            .common_exit = times->common_exit,
            .shared_mode = times->shared_mode,
            .before = times->before + row,
            .shared = times->shared + row,
            .dispatch = times->dispatch + row,
            .expert = times->expert + row,
            .combine = times->combine + row,
        };
        moe_timeline_layer(&view, clock, &barriers[(size_t) 2 * layer]);
    }
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        clock[gpu] += times->after[gpu];
    }
    struct moe_barrier *end = &barriers[(size_t) 2 * times->layer_count];
    *end = moe_timeline_barrier(clock, gpus);
    return end->open_ns;
}

static void add(struct moe_critical_path *path, enum moe_cost_part part, uint8_t provenance,
                moe_time_ns ns)
{
    path->ns[part][provenance] += ns;
}

void moe_critical_add_before(struct moe_critical_path *path, moe_time_ns total,
                             const struct moe_duration *part, uint32_t dense)
{
    const double dense_ffn = part[MOE_COST_DENSE].ns * dense;
    const double gate = part[MOE_COST_GATE].ns;
    const double sum =
        moe_before_ns(part[MOE_COST_ATTENTION].ns, part[MOE_COST_DENSE].ns, gate, dense);
    const moe_time_ns dense_ns = sum > 0.0 ? (moe_time_ns) ((double) total * dense_ffn / sum) : 0;
    const moe_time_ns gate_ns = sum > 0.0 ? (moe_time_ns) ((double) total * gate / sum) : 0;
    add(path, MOE_COST_DENSE, (uint8_t) part[MOE_COST_DENSE].provenance, dense_ns);
    add(path, MOE_COST_GATE, (uint8_t) part[MOE_COST_GATE].provenance, gate_ns);
    add(path, MOE_COST_ATTENTION, (uint8_t) part[MOE_COST_ATTENTION].provenance,
        total - dense_ns - gate_ns);
}

void moe_critical_add_after(struct moe_critical_path *path, moe_time_ns total,
                            const struct moe_duration *part)
{
    const moe_time_ns host = moe_time_round_up(part[MOE_COST_HOST].ns);
    const moe_time_ns host_ns = host < total ? host : total;
    add(path, MOE_COST_HOST, (uint8_t) part[MOE_COST_HOST].provenance, host_ns);
    add(path, MOE_COST_HEAD, (uint8_t) part[MOE_COST_HEAD].provenance, total - host_ns);
}

/* The rank whose own exit from a collective a later event waited for: with a common exit
 * that is the longest one. */
static uint32_t exit_rank(const struct moe_step_times *times, const moe_time_ns *duration,
                          uint32_t rank)
{
    if (!times->common_exit) {
        return rank;
    }
    uint32_t max = 0;
    for (uint32_t gpu = 1; gpu < times->gpu_count; gpu++) {
        max = duration[gpu] > duration[max] ? gpu : max;
    }
    return max;
}

void moe_timeline_critical(const struct moe_step_times *times, const struct moe_barrier *barriers,
                           const struct moe_price_sources *sources, struct moe_critical_path *path)
{
    const uint32_t gpus = times->gpu_count;
    uint32_t rank = barriers[(size_t) 2 * times->layer_count].last_rank;
    moe_critical_add_after(path, times->after[rank], sources->tokens[rank].part);
    for (uint32_t layer = times->layer_count; layer-- > 0;) {
        const size_t row = (size_t) layer * gpus;
        const struct moe_barrier *pair = &barriers[(size_t) 2 * layer];
        const size_t back = row + exit_rank(times, times->combine + row, rank);
        add(path, MOE_COST_COMBINE, sources->combine[back], times->combine[back]);
        rank = pair[1].last_rank;
        add(path, MOE_COST_EXPERT, sources->expert[row + rank], times->expert[row + rank]);
        const uint8_t shared_source =
            (uint8_t) sources->tokens[rank].part[MOE_COST_SHARED].provenance;
        const moe_time_ns begun = pair[1].open_ns - times->expert[row + rank];
        const size_t out = row + exit_rank(times, times->dispatch + row, rank);
        const moe_time_ns data = pair[0].open_ns + times->dispatch[out];
        if (times->shared_mode == MOE_SHARED_OVERLAPPED && begun > data) {
            /* The rank's own shared expert held it up: the path goes on along this rank. */
            add(path, MOE_COST_SHARED, shared_source, times->shared[row + rank]);
        } else {
            add(path, MOE_COST_SHARED, shared_source, begun - data);
            add(path, MOE_COST_DISPATCH, sources->dispatch[out], times->dispatch[out]);
            rank = pair[0].last_rank;
        }
        moe_critical_add_before(
            path, times->before[row + rank], sources->tokens[rank].part,
            moe_dense_layers_before(layer, times->layer_count, sources->dense_layer_count));
    }
}
