/*
 * Graph padding: decode batches run in CUDA graphs captured for given token counts.
 *
 * When no rank has rows of a prompt, every rank (also one without a request, which runs a dummy
 * batch) is padded to the least captured size that holds the largest rank's rows: the ranks meet
 * in the same collectives, so they replay the same graph. A batch beyond the largest size runs
 * as it is. Padded rows cost what dense work on a row costs; they read no KV cache, are not
 * routed to experts, and sample nothing.
 */
#ifndef MOE_SIM_ENGINE_SERVING_GRAPH_PAD_H
#define MOE_SIM_ENGINE_SERVING_GRAPH_PAD_H

#include <stdint.h>

#include "sim/cost/cost.h"
#include "sim/scenario/scenario.h"

/* Pads work[rank_count]; returns the rows added. Without sizes it adds none. */
uint64_t moe_graph_pad(const struct moe_serving *options, uint32_t rank_count,
                       struct moe_token_work *work);

#endif
