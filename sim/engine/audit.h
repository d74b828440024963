/*
 * Audit (`--audit`): what must hold after every step and at the end of a run, checked as the run
 * goes. A breach is a fault of this program and ends the run with a sentence that says which.
 *
 *   after planning   rows planned are the rows of the ranks' work; KV tokens held by requests are
 *                    those taken from each rank's pool, in whole pages, no more than there are;
 *                    every running request holds the cache of the rows it has and is about to have
 *   after counting   every (row, layer, choice) of the step is counted once: in a slot, as unknown
 *                    or as dropped
 *   after pricing    in every layer, over each class of links, as many copies are sent as received
 *   after the step   the critical path accounts for the step's length to the nanosecond
 *   at the end       every arrival was served once: rows processed are those of all arrivals, less
 *                    cached ones, plus recomputed and rejected ones; nothing holds cache; and
 *                    Little's law: requests present, summed over time, are the times they spent
 *                    (presence from a second walk through the arrivals and the departures of each
 *                    step; times from the requests themselves). In a closed loop requests are
 *                    present from their admission on.
 */
#ifndef MOE_SIM_ENGINE_AUDIT_H
#define MOE_SIM_ENGINE_AUDIT_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/time.h"
#include "sim/engine/route_counter.h"
#include "sim/engine/serving/serving.h"
#include "sim/engine/step.h"

/* Sums of time are modulo 2^64: both sides wrap alike. */
struct moe_audit {
    uint64_t steps;
    uint64_t rows;          /* processed */
    uint64_t finished_rows; /* of the requests that finished */
    uint64_t finished;      /* requests */
    uint64_t gone_ns;       /* departures so far, summed over time */
    uint64_t joined_ns;     /* closed loop: admissions so far, likewise */
    uint64_t sojourn_ns;    /* of the finished, and in a closed loop of the lost until then */
    uint64_t lost;          /* requests that died with a GPU and began anew */
    uint64_t unknown_before;
    uint64_t dropped_before;
    moe_time_ns now_ns;
};

/* Errors of all: MOE_LIMIT with the breach. */
enum moe_status moe_audit_plan(struct moe_audit *audit, const struct moe_serving_state *serving,
                               const struct moe_token_work *work, uint64_t rows,
                               struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_audit_counts(struct moe_audit *audit, const struct moe_route_counter *counter,
                                 uint64_t rows, uint64_t dropped,
                                 struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_audit_step(struct moe_audit *audit, const struct moe_step *step,
                               moe_time_ns step_ns, struct moe_error *err) MOE_MUST_CHECK;

/* Time goes on to now_ns, with so many requests admitted and gone until then. */
void moe_audit_pass(struct moe_audit *audit, const struct moe_serving_state *serving,
                    moe_time_ns now_ns);

void moe_audit_finish_request(struct moe_audit *audit, const struct moe_finished *finished);

/* arrivals: the source of the run's stream; scratch: memory for a second walk through it. */
enum moe_status moe_audit_end(const struct moe_audit *audit,
                              const struct moe_serving_state *serving,
                              const struct moe_arrival_source *arrivals, uint64_t seed,
                              struct moe_arena *scratch, struct moe_error *err) MOE_MUST_CHECK;

/* The same where the arrivals are known: count of them came, for come_ns in sum until now. Rows
 * whose cache came from elsewhere are not due here. */
enum moe_status moe_audit_close(const struct moe_audit *audit,
                                const struct moe_serving_state *serving, uint64_t count,
                                uint64_t come_ns, struct moe_error *err) MOE_MUST_CHECK;

#endif
