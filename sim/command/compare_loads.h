/*
 * `moesim compare --loads DUMP`: policies scored on recorded loads alone, without time: how
 * evenly each would have spread what followed the part of the recording that it planned on.
 * Needs no model and no calibration. The placement that was in force, when the recording has
 * it, is the baseline.
 */
#ifndef MOE_SIM_COMMAND_COMPARE_LOADS_H
#define MOE_SIM_COMMAND_COMPARE_LOADS_H

#include <stdbool.h>

#include "sim/base/error.h"

/* Whether --loads stands among the arguments. */
bool moe_compare_loads_is_wanted(int argc, char **argv);

/* Parses the arguments (the first after "compare") and prints the table on stdout. */
enum moe_status moe_compare_loads(int argc, char **argv, struct moe_error *err) MOE_MUST_CHECK;

#endif
