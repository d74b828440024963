/*
 * Some consecutive requests of a trace store as a policy sees them, for tests and studies.
 */
#ifndef MOE_TESTS_TRACE_WINDOW_H
#define MOE_TESTS_TRACE_WINDOW_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policies/policy_view.h"
#include "traces/trace_store.h"

struct trace_window {
    uint32_t layers;
    uint32_t experts;
    struct moe_policy_routes routes; /* expert, request, phase, first_token, request_domain owned */
};

/* Requests first .. first+count-1 whose domain is domain (every one for UINT32_MAX). False, with
 * a line on stderr, when the store or the memory fails. */
static inline bool trace_window_read(struct trace_window *window, struct moe_trace *trace,
                                     uint32_t first, uint32_t count, uint32_t domain)
{
    const struct moe_trace_model *model = moe_trace_model(trace);
    const struct moe_trace_request *all = moe_trace_requests(trace);
    const size_t width = (size_t) model->layer_count * model->top_k;
    uint64_t tokens = 0;
    for (uint32_t i = first; i < first + count; i++) {
        const bool wanted = domain == UINT32_MAX || all[i].domain == domain;
        tokens += wanted ? moe_trace_request_rows(&all[i]) : 0;
    }
    uint16_t *expert = malloc((tokens + 1) * width * sizeof *expert);
    uint32_t *request = malloc((tokens + 1) * sizeof *request);
    uint8_t *phase = malloc(tokens + 1);
    uint32_t *first_token = malloc((count + 1U) * sizeof *first_token);
    uint16_t *domains = malloc((count + 1U) * sizeof *domains);
    struct moe_error err = { 0 };
    if (expert == NULL || request == NULL || phase == NULL || first_token == NULL ||
        domains == NULL) {
        (void) fprintf(stderr, "no memory for %llu tokens\n", (unsigned long long) tokens);
        return false;
    }
    uint32_t made = 0;
    uint32_t at = 0;
    for (uint32_t i = first; i < first + count; i++) {
        if (domain != UINT32_MAX && all[i].domain != domain) {
            continue;
        }
        const uint32_t rows = (uint32_t) moe_trace_request_rows(&all[i]);
        if (moe_trace_read(trace, all[i].first_row, rows, expert + at * width, &err) != MOE_OK) {
            (void) fprintf(stderr, "%s\n", err.text);
            return false;
        }
        first_token[made] = at;
        domains[made] = (uint16_t) all[i].domain;
        for (uint32_t row = 0; row < rows; row++, at++) {
            request[at] = made;
            phase[at] = row < all[i].prompt_tokens ? MOE_ROUTE_PREFILL : MOE_ROUTE_DECODE;
        }
        made++;
    }
    first_token[made] = at;
    *window = (struct trace_window){
        .layers = model->layer_count,
        .experts = model->expert_count,
        .routes = { .token_count = at,
                    .request_count = made,
                    .planned_requests = made,
                    .top_k = model->top_k,
                    .domain_count = model->domain_count,
                    .expert = expert,
                    .request = request,
                    .phase = phase,
                    .first_token = first_token,
                    .request_domain = domains },
    };
    return true;
}

static inline void trace_window_finish(struct trace_window *window)
{
    const void *owned[] = { window->routes.expert, window->routes.request, window->routes.phase,
                            window->routes.first_token, window->routes.request_domain };
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) {
        void *pointer;
        memcpy(&pointer, &owned[i], sizeof pointer); /* owned here, const for policies */
        free(pointer);
    }
}

/* batches[batch][layer][expert]: tokens cut into batch_count runs of equally many. */
static inline void trace_window_count(const struct trace_window *window, uint32_t batch_count,
                                      float *batches)
{
    const struct moe_policy_routes *routes = &window->routes;
    const size_t cells = (size_t) window->layers * window->experts;
    memset(batches, 0, batch_count * cells * sizeof *batches);
    for (uint64_t token = 0; token < routes->token_count; token++) {
        float *batch = batches + token * batch_count / routes->token_count * cells;
        const uint16_t *row = routes->expert + token * window->layers * routes->top_k;
        for (uint32_t i = 0; i < window->layers * routes->top_k; i++) {
            if (row[i] != MOE_EXPERT_UNKNOWN) {
                batch[(size_t) (i / routes->top_k) * window->experts + row[i]] += 1.0f;
            }
        }
    }
}

#endif
