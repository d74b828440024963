#include "calibrate/collective/overlap.h"

#include <assert.h>
#include <cuda_runtime_api.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/expert/row_histogram.h"
#include "kernels/expert/expert_ffn.h"
#include "kernels/memory/random_fill.h"

enum {
    CALLS = 64, /* of each kind in a round, at most */
    LEAST_CALLS = 4,
    ROUNDS = 10,
    LATE_LIMIT = 3,
    OWNED = 8,
};

static const double ROUND_US = 3000.0;
static const double ROUND_CALLS = 6.0; /* a round is at least that many of the longer kind */
static const double PATIENCE_S = 60.0;

struct kind {
    void *begin[CALLS]; /* cudaEvent_t */
    void *end[CALLS];
};

struct overlap_lane {
    void *stream; /* cudaStream_t of the GEMMs */
    void *origin; /* cudaEvent_t: times of both streams are told from it */
    void *done;   /* cudaEvent_t: the GEMMs of a round have ended */
    struct kind gemm;
    struct kind exchange;
    struct moe_expert_ffn *ffn[MOE_OVERLAP_ROWS];
    void *owned[OWNED];
    uint32_t owned_count;
};

struct moe_overlap {
    const struct moe_visit_tools *tools;
    struct moe_overlap_shape shape;
    uint32_t lane_count;
    uint32_t late_count; /* rounds whose hold ended by itself */
    struct overlap_lane lanes[MOE_LANE_LIMIT];
};

/* What one round has given, of one process. */
struct share {
    uint32_t count[MOE_LANE_LIMIT][MOE_OVERLAP_PART_COUNT];
    float us[MOE_LANE_LIMIT][MOE_OVERLAP_PART_COUNT][MOE_TIMING_LIMIT];
};

const char *moe_overlap_part_name(enum moe_overlap_part part)
{
    static const char *const names[] = { "gemm-alone", "gemm-under", "exchange-alone",
                                         "exchange-under" };
    assert(part < MOE_OVERLAP_PART_COUNT);
    return names[part];
}

static enum moe_status check(cudaError_t code, const char *call, struct moe_error *err)
{
    return moe_device_check((int) code, call, err);
}

static enum moe_status make_events(struct overlap_lane *lane, struct moe_error *err)
{
    struct kind *const kinds[] = { &lane->gemm, &lane->exchange };
    MOE_TRY(check(cudaEventCreate((cudaEvent_t *) &lane->origin), "cudaEventCreate", err));
    MOE_TRY(check(cudaEventCreate((cudaEvent_t *) &lane->done), "cudaEventCreate", err));
    for (size_t k = 0; k < 2; k++) {
        for (int i = 0; i < CALLS; i++) {
            MOE_TRY(check(cudaEventCreate((cudaEvent_t *) &kinds[k]->begin[i]), "cudaEventCreate",
                          err));
            MOE_TRY(
                check(cudaEventCreate((cudaEvent_t *) &kinds[k]->end[i]), "cudaEventCreate", err));
        }
    }
    return MOE_OK;
}

/* count bf16 of deviation sigma; 0: left as they are. */
static enum moe_status take(struct overlap_lane *lane, int64_t count, float sigma, void **out,
                            struct moe_error *err)
{
    assert(lane->owned_count < OWNED);
    MOE_TRY(check(cudaMalloc(out, (size_t) count * 2), "cudaMalloc of an expert", err));
    lane->owned[lane->owned_count++] = *out;
    if (sigma <= 0.0F) {
        return MOE_OK;
    }
    return moe_device_check(
        moe_kernel_fill_bf16(*out, count, sigma, 7 + (uint64_t) lane->owned_count, NULL),
        "filling an expert", err);
}

