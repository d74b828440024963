/*
 * Inter-node traffic of decoding under a placement: how many copies of a token leave its node
 * because that has no copy of an expert it needs.
 */
#ifndef MOE_TESTS_NODE_TRAFFIC_H
#define MOE_TESTS_NODE_TRAFFIC_H

#include <stdlib.h>
#include <string.h>

#include "policies/placement.h"
#include "tests/trace_window.h"

struct node_traffic {
    /* Per decoded token and layer, those for other nodes: */
    double joined;   /* one for each other node that is needed */
    double apart;    /* one for each expert there, as low-latency dispatch sends them */
    double received; /* of apart, what the busiest node receives / the mean, averaged over layers */
};

/* node_of_request[request]: where it decodes. The lowest node that hosts an expert serves it
 * when the token's own does not. */
static inline struct node_traffic node_traffic_count(const struct trace_window *window,
                                                     const struct moe_placement *plan,
                                                     const uint32_t *node_of_request)
{
    const struct moe_placement_shape *shape = &plan->shape;
    const struct moe_policy_routes *routes = &window->routes;
    const uint32_t per_node = shape->slot_count / shape->node_count;
    const size_t cells = (size_t) shape->layer_count * shape->expert_count;
    uint64_t *hosts = calloc(cells, sizeof *hosts); /* [layer][expert] bit per node */
    uint64_t *received = calloc((size_t) shape->layer_count * shape->node_count, sizeof *received);
    struct node_traffic traffic = { 0 };
    uint64_t joined = 0;
    uint64_t apart = 0;
    uint64_t decoded = 0;
    for (size_t i = 0; i < (size_t) shape->layer_count * shape->slot_count; i++) {
        if (plan->expert_of_slot[i] != MOE_SLOT_EMPTY) {
            hosts[i / shape->slot_count * shape->expert_count + plan->expert_of_slot[i]] |=
                (uint64_t) 1 << i % shape->slot_count / per_node;
        }
    }
    for (uint64_t token = 0; token < routes->token_count; token++) {
        if (routes->phase[token] != MOE_ROUTE_DECODE) {
            continue;
        }
        const uint32_t own = node_of_request[routes->request[token]];
        decoded++;
        for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
            const uint16_t *row =
                routes->expert + (token * shape->layer_count + layer) * routes->top_k;
            uint64_t nodes = 0;
            for (uint32_t k = 0; k < routes->top_k; k++) {
                if (row[k] == MOE_EXPERT_UNKNOWN) {
                    continue;
                }
                const uint64_t at = hosts[(size_t) layer * shape->expert_count + row[k]];
                if ((at >> own & 1) == 0) {
                    uint32_t node = 0;
                    while ((at >> node & 1) == 0) {
                        node++;
                    }
                    received[(size_t) layer * shape->node_count + node]++;
                    joined += (nodes >> node & 1) == 0;
                    nodes |= (uint64_t) 1 << node;
                }
            }
        }
    }
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        uint64_t sum = 0;
        uint64_t most = 0;
        for (uint32_t node = 0; node < shape->node_count; node++) {
            const uint64_t mine = received[(size_t) layer * shape->node_count + node];
            sum += mine;
            most = mine > most ? mine : most;
        }
        apart += sum;
        traffic.received += sum > 0 ? (double) most * shape->node_count / (double) sum : 1.0;
    }
    traffic.received /= shape->layer_count;
    traffic.joined = (double) joined / (double) decoded / shape->layer_count;
    traffic.apart = (double) apart / (double) decoded / shape->layer_count;
    free(hosts);
    free(received);
    return traffic;
}

#endif
