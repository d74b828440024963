/*
 * Expert data: the operands of one expert FFN on the GPU, random and of a real layer's scale,
 * shared by all backends that are measured side by side.
 *
 * Symbols and layouts are those of kernels/expert/expert_ffn.h. In fp8 there is a second family of
 * scales for backends that know only one per row (expert_rows.h): the e4m3 values are
 * the same, so both families are one kind of work, though not the same function.
 */
#ifndef MOE_CALIBRATE_EXPERT_DATA_H
#define MOE_CALIBRATE_EXPERT_DATA_H

#include <stdint.h>

#include "calibrate/expert/row_histogram.h"
#include "calibrate/timing/graph_timer.h"
#include "kernels/expert/expert_ffn.h"
#include "kernels/expert/expert_rows.h"
#include "sim/base/error.h"

/* The rest of the sets share the scales of set 0: scales are small. */
struct moe_expert_data {
    struct moe_expert_ffn_shape shape;
    int32_t row_capacity; /* rows of the buffers below */
    int32_t scale_stride;
    uint32_t set_count;
    void *w1_dev[MOE_GRAPH_SET_LIMIT];
    void *w2_dev[MOE_GRAPH_SET_LIMIT];
    void *x_dev;
    void *
        projected_dev; /* bf16 [row_capacity][matrix_count * inter]: for backends that do not fuse */
    void *mid_dev;
    void *out_dev;
    int32_t *row_offset_dev;
    /* fp8 only, else NULL: */
    float *x_scale_dev; /* by block */
    float *mid_scale_dev;
    float *w1_scale_dev;
    float *w2_scale_dev;
    float *x_row_scale_dev; /* by row */
    float *mid_row_scale_dev;
    float *w1_row_scale_dev;
    float *w2_row_scale_dev;
    void *owned[2 * MOE_GRAPH_SET_LIMIT + 16]; /* every allocation above */
    uint32_t owned_count;
};

/* One call: which rows belong to which expert. */
struct moe_expert_case {
    const struct moe_expert_data *data;
    int32_t row_offset[MOE_EXPERT_COUNT_LIMIT + 1];
    struct moe_row_load load;
};

/* Allocates and fills on the current device. cache_bytes: its L2, which decides how many sets of
 * weights there are when only active_share (0 .. 1] of the experts have rows.
 * Errors: MOE_LIMIT when the GPU has no room; MOE_DEVICE. On error nothing is held. */
enum moe_status moe_expert_data_create(const struct moe_expert_ffn_shape *shape,
                                       int32_t row_capacity, double cache_bytes,
                                       double active_share, struct moe_expert_data **out,
                                       struct moe_error *err) MOE_MUST_CHECK;
void moe_expert_data_destroy(struct moe_expert_data *data); /* NULL is allowed */

/* Fills *out and row_offset_dev. expert_count * rows_per_expert <= row_capacity.
 * Errors: MOE_DEVICE. */
enum moe_status moe_expert_case_set(const struct moe_expert_data *data, enum moe_row_histogram kind,
                                    int32_t rows_per_expert, struct moe_expert_case *out,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* The same for rows[expert_count] per expert; their sum is 1 .. row_capacity. */
enum moe_status moe_expert_case_set_rows(const struct moe_expert_data *data, const int32_t *rows,
                                         struct moe_expert_case *out,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* Bytes of one row of x and mid (bf16 2, fp8 1 per column). */
int64_t moe_expert_cell_bytes(const struct moe_expert_ffn_shape *shape);

/* The weights of one set, with scales by block. */
struct moe_expert_ffn_weights moe_expert_data_weights(const struct moe_expert_data *data,
                                                      uint32_t set);

/* Overwrites out with bytes that are no number, so that what a backend leaves unwritten shows. */
enum moe_status moe_expert_data_poison(const struct moe_expert_data *data,
                                       struct moe_error *err) MOE_MUST_CHECK;

#endif
