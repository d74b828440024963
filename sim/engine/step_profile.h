/*
 * Step profile: how long steps took, by how many tokens they held, of bounded size whatever
 * ran. Cells are 1/4 of an octave of tokens wide; steps in which every token decodes are kept
 * apart from those that read prompts.
 *
 * Overlay: the user's own measured step times beside it. A measured step is compared with the
 * mean of the simulated steps of as many tokens (linear between the cells' means); one whose
 * tokens lie outside of all simulated cells of its kind by more than half an octave is not
 * comparable, and counted as such.
 */
#ifndef MOE_SIM_ENGINE_STEP_PROFILE_H
#define MOE_SIM_ENGINE_STEP_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"
#include "sim/base/time.h"

enum { MOE_STEP_CELLS = 4 * 32, MOE_STEP_KINDS = 2 };

enum moe_step_kind { MOE_STEP_DECODE, MOE_STEP_MIXED };

struct moe_step_cell {
    uint64_t count;
    double tokens; /* summed */
    double ns;     /* summed */
};

struct moe_step_profile {
    struct moe_step_cell cell[MOE_STEP_KINDS][MOE_STEP_CELLS];
};

/* tokens >= 1, of all ranks together. */
void moe_step_profile_add(struct moe_step_profile *profile, enum moe_step_kind kind,
                          uint64_t tokens, moe_time_ns step_ns);
void moe_step_profile_merge(struct moe_step_profile *into, const struct moe_step_profile *from);

/* Cell of so many tokens: floor(4 log2 tokens). */
uint32_t moe_step_cell_of(uint64_t tokens);

/* The simulated time of a step of so many tokens; false where nothing comparable ran. */
bool moe_step_profile_at(const struct moe_step_profile *profile, enum moe_step_kind kind,
                         uint64_t tokens, double *ns);

/* One measured step. */
struct moe_measured_step {
    uint64_t tokens;
    enum moe_step_kind kind;
    double ns;
};

struct moe_overlay {
    char path[1024];
    uint64_t hash; /* of the file's bytes */
    uint32_t count;
    struct moe_measured_step *steps; /* [count], owned */
    double *scratch;                 /* [count], owned: of comparisons, one at a time */
};

/* Reads a CSV file whose header is exactly "tokens,decode_only,step_ms": tokens of the step on all
 * GPUs together (rows processed, without padding), 1 when all of them decode or 0, and its
 * measured time from the begin of one step to the begin of the next.
 * Errors: MOE_IO, MOE_PARSE, MOE_RANGE naming line and field; MOE_LIMIT. */
enum moe_status moe_overlay_read(struct moe_overlay *overlay, const char *path,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* The same from text[bytes]; name stands for the file. */
enum moe_status moe_overlay_parse(struct moe_overlay *overlay, const char *text, size_t bytes,
                                  const char *name, struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct. */
void moe_overlay_finish(struct moe_overlay *overlay);

/* What the comparison says, of comparable steps; errors are simulated over measured, less 1. */
struct moe_overlay_error {
    uint64_t count;
    uint64_t left_out;  /* measured steps with nothing to compare */
    double bias;        /* mean error, each step as much as any other */
    double mape;        /* mean absolute error */
    double p95;         /* of the absolute errors: the ceil(0.95 n)-th smallest */
    double measured_ns; /* means of the steps themselves */
    double simulated_ns;
};

/* Of the measured steps of one kind and one cell; kind MOE_STEP_KINDS: all kinds, cell
 * MOE_STEP_CELLS: all cells. */
struct moe_overlay_error moe_overlay_compare(const struct moe_overlay *overlay,
                                             const struct moe_step_profile *profile, uint32_t kind,
                                             uint32_t cell);

#endif
