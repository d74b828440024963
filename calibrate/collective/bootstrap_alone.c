/* One process, as moecal is built without MPI. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "calibrate/collective/bootstrap.h"

enum moe_status moe_bootstrap_start(struct moe_bootstrap *out, struct moe_error *err)
{
    struct moe_bootstrap boot = { .process_count = 1, .host_count = 1, .local_count = 1 };
    (void) err;
    if (gethostname(boot.host_name, sizeof boot.host_name - 1) != 0) {
        (void) snprintf(boot.host_name, sizeof boot.host_name, "localhost");
    }
    *out = boot;
    return MOE_OK;
}

void moe_bootstrap_end(struct moe_bootstrap *boot)
{
    (void) boot;
}

enum moe_status moe_bootstrap_broadcast(const struct moe_bootstrap *boot, void *data, size_t bytes,
                                        struct moe_error *err)
{
    (void) boot;
    (void) data;
    (void) bytes;
    (void) err;
    return MOE_OK;
}

enum moe_status moe_bootstrap_gather(const struct moe_bootstrap *boot, const void *mine,
                                     size_t bytes, void *all, struct moe_error *err)
{
    (void) boot;
    (void) err;
    memcpy(all, mine, bytes);
    return MOE_OK;
}
