#include "sim/command/command.h"

#include <stdio.h>
#include <string.h>

enum moe_status moe_command_dispatch(const char *verb, const struct moe_command *commands,
                                     unsigned count, int argc, char **argv, struct moe_error *err)
{
    if (argc > 0 && strcmp(argv[0], "--help") == 0) {
        for (unsigned i = 0; i < count; i++) {
            (void) printf("  %s%s%-10s %s\n", verb, verb[0] == '\0' ? "" : " ", commands[i].name,
                          commands[i].summary);
        }
        return MOE_OK;
    }
    char allowed[240] = "";
    size_t used = 0;
    for (unsigned i = 0; i < count; i++) {
        if (argc > 0 && strcmp(argv[0], commands[i].name) == 0) {
            return commands[i].run(argc - 1, argv + 1, err);
        }
        if (used < sizeof allowed - 1) {
            used +=
                (size_t) snprintf(allowed + used, sizeof allowed - used, " %s", commands[i].name);
        }
    }
    if (argc == 0) {
        return moe_fail(err, MOE_RANGE, "needs one of:%s", allowed);
    }
    return moe_fail(err, MOE_RANGE, "no command '%s'; there are:%s", argv[0], allowed);
}

bool moe_command_wants_help(int argc, char **argv)
{
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0) {
            return true;
        }
    }
    return false;
}
