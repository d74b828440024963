#include "calibrate/collective/collective.h"

#include <assert.h>
#include <cuda_runtime_api.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/collective/collective_store.h"
#include "calibrate/collective/exchange_pattern.h"
#include "calibrate/collective/overlap.h"
#include "sim/base/progress.h"
#include "sim/base/wall_clock.h"

/* A visit's share of timed calls when time is short: enough for the least count of small ones. */
static const double LEAST_BUDGET_S = 0.01;
static const double START_PATIENCE_S = 120.0; /* NCCL looks at the machine: seconds, not minutes */

/* What a measurement holds. */
struct measurement {
    struct moe_sample_store *store;
    int64_t run;
    const struct moe_collective_options *options;
    const struct moe_bootstrap *boot;
    struct moe_collective_outcome *out;
    struct moe_collective_plan *plan;
    struct moe_lanes lanes;
    struct moe_exchange *exchange;
    struct moe_watchdog *dog;
    struct moe_overlap *overlap;
    struct moe_collective_book *book;
    struct moe_collective_gpu *gpus;
    struct moe_visit visits[MOE_OVERLAP_PART_COUNT];
    struct moe_visit_tools tools;
    struct moe_progress progress;
    double begin_s;
    double end_s;
    double ahead_s; /* guess of what the phase under way still needs */
    uint64_t done;
    int64_t seq;
};

struct moe_collective_options moe_collective_options_all(const uint32_t *devices, uint32_t count)
{
    const struct moe_collective_request request =
        moe_collective_request_all(count, moe_exchange_has_nccl(), 1);
    struct moe_collective_options options = {
        .devices = devices,
        .device_count = count,
        .seed = request.seed,
        .limit_s = INFINITY,
        .begin_s = moe_wall_clock_s(),
        .raw_share = 0.02,
        .overlap = request.overlap,
        .least_bytes = request.least_bytes,
        .most_bytes = request.most_bytes,
    };
    memcpy(options.ops, request.ops, sizeof options.ops);
    options.ops[MOE_COLLECTIVE_ALL_TO_ALL_API] =
        options.ops[MOE_COLLECTIVE_ALL_TO_ALL_API] && moe_exchange_has_api();
    return options;
}

enum moe_status moe_collective_plan_for(const struct moe_collective_options *options,
                                        const struct moe_bootstrap *boot,
                                        struct moe_collective_plan *out, struct moe_error *err)
{
    const uint32_t processes = boot == NULL ? 1 : boot->process_count;
    struct moe_collective_request request = {
        .seed = options->seed,
        .rank_count = options->device_count * processes,
        .devices = processes == 1 ? options->devices : NULL,
        .least_bytes = options->least_bytes,
        .most_bytes = options->most_bytes,
        .overlap = options->overlap,
    };
    memcpy(request.ops, options->ops, sizeof request.ops);
    if (processes > 1) { /* a copy engine reaches only the GPUs of its own process */
        request.ops[MOE_COLLECTIVE_PEER_COPY] = false;
    }
    return moe_collective_plan_make(&request, out, err);
}

/* Who the ranks are, for the store; every process tells of its own. */
static enum moe_status read_gpus(struct measurement *m, struct moe_error *err)
{
    const uint32_t count = m->options->device_count;
    struct moe_collective_gpu *mine = calloc(count, sizeof *mine);
    m->gpus = calloc(m->plan->rank_count, sizeof m->gpus[0]);
    if (mine == NULL || m->gpus == NULL) {
        free(mine);
        return moe_fail(err, MOE_LIMIT, "no memory for %" PRIu32 " GPUs", m->plan->rank_count);
    }
    enum moe_status status = MOE_OK;
    for (uint32_t i = 0; status == MOE_OK && i < count; i++) {
        const struct moe_device *about = &m->lanes.lanes[i].about;
        struct moe_nvml_sample sensors = { 0 };
        int cache_bytes = 0;
        status = moe_device_check((int) cudaDeviceGetAttribute(&cache_bytes, cudaDevAttrL2CacheSize,
                                                               (int) m->options->devices[i]),
                                  "cudaDeviceGetAttribute", err);
        if (status == MOE_OK && m->options->nvml != NULL) {
            status = moe_nvml_read(m->options->nvml, about->pci_bus_id, &sensors, err);
        }
        memcpy(mine[i].uuid, about->uuid, sizeof mine[i].uuid);
        memcpy(mine[i].name, about->name, sizeof mine[i].name);
        mine[i].memory_bytes = about->memory_bytes;
        mine[i].sm_count = about->sm_count;
        mine[i].l2_bytes = (uint32_t) cache_bytes;
        mine[i].device = m->options->devices[i];
        mine[i].boost_mhz = (double) sensors.sm_clock_max_mhz;
        mine[i].power_limit_w = (double) sensors.power_limit_mw / 1e3;
    }
    status = moe_bootstrap_agree(m->boot, status, err);
    if (status == MOE_OK) {
        status = moe_bootstrap_gather(m->boot, mine, count * sizeof *mine, m->gpus, err);
    }
    free(mine);
    return status;
}

