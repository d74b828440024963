/*
 * Step twin: from the prices of one step to who waited for whom and why, once more and
 * plainly: step_times.h, timeline.h, straggler.h and sensitivity.h in their words only.
 */
#ifndef MOE_TESTS_STEP_TWIN_H
#define MOE_TESTS_STEP_TWIN_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/cost_twin.h"

enum { TWIN_GPUS = 16, TWIN_LAYERS = 8, TWIN_CAUSES = 5, TWIN_SUBSETS = 32, TWIN_LANES = 18 };

/* Bits of a subset, in the order of enum moe_cause. */
enum { TWIN_BY_ROUTING, TWIN_BY_BATCH, TWIN_BY_HARDWARE, TWIN_BY_JITTER, TWIN_BY_COMM };

/* With the GPU's factors, and with factor 1. */
struct twin_price {
    double real;
    double nominal;
    enum twin_source source;
};

/* In the order of enum moe_stretch. */
enum { TWIN_BEFORE, TWIN_OUT, TWIN_FFN, TWIN_BACK, TWIN_STRETCHES };

struct step_twin {
    uint32_t layers;
    uint32_t gpus;
    uint32_t dense_layers;
    bool common_exit;
    bool serial;
    struct twin_price own[TWIN_GPUS][TWIN_PARTS]; /* the parts of a rank's own tokens */
    struct twin_price moe[TWIN_LAYERS][TWIN_GPUS][TWIN_PARTS]; /* DISPATCH, EXPERT, COMBINE */
    double jitter[TWIN_LAYERS + 1][TWIN_STRETCHES][TWIN_GPUS];
};

struct twin_times {
    int64_t before[TWIN_LAYERS][TWIN_GPUS];
    int64_t shared[TWIN_LAYERS][TWIN_GPUS];
    int64_t out[TWIN_LAYERS][TWIN_GPUS];
    int64_t ffn[TWIN_LAYERS][TWIN_GPUS];
    int64_t back[TWIN_LAYERS][TWIN_GPUS];
    int64_t after[TWIN_GPUS];
};

struct twin_barrier {
    int64_t open;
    int64_t idle;
    int64_t lead;
    uint32_t last;
};

/* Barriers in the order of timeline.h, and what the critical path is made of. */
struct twin_played {
    int64_t length;
    int64_t idle;
    struct twin_barrier barrier[2 * TWIN_LAYERS + 1];
    int64_t path[TWIN_PARTS][TWIN_SOURCES];
};

/* Durations while the causes of subset are there. */
void step_twin_times(const struct step_twin *step, uint32_t subset, struct twin_times *times);
/* All causes there, one part's prices times scale. */
void step_twin_scaled(const struct step_twin *step, enum twin_part part, double scale,
                      struct twin_times *times);
void step_twin_play(const struct step_twin *step, const struct twin_times *times,
                    struct twin_played *played);

/* Mean over all orders of five causes of what each adds; see straggler.h. */
void step_twin_split(const int64_t idle[TWIN_SUBSETS], int64_t parts[TWIN_CAUSES]);

#endif
