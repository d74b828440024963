/*
 * Arrival options: the keys under `arrivals:` and `slo:` of a scenario: when requests come,
 * how long they are, what they ask about, and how soon an answer is wanted.
 *
 * Lists are texts that stand for points in time:
 *   schedule: ["0 0.5", "3600 1.5"]        SECONDS FACTOR: the rate is rate x factor
 *   drift: ["0 chat=1", "600 chat=1 code=3"]  SECONDS DOMAIN=WEIGHT ...: an unnamed domain has 0
 * Between two points values change linearly, after the last they stay; two points of one time
 * are a jump. The first is at 0.
 */
#ifndef MOE_SIM_SCENARIO_ARRIVAL_OPTIONS_H
#define MOE_SIM_SCENARIO_ARRIVAL_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/base/error.h"

enum {
    MOE_ARRIVAL_POINT_LIMIT = 32, /* of a schedule, of a drift */
    MOE_ARRIVAL_POINT_BYTES = 128,
    MOE_ARRIVAL_PRIORITY_LIMIT = 8,
    MOE_ARRIVAL_PATH_BYTES = 1024,
};

enum moe_arrival_kind {
    MOE_ARRIVAL_CLOSED,  /* "closed": each GPU keeps running_per_gpu running */
    MOE_ARRIVAL_TRACE,   /* "trace": at the trace's own times */
    MOE_ARRIVAL_FILE,    /* "file": at the times of a store of arrivals */
    MOE_ARRIVAL_POISSON, /* "poisson": exponential gaps */
    MOE_ARRIVAL_GAMMA,   /* "gamma": gaps of that family, with a coefficient of variation */
    MOE_ARRIVAL_WEIBULL, /* "weibull": likewise */
    MOE_ARRIVAL_BURSTS,  /* "bursts": Poisson at two rates that alternate, exponential stays */
};

enum moe_arrival_lengths {
    MOE_ARRIVAL_LENGTHS_RECORDED,  /* "recorded": the file's with kind file, else the trace's */
    MOE_ARRIVAL_LENGTHS_TRACE,     /* "trace": of the request whose routes are replayed */
    MOE_ARRIVAL_LENGTHS_LOGNORMAL, /* "lognormal": mean and coefficient of variation are given */
};

struct moe_arrival_options {           /* arrivals: */
    enum moe_arrival_kind kind;        /*   kind: closed */
    char file[MOE_ARRIVAL_PATH_BYTES]; /*   file: store of arrivals */
    double rate;                       /*   rate: requests/s; file, trace: 0 = as
                                                          *   recorded, else times are scaled */
    double cv;                         /*   cv: 1 (gamma, weibull) */
    double burst_on_s;                 /*   burst_on_s: 10 (mean stay) */
    double burst_off_s;                /*   burst_off_s: 30 */
    double burst_share;                /*   burst_share: 0.75 (of the requests) */
    uint32_t requests;                 /*   requests: 0 (most; 0 = passes decide) */
    double duration_s;                 /*   duration_s: 0 (0 = no limit) */
    enum moe_arrival_lengths lengths;  /*   lengths: recorded */
    double prompt_tokens;              /*   prompt_tokens: 1000 (mean) */
    double prompt_cv;                  /*   prompt_cv: 1; 0 = all the same */
    double output_tokens;              /*   output_tokens: 200 */
    double output_cv;                  /*   output_cv: 1 */
    uint32_t longest_tokens;           /*   longest_tokens: 131072 (cut there) */
    uint32_t schedule_count;           /*   schedule: [] */
    char schedule[MOE_ARRIVAL_POINT_LIMIT][MOE_ARRIVAL_POINT_BYTES];
    uint32_t drift_count; /*   drift: [] */
    char drift[MOE_ARRIVAL_POINT_LIMIT][MOE_ARRIVAL_POINT_BYTES];
    uint32_t priority_count; /*   priorities: [] (shares of classes 0, 1, ...; 0 goes first) */
    char priorities[MOE_ARRIVAL_PRIORITY_LIMIT][24];
};

struct moe_slo {    /* slo: what a request must meet to count as served well */
    double ttft_ms; /*   ttft_ms: 0 (arrival to first token; 0 = not asked) */
    double tpot_ms; /*   tpot_ms: 0 ((last - first token) / (output tokens - 1)) */
    double share;   /*   share: 0.99 (of the requests that must meet it) */
};

static inline bool moe_slo_is_asked(const struct moe_slo *slo)
{
    return slo->ttft_ms > 0.0 || slo->tpot_ms > 0.0;
}

/* Kinds whose gaps are drawn, so that rate must be given. */
static inline bool moe_arrival_is_drawn(const struct moe_arrival_options *options)
{
    return options->kind >= MOE_ARRIVAL_POISSON;
}

/* A point of time and the text behind it. */
struct moe_arrival_point {
    double at_s;
    const char *rest; /* into the given text */
};

/* Points in order: the first at 0, none before the one before it. key names the list in errors.
 * Errors: MOE_RANGE with the item and what is allowed. */
enum moe_status moe_arrival_points_read(const char (*items)[MOE_ARRIVAL_POINT_BYTES],
                                        uint32_t count, const char *key,
                                        struct moe_arrival_point *points,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* The factor of a schedule's point. */
enum moe_status moe_arrival_factor_read(const struct moe_arrival_point *point, double *factor,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* The next DOMAIN=WEIGHT of a drift's point: *at moves behind it; false at the end. domain holds
 * bytes[32]. */
enum moe_status moe_arrival_weight_read(const char **at, char domain[32], double *weight, bool *got,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* Shares of the priority classes, made to sum to 1: share[priority_count]. */
enum moe_status moe_arrival_priorities_read(const struct moe_arrival_options *options,
                                            double *share, struct moe_error *err) MOE_MUST_CHECK;

/* What no single key shows: keys that the kind needs, and keys given that it would ignore.
 * Errors: MOE_RANGE. */
enum moe_status moe_arrival_options_check(const struct moe_arrival_options *options,
                                          struct moe_error *err) MOE_MUST_CHECK;

void moe_arrival_options_default(struct moe_arrival_options *options);

#endif
