/* The expert FFN by one backend. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "calibrate/expert/expert_backend.h"
#include "calibrate/expert/expert_reference.h"
#include "calibrate/measure/measure_work.h"

/* The least part of the experts that a planned histogram uses with all its weight. */
static const double ACTIVE_SHARE = 0.25;

struct expert {
    struct moe_expert_tools tools;
    const struct moe_expert_backend *backend;
    struct moe_expert_data *data;
    struct moe_expert_case kase;
    void *backend_state; /* of the point that is set; else NULL */
};

static enum moe_status expert_open(const struct moe_measure_tools *tools,
                                   const struct moe_measure_series *series,
                                   const struct moe_measure_extent *extent, void **state,
                                   struct moe_error *err)
{
    const struct moe_expert_ffn_shape shape = { series->hidden, series->inter, series->units,
                                                series->dtype, series->activation };
    struct expert *expert = calloc(1, sizeof *expert);
    if (expert == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for a series");
    }
    expert->tools = (struct moe_expert_tools){ .blas = tools->blas, .timer = tools->timer };
    expert->backend = moe_expert_backend_find(series->backend);
    assert(expert->backend != NULL);
    const enum moe_status status = moe_expert_data_create(
        &shape, (int32_t) extent->rows, tools->cache_bytes, ACTIVE_SHARE, &expert->data, err);
    if (status != MOE_OK) {
        free(expert);
        return status;
    }
    *state = expert;
    return MOE_OK;
}

static enum moe_status expert_set(void *state, const struct moe_measure_point *point,
                                  struct moe_measure_launch *out, struct moe_error *err)
{
    struct expert *expert = state;
    MOE_TRY(moe_expert_case_set_rows(expert->data, point->rows, &expert->kase, err));
    const char *refusal =
        expert->backend->refuse == NULL ? NULL : expert->backend->refuse(&expert->kase);
    if (refusal != NULL) {
        return moe_fail(err, MOE_UNSUPPORTED, "%s", refusal);
    }
    const enum moe_status status =
        expert->backend->create(&expert->tools, &expert->kase, &expert->backend_state, err);
    if (status != MOE_OK) {
        expert->backend_state = NULL;
        return status;
    }
    *out = (struct moe_measure_launch){ .launch = expert->backend->run,
                                        .context = expert->backend_state,
                                        .set_count = expert->data->set_count };
    return MOE_OK;
}

static enum moe_status expert_poison(void *state, const struct moe_measure_point *point,
                                     struct moe_error *err)
{
    const struct expert *expert = state;
    (void) point;
    return moe_expert_data_poison(expert->data, err);
}

static enum moe_status expert_judge(void *state, const struct moe_measure_point *point,
                                    struct moe_measure_verdict *out, struct moe_error *err)
{
    struct expert *expert = state;
    struct moe_expert_reference *reference = NULL;
    struct moe_expert_verdict verdict;
    (void) point;
    if (expert->backend->collect != NULL) {
        MOE_TRY(expert->backend->collect(expert->backend_state,
                                         moe_graph_timer_stream(expert->tools.timer), err));
        MOE_TRY(moe_graph_wait(expert->tools.timer, "collecting a result", err));
    }
    MOE_TRY(moe_expert_reference_create(&expert->kase, expert->backend->scaling, &reference, err));
    const enum moe_status status =
        moe_expert_reference_judge(reference, &expert->kase, &verdict, err);
    moe_expert_reference_destroy(reference);
    if (status != MOE_OK) {
        return status;
    }
    out->error = verdict.error;
    out->wrong = verdict.unwritten != 0 ||
                 !(verdict.error <= moe_expert_error_limit(expert->data->shape.dtype));
    (void) snprintf(out->why, sizeof out->why, "%llu cells unwritten, relative error %.2e",
                    (unsigned long long) verdict.unwritten, verdict.error);
    return MOE_OK;
}

static void expert_leave(void *state)
{
    struct expert *expert = state;
    if (expert->backend_state != NULL) {
        expert->backend->destroy(expert->backend_state);
        expert->backend_state = NULL;
    }
}

static void expert_close(void *state)
{
    struct expert *expert = state;
    expert_leave(expert);
    moe_expert_data_destroy(expert->data);
    free(expert);
}

const struct moe_measure_work moe_measure_work_expert = {
    .open = expert_open,
    .set = expert_set,
    .poison = expert_poison,
    .judge = expert_judge,
    .leave = expert_leave,
    .close = expert_close,
};
