/* Any bytes: a plan that passes is complete, prints, and reads back as itself. */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policies/plan_sglang.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct moe_placement_shape shape = { 2, 4, 6, 3, 1, 1 };
    struct moe_arena arena;
    struct moe_placement plan;
    struct moe_placement again;
    struct moe_error err = { 0 };
    if (moe_arena_init(&arena, 1 << 12, NULL) != MOE_OK) {
        return 0;
    }
    const enum moe_status status =
        moe_plan_sglang_parse(&plan, &arena, &shape, "input", (const char *) data, size, &err);
    assert((status == MOE_OK) == (err.text[0] == '\0'));
    if (status == MOE_OK) {
        char text[256] = "";
        FILE *out = fmemopen(text, sizeof text, "w");
        assert(moe_placement_check(&plan, NULL) == MOE_OK);
        if (out == NULL || moe_plan_sglang_print(out, &plan, NULL) != MOE_OK || fclose(out) != 0 ||
            moe_plan_sglang_parse(&again, &arena, &shape, "again", text, strlen(text), NULL) !=
                MOE_OK ||
            moe_placement_count_moves(&plan, &again) != 0) {
            abort();
        }
    }
    moe_arena_finish(&arena);
    return 0;
}
