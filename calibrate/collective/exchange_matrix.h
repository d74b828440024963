/*
 * Exchange matrices: how many bytes each rank sends to each in an all-to-all-v, as skewed routing
 * makes them. Every rank sends the same in all (each has as many tokens), to unequal receivers.
 */
#ifndef MOE_CALIBRATE_EXCHANGE_MATRIX_H
#define MOE_CALIBRATE_EXCHANGE_MATRIX_H

#include <stdint.h>

/* kind 0: "hot8x", every rank sends rank 0 eight times what it sends to each other one (itself
 * included). kind k >= 1: "random-k", each rank's shares drawn evenly from all there are
 * (a Dirichlet distribution with every parameter 1), by seed, k and rank; of another seed than 1
 * "random-k-seed", since stores of several seeds are merged. */
enum { MOE_EXCHANGE_NAME = 48 };
const char *moe_exchange_matrix_name(uint32_t kind, uint64_t seed, char out[MOE_EXCHANGE_NAME]);

/* And two whose shares do not go by chance or fashion, to tell rates from: "one-way", all ranks
 * send rank 0 (itself included) 31 times what they send each other one; "own", every rank keeps 31
 * times as much. */
enum { MOE_EXCHANGE_ONE_WAY = 100, MOE_EXCHANGE_OWN = 101 };

/* bytes[ranks][ranks], [src][dst], multiples of MOE_COLLECTIVE_GRAIN. Each row's sum is
 * ranks * bytes_per_peer, which is such a multiple too; shares are rounded by largest remainder,
 * ties to the lower receiver. 1 <= ranks <= MOE_COLLECTIVE_RANK_LIMIT. */
void moe_exchange_matrix_make(uint32_t kind, uint32_t ranks, int64_t bytes_per_peer, uint64_t seed,
                              int64_t *bytes);

#endif
