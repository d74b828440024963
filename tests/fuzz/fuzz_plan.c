/* Any bytes: a plan that passes is complete, prints, and reads back as itself. */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policies/plan/plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *print(const struct moe_plan *plan, const struct moe_plan_format *format)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL || format->print(out, plan, NULL) != MOE_OK || fclose(out) != 0) {
        abort();
    }
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct moe_plan_format *format = NULL;
    struct moe_plan plan;
    struct moe_plan back;
    struct moe_error err = { 0 };
    char *text = malloc(size + 1);
    if (text == NULL) {
        return 0;
    }
    if (size > 0) {
        memcpy(text, data, size);
    }
    text[size] = '\0';
    const enum moe_status status = moe_plan_parse(&plan, "input", text, size, &format, &err);
    assert((status == MOE_OK) == (err.text[0] == '\0'));
    free(text);
    if (status != MOE_OK) {
        return 0;
    }
    assert(moe_placement_check(&plan.placement, NULL) == MOE_OK);
    char *printed = print(&plan, format);
    if (moe_plan_parse(&back, "printed", printed, strlen(printed), NULL, NULL) != MOE_OK) {
        abort();
    }
    char *again = print(&back, format);
    assert(strcmp(printed, again) == 0);
    free(printed);
    free(again);
    moe_plan_finish(&plan);
    moe_plan_finish(&back);
    return 0;
}
