/*
 * CPU twin of gate.h, in double. It can't tell what a GPU does whose rounding errors swap two
 * nearly equal choices; so it says how far from that each token is.
 */
#ifndef MOE_KERNELS_REFERENCE_GATE_H
#define MOE_KERNELS_REFERENCE_GATE_H

#include "kernels/route/gate.h"

/* margin[token]: the least distance above 0 between neighbours of an order that decided anything:
 * the chosen experts and the best one not chosen, the kept groups and the best one not kept. May
 * be NULL. (A distance of exactly 0 between equal inputs is a tie on the GPU too.) */
void moe_reference_gate_choose(const struct moe_gate *gate, int32_t token_count, int32_t *ids,
                               double *weights, const float *logits, const float *bias,
                               double *margin);

#endif
