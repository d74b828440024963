#include "tests/count_twin.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static uint32_t gpus_of(const struct twin_case *c)
{
    assert(c->cost.nodes > 0 && c->cost.gpus_per_node > 0);
    return c->cost.nodes * c->cost.gpus_per_node;
}

void count_twin_begin(struct twin_counted *counted, uint64_t step)
{
    memset(counted->slot, 0, sizeof counted->slot);
    memset(counted->copies, 0, sizeof counted->copies);
    memset(counted->nodes, 0, sizeof counted->nodes);
    memset(counted->want, 0, sizeof counted->want);
    memset(counted->taken, 0, sizeof counted->taken);
    counted->step = step;
}

static uint32_t expert_of(const struct twin_case *c, uint32_t layer, uint16_t id)
{
    const struct twin_model *m = &c->cost.model;
    return workload_twin_relabel(layer, c->trace_layers, m->experts, m->groups, id);
}

void count_twin_want(struct twin_counted *counted, const struct twin_case *c, uint32_t gpu,
                     uint32_t row)
{
    for (uint32_t layer = 0; layer < c->cost.model.moe_layers; layer++) {
        for (uint32_t k = 0; k < c->cost.model.top_k; k++) {
            const uint16_t id = c->route[row][layer % c->trace_layers][k];
            if (id != TWIN_UNKNOWN) {
                counted->want[layer][gpu][expert_of(c, layer, id)]++;
            }
        }
    }
}

static uint32_t copies_of(const struct twin_counted *counted, uint32_t layer, uint32_t expert)
{
    uint32_t copies = 0;
    for (uint32_t s = 0; s < counted->slots; s++) {
        copies += counted->plan[layer][s] == expert;
    }
    assert(copies > 0);
    return copies;
}

/* Which copy takes the next token of an expert from a source, as the shares say; as many as
 * there are copies when it is dropped. */
static uint32_t share_copy(struct twin_counted *counted, const struct twin_case *c, uint32_t layer,
                           uint32_t gpu, uint32_t expert, uint32_t copies)
{
    const uint32_t want = counted->want[layer][gpu][expert];
    const uint32_t number = counted->taken[layer][gpu][expert]++;
    const uint32_t all = copies * (copies + 1) / 2;
    assert(all > 0);
    uint32_t weight = 0;
    uint32_t given = 0; /* to the copies so far */
    for (uint32_t j = 0; j < copies; j++) {
        const uint32_t before = want * weight / all;
        weight += 1 + (uint32_t) ((j + gpu + counted->step + layer) % copies);
        uint32_t quota = want * weight / all - before;
        if (c->dispatch == TWIN_CAPPED && expert % 2 == 1 && quota > 2) {
            quota = 2;
        }
        given += quota;
        if (number < given) {
            return j;
        }
    }
    return copies;
}

/* The slot that takes the next token of an expert; TWIN_EMPTY when it is dropped. In turn: its
 * copies one after the other, lowest slot first. */
static uint32_t take_slot(struct twin_counted *counted, const struct twin_case *c, uint32_t layer,
                          uint32_t gpu, uint32_t expert)
{
    const uint32_t copies = copies_of(counted, layer, expert);
    uint32_t before = c->dispatch == TWIN_IN_TURN
                          ? counted->turn[layer][expert]++ % copies
                          : share_copy(counted, c, layer, gpu, expert, copies);
    uint32_t slot = 0;
    if (before == copies) {
        counted->dropped++;
        return TWIN_EMPTY;
    }
    while (counted->plan[layer][slot] != expert || before-- > 0) {
        slot++;
    }
    return slot;
}

void count_twin_row(struct twin_counted *counted, const struct twin_case *c, uint32_t gpu,
                    uint32_t row)
{
    const struct twin_model *m = &c->cost.model;
    const uint32_t slots_per_gpu = counted->slots_per_gpu;
    for (uint32_t layer = 0; layer < m->moe_layers; layer++) {
        uint32_t wanted[TWIN_GPUS] = { 0 };
        bool wanted_node[TWIN_GPUS] = { false };
        for (uint32_t k = 0; k < m->top_k; k++) {
            const uint16_t id = c->route[row][layer % c->trace_layers][k];
            counted->assignments++;
            if (id == TWIN_UNKNOWN) {
                counted->unknown++;
                continue;
            }
            const uint32_t slot = take_slot(counted, c, layer, gpu, expert_of(c, layer, id));
            if (slot == TWIN_EMPTY) {
                continue;
            }
            uint32_t to = 0;
            while ((to + 1) * slots_per_gpu <= slot) {
                to++;
            }
            assert(to < gpus_of(c));
            counted->slot[layer][slot]++;
            wanted[to]++;
            wanted_node[to / c->cost.gpus_per_node] = true;
        }
        for (uint32_t g = 0; g < gpus_of(c); g++) {
            counted->copies[layer][gpu][g] += c->exchange == TWIN_EACH ? wanted[g] : wanted[g] > 0;
            counted->nodes[layer][gpu][g] += wanted_node[g];
        }
    }
}

