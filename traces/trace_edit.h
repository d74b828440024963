/*
 * Trace edit: stores made of stores: several joined, one split, one written anew. Nothing of the
 * content is made up; the provenance is that of all inputs, with one record more.
 */
#ifndef MOE_TRACES_TRACE_EDIT_H
#define MOE_TRACES_TRACE_EDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"
#include "traces/trace_store.h"

enum { MOE_TRACE_EDIT_LIMIT = 64 }; /* inputs of one edit */

/* Which requests (of a store of loads: steps) of each input go into the output; all of these
 * have to hold. */
struct moe_trace_choice {
    const char *domain; /* NULL: of all domains */
    double first_share; /* the first part in recorded order; 1: all */
    int64_t begin_ns;   /* arrivals from begin_ns to before end_ns; INT64_MIN and INT64_MAX: all, */
    int64_t end_ns;     /* those without arrival times too */
    double drawn_share; /* each drawn with that probability by its number and seed; 1: all */
    uint64_t seed;
    bool is_rest; /* instead those of which not all hold */
};

/* Everything. */
struct moe_trace_choice moe_trace_choose_all(void);

struct moe_trace_edit {
    const char *verb; /* "merge", "split", "convert": the format of the new record */
    const char *const *inputs;
    size_t input_count; /* 1 .. MOE_TRACE_EDIT_LIMIT */
    const char *output;
    struct moe_trace_choice choice;
    bool by_arrival; /* requests in the order of their arrival times; equal ones as they stand */
    bool overwrite;
};

struct moe_trace_edit_result {
    struct moe_trace_model model;
    uint64_t item_count; /* requests, or steps */
    uint64_t hash;       /* 0 when the output held exactly this already */
    bool was_finished;
};

/* Inputs have one shape of model and one kind of content; the name is the first one's, domains of
 * one name become one. Their requests (or steps) follow one another. The placement in force is
 * kept when all have the same. Errors: MOE_RANGE for inputs that do not go together, naming
 * what differs, for a domain that none has, and when nothing is chosen; those of
 * moe_trace_open_any and the trace writer. */
enum moe_status moe_trace_edit_run(const struct moe_trace_edit *edit,
                                   struct moe_trace_edit_result *result,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* Whether the run would begin: inputs and choice are right, and output could be written. */
enum moe_status moe_trace_edit_try(const struct moe_trace_edit *edit,
                                   struct moe_error *err) MOE_MUST_CHECK;

#endif
