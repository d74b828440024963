/*
 * Plan command: what `moesim plan` and its verbs `export` and `import` share: where a plan goes
 * and in which form.
 */
#ifndef MOE_SIM_COMMAND_PLAN_COMMAND_H
#define MOE_SIM_COMMAND_PLAN_COMMAND_H

#include <stdbool.h>

#include "policies/plan/plan.h"
#include "sim/base/error.h"
#include "sim/base/options.h"

struct moe_plan_output {
    const char *name;                     /* of the form; NULL: nothing is written */
    const struct moe_plan_format *format; /* what name says */
    const char *path;                     /* NULL: standard output */
    bool overwrite;
};

/* Its options, three elements of an array of struct moe_option. */
#define MOE_PLAN_OUTPUT_OPTIONS(output)                                                            \
    { "export", MOE_OPTION_TEXT, &(output).name, "FORMAT", "form of the plan, see below", 0, 0 },  \
        { "o",                                                                                     \
          MOE_OPTION_TEXT,                                                                         \
          &(output).path,                                                                          \
          "FILE",                                                                                  \
          "where the plan goes; without it, standard output",                                      \
          0,                                                                                       \
          0 },                                                                                     \
    {                                                                                              \
        "overwrite", MOE_OPTION_FLAG, &(output).overwrite, NULL, "replace FILE if it exists", 0, 0 \
    }

/* After parsing: finds the format. Errors: MOE_RANGE. */
enum moe_status moe_plan_output_settle(struct moe_plan_output *output,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* The forms, for --help. */
void moe_plan_output_print_formats(void);

/* Writes a plan without empty slots where the form does not take them. Errors: moe_plan_write's. */
enum moe_status moe_plan_output_write(const struct moe_plan_output *output,
                                      const struct moe_plan *plan,
                                      struct moe_error *err) MOE_MUST_CHECK;

/* Fills the plan first when the form needs that, and says so on standard error. */
enum moe_status moe_plan_output_fill_and_write(const struct moe_plan_output *output,
                                               struct moe_plan *plan,
                                               struct moe_error *err) MOE_MUST_CHECK;

/* The verbs; the arguments are those after their names. */
enum moe_status moe_plan_command_export(int argc, char **argv,
                                        struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_plan_command_import(int argc, char **argv,
                                        struct moe_error *err) MOE_MUST_CHECK;

#endif
