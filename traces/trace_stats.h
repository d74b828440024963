/*
 * Trace statistics: how unevenly a trace loads its experts, layer by layer and domain by
 * domain. The load of an expert is the number of tokens routed to it; unknown choices
 * count nowhere. Everything comes from one pass over the routes or the recorded loads; of
 * loads, phases are not known, and a domain's requests and rows are steps and counts.
 */
#ifndef MOE_TRACES_TRACE_STATS_H
#define MOE_TRACES_TRACE_STATS_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"
#include "sim/base/progress.h"
#include "traces/trace_store.h"

/* Of the loads of one layer's experts. A layer without any load has balance and entropy
 * 1, variation 0. */
struct moe_trace_layer_stats {
    double max_over_mean;
    double balance;   /* mean / max, in (0, 1]: the balancedness of one expert per GPU */
    double variation; /* population standard deviation / mean */
    double entropy;   /* Shannon entropy / log(expert_count), in [0, 1]; 1 for 1 expert */
    /* Pearson correlation over experts of the loads of prefill and decode rows; NaN when
     * one of them has no spread (no decode rows at all, for example). */
    double phase_correlation;
};

struct moe_trace_domain_stats {
    uint64_t request_count;
    uint64_t row_count;
    double max_over_mean; /* mean over layers, of this domain's rows; NaN without rows */
};

struct moe_trace_stats {
    uint32_t layer_count;
    uint32_t expert_count;
    uint32_t domain_count;
    uint64_t prefill_rows;
    uint64_t decode_rows;
    uint64_t step_count;                  /* of a store of loads; the four around it are 0 then */
    uint64_t choice_count;                /* rows * layers * top_k */
    uint64_t unknown_count;               /* of these */
    double *load;                         /* [layer][expert], tokens; owned */
    struct moe_trace_layer_stats *layers; /* [layer]; owned */
    struct moe_trace_domain_stats domains[MOE_TRACE_DOMAIN_LIMIT];
    struct moe_trace_layer_stats mean; /* over layers; of the correlations that exist */
};

/* progress may be NULL. Errors: as moe_trace_read; MOE_LIMIT. */
enum moe_status moe_trace_stats_compute(struct moe_trace_stats *out, struct moe_trace *trace,
                                        struct moe_progress *progress,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_trace_stats_finish(struct moe_trace_stats *stats);

/* The loads of a layer from the largest to the smallest, in point_count points: point p
 * is the mean load of the experts that fall into its share of the ranks, relative to the
 * layer's mean load. point_count <= expert_count. Errors: MOE_LIMIT. */
enum moe_status moe_trace_stats_curve(const struct moe_trace_stats *stats, uint32_t layer,
                                      double *points, uint32_t point_count,
                                      struct moe_error *err) MOE_MUST_CHECK;

#endif