static enum moe_status make_ffn(const struct moe_overlap_shape *shape, struct overlap_lane *lane,
                                struct moe_error *err)
{
    const struct moe_expert_ffn_shape ffn = {
        .hidden = (int32_t) shape->hidden,
        .inter = (int32_t) shape->inter,
        .expert_count = (int32_t) shape->experts,
        .dtype = MOE_EXPERT_BF16,
        .activation = MOE_EXPERT_SWIGLU,
    };
    const int64_t hidden = ffn.hidden;
    const int64_t inter = ffn.inter;
    const int64_t experts = ffn.expert_count;
    const uint32_t most = shape->rows[0] > shape->rows[1] ? shape->rows[0] : shape->rows[1];
    const int64_t rows = experts * (int64_t) most;
    void *w1 = NULL;
    void *w2 = NULL;
    struct moe_expert_ffn_batch batch = { 0 };
    MOE_TRY(take(lane, experts * 2 * inter * hidden, 1.0F / sqrtf((float) hidden), &w1, err));
    MOE_TRY(take(lane, experts * inter * hidden, 1.0F / sqrtf((float) inter), &w2, err));
    void *x = NULL;
    MOE_TRY(take(lane, rows * hidden, 1.0F, &x, err));
    MOE_TRY(take(lane, rows * inter, 0.0F, &batch.mid_dev, err));
    MOE_TRY(take(lane, rows * hidden, 0.0F, &batch.out_dev, err));
    batch.x_dev = x;
    for (int i = 0; i < MOE_OVERLAP_ROWS; i++) {
        int32_t offsets[MOE_EXPERT_COUNT_LIMIT + 1];
        void *offsets_dev = NULL;
        const struct moe_expert_ffn_weights weights = { .w1_dev = w1, .w2_dev = w2 };
        moe_row_histogram_make(MOE_ROW_UNIFORM, ffn.expert_count, (int32_t) shape->rows[i],
                               offsets);
        MOE_TRY(take(lane, (experts + 1) * 2, 0.0F, &offsets_dev, err)); /* int32: 2 bf16 each */
        MOE_TRY(check(cudaMemcpy(offsets_dev, offsets, (size_t) (experts + 1) * sizeof offsets[0],
                                 cudaMemcpyHostToDevice),
                      "cudaMemcpy of row offsets", err));
        batch.row_count = offsets[experts];
        batch.row_offset = offsets;
        batch.row_offset_dev = offsets_dev;
        MOE_TRY(moe_device_check(moe_expert_ffn_create(&ffn, &weights, &batch, 0, &lane->ffn[i]),
                                 "moe_expert_ffn_create", err));
        /* Code comes to the GPU at its first launch, which must not be behind a hold; and the
         * stream does not wait for copies to memory by itself. */
        MOE_TRY(check(cudaDeviceSynchronize(), "filling an expert", err));
        MOE_TRY(moe_device_check(moe_expert_ffn_run(lane->ffn[i], lane->stream),
                                 "moe_expert_ffn_run", err));
    }
    return check(cudaDeviceSynchronize(), "filling an expert", err);
}

static enum moe_status make_lane(const struct moe_lane *base, const struct moe_overlap_shape *shape,
                                 struct overlap_lane *lane, struct moe_error *err)
{
    int low = 0;
    int high = 0;
    MOE_TRY(check(cudaSetDevice((int) base->device), "cudaSetDevice", err));
    MOE_TRY(check(cudaDeviceGetStreamPriorityRange(&low, &high), "cudaDeviceGetStreamPriorityRange",
                  err));
    MOE_TRY(check(
        cudaStreamCreateWithPriority((cudaStream_t *) &lane->stream, cudaStreamNonBlocking, low),
        "cudaStreamCreateWithPriority", err));
    MOE_TRY(make_events(lane, err));
    return make_ffn(shape, lane, err);
}

enum moe_status moe_overlap_create(const struct moe_visit_tools *tools,
                                   const struct moe_overlap_shape *shape, struct moe_overlap **out,
                                   struct moe_error *err)
{
    struct moe_overlap *overlap = calloc(1, sizeof *overlap);
    if (overlap == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for overlap");
    }
    overlap->tools = tools;
    overlap->shape = *shape;
    enum moe_status status = MOE_OK;
    for (uint32_t i = 0; status == MOE_OK && i < tools->lanes->count; i++) {
        overlap->lane_count = i + 1;
        status = make_lane(&tools->lanes->lanes[i], shape, &overlap->lanes[i], err);
    }
    if (status != MOE_OK) {
        moe_overlap_destroy(overlap);
        return status;
    }
    *out = overlap;
    return MOE_OK;
}

static void drop_event(void *event)
{
    if (event != NULL) {
        (void) cudaEventDestroy(event);
    }
}

