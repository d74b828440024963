/* Augmenting paths go from an overfull GPU to one with room by way of items that lie on both:
 * breadth first from all overfull GPUs at once, so paths are short. The start is nearly level,
 * so few are needed; most of the time goes into writing the graph down. */
#include "policies/solve/split.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "sim/base/no_malloc.h"

enum { LEVEL_SWEEPS = 2 };

enum moe_status moe_split_init(struct moe_split *split, struct moe_arena *arena,
                               const struct moe_placement_shape *shape, struct moe_error *err)
{
    const uint32_t items = shape->expert_count;
    const uint32_t edges = shape->slot_count;
    const uint32_t gpus = shape->gpu_count;
    *split = (struct moe_split){
        .gpu_count = gpus,
        .first_edge = MOE_NEW(arena, uint32_t, (size_t) items + 1),
        .item_expert = MOE_NEW(arena, uint16_t, items),
        .edge_gpu = MOE_NEW(arena, uint16_t, edges),
        .edge_item = MOE_NEW(arena, uint16_t, edges),
        .flow = MOE_NEW(arena, int64_t, edges),
        .first_at = MOE_NEW(arena, uint32_t, (size_t) gpus + 1),
        .edge_at = MOE_NEW(arena, uint32_t, edges),
        .load = MOE_NEW(arena, int64_t, gpus),
        .capacity = MOE_NEW(arena, int64_t, gpus),
        .reached = MOE_NEW(arena, bool, gpus),
        .item_seen = MOE_NEW(arena, bool, items),
        .queue = MOE_NEW(arena, uint16_t, gpus),
        .from_edge = MOE_NEW(arena, uint32_t, gpus),
        .to_edge = MOE_NEW(arena, uint32_t, gpus),
    };
    if (split->first_edge == NULL || split->item_expert == NULL || split->edge_gpu == NULL ||
        split->edge_item == NULL || split->flow == NULL || split->first_at == NULL ||
        split->edge_at == NULL || split->load == NULL || split->capacity == NULL ||
        split->reached == NULL || split->item_seen == NULL || split->queue == NULL ||
        split->from_edge == NULL || split->to_edge == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room to split the load of %u slots over %u GPUs", edges,
                        gpus);
    }
    return MOE_OK;
}

/* Divides load[0 .. count) more of one item over its hosts, lowest first, until they are level.
 * edge: the item's first edge; what it had there has been taken off the GPUs' loads. */
static void fill_level(struct moe_split *split, uint32_t edge, uint32_t count, int64_t amount)
{
    /* Hosts by load, ties by GPU: insertion, because an expert has few copies. The queue is
     * free between searches and has room for every GPU. */
    uint16_t *order = split->queue;
    for (uint32_t i = 0; i < count; i++) {
        const int64_t load = split->load[split->edge_gpu[edge + i]];
        uint32_t hole = i;
        for (; hole > 0 && split->load[split->edge_gpu[edge + order[hole - 1]]] > load; hole--) {
            order[hole] = order[hole - 1];
        }
        order[hole] = (uint16_t) i;
    }
    int64_t sum = amount;
    uint32_t filled = 0;
    do {
        sum += split->load[split->edge_gpu[edge + order[filled++]]];
    } while (filled < count &&
             sum > (int64_t) filled * split->load[split->edge_gpu[edge + order[filled]]]);
    const int64_t level = sum / filled;
    int64_t over = sum % filled; /* that many hosts get one more */
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t at = edge + order[i];
        int64_t *load = &split->load[split->edge_gpu[at]];
        int64_t goal = *load;
        if (i < filled) {
            goal = level + (over > 0 ? 1 : 0);
            over--;
        }
        assert(goal >= *load);
        split->flow[at] = goal - *load;
        *load = goal;
    }
}

static void write_edges(struct moe_split *split, const struct moe_hosts *hosts, const int64_t *load)
{
    uint32_t edge = 0;
    uint32_t item = 0;
    memset(split->load, 0, split->gpu_count * sizeof *split->load);
    memset(split->first_at, 0, ((size_t) split->gpu_count + 1) * sizeof *split->first_at);
    for (uint32_t expert = 0; expert < hosts->expert_count; expert++) {
        const uint32_t first = hosts->first_host[expert];
        const uint32_t end = hosts->first_host[expert + 1];
        assert(load[expert] >= 0);
        if (load[expert] == 0) {
            continue;
        }
        assert(end > first);
        if (end - first == 1) {
            split->load[hosts->gpu_of_host[first]] += load[expert];
            continue;
        }
        split->item_expert[item] = (uint16_t) expert;
        split->first_edge[item] = edge;
        for (uint32_t host = first; host < end; host++, edge++) {
            split->edge_gpu[edge] = hosts->gpu_of_host[host];
            split->edge_item[edge] = (uint16_t) item;
            split->first_at[hosts->gpu_of_host[host]]++;
        }
        item++;
    }
    split->item_count = item;
    split->first_edge[item] = edge;
    uint32_t sum = 0;
    for (uint32_t gpu = 0; gpu <= split->gpu_count; gpu++) {
        sum += split->first_at[gpu];
        split->first_at[gpu] = sum;
    }
    while (edge-- > 0) {
        split->edge_at[--split->first_at[split->edge_gpu[edge]]] = edge;
    }
}

