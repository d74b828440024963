/* A build without the part that measures links. */
#include "calibrate/measure/measure_link.h"

enum moe_status moe_measure_link(struct moe_measure_run *run, const volatile sig_atomic_t *stop,
                                 struct moe_error *err)
{
    (void) run;
    (void) stop;
    (void) err;
    return MOE_OK;
}

double moe_measure_link_reserve_s(const struct moe_measure_run *run)
{
    (void) run;
    return 0.0;
}
