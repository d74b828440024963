/*
 * Arrivals: which request comes next, when, how long it is, and whose routes it replays.
 *
 * A source is made once per study from the scenario's `arrivals:` keys, the trace of routes
 * and, for kind file, a store of arrivals; it is read only, and shared by all runs. A stream is
 * one run's position in it. A stream is a pure function of (source, seed): whatever the policy,
 * one seed gives the same requests at the same times (common random numbers), and draws do not
 * move when the rate does, so that a search over rates compares like with like.
 *
 * Order: ascending arrival_ns; equal times in the order of the numbers.
 *
 * The closed loop is today's workload (workload.h): every arrival is there at time 0, latencies
 * count from admission, and the planning set follows at the end, not scored. In all other kinds
 * every arrival is scored, the planning set never comes, latencies count from arrival_ns, and
 * the routes are those of the scored requests, each once per pass in the workload's order (kind
 * trace: its own; with a drift: drawn by the domains' weights at that time). The trace's times
 * less that of the first scored request, in recorded order, are the times of kind trace.
 *
 * passes and requests bound all kinds: a trace or file of n requests is gone through passes
 * times, each time later by its span and one mean gap; drawn kinds make passes x the trace's
 * scored requests; arrivals.requests (not 0) replaces that number (going through a file
 * as often as it takes), arrivals.duration_s ends it.
 *
 * Lengths other than those of the replayed request (a file's, or drawn): its rows are repeated
 * within their phase, prompt rows for the prompt and decode rows for the output; a request that
 * recorded no decode row repeats its prompt rows. Labelled assumed in reports (is_stretched).
 */
#ifndef MOE_SIM_ARRIVAL_ARRIVAL_H
#define MOE_SIM_ARRIVAL_ARRIVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/arrival/arrival_gap.h"
#include "sim/arrival/rate_clock.h"
#include "sim/arrival/workload.h"
#include "sim/base/arena.h"
#include "sim/base/error.h"
#include "sim/base/time.h"
#include "sim/scenario/arrival_options.h"
#include "traces/trace_store.h"

#define MOE_ARRIVAL_NO_GROUP UINT32_MAX

struct moe_arrival {
    moe_time_ns arrival_ns; /* since the run began, >= 0 */
    uint64_t number;        /* 0, 1, 2, ... */
    uint32_t request;       /* of the trace of routes: whose rows are replayed */
    uint32_t prompt_tokens; /* >= 1 */
    uint32_t output_tokens; /* >= 1 */
    uint32_t domain;        /* of the trace of routes */
    uint32_t hit_tokens;    /* how many prompt tokens, from the first on, an earlier arrival's
                             * prompt began with: the most that a prefix cache of unbounded size,
                             * shared by all GPUs, spares; < prompt_tokens; 0 without blocks */
    uint32_t prefix_group;  /* equal where the first prefix block is; MOE_ARRIVAL_NO_GROUP */
    uint32_t priority;      /* class; 0 is served first */
    bool scored;            /* false: of the planning set, at the end of a closed loop */
};

static inline uint64_t moe_arrival_rows(const struct moe_arrival *arrival)
{
    return (uint64_t) arrival->prompt_tokens + arrival->output_tokens - 1;
}

/* Row `row` of the arrival is row *trace_row of the trace; *count (>= 1) rows from there on
 * follow one another in both. from = the trace's request arrival->request. */
void moe_arrival_route(const struct moe_arrival *arrival, const struct moe_trace_request *from,
                       uint32_t row, uint64_t *trace_row, uint32_t *count);

/* What all runs share. Read only once made; holds nothing of the trace. */
struct moe_arrival_source {
    const struct moe_arrival_options *options;
    double plan_share;
    uint32_t passes;
    uint64_t total;       /* arrivals that a stream gives; duration_s may end it earlier */
    bool is_stretched;    /* lengths may differ from those of the replayed requests: assumed */
    double recorded_rate; /* requests/s of kinds file and trace as recorded, else 0 */
    char file_name[64];   /* kind file: what the store calls itself, and its content hash */
    uint64_t file_hash;

    struct moe_arrival *recorded; /* [recorded_count] kinds file and trace: times from 0, lengths,
                                   * prefixes; request is set for kind trace only */
    uint32_t recorded_count;
    moe_time_ns recorded_span_ns; /* from the first to one mean gap after the last */
    double time_scale;            /* of recorded times */

