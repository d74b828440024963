/* In the place of collective_store.c where the build found no SQLite: there is no store. */
#include <assert.h>
#include <stddef.h>

#include "calibrate/collective/collective_store.h"

enum moe_status moe_collective_book_create(struct moe_sample_store *store, int64_t run,
                                           const struct moe_collective_plan *plan,
                                           const struct moe_collective_gpu *gpus, double raw_share,
                                           struct moe_collective_book **out, struct moe_error *err)
{
    assert(store == NULL);
    (void) store;
    (void) run;
    (void) plan;
    (void) gpus;
    (void) raw_share;
    (void) err;
    *out = NULL;
    return MOE_OK;
}

void moe_collective_book_destroy(struct moe_collective_book *book)
{
    (void) book;
}

enum moe_status moe_collective_book_add(struct moe_collective_book *book,
                                        const struct moe_collective_plan *plan, uint32_t first,
                                        struct moe_error *err)
{
    (void) book;
    (void) plan;
    (void) first;
    (void) err;
    return MOE_OK;
}

enum moe_status moe_collective_book_done(struct moe_collective_book *book,
                                         const struct moe_collective_plan *plan, uint32_t point,
                                         uint32_t pass, double *median_us, struct moe_error *err)
{
    (void) book;
    (void) plan;
    (void) point;
    (void) pass;
    (void) err;
    *median_us = 0.0;
    return MOE_OK;
}

enum moe_status moe_collective_book_take(struct moe_collective_book *book,
                                         const struct moe_collective_plan *plan,
                                         const struct moe_collective_visit_place *place,
                                         const struct moe_visit *visit, struct moe_error *err)
{
    (void) book;
    (void) plan;
    (void) place;
    (void) visit;
    (void) err;
    return MOE_OK;
}
