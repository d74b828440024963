/* From the planned rows of a step to its length: in one piece or in two halves. */
#include "sim/engine/run_state.h"
#include "sim/engine/serving/graph_pad.h"

#include "sim/base/no_malloc.h"

enum moe_status moe_run_init_halves(struct moe_run_state *run,
                                    const struct moe_step_options *options, struct moe_arena *work,
                                    struct moe_error *err)
{
    const struct moe_halves_setup setup = {
        .step = options,
        .counter = &run->counter,
        .rank_count = run->serving.setup.rank_count,
        .attribution = run->input->scenario->attribution,
    };
    if (options->serving->overlap == MOE_OVERLAP_NONE) {
        return MOE_OK;
    }
    if (run->input->detail != NULL) {
        return moe_fail(err, MOE_UNSUPPORTED,
                        "--detail writes steps in one piece; set serving.overlap to none");
    }
    if (options->drafts != NULL) {
        return moe_fail(err, MOE_UNSUPPORTED,
                        "serving.overlap: drafting runs in one piece; set serving.draft_layers to "
                        "0, so that drafts cost nothing, or serving.overlap to none");
    }
    return moe_halves_step_init(&run->halves, &setup, work, err);
}

enum moe_status moe_run_route(struct moe_run_state *run, struct moe_error *err)
{
    return run->halves.now ? moe_halves_route(&run->halves, &run->serving, &run->counter, err)
                           : moe_serving_route_step(&run->serving, &run->counter, err);
}

/* The work of a rank on each of its GPUs; padded where graphs say so. */
static void spread_work(struct moe_run_state *run)
{
    const struct moe_serving *options = &run->input->scenario->serving;
    const uint32_t ranks = run->serving.setup.rank_count;
    const uint64_t padded = moe_graph_pad(options, ranks, run->rank);
    run->result->padded_rows += run->halves.now ? moe_halves_pad(&run->halves, options) : padded;
    for (uint32_t gpu = 0; gpu < run->result->gpu_count; gpu++) {
        run->own[gpu] = run->rank[gpu / options->attention_ranks];
    }
}

static enum moe_status time_halves(struct moe_run_state *run, bool attribute, moe_time_ns *step_ns,
                                   struct moe_error *err)
{
    struct moe_halves_account *account = &run->result->halves;
    const moe_time_ns one_piece_ns = moe_step_play(&run->step);
    *step_ns = moe_halves_play(&run->halves, &run->step, attribute ? &run->straggler : NULL);
    if (attribute) {
        moe_halves_sensitivity(&run->halves, &run->step, &run->sensitivity);
    }
    if (run->phase == MOE_PHASE_SCORED) {
        account->steps++;
        account->time_ns += *step_ns;
        account->one_piece_ns += one_piece_ns;
        account->use.exchange_ns += run->halves.timeline.use.exchange_ns;
        account->use.hidden_ns += run->halves.timeline.use.hidden_ns;
    }
    return run->input->audit
               ? moe_halves_audit(&run->halves, &run->step, &run->counter, *step_ns, err)
               : MOE_OK;
}

enum moe_status moe_run_time_step(struct moe_run_state *run, bool attribute, moe_time_ns *step_ns,
                                  struct moe_error *err)
{
    const bool whole = attribute && !run->halves.now;
    if (run->input->audit && run->halves.now) {
        MOE_TRY(moe_halves_audit_rows(&run->halves, run->rank, run->serving.setup.rank_count, err));
    }
    spread_work(run);
    if (attribute) {
        moe_straggler_begin_step(&run->straggler);
    }
    moe_step_price(&run->step, run->step_number, run->now_ns, run->own, &run->counter, attribute,
                   whole ? &run->straggler : NULL);
    if (run->halves.now) {
        return time_halves(run, attribute, step_ns, err);
    }
    *step_ns = moe_step_play(&run->step);
    if (attribute) {
        const struct moe_step_prices prices = moe_step_prices(&run->step);
        moe_step_end_straggler(&run->step, &run->straggler);
        moe_sensitivity_step(&run->sensitivity, &run->step.times, &prices);
    }
    return MOE_OK;
}
