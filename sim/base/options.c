#include "sim/base/options.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum moe_status moe_parse_count(const char *text, const char *what, uint64_t min, uint64_t max,
                                uint64_t *out, struct moe_error *err)
{
    char *end = NULL;
    errno = 0;
    const unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value < min ||
        value > max) {
        return moe_fail(err, MOE_RANGE, "%s: '%s' is not a whole number from %llu to %llu", what,
                        text, (unsigned long long) min, (unsigned long long) max);
    }
    *out = value;
    return MOE_OK;
}

enum moe_status moe_parse_real(const char *text, const char *what, double min, double max,
                               double *out, struct moe_error *err)
{
    char *end = NULL;
    errno = 0;
    const double value = strtod(text, &end);
    if (end == text || *end != '\0' || !isfinite(value) || value < min || value > max) {
        return moe_fail(err, MOE_RANGE, "%s: '%s' is not a number from %g to %g", what, text, min,
                        max);
    }
    *out = value;
    return MOE_OK;
}

static enum moe_status store(const struct moe_option *option, const char *shown, const char *value,
                             struct moe_error *err)
{
    uint64_t count = 0;
    switch (option->kind) {
    case MOE_OPTION_FLAG:
        *(bool *) option->target = true;
        return MOE_OK;
    case MOE_OPTION_TEXT:
        if (value[0] == '\0') {
            return moe_fail(err, MOE_RANGE, "%s: is empty; give %s", shown, option->value);
        }
        *(const char **) option->target = value;
        return MOE_OK;
    case MOE_OPTION_COUNT:
        assert(option->min >= 0.0);
        assert(option->max <= (double) UINT32_MAX);
        MOE_TRY(moe_parse_count(value, shown, (uint64_t) option->min, (uint64_t) option->max,
                                &count, err));
        *(uint32_t *) option->target = (uint32_t) count;
        return MOE_OK;
    case MOE_OPTION_SEED:
        return moe_parse_count(value, shown, 0, UINT64_MAX, option->target, err);
    case MOE_OPTION_REAL:
        return moe_parse_real(value, shown, option->min, option->max, option->target, err);
    case MOE_OPTION_LIST: {
        struct moe_option_list *list = option->target;
        if (list->count == MOE_OPTION_LIST_LIMIT) {
            return moe_fail(err, MOE_RANGE, "%s: given more than %d times", shown,
                            MOE_OPTION_LIST_LIMIT);
        }
        list->items[list->count++] = value;
        return MOE_OK;
    }
    }
    assert(0);
    return MOE_OK;
}

/* The option that argument names, and the value after "=" if there is one. */
static const struct moe_option *find(const struct moe_option *options, size_t option_count,
                                     const char *argument, const char **value)
{
    const char *name = argument[1] == '-' ? argument + 2 : argument + 1;
    const size_t length = strcspn(name, "=");
    *value = name[length] == '=' ? name + length + 1 : NULL;
    for (size_t i = 0; i < option_count; i++) {
        const bool is_short = options[i].name[1] == '\0';
        if (strlen(options[i].name) == length && strncmp(options[i].name, name, length) == 0 &&
            is_short == (argument[1] != '-')) {
            return &options[i];
        }
    }
    return NULL;
}

static enum moe_status refuse_unknown(const struct moe_option *options, size_t option_count,
                                      const char *argument, struct moe_error *err)
{
    char allowed[320] = "";
    size_t used = 0;
    for (size_t i = 0; i < option_count && used < sizeof allowed - 1; i++) {
        used += (size_t) snprintf(allowed + used, sizeof allowed - used, " %s%s",
                                  options[i].name[1] == '\0' ? "-" : "--", options[i].name);
    }
    return moe_fail(err, MOE_RANGE, "unknown option '%s'; allowed:%s", argument,
                    option_count == 0 ? " none" : allowed);
}

enum moe_status moe_options_parse(const struct moe_option *options, size_t option_count,
                                  struct moe_positionals *positionals, int argc, char **argv,
                                  struct moe_error *err)
{
    bool ended = false;
    positionals->count = 0;
    for (int i = 0; i < argc; i++) {
        const char *argument = argv[i];
        if (!ended && strcmp(argument, "--") == 0) {
            ended = true;
            continue;
        }
        if (ended || argument[0] != '-' || argument[1] == '\0') {
            if (positionals->count == positionals->max) {
                return moe_fail(err, MOE_RANGE, "unexpected argument '%s': at most %zu are taken",
                                argument, positionals->max);
            }
            positionals->items[positionals->count++] = argument;
            continue;
        }
        const char *value = NULL;
        const struct moe_option *option = find(options, option_count, argument, &value);
        if (option == NULL) {
            return refuse_unknown(options, option_count, argument, err);
        }
        if (option->kind == MOE_OPTION_FLAG && value != NULL) {
            return moe_fail(err, MOE_RANGE, "%s: takes no value", argument);
        }
        if (option->kind != MOE_OPTION_FLAG && value == NULL) {
            if (i + 1 == argc) {
                return moe_fail(err, MOE_RANGE, "%s: needs a value (%s)", argument, option->value);
            }
            value = argv[++i];
        }
        MOE_TRY(store(option, argument, value, err));
    }
    if (positionals->count < positionals->min) {
        return moe_fail(err, MOE_RANGE, "%s is missing: %zu given, %zu needed; --help says what",
                        positionals->what == NULL ? "an argument" : positionals->what,
                        positionals->count, positionals->min);
    }
    return MOE_OK;
}

static void print_default(FILE *out, const struct moe_option *option)
{
    switch (option->kind) {
    case MOE_OPTION_TEXT:
        if (*(const char **) option->target != NULL) {
            (void) fprintf(out, " (default %s)", *(const char **) option->target);
        }
        break;
    case MOE_OPTION_COUNT:
        (void) fprintf(out, " (default %u)", *(uint32_t *) option->target);
        break;
    case MOE_OPTION_SEED:
        (void) fprintf(out, " (default %llu)", (unsigned long long) *(uint64_t *) option->target);
        break;
    case MOE_OPTION_REAL:
        (void) fprintf(out, " (default %g)", *(double *) option->target);
        break;
    case MOE_OPTION_FLAG:
    case MOE_OPTION_LIST:
        break;
    }
}

void moe_options_print(FILE *out, const struct moe_option *options, size_t option_count)
{
    for (size_t i = 0; i < option_count; i++) {
        char left[64];
        (void) snprintf(left, sizeof left, "%s%s%s%s", options[i].name[1] == '\0' ? "-" : "--",
                        options[i].name, options[i].value == NULL ? "" : " ",
                        options[i].value == NULL ? "" : options[i].value);
        (void) fprintf(out, "  %-26s %s", left, options[i].help);
        print_default(out, &options[i]);
        (void) fputc('\n', out);
    }
}
