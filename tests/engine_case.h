/*
 * Engine case: random small cases for the engine twin, each a function of its seed.
 */
#ifndef MOE_TESTS_ENGINE_CASE_H
#define MOE_TESTS_ENGINE_CASE_H

#include <stddef.h>
#include <stdint.h>

#include "tests/engine_twin.h"

/* Numbers drawn one after the other. */
struct twin_draw {
    uint64_t key;
    uint64_t counter;
};

struct twin_draw twin_draw_of(uint64_t seed);
uint32_t twin_below(struct twin_draw *draw, uint32_t bound);

/* table, a calibration of round numbers, becomes one without: every measure is moved a little,
 * those of a column together, so that no duration lies on a whole nanosecond, where the last
 * bit of a sum would decide. Some get measured GPUs. text[size] receives it. */
void engine_case_calibration(struct twin_draw *draw, const char *table, char *text, size_t size);

/* Fills *c from seed; text[size] receives its calibration. */
void engine_case_make(uint64_t seed, const char *table, struct twin_case *c, char *text,
                      size_t size);

#endif
