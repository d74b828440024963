/*
 * The verbs of `moesim cal` that have a file of their own. Each parses its arguments (the
 * first after its name) and prints on stdout.
 */
#ifndef MOE_SIM_COMMAND_CAL_COMMAND_H
#define MOE_SIM_COMMAND_CAL_COMMAND_H

#include "sim/base/error.h"

enum moe_status moe_cal_command_fit(int argc, char **argv, struct moe_error *err);

#endif
