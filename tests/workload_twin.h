/*
 * Workload twin: which requests come when, and which experts a repeated layer's choices
 * mean, once more from the words of workload.h and replay_map.h.
 */
#ifndef MOE_TESTS_WORKLOAD_TWIN_H
#define MOE_TESTS_WORKLOAD_TWIN_H

#include <stdint.h>

enum { TWIN_EXPERTS = 24 };

/* The order in which a pass serves requests first .. end-1 (pass 0: the planning set);
 * rows[request]; windows of at most window_rows rows. */
void workload_twin_order(uint64_t seed, uint32_t pass, const uint32_t *rows, uint32_t first,
                         uint32_t end, uint64_t window_rows, uint32_t *order);

/* Model expert of a trace expert in a model layer. */
uint32_t workload_twin_relabel(uint32_t layer, uint32_t trace_layers, uint32_t experts,
                               uint32_t groups, uint32_t expert);

/* How many requests the policies plan on. */
uint32_t workload_twin_planned(uint32_t requests, double share);

#endif
