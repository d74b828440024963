/*
 * Routing model: what is kept of a recorded trace so that others like it can be generated.
 *
 * A token belongs to one of a few dozen classes, each with its own expert popularity in every
 * layer: that is what ties layers together (a token that took an expert here is likely to take
 * certain ones there) and tokens of a request to each other. A domain and a phase (prefill,
 * decode) mix the classes in their own shares and have their own popularity besides; a request
 * mixes them in shares drawn around its domain's (Dirichlet, one concentration); over the trace
 * a class grows or shrinks exponentially (drift). A request repeats itself, as text does: each of
 * its rows is in one of a few slots, the i-th in proportion to 1 / i, which has a class and, in
 * each layer with some probability, the choices that the slot's other rows have there.
 *
 * As a file it is JSON of one version; the writer in routing_model_json.c is its documentation.
 */
#ifndef MOE_TRACES_GENERATE_ROUTING_MODEL_H
#define MOE_TRACES_GENERATE_ROUTING_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sim/base/error.h"
#include "traces/trace_store.h"

enum {
    MOE_ROUTING_PREFILL,
    MOE_ROUTING_DECODE,
    MOE_ROUTING_PHASES,
    MOE_ROUTING_QUANTILES = 33, /* of lengths: minimum, 1/32, ..., maximum */
    MOE_ROUTING_CLASS_LIMIT = 512,
    MOE_ROUTING_SLOT_LIMIT = 4096,
};

struct moe_routing_domain {
    double share; /* of requests */
    double prompt_tokens[MOE_ROUTING_QUANTILES];
    double output_tokens[MOE_ROUTING_QUANTILES];
    double length_correlation; /* Spearman's, of prompt and output lengths */
};

struct moe_routing_model {
    struct moe_trace_model model;
    uint64_t source_hash; /* content of the trace that it was fitted to */
    uint64_t request_count;
    uint32_t class_count;
    double concentration; /* of requests' class shares; larger: requests are more alike */
    uint32_t slot_count;  /* of a request */
    struct moe_routing_domain domains[MOE_TRACE_DOMAIN_LIMIT];
    double *class_share;      /* [domain][phase][class], sums to 1 over classes; owned */
    double *class_drift;      /* [class] slope of its log share from begin (0) to end (1); owned */
    double *repetition;       /* [layer] probability that a row's choices are its slot's; owned */
    double *popularity;       /* [domain][phase][layer][expert], sums to 1 over experts; owned */
    double *class_popularity; /* [class][layer][expert], the same; owned */
};

/* Zeroed tables for model->model and class_count. Errors: MOE_LIMIT. */
enum moe_status moe_routing_model_allocate(struct moe_routing_model *model,
                                           struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_routing_model_finish(struct moe_routing_model *model);

/* Writes path all or nothing. Errors: as moe_output_file_open and _commit. */
enum moe_status moe_routing_model_write(const struct moe_routing_model *model, const char *path,
                                        bool overwrite, struct moe_error *err) MOE_MUST_CHECK;

/* Errors: MOE_IO; MOE_PARSE, MOE_RANGE naming the place; MOE_UNSUPPORTED for a newer version;
 * MOE_LIMIT. */
enum moe_status moe_routing_model_read(struct moe_routing_model *model, const char *path,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* The same from text[size]; name stands for the file in errors. */
enum moe_status moe_routing_model_parse(struct moe_routing_model *model, const char *name,
                                        const char *text, size_t size,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* Value at p (0 to 1) of quantiles[MOE_ROUTING_QUANTILES], linear between them. */
double moe_routing_quantile(const double *quantiles, double p);

struct moe_routing_fit_options {
    uint32_t class_count; /* 1 .. MOE_ROUTING_CLASS_LIMIT */
    uint64_t token_limit; /* tokens that classes are found on; whole requests */
    uint64_t seed;
    FILE *progress; /* where to say how far the fit is; NULL: nowhere */
};

/* Fits to a trace of routes. Classes by expectation maximisation of a mixture of multinomials,
 * begun from tokens far apart; repetition by how many choices two rows of a request share beyond
 * what their classes make likely; concentration by the method of moments; drift by weighted least
 * squares (GSL) of a class's log share over eight parts of the trace, against what its domains
 * would make it, and only where it is more than four standard errors.
 * Errors: as moe_trace_read; MOE_RANGE for a trace without requests; MOE_LIMIT. */
enum moe_status moe_routing_fit(struct moe_routing_model *out, struct moe_trace *trace,
                                const struct moe_routing_fit_options *options,
                                struct moe_error *err) MOE_MUST_CHECK;

#endif
