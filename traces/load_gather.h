/*
 * Load gather: counts that come one layer at a time (of a step, a source rank, a domain), in
 * whatever order, into loads. Everything is taken twice: first to learn which steps, ranks and
 * layers there are, then to fill the loads. Domains stand in the order in which they were first
 * met, inside of them steps and ranks ascend. Every load must have every layer, once.
 */
#ifndef MOE_TRACES_LOAD_GATHER_H
#define MOE_TRACES_LOAD_GATHER_H

#include "traces/import.h"

enum { MOE_LOAD_GATHER_LAYER_END = 4096 };

#define MOE_LOAD_GATHER_BYTES (UINT64_C(2) << 30)

struct moe_load_row {
    int64_t step; /* the engine's number; -1: it has none */
    int32_t rank; /* MOE_TRACE_ALL_RANKS, or one */
    uint32_t domain;
    uint32_t layer; /* the engine's number */
};

struct moe_gathered_load {
    int64_t step;
    int32_t rank;
    uint32_t domain;
};

struct moe_load_gather {
    uint32_t expert_count;           /* of every row; set before the first one */
    struct moe_gathered_load *loads; /* owned; sorted after the turn */
    size_t load_count;
    size_t load_room;
    bool layer_is_seen[MOE_LOAD_GATHER_LAYER_END];
    uint32_t layer_index[MOE_LOAD_GATHER_LAYER_END];
    uint32_t layer_count;
    uint32_t domain_count;
    char domains[MOE_TRACE_DOMAIN_LIMIT][32];
    bool is_filling; /* the second time */
    double *counts;  /* [load][layer][expert]; owned */
    bool *is_there;  /* [load][layer]; owned */
};

/* Index of a domain of that name, which is added when it is new. Errors: MOE_RANGE. */
enum moe_status moe_load_gather_domain(struct moe_load_gather *gather, const char *name,
                                       const char *place, uint32_t *out,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* Takes a row; counts[expert_count] of it, each finite and >= 0, are looked at the second time
 * only, when the place for them is *out (NULL the first time). Errors: MOE_PARSE for a row that
 * was taken before; MOE_RANGE beyond the limits; MOE_LIMIT. */
enum moe_status moe_load_gather_take(struct moe_load_gather *gather, const struct moe_load_row *row,
                                     const char *place, double **out,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Between the two times. Errors: MOE_PARSE when there was nothing, MOE_RANGE, MOE_LIMIT. */
enum moe_status moe_load_gather_turn(struct moe_load_gather *gather, const char *place,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Fills in content, layers, experts and domains of out. Errors: MOE_PARSE naming the first load
 * that lacks a layer, or the first step that lacks a rank: of source ranks, every step has those
 * from 0 on that the first one has. */
enum moe_status moe_load_gather_describe(const struct moe_load_gather *gather, const char *place,
                                         struct moe_import_description *out,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* Sends everything. */
enum moe_status moe_load_gather_feed(const struct moe_load_gather *gather,
                                     struct moe_import_sink *sink,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_load_gather_finish(struct moe_load_gather *gather);

#endif
