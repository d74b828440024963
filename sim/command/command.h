/*
 * Command: one verb of the moesim program. A command parses its own arguments,
 * prints data on stdout and messages on stderr, and returns a status; main turns
 * that into the exit code (0 done, 1 the world failed, 2 usage or bad input,
 * 3 gate not met, 77 not available here).
 */
#ifndef MOE_SIM_COMMAND_COMMAND_H
#define MOE_SIM_COMMAND_COMMAND_H

#include <stdbool.h>

#include "sim/base/error.h"

struct moe_command {
    const char *name;    /* "run", "trace" */
    const char *summary; /* one line for `moesim help` */
    /* argv[0] is the first argument after the command's name. "--help" is the
     * command's own to answer, on stdout, with status MOE_OK. */
    enum moe_status (*run)(int argc, char **argv, struct moe_error *err);
};

/* A verb with verbs of its own (trace import, cal info): finds argv[0] in
 * commands[count] and runs it. Errors: MOE_RANGE listing the verbs. */
enum moe_status moe_command_dispatch(const char *verb, const struct moe_command *commands,
                                     unsigned count, int argc, char **argv,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Whether "--help" stands among the arguments (before any "--"). */
bool moe_command_wants_help(int argc, char **argv);

#endif
