#include "sim/base/error.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>

static const char *const status_text[] = {
    [MOE_OK] = "ok",
    [MOE_IO] = "the operating system refused",
    [MOE_PARSE] = "the input is malformed",
    [MOE_RANGE] = "a value is out of range",
    [MOE_LIMIT] = "a fixed limit was reached",
    [MOE_POLICY] = "a policy asked for something impossible",
    [MOE_UNSUPPORTED] = "not available here",
    [MOE_DEVICE] = "a GPU call failed",
    [MOE_GATE] = "a gate is not met",
};
static_assert(sizeof status_text / sizeof status_text[0] == MOE_STATUS_COUNT, "one text each");

const char *moe_status_text(enum moe_status status)
{
    return status < MOE_STATUS_COUNT ? status_text[status] : "unknown status";
}

void moe_error_set(struct moe_error *err, enum moe_status status, const char *file, int line,
                   const char *format, ...)
{
    assert(status != MOE_OK);
    assert(status < MOE_STATUS_COUNT);
    if (err == NULL) {
        return;
    }
    err->status = status;
    err->file = file;
    err->line = line;
    va_list args;
    va_start(args, format);
    (void) vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
}