/* Said before anything is measured, and before the driver says it less clearly. */
static enum moe_status check_memory(const struct measurement *m,
                                    const struct moe_collective_room *room, struct moe_error *err)
{
    for (uint32_t i = 0; i < m->options->device_count; i++) {
        size_t free_bytes = 0;
        size_t all_bytes = 0;
        const uint32_t device = m->options->devices[i];
        MOE_TRY(moe_device_check((int) cudaSetDevice((int) device), "cudaSetDevice", err));
        MOE_TRY(
            moe_device_check((int) cudaMemGetInfo(&free_bytes, &all_bytes), "cudaMemGetInfo", err));
        if ((double) free_bytes < (double) (room->send + room->recv)) {
            return moe_fail(err, MOE_LIMIT,
                            "GPU %" PRIu32 " has %.2f GiB free and exchanges of these sizes need "
                            "%.2f GiB; a smaller largest size needs less",
                            device, (double) free_bytes / 0x1p30,
                            (double) (room->send + room->recv) / 0x1p30);
        }
    }
    return MOE_OK;
}

static enum moe_status open_all(struct measurement *m, struct moe_error *err)
{
    const struct moe_collective_options *options = m->options;
    const struct moe_collective_room room = moe_collective_plan_room(m->plan);
    const size_t cells = (size_t) (MOE_LANES_CHECK_BYTES + MOE_EXCHANGE_GUARD) / 2;
    MOE_TRY(moe_watchdog_create(&m->dog, err));
    m->tools.cells = malloc(cells * sizeof m->tools.cells[0]);
    for (int i = 0; i < MOE_OVERLAP_PART_COUNT; i++) {
        m->visits[i].ranks = calloc(m->plan->rank_count, sizeof m->visits[i].ranks[0]);
        if (m->visits[i].ranks == NULL || m->tools.cells == NULL) {
            return moe_fail(err, MOE_LIMIT, "no memory for the times of %" PRIu32 " ranks",
                            m->plan->rank_count);
        }
    }
    moe_watchdog_arm(m->dog, START_PATIENCE_S, "starting NCCL and the GPUs' buffers");
    enum moe_status status = check_memory(m, &room, err);
    if (status == MOE_OK) {
        status = moe_lanes_create(options->devices, options->device_count,
                                  m->boot->process * options->device_count, m->plan->rank_count,
                                  &room, options->nvml, &m->lanes, err);
    }
    MOE_TRY(moe_bootstrap_agree(m->boot, status, err));
    m->tools.boot = m->boot;
    m->tools.lanes = &m->lanes;
    m->tools.dog = m->dog;
    status = moe_exchange_create(m->boot, &m->lanes, &m->exchange, err);
    m->tools.exchange = m->exchange;
    MOE_TRY(moe_bootstrap_agree(m->boot, status, err));
    MOE_TRY(read_gpus(m, err));
    moe_watchdog_disarm(m->dog);
    return moe_collective_book_create(m->boot->process == 0 ? m->store : NULL, m->run, m->plan,
                                      m->gpus, options->raw_share, &m->book, err);
}

static void close_all(struct measurement *m)
{
    moe_collective_book_destroy(m->book);
    moe_overlap_destroy(m->overlap);
    moe_exchange_destroy(m->exchange, m->lanes.stuck);
    moe_lanes_destroy(&m->lanes);
    moe_watchdog_destroy(m->dog);
    for (int i = 0; i < MOE_OVERLAP_PART_COUNT; i++) {
        free(m->visits[i].ranks);
    }
    free(m->tools.cells);
    free(m->gpus);
}

/* Whether another visit may begin, and with what budget: process 0 has the clock and the store. */
struct leave {
    double budget_s;
    double median_us; /* above 0: the store has this visit, of a run that was killed */
    bool go;
};

