/* Readers of published figures: any text, by any format. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sim/calibration/published.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static struct moe_arena arena;
    size_t count = 0;
    const struct moe_published_format *const *formats = moe_published_formats(&count);
    const struct moe_published_options options = { 0 };
    if (arena.base == NULL && moe_arena_init(&arena, 16 << 20, NULL) != MOE_OK) {
        return 0;
    }
    char *text = malloc(size + 1);
    if (text == NULL) {
        return 0;
    }
    if (size > 0) {
        memcpy(text, bytes, size);
    }
    text[size] = '\0';
    for (size_t i = 0; i < count; i++) {
        struct moe_published published = { .arena = &arena };
        moe_arena_reset(&arena);
        (void) formats[i]->probe(text);
        (void) formats[i]->read(&published, text, "f", &options, NULL);
    }
    free(text);
    return 0;
}
