/*
 * Generate: traces that nobody recorded. Which experts a token chooses is a function of
 * (workload, seed, step, token) alone: no row depends on another one, so that a trace is the
 * same however it is cut, resumed or replayed, and two workloads under one seed differ in
 * nothing but what was asked for.
 *
 * A workload stands in generate_FILE.c as a `const struct moe_generator moe_generator_NAME`, with
 * one line in generate.def.
 */
#ifndef MOE_TRACES_GENERATE_GENERATE_H
#define MOE_TRACES_GENERATE_GENERATE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "sim/base/error.h"
#include "traces/generate/choice_draw.h"
#include "traces/trace_provenance.h"
#include "traces/trace_store.h"

/* What the user asks for; 0 and NULL: not said. A generator refuses what it has no use for. */
struct moe_generate_options {
    uint64_t seed;
    const char *input;      /* a dump of loads, a fitted model */
    uint32_t request_count; /* not needed where steps are */
    uint32_t layer_count;   /* MoE layers */
    uint32_t expert_count;
    uint32_t top_k;
    uint32_t group_count;
    uint32_t group_limit;
    uint32_t prompt_tokens; /* of each request */
    uint32_t output_tokens;
    uint32_t step_count;  /* of workloads that go step by step, with one request for each */
    uint32_t step_tokens; /* step and source rank */
    uint32_t rank_count;
    double max_over_mean; /* of a layer's expert loads */
    double heat;          /* share of the choices that go to hot experts */
};

/* A row to draw: the random bits of its layer l are moe_generate_bits(row, l, ...). */
struct moe_generate_row {
    uint64_t key; /* of workload, seed, request and position */
    uint64_t request;
    uint64_t position; /* in the request; prompt rows first */
    bool is_decode;
    uint32_t domain;
};

struct moe_generator {
    const char *name;    /* [a-z0-9_]+ */
    const char *summary; /* one line for the help */
    /* Checks the options and fills in model (zeroed but for content), *request_count, and the
     * record's note; a file that it reads goes into the record's sources. */
    enum moe_status (*open)(void **state, const struct moe_generate_options *options,
                            struct moe_trace_model *model, uint64_t *request_count,
                            struct moe_trace_provenance *record, struct moe_error *err);
    /* Request number index; a pure function of it. first_row is not looked at. */
    void (*request)(const void *state, uint64_t index, struct moe_trace_request *out);
    /* Before the rows of a request; may be NULL. It may keep what they share in state. */
    void (*begin)(void *state, uint64_t index, const struct moe_trace_request *request);
    /* experts[layer][k] of one row; a pure function of row. */
    void (*row)(const void *state, const struct moe_generate_row *row, uint16_t *experts);
    /* Safe for NULL. */
    void (*close)(void *state);
};

struct moe_generate_result {
    struct moe_trace_model model;
    uint64_t request_count;
    uint64_t row_count;
    uint64_t hash; /* 0 when the store held exactly this already */
    bool was_finished;
};

/* All generators, in generate.def's order: generators[*count]. */
const struct moe_generator *const *moe_generators(size_t *count);

/* By name. Errors: MOE_RANGE listing them. */
enum moe_status moe_generator_find(const char *name, const struct moe_generator **out,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* Writes a store; like an import it goes on where it was interrupted, and leaves nothing behind
 * when it is refused. progress may be NULL. Errors: those of open and of the trace writer. */
enum moe_status moe_generate(const struct moe_generator *generator,
                             const struct moe_generate_options *options, const char *path,
                             bool overwrite, FILE *progress, struct moe_generate_result *result,
                             struct moe_error *err) MOE_MUST_CHECK;

/* The key of a row, of a workload's key (below). */
uint64_t moe_generate_row_key(uint64_t key, uint64_t request, uint64_t position);

/* The key of a workload under a seed; purpose tells streams of one workload apart. */
uint64_t moe_generate_key(const char *workload, uint64_t seed, uint64_t purpose);

/* Three words for moe_choice_draw, of one layer of a row. */
void moe_generate_bits(const struct moe_generate_row *row, uint32_t layer, uint64_t bits[3]);

/* Fills in the shape of model from the options, groups not said being none. what begins the
 * errors. Errors: MOE_RANGE for options that are missing or do not fit together. */
enum moe_status moe_generate_model(struct moe_trace_model *model,
                                   const struct moe_generate_options *options, const char *what,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* Errors: MOE_RANGE naming the first option that was said though the generator has no use for
 * it; allowed lists those that it has, such as " --loads --experts". */
enum moe_status moe_generate_refuse_others(const struct moe_generate_options *options,
                                           const char *what, const char *allowed,
                                           struct moe_error *err) MOE_MUST_CHECK;

static inline struct moe_choice_shape moe_generate_shape(const struct moe_trace_model *model)
{
    return (struct moe_choice_shape){ model->expert_count, model->top_k, model->group_count,
                                      model->group_limit };
}

#endif
