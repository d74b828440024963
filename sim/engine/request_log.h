/*
 * Request log: what became of every request of a run, and the service figures that follow:
 * latencies with queueing, goodput, queue length, and whether the system keeps up.
 *
 * The serving loop adds one record per request when its last token is there. All figures are
 * computed from the records when the run is over, so nothing here depends on steps.
 *
 * Warm-up: the first tenth of the arrivals is cut. Whether that was enough is asked of MSER-5
 * (K. P. White, "An effective truncation heuristic for bias reduction in simulation output",
 * Simulation 69, 1997; the batches of five: White, Cobb and Spratt, WSC 2000), once on the times
 * to first token and once on the end-to-end latencies: when, of all cuts in the first half, the
 * last makes the standard error of the mean of the rest least, no steady state was seen, and
 * is_steady is false. MSER's own cut is not used: it follows the data, so it drops busy times
 * that chance to lie in the first half and keeps those that lie in the second, and mean waits at
 * a load of 0.9 came out 5 to 9 % below theory (results/studies/queueing.md).
 * Scored are all requests that arrived after the cut, followed to their ends. The window of
 * rates and time averages reaches from the first scored arrival to the last arrival.
 *
 * Saturation: the number waiting (arrived, not yet admitted) is averaged over twenty equal
 * parts of the window and fitted with a line. Saturated when the line rises by more than 3.92
 * standard errors (Student's t, 18 degrees of freedom, one-sided 0.05 %) and by more than 5 %
 * of the requests that arrived in the window: a queue that grows in proportion to time.
 */
#ifndef MOE_SIM_ENGINE_REQUEST_LOG_H
#define MOE_SIM_ENGINE_REQUEST_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/arena.h"
#include "sim/base/error.h"
#include "sim/base/time.h"
#include "sim/scenario/arrival_options.h"

/* One request, from arrival to last token: arrival <= admitted < first token <= finished. */
struct moe_request_record {
    uint64_t number; /* of the arrival: 0, 1, ... in order of arrival */
    moe_time_ns arrival_ns;
    moe_time_ns admitted_ns; /* the first time, when it was preempted */
    moe_time_ns first_token_ns;
    moe_time_ns finished_ns;
    uint32_t prompt_tokens;
    uint32_t output_tokens;
    uint32_t preemptions;
    uint32_t priority;
};

struct moe_request_log {
    struct moe_request_record *records; /* [capacity]; in order of finishing until measured */
    uint64_t capacity;
    uint64_t count;
    double *scratch; /* [capacity] */
};

/* Arena bytes of a log. */
size_t moe_request_log_bytes(uint64_t capacity);

/* Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_request_log_init(struct moe_request_log *log, uint64_t capacity,
                                     struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* At most capacity records (asserted), each number once, 0 .. count-1 when measured. */
void moe_request_log_add(struct moe_request_log *log, const struct moe_request_record *record);

/* Of the scored requests, in ns; exact order statistics: the value that a share q does not
 * exceed is the ceil(q n)-th smallest. All 0 when count is. */
struct moe_quantiles {
    uint64_t count;
    double mean;
    double p50;
    double p90;
    double p99;
    double p999;
    double max;
};

struct moe_service {
    bool known;          /* false: a closed loop, nothing below is filled */
    uint64_t arrived;    /* requests of the run, all of which finished */
    uint64_t cut;        /* of them warm-up: a tenth, rounded down */
    uint64_t scored;     /* arrived - cut, at least 1 */
    bool is_steady;      /* a steady state was seen */
    double window_s;     /* first scored arrival to last arrival */
    double offered_rate; /* requests/s that arrived in the window */
    double served_rate;  /* that finished in it */
    double output_rate;  /* output tokens/s in it, each request's spread evenly from its first to
                          * its last token */

    struct moe_quantiles queue; /* arrival to admission */
    struct moe_quantiles ttft;  /* arrival to first token */
    struct moe_quantiles tpot;  /* (last - first token) / (output tokens - 1), those of 2 or more */
    struct moe_quantiles e2e;   /* arrival to last token */
    struct moe_quantiles class_ttft[MOE_ARRIVAL_PRIORITY_LIMIT]; /* ttft by priority class */
    double inside_mean; /* admission to last token: the time in service */
    double inside_max;
    uint64_t preemptions; /* of scored requests */

    uint64_t slo_met;      /* scored requests that met the SLO; all of them when none is asked */
    double slo_share;      /* of scored */
    double goodput;        /* requests/s that met it: offered_rate x slo_share */
    double goodput_tokens; /* their output tokens per second of the window */

    double waiting_mean; /* time average over the window: arrived, not admitted */
    double waiting_max;
    double running_mean;  /* admitted, not finished */
    double waiting_slope; /* requests/s, of the fitted line */
    double slope_t;       /* over its standard error */
    bool is_saturated;
};

/* Sorts the log by number and fills *service from at least one record. */
void moe_request_log_measure(struct moe_request_log *log, const struct moe_slo *slo,
                             struct moe_service *service);

/* Whether one request meets what is asked. */
bool moe_slo_is_met(const struct moe_slo *slo, const struct moe_request_record *record);

#endif