struct twin_expert_work count_twin_expert(const struct twin_counted *counted,
                                          const struct twin_case *c, uint32_t layer, uint32_t gpu)
{
    const uint32_t slots_per_gpu = counted->slots_per_gpu;
    const uint32_t tile = cost_twin_tile(&c->cost);
    struct twin_expert_work w = { 0 };
    for (uint32_t s = gpu * slots_per_gpu; s < (gpu + 1) * slots_per_gpu; s++) {
        const uint32_t tokens = counted->slot[layer][s];
        w.tokens += tokens;
        w.active += tokens > 0;
        for (uint32_t left = tokens; left > 0; left -= left < tile ? left : tile) {
            w.tiles++;
        }
    }
    return w;
}

/* Copies that one rank sends and receives when each goes straight to its GPU. */
static struct twin_exchange straight_work(const struct twin_counted *counted,
                                          const struct twin_case *c, uint32_t layer, uint32_t gpu)
{
    const uint32_t per_node = c->cost.gpus_per_node;
    struct twin_exchange w = { 0 };
    for (uint32_t g = 0; g < gpus_of(c); g++) {
        const double sent = counted->copies[layer][gpu][g];
        const double received = counted->copies[layer][g][gpu];
        if (g != gpu && g / per_node == gpu / per_node) {
            w.near_out += sent;
            w.near_in += received;
        } else if (g != gpu) {
            w.far_out += sent;
            w.far_in += received;
        }
    }
    return w;
}

/* And when a copy crosses to another node once, to the GPU of the sender's place there,
 * which passes it on: every journey written down, those of one rank summed. */
static struct twin_exchange relayed_work(const struct twin_counted *counted,
                                         const struct twin_case *c, uint32_t layer, uint32_t gpu)
{
    const uint32_t per_node = c->cost.gpus_per_node;
    struct twin_exchange w = { 0 };
    for (uint32_t from = 0; from < gpus_of(c); from++) {
        for (uint32_t node = 0; node < gpus_of(c) / per_node; node++) {
            const uint32_t relay = node * per_node + from % per_node;
            if (relay != from) {
                w.far_out += from == gpu ? counted->nodes[layer][from][node] : 0;
                w.far_in += relay == gpu ? counted->nodes[layer][from][node] : 0;
            }
            for (uint32_t to = node * per_node; to < (node + 1) * per_node; to++) {
                if (to != relay) {
                    w.near_out += relay == gpu ? counted->copies[layer][from][to] : 0;
                    w.near_in += to == gpu ? counted->copies[layer][from][to] : 0;
                }
            }
        }
    }
    return w;
}

static struct twin_exchange exchange_work(const struct twin_counted *counted,
                                          const struct twin_case *c, uint32_t layer, uint32_t gpu)
{
    return c->exchange == TWIN_RELAYED ? relayed_work(counted, c, layer, gpu)
                                       : straight_work(counted, c, layer, gpu);
}

/* Padded: every rank as much as the busiest of each link class. */
struct twin_exchange count_twin_exchange(const struct twin_counted *counted,
                                         const struct twin_case *c, uint32_t layer, uint32_t gpu)
{
    struct twin_exchange most = { 0 };
    if (c->exchange != TWIN_PADDED) {
        return exchange_work(counted, c, layer, gpu);
    }
    for (uint32_t g = 0; g < gpus_of(c); g++) {
        const struct twin_exchange w = exchange_work(counted, c, layer, g);
        most.near_out = fmax(most.near_out, fmax(w.near_out, w.near_in));
        most.far_out = fmax(most.far_out, fmax(w.far_out, w.far_in));
    }
    return (struct twin_exchange){ most.near_out, most.near_out, most.far_out, most.far_out };
}
