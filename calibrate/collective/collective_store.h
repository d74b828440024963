/*
 * Collectives in the sample store: the plan as series and points, visits as samples.
 *
 * collective_store.c where the build found SQLite, else collective_store_none.c, for which a store
 * is always NULL. An overlap point becomes four points, one for each part; see overlap.h.
 */
#ifndef MOE_CALIBRATE_COLLECTIVE_STORE_H
#define MOE_CALIBRATE_COLLECTIVE_STORE_H

#include <stdint.h>

#include "calibrate/collective/collective_plan.h"
#include "calibrate/collective/collective_visit.h"
#include "sim/base/error.h"

struct moe_sample_store;
struct moe_collective_book; /* opaque: which rows of the store the plan's series and points are */

/* A GPU of the run, by rank; plain data, since processes send it to each other. */
struct moe_collective_gpu {
    char uuid[48];
    char name[256];
    uint64_t memory_bytes;
    uint32_t sm_count;
    uint32_t l2_bytes;
    uint32_t device; /* number on its host */
    double boost_mhz;
    double power_limit_w;
};

/* What every sample of a visit says besides the times. */
struct moe_collective_visit_place {
    uint32_t point;
    int part; /* of overlap.h, or -1 */
    uint32_t pass;
    int64_t seq;
    double begin_s;
};

/* gpus[plan->rank_count]. The plan's points are written at once, before anything is measured; those
 * that it gets later, by moe_collective_book_add. store NULL: a book that writes nothing.
 * Errors: what the store says; MOE_LIMIT. */
enum moe_status moe_collective_book_create(struct moe_sample_store *store, int64_t run,
                                           const struct moe_collective_plan *plan,
                                           const struct moe_collective_gpu *gpus, double raw_share,
                                           struct moe_collective_book **out,
                                           struct moe_error *err) MOE_MUST_CHECK;
void moe_collective_book_destroy(struct moe_collective_book *book); /* NULL is allowed */

/* Writes the points from `first` on. */
enum moe_status moe_collective_book_add(struct moe_collective_book *book,
                                        const struct moe_collective_plan *plan, uint32_t first,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* A run that was killed goes on: whether the store has all samples that this run takes of the point
 * in this pass, and the slowest GPU's median, 0 where it has not. Overlap points count as a whole;
 * their parts' medians are not read back. */
enum moe_status moe_collective_book_done(struct moe_collective_book *book,
                                         const struct moe_collective_plan *plan, uint32_t point,
                                         uint32_t pass, double *median_us,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* A sample for each rank that worked. */
enum moe_status moe_collective_book_take(struct moe_collective_book *book,
                                         const struct moe_collective_plan *plan,
                                         const struct moe_collective_visit_place *place,
                                         const struct moe_visit *visit,
                                         struct moe_error *err) MOE_MUST_CHECK;

#endif
