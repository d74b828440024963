/*
 * Measure options: the command lines of `moecal measure` and `moecal card`.
 */
#ifndef MOE_CALIBRATE_MEASURE_OPTIONS_H
#define MOE_CALIBRATE_MEASURE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "calibrate/measure/measure_run.h"
#include "sim/base/error.h"

struct moe_measure_options {
    const char *output;
    bool plan_only;
    bool help;
    bool collectives; /* measure what takes links, too */
};

/* Fills what of *run the caller sets (devices, too) and *out. Errors: MOE_RANGE for bad arguments,
 * MOE_UNSUPPORTED when there is no GPU. */
enum moe_status moe_measure_options_parse(int argc, char **argv, bool is_card,
                                          struct moe_measure_run *run,
                                          struct moe_measure_options *out, struct moe_error *err);

#endif