/* Nothing to do about a failure here: what was measured is measured. */
static void drop_lane(struct overlap_lane *lane, uint32_t device)
{
    (void) cudaSetDevice((int) device);
    if (lane->stream != NULL) {
        (void) cudaStreamSynchronize(lane->stream);
        (void) cudaStreamDestroy(lane->stream);
    }
    for (int k = 0; k < CALLS; k++) {
        drop_event(lane->gemm.begin[k]);
        drop_event(lane->gemm.end[k]);
        drop_event(lane->exchange.begin[k]);
        drop_event(lane->exchange.end[k]);
    }
    drop_event(lane->origin);
    drop_event(lane->done);
    for (int k = 0; k < MOE_OVERLAP_ROWS; k++) {
        moe_expert_ffn_destroy(lane->ffn[k]);
    }
    for (uint32_t k = 0; k < lane->owned_count; k++) {
        (void) cudaFree(lane->owned[k]);
    }
}

void moe_overlap_destroy(struct moe_overlap *overlap)
{
    if (overlap == NULL) {
        return;
    }
    const struct moe_lanes *lanes = overlap->tools->lanes;
    for (uint32_t i = 0; !lanes->stuck && i < overlap->lane_count; i++) {
        drop_lane(&overlap->lanes[i], lanes->lanes[i].device);
    }
    free(overlap);
}

static enum moe_status queue_gemms(struct overlap_lane *lane, int which, uint32_t count,
                                   struct moe_error *err)
{
    for (uint32_t k = 0; count > 0 && k <= count; k++) {
        if (k > 0) {
            MOE_TRY(check(cudaEventRecord(lane->gemm.begin[k - 1], lane->stream), "cudaEventRecord",
                          err));
        }
        MOE_TRY(moe_device_check(moe_expert_ffn_run(lane->ffn[which], lane->stream),
                                 "moe_expert_ffn_run", err));
        if (k > 0) {
            MOE_TRY(check(cudaEventRecord(lane->gemm.end[k - 1], lane->stream), "cudaEventRecord",
                          err));
        }
    }
    return check(cudaEventRecord(lane->done, lane->stream), "cudaEventRecord", err);
}

/* counts[0] GEMMs and counts[1] all-to-alls, after one of each that is not timed. */
static enum moe_status queue(struct moe_overlap *overlap, const struct moe_collective_call *call,
                             int which, const uint32_t counts[2], struct moe_error *err)
{
    struct moe_lanes *lanes = overlap->tools->lanes;
    for (uint32_t i = 0; i < lanes->count; i++) {
        void *const exchange = lanes->lanes[i].stream;
        MOE_TRY(check(cudaEventRecord(overlap->lanes[i].origin, exchange), "cudaEventRecord", err));
        MOE_TRY(moe_lanes_hold(lanes, &lanes->lanes[i], exchange, err));
        MOE_TRY(moe_lanes_hold(lanes, &lanes->lanes[i], overlap->lanes[i].stream, err));
    }
    for (uint32_t i = 0; i < lanes->count; i++) {
        MOE_TRY(check(cudaSetDevice((int) lanes->lanes[i].device), "cudaSetDevice", err));
        MOE_TRY(queue_gemms(&overlap->lanes[i], which, counts[0], err));
    }
    for (uint32_t k = 0; counts[1] > 0 && k <= counts[1]; k++) {
        for (uint32_t i = 0; k > 0 && i < lanes->count; i++) {
            MOE_TRY(check(
                cudaEventRecord(overlap->lanes[i].exchange.begin[k - 1], lanes->lanes[i].stream),
                "cudaEventRecord", err));
        }
        MOE_TRY(moe_exchange_enqueue(overlap->tools->exchange, call, err));
        for (uint32_t i = 0; k > 0 && i < lanes->count; i++) {
            MOE_TRY(check(
                cudaEventRecord(overlap->lanes[i].exchange.end[k - 1], lanes->lanes[i].stream),
                "cudaEventRecord", err));
        }
    }
    for (uint32_t i = 0; i < lanes->count; i++) { /* so that waiting for one stream is enough */
        MOE_TRY(check(cudaStreamWaitEvent(lanes->lanes[i].stream, overlap->lanes[i].done, 0),
                      "cudaStreamWaitEvent", err));
    }
    return MOE_OK;
}

