/* Any text: a composition that is read prints as one that reads back as itself. Texts with a '/'
 * are left out: they name plug-ins, which are files. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "policies/composition.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[2 * MOE_COMPOSITION_BYTES] = "";
    struct moe_composition composition;
    struct moe_composition again;
    struct moe_error err = { 0 };
    if (size >= sizeof text || memchr(data, '/', size) != NULL) {
        return 0;
    }
    memcpy(text, data, size);
    const enum moe_status status = moe_composition_parse(&composition, text, &err);
    assert((status == MOE_OK) == (err.text[0] == '\0'));
    if (status != MOE_OK) {
        return 0;
    }
    if (moe_composition_parse(&again, composition.label, NULL) != MOE_OK ||
        strcmp(again.label, composition.label) != 0) {
        abort();
    }
    for (int kind = 0; kind < MOE_POLICY_KIND_COUNT; kind++) {
        const struct moe_composition_part *part = &composition.part[kind];
        const struct moe_composition_part *same = &again.part[kind];
        if (part->policy != same->policy ||
            (part->policy != NULL &&
             memcmp(part->values, same->values,
                    part->policy->parameter_count * sizeof part->values[0]) != 0)) {
            abort();
        }
    }
    return 0;
}
