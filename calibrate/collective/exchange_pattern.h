/*
 * Exchange pattern: buffers filled so that after an operation every byte that arrived tells where
 * it must have come from, and the right answer of a reduction is exact.
 *
 * Cell i of rank r's send buffer holds a whole number below 256 / ranks (at most 16), in bf16: so a
 * sum over all ranks is below 256 and exact in bf16, whatever the order of the additions.
 */
#ifndef MOE_CALIBRATE_EXCHANGE_PATTERN_H
#define MOE_CALIBRATE_EXCHANGE_PATTERN_H

#include <stdbool.h>
#include <stdint.h>

#include "calibrate/collective/collective_op.h"

/* Fills cells[cell_count] (bf16) of rank's send buffer. */
void moe_exchange_pattern_fill(uint32_t rank, uint32_t ranks, int64_t cell_count, uint16_t *cells);

/* Bytes behind the end of what a rank receives that are looked at too; they must still be poison
 * (every byte 0xff, which as bf16 is no number). */
enum { MOE_EXCHANGE_GUARD = 64 };

/* The first cell that is not what it must be. */
struct moe_exchange_fault {
    int64_t cell;
    double found; /* NaN: never written, or written where nothing belongs */
    double wanted;
};

/* Looks at rank's receive buffer after call: recv[recv bytes + MOE_EXCHANGE_GUARD], poisoned
 * before. True when all is right; else *fault says what is not. ranks of the pattern: ranks. */
bool moe_exchange_pattern_right(const struct moe_collective_call *call, uint32_t rank,
                                uint32_t ranks, const uint16_t *recv,
                                struct moe_exchange_fault *fault);

#endif
