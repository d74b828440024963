/*
 * Options: one table per command, from which both the parser and the help text
 * are made, so that neither can drift from the other.
 *
 * Accepted: --name value, --name=value, --flag. Everything else that does not
 * start with "--" is positional; "--" ends the options.
 */
#ifndef MOE_SIM_BASE_OPTIONS_H
#define MOE_SIM_BASE_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sim/base/error.h"

enum moe_option_kind {
    MOE_OPTION_FLAG,  /* target: bool */
    MOE_OPTION_TEXT,  /* target: const char *, points into argv */
    MOE_OPTION_COUNT, /* target: uint32_t; min and max apply */
    MOE_OPTION_SEED,  /* target: uint64_t */
    MOE_OPTION_REAL,  /* target: double; min and max apply */
    MOE_OPTION_LIST,  /* target: struct moe_option_list; may be given again */
};

enum { MOE_OPTION_LIST_LIMIT = 64 };

struct moe_option_list {
    const char *items[MOE_OPTION_LIST_LIMIT];
    size_t count;
};

struct moe_option {
    const char *name; /* without the dashes; "o" is written -o */
    enum moe_option_kind kind;
    void *target;      /* holds the default when parsing begins */
    const char *value; /* name of the value in the help; NULL for flags */
    const char *help;
    double min;
    double max;
};

/* Positional arguments and how many there must be. */
struct moe_positionals {
    const char **items; /* items[max] */
    size_t min;
    size_t max;
    size_t count;     /* set by parse */
    const char *what; /* what they are, for the error when one is missing; NULL: "an argument" */
};

/* Parses argv[0..argc-1] (no program name). Errors: MOE_RANGE naming the argument
 * and what is allowed. */
enum moe_status moe_options_parse(const struct moe_option *options, size_t option_count,
                                  struct moe_positionals *positionals, int argc, char **argv,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* One line per option: name, value, help, default. */
void moe_options_print(FILE *out, const struct moe_option *options, size_t option_count);

/* Text to number, the whole of it. what names the value in the error ("--gpus",
 * "line 7: nodes"). Errors: MOE_RANGE with the text and the allowed range. */
enum moe_status moe_parse_count(const char *text, const char *what, uint64_t min, uint64_t max,
                                uint64_t *out, struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_parse_real(const char *text, const char *what, double min, double max,
                               double *out, struct moe_error *err) MOE_MUST_CHECK;

#endif
