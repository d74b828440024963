#include "calibrate/measure/measure_link.h"

#include <math.h>
#include <stdio.h>

#include "calibrate/collective/collective.h"
#include "calibrate/collective/exchange.h"
#include "sim/base/wall_clock.h"

/* Of the limit, at most; what the whole plan takes on two H200 (9 s) and room, more for each
 * further GPU: pairs become coarse from four on (collective_plan.h). */
static const double SHARE = 0.25;
static const double TWO_S = 16.0;
static const double FURTHER_S = 20.0;
static const double SEVERAL_S = 75.0;
static const double ALONE_S = 6.0;

static bool can_measure(const struct moe_measure_run *run)
{
    return run->gpu_count <= MOE_LANE_LIMIT;
}

double moe_measure_link_reserve_s(const struct moe_measure_run *run)
{
    if (!can_measure(run)) {
        return 0.0;
    }
    const double several_s = fmin(SEVERAL_S, TWO_S + FURTHER_S * ((double) run->gpu_count - 2.0));
    return fmin(SHARE * run->limit_s, run->gpu_count > 1 ? several_s : ALONE_S);
}

enum moe_status moe_measure_link_prepare(struct moe_measure_run *run, struct moe_error *err)
{
    moe_exchange_version(run->nccl, sizeof run->nccl);
    return moe_exchange_forbid_multicast(err);
}

enum moe_status moe_measure_link(struct moe_measure_run *run, const volatile sig_atomic_t *stop,
                                 struct moe_error *err)
{
    char sql[96];
    int64_t seq = 0;
    struct moe_collective_outcome outcome = { 0 };
    if (!can_measure(run)) {
        (void) fprintf(stderr, "moecal: nothing over links is measured for more than %d GPUs\n",
                       MOE_LANE_LIMIT);
        return MOE_OK;
    }
    (void) snprintf(sql, sizeof sql, "SELECT 1 + max(seq) FROM sample WHERE run = %lld",
                    (long long) run->id);
    MOE_TRY(moe_database_scalar(moe_sample_store_database(run->store), sql, 0, &seq, err));
    struct moe_collective_options options =
        moe_collective_options_all(run->devices, run->gpu_count);
    options.nvml = run->nvml;
    options.seed = run->request.seed;
    options.begin_s = run->begin_s - run->earlier_s;
    options.limit_s = run->limit_s - 1.0 - (moe_wall_clock_s() - run->begin_s);
    options.first_seq = seq;
    options.raw_share = run->raw_share;
    options.stop = stop;
    options.progress = stderr;
    if (run->link_bytes_max > 0) { /* small test machines */
        options.most_bytes = run->link_bytes_max;
        const struct moe_bench_shape *shape = &run->request.sentinel;
        options.overlap =
            (struct moe_overlap_shape){ .hidden = (uint32_t) shape->hidden,
                                        .inter = (uint32_t) shape->inter,
                                        .experts = (uint32_t) shape->expert_count,
                                        .rows = { 1, (uint32_t) run->request.sentinel_rows } };
    }
    if (options.limit_s <= 0.0) {
        return MOE_OK;
    }
    const enum moe_status status =
        moe_collective_measure(run->store, run->id, &options, NULL, &outcome, err);
    atomic_fetch_add(&run->skipped_count, outcome.left_out);
    (void) fprintf(stderr, "moecal: links: %u visits in %.1f s, %u points left out\n",
                   outcome.visit_count, outcome.seconds, outcome.left_out);
    moe_collective_plan_free(&outcome.plan);
    return status;
}