static enum moe_status ask_leave(const struct measurement *m, uint32_t point, uint32_t pass,
                                 struct leave *leave, struct moe_error *err)
{
    enum moe_status status = MOE_OK;
    const double left_s = m->end_s - moe_wall_clock_s();
    const double tightness = left_s / (m->ahead_s > 0.0 ? m->ahead_s : 1.0);
    leave->budget_s = MOE_COLLECTIVE_BUDGET_S * (tightness < 1.0 ? tightness : 1.0);
    if (!(leave->budget_s >= LEAST_BUDGET_S)) {
        leave->budget_s = LEAST_BUDGET_S;
    }
    if (m->book != NULL) {
        status = moe_collective_book_done(m->book, m->plan, point, pass, &leave->median_us, err);
    }
    MOE_TRY(moe_bootstrap_agree(m->boot, status, err));
    leave->go = leave->median_us <= 0.0 && (m->options->stop == NULL || *m->options->stop == 0) &&
                left_s > 2.0 * moe_collective_point_seconds(m->plan, point, leave->budget_s);
    return moe_bootstrap_broadcast(m->boot, leave, sizeof *leave, err);
}

/* The slowest rank's median, or where ranks have unlike counts the largest of their medians. */
static void summarise(const struct measurement *m, const struct moe_visit *visit, double *median_us,
                      double *p95_us)
{
    struct moe_timing timing;
    if (visit->count > 0) {
        moe_timing_summarise(visit->slowest_us, visit->count, &timing);
        *median_us = timing.median_us;
        *p95_us = timing.p95_us;
        return;
    }
    for (uint32_t rank = 0; rank < m->plan->rank_count; rank++) {
        if (visit->ranks[rank].worked) {
            moe_timing_summarise(visit->ranks[rank].us, visit->ranks[rank].count, &timing);
            *median_us = timing.median_us > *median_us ? timing.median_us : *median_us;
            *p95_us = timing.p95_us > *p95_us ? timing.p95_us : *p95_us;
        }
    }
}

/* Into the store, and into the plan's tables when it is the first time. */
static enum moe_status keep(struct measurement *m, uint32_t point, int part, uint32_t pass,
                            double begin_s, const struct moe_visit *visit, struct moe_error *err)
{
    struct moe_collective_point *at = &m->plan->points[point];
    const struct moe_collective_visit_place place = {
        .point = point,
        .part = part,
        .pass = pass,
        .seq = m->seq++,
        .begin_s = begin_s - m->options->begin_s,
    };
    double median_us = 0.0;
    double p95_us = 0.0;
    summarise(m, visit, &median_us, &p95_us);
    if (pass == 1 && median_us > at->median_us && part != MOE_OVERLAP_GEMM_ALONE &&
        part != MOE_OVERLAP_GEMM_UNDER) {
        at->median_us = median_us;
        at->p95_us = p95_us;
    }
    if (part >= 0) {
        at->part_us[part] = median_us;
    }
    m->out->visit_count++;
    return m->book == NULL ? MOE_OK
                           : moe_collective_book_take(m->book, m->plan, &place, visit, err);
}

static enum moe_status visit_overlap(struct measurement *m, uint32_t point, uint32_t pass,
                                     struct moe_error *err)
{
    const struct moe_collective_call call = moe_collective_plan_call(m->plan, point, 0, NULL);
    const double begin_s = moe_wall_clock_s();
    if (m->overlap == NULL) {
        const enum moe_status made =
            moe_overlap_create(&m->tools, &m->plan->overlap, &m->overlap, err);
        MOE_TRY(moe_bootstrap_agree(m->boot, made, err));
    }
    MOE_TRY(moe_overlap_visit(m->overlap, &call, m->plan->points[point].rows, m->visits, err));
    for (int part = 0; part < MOE_OVERLAP_PART_COUNT; part++) {
        MOE_TRY(keep(m, point, part, pass, begin_s, &m->visits[part], err));
    }
    return MOE_OK;
}

/* Results are looked at where sizes are odd, which is where a wrong one would show. */
static bool looks(const struct moe_collective_point *point)
{
    return point->role == MOE_COLLECTIVE_HELD_OUT || point->role == MOE_COLLECTIVE_SKEW;
}