/* Where a call began and ended on its GPU, in microseconds since the round's origin. */
struct span {
    double begin_us;
    double end_us;
};

static enum moe_status read_spans(const struct overlap_lane *lane, const struct kind *kind,
                                  uint32_t count, struct span *spans, struct moe_error *err)
{
    for (uint32_t i = 0; i < count; i++) {
        float ms[2];
        MOE_TRY(check(cudaEventElapsedTime(&ms[0], lane->origin, kind->begin[i]),
                      "cudaEventElapsedTime", err));
        MOE_TRY(check(cudaEventElapsedTime(&ms[1], lane->origin, kind->end[i]),
                      "cudaEventElapsedTime", err));
        spans[i] = (struct span){ (double) ms[0] * 1e3, (double) ms[1] * 1e3 };
    }
    return MOE_OK;
}

static void add_times(struct share *share, uint32_t lane, enum moe_overlap_part part,
                      const struct span *spans, uint32_t count, const struct span *within)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t *have = &share->count[lane][part];
        if (*have < MOE_TIMING_LIMIT && (within == NULL || (spans[i].begin_us >= within->begin_us &&
                                                            spans[i].end_us <= within->end_us))) {
            share->us[lane][part][(*have)++] = (float) (spans[i].end_us - spans[i].begin_us);
        }
    }
}

/* Parts that this round measures follow from which kinds run in it. */
static enum moe_status one_round(struct moe_overlap *overlap,
                                 const struct moe_collective_call *call, int which,
                                 const uint32_t counts[2], struct share *share,
                                 struct moe_error *err)
{
    struct moe_lanes *lanes = overlap->tools->lanes;
    char what[160];
    bool late = false;
    const enum moe_status status = queue(overlap, call, which, counts, err);
    moe_hold_open(lanes->hold);
    MOE_TRY(status);
    (void) moe_collective_describe(call, what, sizeof what);
    MOE_TRY(moe_lanes_wait(lanes, what, err));
    MOE_TRY(moe_lanes_late(lanes, &late, err));
    overlap->late_count += late;
    if (overlap->late_count > LATE_LIMIT) {
        return moe_fail(err, MOE_DEVICE,
                        "%s beside GEMMs could not be queued behind a hold within a second; is "
                        "CUDA_LAUNCH_BLOCKING set?",
                        what);
    }
    const bool both = counts[0] > 0 && counts[1] > 0;
    for (uint32_t i = 0; !late && i < lanes->count; i++) {
        struct span gemms[CALLS];
        struct span exchanges[CALLS];
        MOE_TRY(read_spans(&overlap->lanes[i], &overlap->lanes[i].gemm, counts[0], gemms, err));
        MOE_TRY(
            read_spans(&overlap->lanes[i], &overlap->lanes[i].exchange, counts[1], exchanges, err));
        if (!both) {
            add_times(share, i, MOE_OVERLAP_GEMM_ALONE, gemms, counts[0], NULL);
            add_times(share, i, MOE_OVERLAP_EXCHANGE_ALONE, exchanges, counts[1], NULL);
            continue;
        }
        const struct span while_gemms = { gemms[0].begin_us, gemms[counts[0] - 1].end_us };
        const struct span while_exchanges = { exchanges[0].begin_us,
                                              exchanges[counts[1] - 1].end_us };
        add_times(share, i, MOE_OVERLAP_GEMM_UNDER, gemms, counts[0], &while_exchanges);
        add_times(share, i, MOE_OVERLAP_EXCHANGE_UNDER, exchanges, counts[1], &while_gemms);
    }
    return MOE_OK;
}

