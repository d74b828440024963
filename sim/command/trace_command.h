/*
 * The verbs of `moesim trace` that have a file of their own. Each parses its arguments
 * (the first after its name) and prints on stdout.
 */
#ifndef MOE_SIM_COMMAND_TRACE_COMMAND_H
#define MOE_SIM_COMMAND_TRACE_COMMAND_H

#include <stdbool.h>

#include "sim/base/error.h"

enum moe_status moe_trace_command_import(int argc, char **argv, struct moe_error *err);
enum moe_status moe_trace_command_convert(int argc, char **argv, struct moe_error *err);
enum moe_status moe_trace_command_export(int argc, char **argv, struct moe_error *err);
enum moe_status moe_trace_command_fit(int argc, char **argv, struct moe_error *err);
enum moe_status moe_trace_command_generate(int argc, char **argv, struct moe_error *err);
enum moe_status moe_trace_command_info(int argc, char **argv, struct moe_error *err);
enum moe_status moe_trace_command_merge(int argc, char **argv, struct moe_error *err);
enum moe_status moe_trace_command_split(int argc, char **argv, struct moe_error *err);
enum moe_status moe_trace_command_stats(int argc, char **argv, struct moe_error *err);

/* Reads a --format value that is "table" or "json". Errors: MOE_RANGE. */
enum moe_status moe_trace_command_format(const char *format, bool *json,
                                         struct moe_error *err) MOE_MUST_CHECK;

#endif
