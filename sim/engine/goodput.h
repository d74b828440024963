/*
 * Goodput: the largest arrival rate at which enough requests meet the SLO, for every policy of a
 * scenario and every seed.
 *
 * A rate passes when at least slo.share of the scored requests meet the SLO and the waiting queue
 * does not grow in proportion to time (request_log.h). From the start rate on the rate is doubled
 * until it fails, or halved until it passes; after two halvings in vain a rate is tried at which a
 * tenth of a request is in the system on average, and when that fails too, no rate passes. Then the
 * ratio of the two is closed by bisection of its logarithm until it is at most 1 + tolerance. The
 * answer is the largest rate that passed. All rates meet the same requests in the same order, with
 * gaps in proportion (arrival.h), and all policies the same ones, so that what differs is the
 * policy. With a rate that passes above one that fails (chance, or bursts that fall otherwise) the
 * search finds one of the borders.
 */
#ifndef MOE_SIM_ENGINE_GOODPUT_H
#define MOE_SIM_ENGINE_GOODPUT_H

#include <stdbool.h>
#include <stdint.h>

#include "sim/engine/study.h"

/* Doublings before the search gives up; halvings before it asks whether any rate passes. */
enum { MOE_GOODPUT_REACH = 14, MOE_GOODPUT_NEAR = 2 };

enum moe_goodput_end {
    MOE_GOODPUT_FOUND,
    MOE_GOODPUT_IMPOSSIBLE, /* not even where requests meet hardly any others */
    MOE_GOODPUT_UNBOUNDED,  /* still at start x 2^REACH: too few requests to show a limit */
    MOE_GOODPUT_UNFIT,      /* the policy's plan leaves no room */
};

struct moe_goodput {
    enum moe_goodput_end end;
    double rate;           /* FOUND: largest rate that passed; else the last one tried */
    double failed_rate;    /* FOUND: smallest that failed above it */
    struct moe_service at; /* at rate; UNFIT: nothing */
    uint32_t runs;
    char why[MOE_RUN_WHY_BYTES]; /* UNFIT */
};

struct moe_goodput_summary {
    struct moe_composition composition;
    bool oracle;
    enum moe_goodput_end end;   /* the worst of its seeds, in the order above */
    struct moe_estimate rate;   /* requests/s; FOUND only, as those below */
    struct moe_estimate tokens; /* output tokens/s at that rate */
    struct moe_estimate ratio;  /* of rates to the baseline's, paired by seed */
    bool best;                  /* as in verdict.h, by ratio */
    bool tie;
};

struct moe_goodput_study {
    struct moe_study *study; /* open: no runs */
    uint32_t policy_count;
    uint32_t seed_count;
    uint32_t baseline; /* policy_count: it has no goodput, and no ratio is known */
    uint32_t best;     /* policy_count: nobody has */
    double start_rate;
    double tolerance;
    struct moe_goodput *found;             /* [policy][seed] */
    struct moe_goodput_summary *summaries; /* [policy] */
    double wall_seconds;
};

/* One search. pass tells whether a rate passes and fills *at; found->rate is where it begins. */
struct moe_goodput_trial {
    void *context;
    enum moe_status (*pass)(void *context, double rate, bool *passes, struct moe_service *at,
                            struct moe_error *err);
};
enum moe_status moe_goodput_search(const struct moe_goodput_trial *trial, double start_rate,
                                   double tolerance, struct moe_goodput *found,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* Searches for all policies and seeds, on threads (0: as OpenMP decides). The scenario must
 * outlive it. Errors: MOE_RANGE for a closed loop, without an SLO, for recorded times without a
 * rate; whatever a study reports. */
enum moe_status moe_goodput_create(struct moe_goodput_study **out,
                                   const struct moe_scenario *scenario, double tolerance,
                                   uint32_t threads, bool progress,
                                   struct moe_error *err) MOE_MUST_CHECK;
void moe_goodput_destroy(struct moe_goodput_study *goodput);

#endif
