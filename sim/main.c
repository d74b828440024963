/* moesim: what a replication or placement policy would do. */
#include <gsl/gsl_errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/base/output_file.h"
#include "sim/command/command.h"

#define MOE_COMMAND(name) extern const struct moe_command moe_command_##name;
#include "sim/command/command.def"
#undef MOE_COMMAND

static int exit_code(enum moe_status status)
{
    switch (status) {
    case MOE_OK:
        return EXIT_SUCCESS;
    case MOE_IO:
    case MOE_LIMIT:
    case MOE_DEVICE:
        return 1;
    case MOE_GATE:
        return 3;
    case MOE_PARSE:
    case MOE_RANGE:
    case MOE_POLICY:
    case MOE_UNSUPPORTED:
    case MOE_STATUS_COUNT:
        break;
    }
    return 2;
}

/* A refused value may hold anything; a terminal must not act on it. */
static void print_error(const char *verb, const char *text)
{
    (void) fprintf(stderr, "moesim %s: ", verb);
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char) *text;
        (void) fputc(c < 0x20 || c == 0x7f ? '?' : c, stderr);
    }
    (void) fputc('\n', stderr);
}

static int help(FILE *out)
{
    (void) fputs("usage: moesim COMMAND [ARGUMENT ...]; moesim COMMAND --help says more\n"
                 "       moesim --version\n",
                 out);
#define MOE_COMMAND(verb) \
    (void) fprintf(out, "  %-10s %s\n", moe_command_##verb.name, moe_command_##verb.summary);
#include "sim/command/command.def"
#undef MOE_COMMAND
    if (fflush(out) != 0) {
        return 1;
    }
    return out == stdout ? EXIT_SUCCESS : 2;
}

/* A half-written report is removed; a half-imported store stays and resumes. */
static void on_interrupt(int signal_number)
{
    (void) signal_number;
    moe_output_file_abandon_all();
    _exit(130);
}

static void handle_interrupts(void)
{
    struct sigaction action = { .sa_handler = on_interrupt };
    (void) sigemptyset(&action.sa_mask);
    (void) sigaction(SIGINT, &action, NULL);
    (void) sigaction(SIGTERM, &action, NULL);
}

int main(int argc, char **argv)
{
    static const struct moe_command *const commands[] = {
#define MOE_COMMAND(name) &moe_command_##name,
#include "sim/command/command.def"
#undef MOE_COMMAND
    };
    handle_interrupts();
    (void) gsl_set_error_handler_off();
    if (argc < 2) {
        return help(stderr);
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0) {
        return help(stdout);
    }
    if (strcmp(argv[1], "--version") == 0) {
        (void) puts("moesim " MOE_VERSION);
        return fflush(stdout) == 0 ? EXIT_SUCCESS : 1;
    }
    struct moe_error err = { 0 };
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i]->name) == 0) {
            enum moe_status status = commands[i]->run(argc - 2, argv + 2, &err);
            if (fflush(stdout) != 0 && status == MOE_OK) {
                status = moe_fail(&err, MOE_IO, "cannot write to standard output");
            }
            if (status != MOE_OK) {
                print_error(argv[1], err.text);
            }
            return exit_code(status);
        }
    }
    (void) fprintf(stderr, "moesim: no command '%s'; `moesim help` lists them\n", argv[1]);
    return 2;
}
