/*
 * K-means of count vectors, each scaled to length 1: which requests use the same experts.
 *
 * Source: S. Lloyd, IEEE Trans. Inf. Theory 28(2), 1982; first centres as in D. Arthur and
 * S. Vassilvitskii, "k-means++", SODA 2007, with draws that are a function of the key alone.
 * balanced: clusters differ by at most one member; rows that have most to lose choose first.
 * A row of zeros is as far from everything and goes to the first cluster that has room.
 * Ties: of equally near centres the first; of rows with equally much to lose the first.
 * float32 sums in eight fixed lanes, so that the result is the same on every machine.
 */
#ifndef MOE_POLICIES_COUNT_CLUSTERS_H
#define MOE_POLICIES_COUNT_CLUSTERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"

struct moe_count_rows {
    const uint16_t *count; /* [row_count][width] */
    uint32_t row_count;    /* >= 1 */
    uint32_t width;        /* >= 1 */
};

struct moe_clusters {
    uint32_t cluster_count;
    uint32_t width;
    float *centre;        /* [cluster][width] mean of its members' unit vectors */
    uint32_t *cluster_of; /* [row] */
    uint32_t *size;       /* [cluster] members */
};

/* cluster_count >= 1; more clusters than rows leave the last ones empty. Stops when no row
 * changes its cluster, or after round_limit rounds. Errors: MOE_LIMIT when the arena has no
 * room for cluster_count * (width + row_count) floats. */
enum moe_status moe_clusters_fit(struct moe_clusters *clusters, struct moe_arena *arena,
                                 const struct moe_count_rows *rows, uint32_t cluster_count,
                                 bool balanced, uint32_t round_limit, uint64_t key,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* Dot product of a row of counts with a centre, and of a row with itself. */
float moe_clusters_dot(const uint16_t *count, const float *centre, uint32_t width);
float moe_clusters_norm(const uint16_t *count, uint32_t width);

#endif
