/*
 * Graph timer: GPU work captured once into CUDA graphs and replayed under a pair of events each.
 *
 * A graph leaves out what the host does between launches, which a serving engine leaves out too.
 * (Work may also be launched into the stream as it is: moe_graph_plain.) There is one graph per set
 * of weights; replays take the sets in turn, so that no replay finds its weights in the cache (see
 * moe_graph_set_count). Several works are measured side by side: the caller gives each a batch in
 * turn until all have enough, so that heat and clock move all of them alike.
 */
#ifndef MOE_CALIBRATE_GRAPH_TIMER_H
#define MOE_CALIBRATE_GRAPH_TIMER_H

#include <stdbool.h>
#include <stdint.h>

#include "calibrate/device/device.h"
#include "calibrate/device/nvml.h"
#include "calibrate/timing/timing.h"
#include "sim/base/error.h"

enum {
    MOE_GRAPH_SET_LIMIT = 64,
    MOE_GRAPH_BATCH = 10, /* replays queued at once */
    MOE_GRAPH_WARM_UP =
        5, /* replays before the first batch, or one of each set if these are more */
};

struct moe_graph_timer; /* opaque: a stream, its events, the sensors of the GPU */

/* Launches the work on stream (a cudaStream_t) with the weights of this set. */
typedef enum moe_status (*moe_graph_launch)(void *context, uint32_t set, void *stream,
                                            struct moe_error *err);

struct moe_graph_work {
    void *execs[MOE_GRAPH_SET_LIMIT]; /* cudaGraphExec_t */
    moe_graph_launch launch;          /* instead of graphs: see moe_graph_plain */
    void *context;
    uint32_t set_count;
    uint32_t next_set;
    bool warm;
    bool given_up; /* set by the caller: a failed replay, say */
    bool flow;    /* set by the caller: batches follow each other without a gap (moe_graph_batch) */
    bool flowing; /* untimed replays are still queued behind the batch before */
    uint32_t late;   /* batches thrown away since the GPU got there before all was queued */
    double replay_s; /* of one replay, as the last window had it; 0: not known */
    double batch_s;  /* most of one batch; 0: 0.1 */
    uint32_t count;
    float us[MOE_TIMING_LIMIT];
    double spent_s;
    double mhz_s;           /* clock of the SMs while batches ran (clock/clock.h) times spent_s */
    uint32_t reading_count; /* of the sensors; sums below are over these */
    double watts_sum;
    double celsius_sum;
    uint64_t throttle; /* union of the reasons seen */
    uint32_t dropped;  /* batches thrown away since the driver reported a fault */
};

/* On the current device. nvml may be NULL: then there are no readings.
 * Errors: MOE_DEVICE, MOE_LIMIT. */
enum moe_status moe_graph_timer_create(const struct moe_device *device, const struct moe_nvml *nvml,
                                       struct moe_graph_timer **out,
                                       struct moe_error *err) MOE_MUST_CHECK;
void moe_graph_timer_destroy(struct moe_graph_timer *timer); /* NULL is allowed */

void *moe_graph_timer_stream(const struct moe_graph_timer *timer); /* a cudaStream_t */

/* Waits until the stream is idle; what names the work in an error. Errors: MOE_DEVICE, also when
 * the work does not end within MOE_GRAPH_PATIENCE_S: then the GPU is of no more use to this
 * process, which moe_graph_timer_stuck tells from then on. */
#define MOE_GRAPH_PATIENCE_S 20.0
enum moe_status moe_graph_wait(struct moe_graph_timer *timer, const char *what,
                               struct moe_error *err) MOE_MUST_CHECK;
bool moe_graph_timer_stuck(const struct moe_graph_timer *timer);

/* How many sets of weights of this size it takes so that at least five times the L2 cache passes
 * between two uses of one: 1 when one set is that large. At most MOE_GRAPH_SET_LIMIT.
 * Source of the rule: FlashInfer's benchmark (flashinfer/testing). */
uint32_t moe_graph_set_count(double weight_bytes, double cache_bytes);

/* Captures launch(context, set) for each set; *work is overwritten. On error nothing is held.
 * Errors: what launch says; MOE_DEVICE. */
enum moe_status moe_graph_capture(struct moe_graph_timer *timer, moe_graph_launch launch,
                                  void *context, uint32_t set_count, struct moe_graph_work *work,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* Work that each replay launches anew, for what is slower in a graph than in a stream, such as
 * the driver's own copies; it queues behind the hold all the same, so that the host's part is
 * not timed. context must live as long as *work, which is overwritten. */
void moe_graph_plain(moe_graph_launch launch, void *context, struct moe_graph_work *work);
void moe_graph_release(struct moe_graph_work *work); /* a zeroed one is allowed */

/* Mean clock of the SMs during the timed replays; 0 when unknown. */
double moe_graph_mhz(const struct moe_graph_work *work);

/* One replay with the weights of set 0, for looking at its result; asynchronous on the timer's
 * stream. Errors: MOE_DEVICE. */
enum moe_status moe_graph_replay(struct moe_graph_timer *timer, struct moe_graph_work *work,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* True when the work needs no further batch. */
bool moe_graph_enough(const struct moe_graph_work *work, double budget_s);

/* One batch of timed replays, queued behind a hold, after one untimed replay that brings back what
 * other works have driven from the cache. Errors: MOE_DEVICE.
 *
 * While a hold waits the GPU draws next to nothing, and its clock rises: ten replays of 0.1 ms
 * behind one are measured faster than a hundred in a row. With work->flow untimed replays take the
 * place of the hold and fill the time until the next batch, so that the GPU never stops. A batch
 * whose first replay began before the last was queued is thrown away, since the host's part may be
 * in its times; after three such the work goes back to holds. Sensors are not read then:
 * moe_graph_window does. */
enum moe_status moe_graph_batch(struct moe_graph_timer *timer, struct moe_graph_work *work,
                                struct moe_error *err) MOE_MUST_CHECK;

/* Untimed replays one after the other for about so long; *mhz is the clock of the SMs over them, 0
 * when unknown; work->replay_s is brought up to date, and the sensors' readings are this window's
 * alone. Errors: MOE_DEVICE. */
enum moe_status moe_graph_window(struct moe_graph_timer *timer, struct moe_graph_work *work,
                                 double seconds, double *mhz, struct moe_error *err) MOE_MUST_CHECK;

/* Light load, short kernels that only read clocks, for least_s and on until the clock is at least
 * mhz or most_s have passed. Errors: MOE_DEVICE. */
enum moe_status moe_graph_rest(struct moe_graph_timer *timer, double least_s, double most_s,
                               double mhz, struct moe_error *err) MOE_MUST_CHECK;

/* Capture, one warm-up and the least of a few replays in *us: for choosing between variants.
 * Errors: as moe_graph_capture. */
enum moe_status moe_graph_probe(struct moe_graph_timer *timer, moe_graph_launch launch,
                                void *context, float *us, struct moe_error *err) MOE_MUST_CHECK;

#endif
