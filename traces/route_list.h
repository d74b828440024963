/*
 * Route list: requests and their rows in memory, for formats whose files do not hold them in
 * the order of a trace. Bounded by MOE_ROUTE_LIST_BYTES.
 */
#ifndef MOE_TRACES_ROUTE_LIST_H
#define MOE_TRACES_ROUTE_LIST_H

#include "traces/import.h"
#include "traces/tensor.h"

#define MOE_ROUTE_LIST_BYTES (UINT64_C(2) << 30)

struct moe_route_list {
    uint32_t layer_count; /* of every row; set before the first request */
    uint32_t top_k;
    struct moe_trace_request *requests; /* owned */
    size_t request_count;
    size_t request_room;
    uint16_t *rows; /* [row_count][layer_count][top_k]; owned */
    uint64_t row_count;
    uint64_t row_room;
};

/* Adds a request and its rows, all unknown; *rows is where they are to be filled in, good until
 * the next request. what begins the error. Errors: MOE_RANGE for a request without tokens or
 * beyond the limit; MOE_LIMIT. */
enum moe_status moe_route_list_add(struct moe_route_list *list,
                                   const struct moe_trace_request *request, uint16_t **rows,
                                   const char *what, struct moe_error *err) MOE_MUST_CHECK;

/* Adds one request whose rows are tensor [row][layer][k].
 * Errors: also MOE_PARSE for items that are neither an expert nor -1, with their place. */
enum moe_status moe_route_list_add_tensor(struct moe_route_list *list,
                                          const struct moe_trace_request *request,
                                          const struct moe_tensor *tensor, const char *what,
                                          struct moe_error *err) MOE_MUST_CHECK;

/* For a request of row_count rows of which prompt_tokens are said (0: not; then all are prompt).
 * Errors: MOE_RANGE when they are more than the rows. */
enum moe_status moe_route_list_split(uint64_t row_count, uint64_t prompt_tokens, const char *what,
                                     struct moe_trace_request *out,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Sends everything. */
enum moe_status moe_route_list_feed(const struct moe_route_list *list, struct moe_import_sink *sink,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_route_list_finish(struct moe_route_list *list);

#endif
