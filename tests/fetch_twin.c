#include "tests/fetch_twin.h"

#include <assert.h>
#include <math.h>
#include <string.h>

static uint32_t gpus_of(const struct twin_case *c)
{
    return c->cost.nodes * c->cost.gpus_per_node;
}

static uint32_t lasting_of(const struct twin_case *c)
{
    assert(gpus_of(c) > 0);
    return c->slots / gpus_of(c);
}

static uint32_t tokens_of(const struct twin_counted *counted, const struct twin_case *c,
                          uint32_t layer, uint32_t expert)
{
    uint32_t sum = 0;
    for (uint32_t gpu = 0; gpu < gpus_of(c); gpu++) {
        sum += counted->want[layer][gpu][expert];
    }
    return sum;
}

/* The case's plan with room for what is fetched. */
static void widen(struct twin_counted *counted, const struct twin_case *c, uint32_t layer)
{
    const uint32_t temporary = c->dispatch == TWIN_IN_TURN ? 0 : c->fetch_slots;
    const uint32_t lasting = lasting_of(c);
    counted->slots_per_gpu = lasting + temporary;
    counted->slots = gpus_of(c) * counted->slots_per_gpu;
    assert(counted->slots <= TWIN_SLOTS);
    for (uint32_t s = 0; s < counted->slots; s++) {
        const uint32_t gpu = s / counted->slots_per_gpu;
        const uint32_t place = s % counted->slots_per_gpu;
        counted->plan[layer][s] =
            place < lasting ? c->plan[layer][gpu * lasting + place] : TWIN_EMPTY;
    }
}

static bool holds(const struct twin_counted *counted, uint32_t layer, uint32_t gpu, uint32_t expert)
{
    for (uint32_t i = 0; i < counted->slots_per_gpu; i++) {
        if (counted->plan[layer][gpu * counted->slots_per_gpu + i] == expert) {
            return true;
        }
    }
    return false;
}

/* Who of those that may sends the expert to a GPU: near first, then who sends least. Lasting
 * holders may, and where it is passed on those who have got it. */
static uint32_t sender(const struct twin_counted *counted, const struct twin_case *c,
                       uint32_t layer, uint32_t to, uint32_t expert)
{
    const uint32_t each = c->cost.gpus_per_node;
    uint32_t best = gpus_of(c);
    bool best_near = false;
    for (uint32_t gpu = 0; gpu < gpus_of(c); gpu++) {
        bool may = c->fetch_relay && holds(counted, layer, gpu, expert);
        for (uint32_t i = 0; i < lasting_of(c); i++) {
            may = may || c->plan[layer][gpu * lasting_of(c) + i] == expert;
        }
        if (!may) {
            continue;
        }
        const bool near = gpu / each == to / each;
        const struct twin_exchange *m = counted->moved[layer];
        if (best == gpus_of(c) || (near && !best_near) ||
            (near == best_near &&
             m[gpu].near_out + m[gpu].far_out < m[best].near_out + m[best].far_out)) {
            best = gpu;
            best_near = near;
        }
    }
    assert(best < gpus_of(c));
    return best;
}

static void fetch(struct twin_counted *counted, const struct twin_case *c, uint32_t layer,
                  uint32_t gpu, uint32_t expert)
{
    const uint32_t from = sender(counted, c, layer, gpu, expert);
    struct twin_exchange *m = counted->moved[layer];
    uint32_t slot = gpu * counted->slots_per_gpu + lasting_of(c);
    while (counted->plan[layer][slot] != TWIN_EMPTY) {
        slot++;
    }
    counted->plan[layer][slot] = (uint16_t) expert;
    counted->fetched[layer]++;
    if (from / c->cost.gpus_per_node == gpu / c->cost.gpus_per_node) {
        counted->fetched_near[layer]++;
        m[from].near_out++;
        m[gpu].near_in++;
    } else {
        m[from].far_out++;
        m[gpu].far_in++;
    }
}

/* mean/max load when every lasting copy of an expert gets the same. */
static double even_balance(const struct twin_counted *counted, const struct twin_case *c,
                           uint32_t layer)
{
    double load[TWIN_GPUS] = { 0 };
    double sum = 0;
    double max = 0;
    for (uint32_t expert = 0; expert < c->cost.model.experts; expert++) {
        const double tokens = tokens_of(counted, c, layer, expert);
        uint32_t copies = 0;
        for (uint32_t s = 0; s < c->slots; s++) {
            copies += c->plan[layer][s] == expert;
        }
        for (uint32_t s = 0; s < c->slots; s++) {
            load[s / lasting_of(c)] += c->plan[layer][s] == expert ? tokens / copies : 0;
        }
    }
    for (uint32_t gpu = 0; gpu < gpus_of(c); gpu++) {
        sum += load[gpu];
        max = fmax(max, load[gpu]);
    }
    return max > 0 ? sum / gpus_of(c) / max : 1;
}

void fetch_twin_layer(struct twin_counted *counted, const struct twin_case *c, uint32_t layer)
{
    widen(counted, c, layer);
    memset(counted->moved[layer], 0, sizeof counted->moved[layer]);
    counted->fetched[layer] = 0;
    counted->fetched_near[layer] = 0;
    counted->even[layer] = even_balance(counted, c, layer);
    for (uint32_t gpu = 0; gpu < gpus_of(c) && c->dispatch != TWIN_IN_TURN; gpu++) {
        for (uint32_t i = 0; i < c->fetch_slots; i++) {
            const uint32_t expert =
                (uint32_t) ((3 * gpu + 5 * i + counted->step + layer) % c->cost.model.experts);
            if (tokens_of(counted, c, layer, expert) % 3 != 0 &&
                !holds(counted, layer, gpu, expert)) {
                fetch(counted, c, layer, gpu, expert);
            }
        }
    }
}

struct twin_duration fetch_twin_transfer(const struct twin_counted *counted,
                                         const struct twin_case *c, uint32_t layer, uint32_t gpu)
{
    const struct twin_exchange *m = &counted->moved[layer][gpu];
    const double bytes = cost_twin_expert_bytes(&c->cost.model);
    return cost_twin_bulk(&c->cost, TWIN_DISPATCH, fmax(m->near_in, m->near_out) * bytes,
                          fmax(m->far_in, m->far_out) * bytes);
}

void fetch_twin_delay(const struct twin_counted *counted, const struct twin_case *c, uint32_t layer,
                      uint32_t gpu, double comm, struct twin_price *price)
{
    const struct twin_duration transfer = fetch_twin_transfer(counted, c, layer, gpu);
    const double exposed = 1 - c->fetch_overlap;
    price->real += transfer.ns * comm * exposed;
    price->nominal += transfer.ns * exposed;
    if (transfer.ns * exposed > 0 && transfer.source > price->source) {
        price->source = transfer.source;
    }
}
