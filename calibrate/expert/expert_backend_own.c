/* Our kernels, by version: each numbered one, and the fastest that runs here. */
#include <assert.h>
#include <stdlib.h>

#include "calibrate/device/device.h"
#include "calibrate/expert/expert_backend.h"
#include "kernels/expert/expert_ffn.h"

struct own {
    struct moe_expert_ffn *ffn[MOE_GRAPH_SET_LIMIT];
    uint32_t set_count;
};

static void own_destroy(void *state)
{
    struct own *own = state;
    for (uint32_t set = 0; set < own->set_count; set++) {
        moe_expert_ffn_destroy(own->ffn[set]);
    }
    free(own);
}

static enum moe_status version_create(const struct moe_expert_case *kase, int version, void **state,
                                      struct moe_error *err)
{
    const struct moe_expert_data *data = kase->data;
    const struct moe_expert_ffn_batch batch = {
        .row_count = kase->load.row_count,
        .row_offset = kase->row_offset,
        .row_offset_dev = data->row_offset_dev,
        .scale_stride = data->scale_stride,
        .x_dev = data->x_dev,
        .x_scale_dev = data->x_scale_dev,
        .mid_dev = data->mid_dev,
        .mid_scale_dev = data->mid_scale_dev,
        .out_dev = data->out_dev,
    };
    struct own *own = calloc(1, sizeof *own);
    if (own == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a backend");
    }
    for (uint32_t set = 0; set < data->set_count; set++) {
        const struct moe_expert_ffn_weights weights = moe_expert_data_weights(data, set);
        const enum moe_status status = moe_device_check(
            moe_expert_ffn_create(&data->shape, &weights, &batch, version, &own->ffn[set]),
            "moe_expert_ffn_create", err);
        if (status != MOE_OK) {
            own_destroy(own);
            return status;
        }
        own->set_count++;
    }
    *state = own;
    return MOE_OK;
}

static enum moe_status own_run(void *state, uint32_t set, void *stream, struct moe_error *err)
{
    const struct own *own = state;
    assert(set < own->set_count);
    return moe_device_check(moe_expert_ffn_run(own->ffn[set], stream), "moe_expert_ffn_run", err);
}

static const char *own_describe(void *state)
{
    const struct own *own = state;
    return moe_expert_ffn_describe(own->ffn[0]);
}

#define OWN(NAME, TEXT, VERSION, HELP, CHOSEN)                                             \
    static const char *NAME##_refuse(const struct moe_expert_case *kase)                   \
    {                                                                                      \
        return moe_expert_ffn_refusal(&kase->data->shape, VERSION);                        \
    }                                                                                      \
    static enum moe_status NAME##_create(const struct moe_expert_tools *tools,             \
                                         const struct moe_expert_case *kase, void **state, \
                                         struct moe_error *err)                            \
    {                                                                                      \
        (void) tools;                                                                      \
        return version_create(kase, VERSION, state, err);                                  \
    }                                                                                      \
    const struct moe_expert_backend moe_expert_backend_##NAME = {                          \
        .name = (TEXT),                                                                    \
        .help = (HELP),                                                                    \
        .chosen = (CHOSEN),                                                                \
        .dtype = MOE_EXPERT_DTYPE_COUNT,                                                   \
        .scaling = MOE_EXPERT_SCALING_BLOCK,                                               \
        .refuse = NAME##_refuse,                                                           \
        .create = NAME##_create,                                                           \
        .run = own_run,                                                                    \
        .describe = own_describe,                                                          \
        .destroy = own_destroy,                                                            \
    }

OWN(own, "own", 0, "our kernels, the fastest version that runs here", true);
OWN(own_v2, "own-v2", 2, "our kernels, version 2 (mma.sync and cp.async)", false);
OWN(own_v1, "own-v1", 1, "our kernels, version 1 (naive, very slow)", false);
