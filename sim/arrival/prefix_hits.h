/*
 * Prefix hits: how many leading prompt blocks of each request an earlier one had, as a prefix
 * cache of unbounded size shared by all GPUs would find them: an upper bound of what any real
 * cache spares. Equal block numbers are equal prefixes up to and with the block.
 */
#ifndef MOE_SIM_ARRIVAL_PREFIX_HITS_H
#define MOE_SIM_ARRIVAL_PREFIX_HITS_H

#include "sim/arrival/arrival.h"
#include "traces/trace_store.h"

/* Sets hit_tokens and prefix_group of arrivals[count], which stand in order of arrival;
 * arrivals[i].request is the request's number in store. Groups are numbered in order of their
 * first appearance. Without recorded prefixes: 0 and MOE_ARRIVAL_NO_GROUP.
 * Errors: MOE_LIMIT without memory; as moe_database_step; MOE_PARSE for damaged blocks. */
enum moe_status moe_prefix_hits_find(struct moe_trace *store, struct moe_arrival *arrivals,
                                     uint32_t count, struct moe_error *err) MOE_MUST_CHECK;

#endif
