/*
 * Matching: every row gets one column of its own, such that the weights of the pairs sum to the
 * most. Exact, in time cubic in the count.
 *
 * Source: the Hungarian method (H. Kuhn, 1955; J. Munkres, 1957), one row at a time along a
 * shortest augmenting path (R. Jonker, A. Volgenant, Computing 38, 1987).
 */
#ifndef MOE_POLICIES_MATCHING_H
#define MOE_POLICIES_MATCHING_H

#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"

struct moe_matching {
    uint32_t limit;
    int64_t *of_row;    /* [limit + 1] potentials */
    int64_t *of_column; /* [limit + 1] */
    int64_t *least;     /* [limit + 1] */
    uint32_t *matched;  /* [limit + 1] row of a column */
    uint32_t *way;      /* [limit + 1] */
    uint8_t *visited;   /* [limit + 1] */
};

/* For up to limit rows. Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_matching_init(struct moe_matching *matching, struct moe_arena *arena,
                                  uint32_t limit, struct moe_error *err) MOE_MUST_CHECK;

/* weight[row][column] of count <= limit rows and columns; column_of[count]. Of several best
 * matchings always the same one: the search visits rows and columns in ascending order. */
void moe_matching_solve(struct moe_matching *matching, const uint32_t *weight, uint32_t count,
                        uint32_t *column_of);

#endif
