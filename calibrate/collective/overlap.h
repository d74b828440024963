/*
 * Overlap: what expert GEMMs and all-to-alls cost each other when they run at once, as they do in
 * engines that split a batch in two.
 *
 * Every lane runs expert FFNs (expert_ffn.h, bf16, SwiGLU) on a stream of low priority and
 * all-to-alls on its own of the highest, both behind one hold. Of both only those calls count that
 * lie wholly within the time in which the other kind was running. Both are also measured alone, in
 * turns with that, so that heat moves all alike.
 */
#ifndef MOE_CALIBRATE_OVERLAP_H
#define MOE_CALIBRATE_OVERLAP_H

#include <stdint.h>

#include "calibrate/collective/collective_visit.h"
#include "sim/base/error.h"

enum moe_overlap_part {
    MOE_OVERLAP_GEMM_ALONE,
    MOE_OVERLAP_GEMM_UNDER, /* while all-to-alls run */
    MOE_OVERLAP_EXCHANGE_ALONE,
    MOE_OVERLAP_EXCHANGE_UNDER,
    MOE_OVERLAP_PART_COUNT
};

/* "gemm-alone", "gemm-under", "exchange-alone", "exchange-under": histogram of the stored
 * points. */
const char *moe_overlap_part_name(enum moe_overlap_part part);

struct moe_overlap; /* opaque: weights, rows and a second stream on every lane */

/* Errors: MOE_LIMIT when a GPU has no room; MOE_DEVICE. On error nothing is held. */
enum moe_status moe_overlap_create(const struct moe_visit_tools *tools,
                                   const struct moe_overlap_shape *shape, struct moe_overlap **out,
                                   struct moe_error *err) MOE_MUST_CHECK;
void moe_overlap_destroy(struct moe_overlap *overlap); /* NULL is allowed */

/* visits[MOE_OVERLAP_PART_COUNT], each with ranks as in collective_visit.h; counts differ between
 * ranks, slowest_us is not filled. call: of MOE_COLLECTIVE_OVERLAP; rows: one of the shape's.
 * Errors: MOE_DEVICE. */
enum moe_status moe_overlap_visit(struct moe_overlap *overlap,
                                  const struct moe_collective_call *call, uint32_t rows,
                                  struct moe_visit *visits, struct moe_error *err) MOE_MUST_CHECK;

#endif
