#include "tests/property.h"

#include <stdio.h>
#include <string.h>

#include "sim/base/random.h"

enum { SHRINK_TRIES = 4000 };

uint32_t draw_below(struct draws *draws, uint32_t bound)
{
    if (draws->used >= PROPERTY_DRAW_LIMIT) {
        return 0;
    }
    if (draws->used == draws->count) {
        draws->value[draws->count++] =
            draws->key == 0 ? 0 : (uint32_t) moe_random_below(draws->key, draws->used, bound);
    }
    return draws->value[draws->used++] % bound;
}

/* Whether the property still fails on a list; then the list becomes draws. */
static bool fails_on(property *holds, void *context, struct draws *draws,
                     const struct draws *candidate, char *why, uint32_t *tries)
{
    static struct draws copy;
    char reason[PROPERTY_TEXT_LIMIT] = "";
    if (*tries == 0) {
        return false;
    }
    --*tries;
    copy = *candidate;
    copy.key = 0;
    copy.used = 0;
    if (holds(&copy, context, reason)) {
        return false;
    }
    copy.count = copy.used < copy.count ? copy.used : copy.count;
    while (copy.count > 0 && copy.value[copy.count - 1] == 0) {
        copy.count--; /* zeros come by themselves */
    }
    *draws = copy;
    memcpy(why, reason, PROPERTY_TEXT_LIMIT);
    return true;
}

static bool drop_pieces(property *holds, void *context, struct draws *draws, char *why,
                        uint32_t *tries)
{
    static struct draws candidate;
    bool any = false;
    for (size_t length = draws->count; length >= 1; length /= 2) {
        for (size_t begin = 0; begin + length <= draws->count;) {
            candidate = *draws;
            memmove(candidate.value + begin, candidate.value + begin + length,
                    (candidate.count - begin - length) * sizeof *candidate.value);
            candidate.count -= length;
            if (fails_on(holds, context, draws, &candidate, why, tries)) {
                any = true;
            } else {
                begin += length;
            }
        }
    }
    return any;
}

static bool lower_numbers(property *holds, void *context, struct draws *draws, char *why,
                          uint32_t *tries)
{
    static struct draws candidate;
    bool any = false;
    for (size_t i = 0; i < draws->count; i++) {
        const uint32_t value = draws->value[i];
        const uint32_t smaller[] = { 0, value / 2, value - 1 };
        for (int j = 0; j < 3 && i < draws->count && draws->value[i] > 0; j++) {
            candidate = *draws;
            if (smaller[j] >= candidate.value[i]) {
                continue;
            }
            candidate.value[i] = smaller[j];
            any |= fails_on(holds, context, draws, &candidate, why, tries);
        }
    }
    return any;
}

const char *property_fails(property *holds, void *context, uint64_t seed, uint32_t cases)
{
    static struct draws draws;
    static char text[2 * PROPERTY_TEXT_LIMIT + 1024];
    char why[PROPERTY_TEXT_LIMIT] = "";
    for (uint32_t number = 0; number < cases; number++) {
        draws.key = moe_random_key(seed + number, MOE_RANDOM_TEST);
        draws.count = 0;
        draws.used = 0;
        if (holds(&draws, context, why)) {
            continue;
        }
        uint32_t tries = SHRINK_TRIES;
        bool smaller = true;
        while (smaller) {
            smaller = drop_pieces(holds, context, &draws, why, &tries);
            smaller |= lower_numbers(holds, context, &draws, why, &tries);
        }
        int used = snprintf(text, sizeof text, "case %u: %s; shrunk to %zu numbers:", number, why,
                            draws.count);
        for (size_t i = 0; i < draws.count && used < (int) sizeof text - 16; i++) {
            used += snprintf(text + used, sizeof text - (size_t) used, " %u", draws.value[i]);
        }
        return text;
    }
    return NULL;
}