static enum moe_status visit(struct measurement *m, uint32_t point, uint32_t pass, double budget_s,
                             struct moe_error *err)
{
    int64_t matrix[MOE_COLLECTIVE_RANK_LIMIT * MOE_COLLECTIVE_RANK_LIMIT];
    const struct moe_collective_series *series = &m->plan->series[m->plan->points[point].series];
    if (series->op == MOE_COLLECTIVE_OVERLAP) {
        return visit_overlap(m, point, pass, err);
    }
    const bool alone = series->op == MOE_COLLECTIVE_HOST_TO_DEVICE && series->ranks == 1;
    for (uint32_t rank = 0; rank < (alone ? m->plan->rank_count : 1); rank++) {
        const struct moe_collective_call call =
            moe_collective_plan_call(m->plan, point, rank, matrix);
        const double begin_s = moe_wall_clock_s();
        MOE_TRY(moe_visit_call(&m->tools, &call, budget_s,
                               pass == 1 && looks(&m->plan->points[point]), &m->visits[0], err));
        MOE_TRY(keep(m, point, -1, pass, begin_s, &m->visits[0], err));
    }
    return MOE_OK;
}

/* The points first .. first + count - 1 that pass asks for, in an order of their own. */
static enum moe_status phase(struct measurement *m, uint32_t first, uint32_t count, uint32_t pass,
                             struct moe_error *err)
{
    uint32_t *order = calloc((size_t) count + 1, sizeof order[0]);
    enum moe_status status = MOE_OK;
    if (order == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for an order of %" PRIu32 " points", count);
    }
    moe_collective_plan_shuffle(m->plan, first, count, pass, order);
    for (uint32_t i = 0; i < count; i++) {
        if (pass == 1 || moe_collective_plan_repeats(m->plan, order[i])) {
            m->ahead_s += moe_collective_point_seconds(m->plan, order[i], MOE_COLLECTIVE_BUDGET_S);
        }
    }
    for (uint32_t i = 0; status == MOE_OK && i < count; i++) {
        struct leave leave = { 0 };
        if (pass > 1 && (!moe_collective_plan_repeats(m->plan, order[i]) ||
                         m->plan->points[order[i]].median_us <= 0.0)) {
            continue;
        }
        status = ask_leave(m, order[i], pass, &leave, err);
        if (status == MOE_OK && pass == 1 && leave.median_us > 0.0) {
            m->plan->points[order[i]].median_us = leave.median_us;
        }
        if (status == MOE_OK && leave.go) {
            status = visit(m, order[i], pass, leave.budget_s, err);
        }
        m->ahead_s -= moe_collective_point_seconds(m->plan, order[i], MOE_COLLECTIVE_BUDGET_S);
        moe_progress_update(&m->progress, ++m->done);
    }
    m->ahead_s = 0.0;
    free(order);
    return status;
}

static enum moe_status all_phases(struct measurement *m, struct moe_error *err)
{
    const uint32_t planned = m->plan->point_count;
    MOE_TRY(phase(m, 0, planned, 1, err));
    MOE_TRY(moe_collective_plan_refine(m->plan, err));
    if (m->book != NULL) {
        MOE_TRY(moe_collective_book_add(m->book, m->plan, planned, err));
    }
    MOE_TRY(phase(m, planned, m->plan->point_count - planned, 1, err));
    return phase(m, 0, m->plan->point_count, 2, err);
}

enum moe_status moe_collective_measure(struct moe_sample_store *store, int64_t run,
                                       const struct moe_collective_options *options,
                                       const struct moe_bootstrap *boot,
                                       struct moe_collective_outcome *out, struct moe_error *err)
{
    const struct moe_bootstrap one = { .process_count = 1, .host_count = 1, .local_count = 1 };
    struct measurement m = {
        .store = store,
        .run = run,
        .options = options,
        .boot = boot == NULL ? &one : boot,
        .out = out,
        .plan = &out->plan,
        .begin_s = moe_wall_clock_s(),
        .seq = options->first_seq,
    };
    *out = (struct moe_collective_outcome){ 0 };
    if (options->device_count < 1 || options->device_count > MOE_LANE_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%" PRIu32 " GPUs; allowed are 1 to %d in one process",
                        options->device_count, MOE_LANE_LIMIT);
    }
    m.end_s = m.begin_s + options->limit_s;
    MOE_TRY(moe_exchange_forbid_multicast(err));
    MOE_TRY(moe_collective_plan_for(options, m.boot, &out->plan, err));
    moe_progress_begin(&m.progress, options->progress, "links", "points", 0, m.plan->point_count);
    enum moe_status status = open_all(&m, err);
    if (status == MOE_OK) {
        status = all_phases(&m, err);
    }
    moe_progress_end(&m.progress);
    for (uint32_t i = 0; i < out->plan.point_count; i++) {
        out->left_out += out->plan.points[i].median_us <= 0.0;
    }
    out->seconds = moe_wall_clock_s() - m.begin_s;
    close_all(&m);
    return status;
}
