#include "sim/engine/online/migration.h"

#include <assert.h>
#include <string.h>

#include "sim/base/no_malloc.h"

static bool holds(const uint16_t *slots, uint32_t count, uint16_t expert)
{
    for (uint32_t i = 0; i < count; i++) {
        if (slots[i] == expert) {
            return true;
        }
    }
    return false;
}

/* The GPU among first .. end-1 that holds the expert and has sent least; gpu_count: none. */
static uint32_t sender(const struct moe_placement *from, uint32_t layer, uint16_t expert,
                       uint32_t first, uint32_t end, const struct moe_migration_room *room)
{
    const uint32_t each = moe_placement_slots_per_gpu(&from->shape);
    const uint16_t *slots = moe_placement_layer(from, layer);
    uint32_t best = from->shape.gpu_count;
    for (uint32_t gpu = first; gpu < end; gpu++) {
        if (!holds(slots + (size_t) gpu * each, each, expert)) {
            continue;
        }
        const double sent = room->out_near[gpu] + room->out_far[gpu];
        if (best == from->shape.gpu_count || sent < room->out_near[best] + room->out_far[best]) {
            best = gpu;
        }
    }
    return best;
}

static void fetch(const struct moe_placement *from, uint32_t layer, uint32_t gpu, uint16_t expert,
                  struct moe_migration_room *room, struct moe_migration *m)
{
    const uint32_t gpus = from->shape.gpu_count;
    const uint32_t node = gpus / from->shape.node_count;
    const uint32_t home = gpu / node * node;
    uint32_t source = sender(from, layer, expert, home, home + node, room);
    if (source < gpus) {
        room->out_near[source]++;
        room->in_near[gpu]++;
        m->near_copies++;
        return;
    }
    source = sender(from, layer, expert, 0, gpus, room);
    assert(source < gpus); /* every expert is somewhere */
    room->out_far[source]++;
    room->in_far[gpu]++;
    m->far_copies++;
}

void moe_migration_find(const struct moe_placement *from, const struct moe_placement *to,
                        uint32_t layer, bool from_host, struct moe_migration_room *room,
                        struct moe_migration *m)
{
    const uint32_t gpus = from->shape.gpu_count;
    const uint32_t each = moe_placement_slots_per_gpu(&from->shape);
    const size_t bytes = gpus * sizeof(double);
    memset(room->in_near, 0, bytes);
    memset(room->in_far, 0, bytes);
    memset(room->out_near, 0, bytes);
    memset(room->out_far, 0, bytes);
    *m = (struct moe_migration){ 0 };
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        const uint16_t *had = moe_placement_layer(from, layer) + (size_t) gpu * each;
        const uint16_t *gets = moe_placement_layer(to, layer) + (size_t) gpu * each;
        double here = 0.0;
        for (uint32_t i = 0; i < each; i++) {
            const uint16_t expert = gets[i];
            if (expert == MOE_SLOT_EMPTY || holds(had, each, expert) || holds(gets, i, expert)) {
                continue;
            }
            m->copies++;
            here++;
            if (!from_host) {
                fetch(from, layer, gpu, expert, room, m);
            }
        }
        if (from_host) {
            m->host_copies += (uint64_t) here;
            m->most_host = here > m->most_host ? here : m->most_host;
        }
    }
}

struct moe_duration moe_migration_price(const struct moe_cost *cost,
                                        const struct moe_migration_room *room, uint32_t gpu_count,
                                        double expert_bytes)
{
    struct moe_duration longest = { 0.0, MOE_PROVENANCE_MEASURED };
    for (uint32_t gpu = 0; gpu < gpu_count; gpu++) {
        const double near =
            room->in_near[gpu] > room->out_near[gpu] ? room->in_near[gpu] : room->out_near[gpu];
        const double far =
            room->in_far[gpu] > room->out_far[gpu] ? room->in_far[gpu] : room->out_far[gpu];
        const struct moe_duration d =
            moe_cost_bulk_copy(cost, near * expert_bytes, far * expert_bytes);
        longest = d.ns > longest.ns ? d : longest;
    }
    return longest;
}

/* Copies of an expert in a layer. */
static uint32_t copies_of(const struct moe_placement *p, uint32_t layer, uint16_t expert)
{
    const uint16_t *slots = moe_placement_layer(p, layer);
    uint32_t copies = 0;
    for (uint32_t i = 0; i < p->shape.slot_count; i++) {
        copies += slots[i] == expert;
    }
    return copies;
}

/* The slowest GPU's experts of one layer, in ns. */
static double layer_ns(const struct moe_cost *cost, const struct moe_placement *p, uint32_t layer,
                       const double *load, uint32_t steps)
{
    static const struct moe_gpu_factor nominal = { 1.0, 1.0, 1.0 };
    const uint32_t each = moe_placement_slots_per_gpu(&p->shape);
    const uint16_t *slot = moe_placement_layer(p, layer);
    const double tile = moe_cost_tile_tokens(cost);
    double slowest = 0.0;
    for (uint32_t gpu = 0; gpu < p->shape.gpu_count; gpu++) {
        struct moe_expert_work work = { 0 };
        for (uint32_t i = 0; i < each; i++, slot++) {
            if (*slot == MOE_SLOT_EMPTY) {
                continue;
            }
            const double mean = load[*slot] / copies_of(p, layer, *slot) / steps;
            const double active = mean < 1.0 ? mean : 1.0;
            work.tokens += mean;
            work.active += active;
            work.tiles += mean / tile > active ? mean / tile : active;
            work.fullest = mean > work.fullest ? mean : work.fullest;
        }
        const double ns = moe_cost_expert(cost, &work, &nominal).ns;
        slowest = ns > slowest ? ns : slowest;
    }
    return slowest;
}

double moe_migration_gain(const struct moe_cost *cost, const struct moe_placement *from,
                          const struct moe_placement *to, const double *load, uint32_t steps)
{
    double gain = 0.0;
    for (uint32_t layer = 0; layer < from->shape.layer_count; layer++) {
        const double *row = load + (size_t) layer * from->shape.expert_count;
        gain += layer_ns(cost, from, layer, row, steps) - layer_ns(cost, to, layer, row, steps);
    }
    return gain;
}
