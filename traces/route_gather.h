/*
 * Route gather: routes that come one choice at a time (a token, a layer, its experts), in
 * whatever order, into requests and rows. Everything is taken twice: first to learn which
 * requests, tokens and layers there are, then to fill the rows.
 *
 * What was not recorded stays unknown. Requests stand in the order of their first record;
 * a request's tokens begin at its lowest one.
 */
#ifndef MOE_TRACES_ROUTE_GATHER_H
#define MOE_TRACES_ROUTE_GATHER_H

#include "traces/json_documents.h"
#include "traces/route_list.h"

struct moe_gather_choice {
    uint64_t request; /* any number that tells requests apart: a hash of the producer's name */
    uint64_t token;   /* position in the request */
    uint32_t layer;   /* the engine's number, below MOE_GATHER_LAYER_END */
    uint32_t domain;
    bool is_output;          /* of a generated token that was fed back */
    uint32_t count;          /* of experts; fewer than others': the rest is unknown */
    const uint16_t *experts; /* [count] */
};

enum { MOE_GATHER_LAYER_END = 4096 };

struct moe_gather_request {
    uint64_t key;
    uint64_t first_token;
    uint64_t end_token;
    uint64_t output_token; /* the first one of the output; UINT64_MAX: none */
    uint64_t row;          /* its first one */
    uint32_t domain;
};

struct moe_route_gather {
    struct moe_gather_request *requests; /* owned */
    size_t request_count;
    uint32_t *table; /* request + 1 by hash, 0: empty; owned */
    size_t table_size;
    bool layer_is_seen[MOE_GATHER_LAYER_END];
    uint32_t layer_index[MOE_GATHER_LAYER_END]; /* its place among the recorded ones */
    uint32_t top_k;
    uint32_t expert_count; /* as the file states it; 0: it does not */
    uint32_t domain_count;
    char domains[MOE_TRACE_DOMAIN_LIMIT][32];
    uint64_t request_in_turn; /* for formats that count requests as they pass */
    bool sorts_requests;      /* by their keys, instead of the order of their first records */
    bool is_filling;          /* the second time */
    struct moe_route_list list;
};

/* Index of a domain of that name, which is added when it is new. Errors: MOE_RANGE when there
 * are too many, or the name is too long or empty. */
enum moe_status moe_route_gather_domain(struct moe_route_gather *gather, const char *name,
                                        const char *place, uint32_t *out,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* Takes a choice. place begins the error. Errors: MOE_PARSE for one that was taken before;
 * MOE_RANGE beyond the limits; MOE_LIMIT. */
enum moe_status moe_route_gather_take(struct moe_route_gather *gather,
                                      const struct moe_gather_choice *choice, const char *place,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Between the two times. prompt_tokens: of every request, where outputs are not told apart;
 * 0: all are prompt. Errors: MOE_PARSE when there was nothing; those of moe_route_list_add. */
enum moe_status moe_route_gather_turn(struct moe_route_gather *gather, uint64_t prompt_tokens,
                                      const char *place, struct moe_error *err) MOE_MUST_CHECK;

/* Fills in content, layers, choices, experts and domains of out. */
void moe_route_gather_describe(const struct moe_route_gather *gather,
                               struct moe_import_description *out);

/* Safe on a zeroed struct and safe twice. */
void moe_route_gather_finish(struct moe_route_gather *gather);

/* Where a line of one token in one layer states these. */
struct moe_jsonl_keys {
    const char *token;
    const char *layer;
    const char *experts;
    bool may_be_empty; /* no expert at all: all are unknown */
};

/* Takes such a line; choice says the rest: request, domain, is_output. Errors: MOE_PARSE; those of
 * moe_route_gather_take. */
enum moe_status moe_jsonl_take(struct moe_route_gather *gather, const json_t *line,
                               const char *place, const struct moe_jsonl_keys *keys,
                               const struct moe_gather_choice *choice,
                               struct moe_error *err) MOE_MUST_CHECK;

/* The request that a text or whole number names, told apart from others by salt. Errors:
 * MOE_PARSE when key holds neither. */
enum moe_status moe_jsonl_request(const json_t *line, const char *key, const char *place,
                                  uint64_t salt, uint64_t *out,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* Dialects of JSONL: what a line means. */
struct moe_jsonl_dialect {
    const char *engine;
    const char *note;
    bool sorts_requests;
    enum moe_status (*record)(struct moe_route_gather *gather, const json_t *line,
                              const char *place, struct moe_error *err);
};

/* open, feed and close of an import format whose files are lines of such a dialect. */
enum moe_status moe_jsonl_open(void **state, struct moe_import_input *input,
                               struct moe_import_description *out,
                               const struct moe_jsonl_dialect *dialect,
                               struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_jsonl_feed(void *state, struct moe_import_sink *sink,
                               struct moe_error *err) MOE_MUST_CHECK;
void moe_jsonl_close(void *state);

/* Whether all files are JSON whose heads hold all of these texts (the last one is NULL). */
bool moe_jsonl_recognise(const struct moe_import_input *input, const char *const *texts);

#endif
