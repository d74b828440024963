/* What does not depend on how the processes talk. */
#include "calibrate/collective/bootstrap.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct verdict {
    enum moe_status status;
    char text[sizeof((struct moe_error *) 0)->text];
};

enum moe_status moe_bootstrap_agree(const struct moe_bootstrap *boot, enum moe_status own,
                                    struct moe_error *err)
{
    struct verdict mine = { .status = own };
    struct verdict *all = calloc(boot->process_count, sizeof *all);
    if (own != MOE_OK && err != NULL) {
        memcpy(mine.text, err->text, sizeof mine.text);
    }
    if (all == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %" PRIu32 " processes", boot->process_count);
    }
    enum moe_status status = moe_bootstrap_gather(boot, &mine, sizeof mine, all, err);
    for (uint32_t i = 0; status == MOE_OK && i < boot->process_count; i++) {
        if (all[i].status != MOE_OK && own == MOE_OK) {
            status = moe_fail(err, all[i].status, "process %" PRIu32 ": %.400s", i, all[i].text);
        }
    }
    free(all);
    return own == MOE_OK ? status : own;
}

enum moe_status moe_bootstrap_share(const struct moe_bootstrap *boot, uint32_t gpu_count,
                                    uint32_t *first, uint32_t *count, struct moe_error *err)
{
    if (boot->local_count == 1) {
        *first = 0;
        *count = gpu_count;
        return MOE_OK;
    }
    if (boot->local >= gpu_count) {
        return moe_fail(err, MOE_RANGE,
                        "process %" PRIu32 " is number %" PRIu32 " of %" PRIu32
                        " on host %s and has no GPU: there %s %" PRIu32
                        "; start at most that many processes on it",
                        boot->process, boot->local, boot->local_count, boot->host_name,
                        gpu_count == 1 ? "is" : "are", gpu_count);
    }
    *first = boot->local;
    *count = 1;
    return MOE_OK;
}
