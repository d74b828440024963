#include "tests/workload_twin.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "sim/base/random.h"

static void shuffle(uint32_t *items, uint32_t count, uint64_t key, uint64_t base)
{
    for (uint32_t i = count; i >= 2; i--) {
        const uint32_t other = (uint32_t) moe_random_below(key, base + i, i);
        const uint32_t kept = items[i - 1];
        items[i - 1] = items[other];
        items[other] = kept;
    }
}

uint32_t workload_twin_planned(uint32_t requests, double share)
{
    const double wanted = floor(requests * share);
    return wanted < 1 ? 1 : wanted > requests - 1 ? requests - 1 : (uint32_t) wanted;
}

void workload_twin_order(uint64_t seed, uint32_t pass, const uint32_t *rows, uint32_t first,
                         uint32_t end, uint64_t window_rows, uint32_t *order)
{
    const uint64_t key = moe_random_key(moe_random_mix(seed) + pass, MOE_RANDOM_REQUEST_ORDER);
    uint32_t *begin = calloc(end - first + 1, sizeof *begin);
    uint32_t *window = calloc(end - first + 1, sizeof *window);
    assert(begin != NULL && window != NULL);
    uint32_t windows = 0;
    uint64_t held = 0;
    for (uint32_t r = first; r < end; r++) {
        if (r == first || held + rows[r] > window_rows) {
            window[windows] = windows;
            begin[windows++] = r;
            held = 0;
        }
        held += rows[r];
    }
    begin[windows] = end;
    shuffle(window, windows, key, UINT64_C(1) << 63);
    uint32_t placed = 0;
    for (uint32_t w = 0; w < windows; w++) {
        const uint32_t from = placed;
        for (uint32_t r = begin[window[w]]; r < begin[window[w] + 1]; r++) {
            order[placed++] = r;
        }
        shuffle(order + from, placed - from, key, (uint64_t) from << 32);
    }
    free(begin);
    free(window);
}

uint32_t workload_twin_relabel(uint32_t layer, uint32_t trace_layers, uint32_t experts,
                               uint32_t groups, uint32_t expert)
{
    if (layer < trace_layers) {
        return expert;
    }
    const uint64_t key = moe_random_key(layer, MOE_RANDOM_LAYER_PERMUTATION);
    const uint32_t parts = experts % groups == 0 ? groups : 1;
    const uint32_t size = experts / parts;
    uint32_t group[TWIN_EXPERTS];
    uint32_t inside[TWIN_EXPERTS];
    for (uint32_t i = 0; i < TWIN_EXPERTS; i++) {
        group[i] = i;
        inside[i] = i;
    }
    shuffle(group, parts, key, 0);
    shuffle(inside, size, key, (uint64_t) (expert / size + 1) << 32);
    return group[expert / size] * size + inside[expert % size];
}
