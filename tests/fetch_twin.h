/*
 * Fetch twin: the temporary copies of one layer and step, once more from the words of fetcher.h.
 *
 * The policy that fetches (TWIN_UNEVEN and TWIN_CAPPED with fetch_slots): for every GPU and each of
 * its temporary slots in ascending order the expert (3 * GPU + 5 * slot + step + layer) modulo the
 * experts, unless the expert's tokens in the layer are a multiple of 3 or the GPU has a copy already.
 */
#ifndef MOE_TESTS_FETCH_TWIN_H
#define MOE_TESTS_FETCH_TWIN_H

#include "tests/count_twin.h"

/* counted->plan of one layer: the case's, every GPU's slots followed by its temporary ones, with
 * what was fetched for counted->want; and counted->moved, fetched, fetched_near, even. */
void fetch_twin_layer(struct twin_counted *counted, const struct twin_case *c, uint32_t layer);

/* The nominal time of a GPU's transfers in a layer. */
struct twin_duration fetch_twin_transfer(const struct twin_counted *counted,
                                         const struct twin_case *c, uint32_t layer, uint32_t gpu);

/* A dispatch begins when the weights that it sends tokens to are there. comm: the GPU's factor. */
void fetch_twin_delay(const struct twin_counted *counted, const struct twin_case *c, uint32_t layer,
                      uint32_t gpu, double comm, struct twin_price *price);

#endif