void moe_split_begin(struct moe_split *split, const struct moe_hosts *hosts, const int64_t *load)
{
    assert(hosts->gpu_count == split->gpu_count);
    write_edges(split, hosts, load);
    memset(split->flow, 0, split->first_edge[split->item_count] * sizeof *split->flow);
    for (int sweep = 0; sweep < LEVEL_SWEEPS; sweep++) {
        for (uint32_t item = 0; item < split->item_count; item++) {
            const uint32_t edge = split->first_edge[item];
            const uint32_t count = split->first_edge[item + 1] - edge;
            for (uint32_t i = 0; i < count; i++) {
                split->load[split->edge_gpu[edge + i]] -= split->flow[edge + i];
            }
            fill_level(split, edge, count, load[split->item_expert[item]]);
        }
    }
}

/* Marks what the overfull GPUs reach; returns the first GPU with room, or gpu_count. */
static uint32_t search(struct moe_split *split)
{
    const uint32_t gpus = split->gpu_count;
    uint32_t tail = 0;
    memset(split->item_seen, 0, split->item_count * sizeof *split->item_seen);
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        split->reached[gpu] = split->load[gpu] > split->capacity[gpu];
        split->from_edge[gpu] = UINT32_MAX;
        if (split->reached[gpu]) {
            split->queue[tail++] = (uint16_t) gpu;
        }
    }
    for (uint32_t head = 0; head < tail; head++) {
        const uint16_t gpu = split->queue[head];
        for (uint32_t at = split->first_at[gpu]; at < split->first_at[gpu + 1]; at++) {
            const uint32_t from = split->edge_at[at];
            const uint16_t item = split->edge_item[from];
            if (split->flow[from] == 0 || split->item_seen[item]) {
                continue;
            }
            split->item_seen[item] = true;
            for (uint32_t to = split->first_edge[item]; to < split->first_edge[item + 1]; to++) {
                const uint16_t next = split->edge_gpu[to];
                if (split->reached[next]) {
                    continue;
                }
                split->reached[next] = true;
                split->from_edge[next] = from;
                split->to_edge[next] = to;
                if (split->load[next] < split->capacity[next]) {
                    return next;
                }
                split->queue[tail++] = next;
            }
        }
    }
    return gpus;
}

/* Moves as much as the path to GPU end takes. */
static void augment(struct moe_split *split, uint32_t end)
{
    int64_t amount = split->capacity[end] - split->load[end];
    uint32_t gpu = end;
    while (split->from_edge[gpu] != UINT32_MAX) {
        const uint32_t from = split->from_edge[gpu];
        amount = split->flow[from] < amount ? split->flow[from] : amount;
        gpu = split->edge_gpu[from];
    }
    const int64_t excess = split->load[gpu] - split->capacity[gpu];
    amount = excess < amount ? excess : amount;
    assert(amount > 0);
    split->load[gpu] -= amount;
    split->load[end] += amount;
    for (gpu = end; split->from_edge[gpu] != UINT32_MAX;) {
        split->flow[split->from_edge[gpu]] -= amount;
        split->flow[split->to_edge[gpu]] += amount;
        gpu = split->edge_gpu[split->from_edge[gpu]];
    }
}

static bool overfull(const struct moe_split *split)
{
    for (uint32_t gpu = 0; gpu < split->gpu_count; gpu++) {
        if (split->load[gpu] > split->capacity[gpu]) {
            return true;
        }
    }
    return false;
}

bool moe_split_fit(struct moe_split *split)
{
    while (overfull(split)) {
        const uint32_t end = search(split);
        if (end == split->gpu_count) {
            return false;
        }
        augment(split, end);
    }
    return true;
}

int64_t moe_split_level(struct moe_split *split)
{
    int64_t sum = 0;
    assert(split->gpu_count > 0);
    for (uint32_t gpu = 0; gpu < split->gpu_count; gpu++) {
        sum += split->load[gpu];
    }
    int64_t level = (sum + split->gpu_count - 1) / split->gpu_count;
    for (;;) {
        for (uint32_t gpu = 0; gpu < split->gpu_count; gpu++) {
            split->capacity[gpu] = level;
        }
        if (moe_split_fit(split)) {
            return level;
        }
        int64_t held = 0;
        int64_t holders = 0;
        for (uint32_t gpu = 0; gpu < split->gpu_count; gpu++) {
            held += split->reached[gpu] ? split->load[gpu] : 0;
            holders += split->reached[gpu] ? 1 : 0;
        }
        assert(holders > 0); /* the overfull ones at least */
        const int64_t raised = (held + holders - 1) / holders;
        assert(raised > level);
        level = raised;
    }
}

double moe_split_bound(struct moe_split *split, const struct moe_hosts *hosts, const double *load,
                       int64_t *scaled)
{
    double sum = 0.0;
    for (uint32_t expert = 0; expert < hosts->expert_count; expert++) {
        assert(load[expert] >= 0.0);
        sum += load[expert];
    }
    if (sum == 0.0) {
        return 0.0;
    }
    /* A power of two, so that loads of few digits stay exact. */
    const int exponent = 51 - ilogb(sum);
    for (uint32_t expert = 0; expert < hosts->expert_count; expert++) {
        scaled[expert] = (int64_t) llrint(ldexp(load[expert], exponent));
    }
    moe_split_begin(split, hosts, scaled);
    return ldexp((double) moe_split_level(split), -exponent);
}