/* As many of each kind as make both run equally long; the same in every process. */
static enum moe_status choose_counts(const struct moe_overlap *overlap, const struct share *share,
                                     uint32_t counts[2], struct moe_error *err)
{
    const double gemm = (double) share->us[0][MOE_OVERLAP_GEMM_ALONE][0];
    const double exchange = (double) share->us[0][MOE_OVERLAP_EXCHANGE_ALONE][0];
    const double longer = gemm > exchange ? gemm : exchange;
    const double round = longer * ROUND_CALLS > ROUND_US ? longer * ROUND_CALLS : ROUND_US;
    const double wanted[2] = { round / (gemm < 1.0 ? 1.0 : gemm),
                               round / (exchange < 1.0 ? 1.0 : exchange) };
    for (int i = 0; i < 2; i++) {
        counts[i] = wanted[i] > CALLS ? CALLS : (uint32_t) wanted[i];
        counts[i] = counts[i] < LEAST_CALLS ? LEAST_CALLS : counts[i];
    }
    return moe_bootstrap_broadcast(overlap->tools->boot, counts, 2 * sizeof counts[0], err);
}

static enum moe_status all_rounds(struct moe_overlap *overlap,
                                  const struct moe_collective_call *call, int which,
                                  struct share *share, struct moe_error *err)
{
    const uint32_t first[2][2] = { { LEAST_CALLS, 0 }, { 0, LEAST_CALLS } };
    uint32_t counts[2];
    char what[160];
    MOE_TRY(moe_exchange_enqueue(overlap->tools->exchange, call, err)); /* connections are made */
    MOE_TRY(moe_lanes_wait(overlap->tools->lanes, moe_collective_describe(call, what, sizeof what),
                           err));
    for (int i = 0; i < 4; i++) { /* twice: the first warms up */
        if (i == 2) {
            memset(share->count, 0, sizeof share->count);
        }
        MOE_TRY(one_round(overlap, call, which, first[i % 2], share, err));
    }
    MOE_TRY(choose_counts(overlap, share, counts, err));
    const uint32_t gemms[2] = { counts[0] < 16 ? counts[0] : 16, 0 };
    const uint32_t exchanges[2] = { 0, counts[1] < 16 ? counts[1] : 16 };
    for (int i = 0; i < ROUNDS; i++) {
        MOE_TRY(one_round(overlap, call, which, gemms, share, err));
        MOE_TRY(one_round(overlap, call, which, exchanges, share, err));
        MOE_TRY(one_round(overlap, call, which, counts, share, err));
    }
    return MOE_OK;
}

static void fill_visits(const struct moe_overlap *overlap, const struct share *shares,
                        struct moe_visit *visits)
{
    const uint32_t lane_count = overlap->tools->lanes->count;
    for (int part = 0; part < MOE_OVERLAP_PART_COUNT; part++) {
        visits[part].count = 0;
        visits[part].dropped = 0;
        visits[part].error = -1.0;
        for (uint32_t rank = 0; rank < overlap->tools->lanes->rank_count; rank++) {
            const struct share *from = &shares[rank / lane_count];
            struct moe_visit_rank *to = &visits[part].ranks[rank];
            memset(to, 0, sizeof *to);
            to->count = from->count[rank % lane_count][part];
            to->worked = to->count > 0;
            memcpy(to->us, from->us[rank % lane_count][part], to->count * sizeof to->us[0]);
        }
    }
}

enum moe_status moe_overlap_visit(struct moe_overlap *overlap,
                                  const struct moe_collective_call *call, uint32_t rows,
                                  struct moe_visit *visits, struct moe_error *err)
{
    const struct moe_bootstrap *boot = overlap->tools->boot;
    struct moe_collective_call exchange = *call;
    struct share *mine = calloc((size_t) boot->process_count + 1, sizeof *mine);
    int which = 0;
    char what[160];
    if (mine == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for times");
    }
    while (overlap->shape.rows[which] != rows) {
        which++;
        assert(which < MOE_OVERLAP_ROWS);
    }
    exchange.op = MOE_COLLECTIVE_ALL_TO_ALL;
    moe_watchdog_arm(overlap->tools->dog, PATIENCE_S,
                     moe_collective_describe(call, what, sizeof what));
    enum moe_status status = all_rounds(overlap, &exchange, which, mine, err);
    status = moe_bootstrap_agree(boot, status, err);
    if (status == MOE_OK) {
        status = moe_bootstrap_gather(boot, mine, sizeof *mine, mine + 1, err);
    }
    moe_watchdog_disarm(overlap->tools->dog);
    if (status == MOE_OK) {
        fill_visits(overlap, mine + 1, visits);
    }
    free(mine);
    return status;
}
