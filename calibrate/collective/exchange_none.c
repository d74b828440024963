/* In the place of exchange_nccl.c where the build found no NCCL. */
#include "calibrate/collective/exchange.h"
#include "calibrate/collective/lane_copies.h"

struct moe_exchange {
    const struct moe_lanes *lanes;
};

/* One is enough: it holds nothing but where the lanes are. */
static struct moe_exchange only;

bool moe_exchange_has_nccl(void)
{
    return false;
}

bool moe_exchange_has_api(void)
{
    return false;
}

void moe_exchange_version(char *out, size_t size)
{
    if (size > 0) {
        out[0] = '\0';
    }
}

enum moe_status moe_exchange_forbid_multicast(struct moe_error *err)
{
    (void) err;
    return MOE_OK;
}

enum moe_status moe_exchange_create(const struct moe_bootstrap *boot, const struct moe_lanes *lanes,
                                    struct moe_exchange **out, struct moe_error *err)
{
    (void) boot;
    (void) err;
    only.lanes = lanes;
    *out = &only;
    return MOE_OK;
}

void moe_exchange_destroy(struct moe_exchange *exchange, bool stuck)
{
    (void) exchange;
    (void) stuck;
}

enum moe_status moe_exchange_enqueue(struct moe_exchange *exchange,
                                     const struct moe_collective_call *call, struct moe_error *err)
{
    if (moe_collective_op_nccl(call->op)) {
        return moe_fail(err, MOE_UNSUPPORTED, "this moecal was built without NCCL, which %s needs",
                        moe_collective_op_name(call->op));
    }
    return moe_lane_copies_enqueue(exchange->lanes, call, err);
}
