#include "sim/engine/serving/intake.h"

#include <assert.h>

#include "sim/base/no_malloc.h"

bool moe_intake_peek(const struct moe_intake *intake, moe_time_ns now_ns,
                     struct moe_incoming *incoming)
{
    uint32_t request = 0;
    if (intake->workload == NULL) {
        if (intake->next == intake->count || intake->list[intake->next].arrival_ns > now_ns) {
            return false;
        }
        *incoming = intake->list[intake->next];
        return true;
    }
    if (!moe_workload_peek(intake->workload, &request)) {
        return false;
    }
    const struct moe_trace_request *r = &intake->workload->requests[request];
    *incoming = (struct moe_incoming){
        .request = request,
        .prompt_tokens = r->prompt_tokens,
        .output_tokens = r->output_tokens,
        .domain = r->domain,
        .scored = moe_workload_scores_next(intake->workload),
    };
    return true;
}

void moe_intake_take(struct moe_intake *intake)
{
    if (intake->workload != NULL) {
        moe_workload_take(intake->workload);
        return;
    }
    assert(intake->next < intake->count);
    intake->next++;
}

bool moe_intake_next(const struct moe_intake *intake, moe_time_ns *arrival_ns)
{
    uint32_t request = 0;
    if (intake->workload != NULL) {
        *arrival_ns = 0;
        return moe_workload_peek(intake->workload, &request);
    }
    if (intake->next == intake->count) {
        return false;
    }
    *arrival_ns = intake->list[intake->next].arrival_ns;
    return true;
}

bool moe_intake_scores_next(const struct moe_intake *intake)
{
    if (intake->workload != NULL) {
        return moe_workload_scores_next(intake->workload);
    }
    return intake->next < intake->count && intake->list[intake->next].scored;
}