    struct moe_rate_schedule schedule;
    struct moe_gap_family family;
    uint32_t drift_count;
    double drift_at_s[MOE_ARRIVAL_POINT_LIMIT];
    double *drift_weight; /* [drift_count][domain_count] */
    uint32_t domain_count;
    uint32_t *domain_first;  /* [domain_count + 1] into by_domain; only with a drift */
    uint32_t *by_domain;     /* requests to score, by domain */
    uint32_t priority_count; /* 0: all of class 0 */
    double priority_sum[MOE_ARRIVAL_PRIORITY_LIMIT]; /* shares up to and with the class */
};

/* What a source is made from. options must outlive it, the trace need not. */
struct moe_arrival_setup {
    const struct moe_arrival_options *options; /* checked */
    struct moe_trace *trace;                   /* of routes */
    double plan_share;
    uint32_t passes;
};

/* Errors: MOE_LIMIT without memory; what opening arrivals.file reports; MOE_RANGE for a file or
 * trace without arrival times, for times that cannot be scaled or repeated (all at one moment),
 * for a drift that names a domain without requests. */
enum moe_status moe_arrival_source_init(struct moe_arrival_source *source,
                                        const struct moe_arrival_setup *setup,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* The same source with its times at another mean rate, > 0; *options takes a copy of its options
 * with that rate. The copy owns nothing and must not outlive either. Kinds file and trace must
 * have a recorded rate (asserted), closed has none to change (asserted). */
struct moe_arrival_source moe_arrival_source_at_rate(const struct moe_arrival_source *source,
                                                     double rate,
                                                     struct moe_arrival_options *options);

/* Releases what the source owns. Safe on a zeroed struct and safe twice. */
void moe_arrival_source_finish(struct moe_arrival_source *source);

/* One run's position. */
struct moe_arrival_stream {
    const struct moe_arrival_source *source;
    const struct moe_trace_request *requests; /* of the run's trace */
    struct moe_workload workload;             /* whose routes, in which order */
    struct moe_rate_clock clock;              /* drawn kinds */
    uint64_t gap_key;
    uint64_t prompt_key;
    uint64_t output_key;
    uint64_t mixture_key;
    uint64_t priority_key;
    uint64_t made; /* arrivals made so far, next included */
    struct moe_arrival next;
    bool has_next;
    bool is_closed_loop; /* latencies count from admission */
};

/* trace: the run's own handle of the trace that the source was made from; outlives the stream.
 * Takes from the arena what moe_workload_init takes. Errors: as that. */
enum moe_status moe_arrival_stream_init(struct moe_arrival_stream *stream,
                                        const struct moe_arrival_source *source,
                                        const struct moe_trace *trace, uint64_t seed,
                                        struct moe_arena *arena,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* The next arrival, NULL after the last. It may lie in the future: the caller compares its
 * arrival_ns with its clock. Valid until the next take. */
static inline const struct moe_arrival *moe_arrival_peek(const struct moe_arrival_stream *stream)
{
    return stream->has_next ? &stream->next : NULL;
}

/* Goes on to the one after it; there must be one to take. */
void moe_arrival_take(struct moe_arrival_stream *stream);

/* Whether the next one is to be scored: there is one, and it is not of the planning set. */
static inline bool moe_arrival_scores_next(const struct moe_arrival_stream *stream)
{
    return stream->has_next && stream->next.scored;
}

/* What one seed's stream holds, for memory checks and reports. */
struct moe_arrival_survey {
    uint64_t count;
    uint64_t longest_tokens; /* prompt + output of the longest */
    uint64_t longest_prompt;
    uint64_t prompt_tokens; /* sums */
    uint64_t output_tokens;
    uint64_t hit_tokens;
    moe_time_ns last_ns; /* arrival of the last */
};

/* Goes through a stream from its beginning. Errors: as moe_arrival_stream_init. */
enum moe_status moe_arrival_survey(const struct moe_arrival_source *source,
                                   const struct moe_trace *trace, uint64_t seed,
                                   struct moe_arena *arena, struct moe_arrival_survey *survey,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* How many requests must have finished before steps are scored, of a cluster that runs `seats`
 * at once: a closed loop's seats; else a tenth of the arrivals, at least 1 and at most the
 * seats. (Figures of requests are cut once more, by MSER-5: request_log.h.) */
uint64_t moe_arrival_warmup(const struct moe_arrival_source *source, uint64_t seats);

#endif
