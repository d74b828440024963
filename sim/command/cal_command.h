/*
 * The verbs of `moesim cal` that have a file of their own. Each parses its arguments (the
 * first after its name) and prints on stdout.
 */
#ifndef MOE_SIM_COMMAND_CAL_COMMAND_H
#define MOE_SIM_COMMAND_CAL_COMMAND_H

#include <stdbool.h>

#include "sim/base/error.h"

enum moe_status moe_cal_command_fit(int argc, char **argv, struct moe_error *err);
enum moe_status moe_cal_command_import(int argc, char **argv, struct moe_error *err);
enum moe_status moe_cal_command_info(int argc, char **argv, struct moe_error *err);
enum moe_status moe_cal_command_verify(int argc, char **argv, struct moe_error *err);
enum moe_status moe_cal_command_merge(int argc, char **argv, struct moe_error *err);
enum moe_status moe_cal_command_compare(int argc, char **argv, struct moe_error *err);
enum moe_status moe_cal_command_ranks(int argc, char **argv, struct moe_error *err);
enum moe_status moe_cal_command_plot(int argc, char **argv, struct moe_error *err);

/* Whether path is a SQLite file. Errors: MOE_IO when it cannot be opened. */
enum moe_status moe_cal_command_is_database(const char *path, bool *out,
                                            struct moe_error *err) MOE_MUST_CHECK;

#endif
