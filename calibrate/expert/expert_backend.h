/*
 * Expert backends: ways to compute the expert FFN, each behind one struct of functions.
 *
 * A backend is one file and one line in expert_backend.def. All compute the function of
 * kernels/expert/expert_ffn.h on the operands of one moe_expert_case and leave their result in the
 * data's out, each at its best: what it can choose (algorithm, streams, tiles) it chooses by
 * trying, when it is created.
 */
#ifndef MOE_CALIBRATE_EXPERT_BACKEND_H
#define MOE_CALIBRATE_EXPERT_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "calibrate/blas/blas.h"
#include "calibrate/expert/expert_data.h"
#include "calibrate/timing/graph_timer.h"
#include "sim/base/error.h"

/* What every backend may use; owned by the caller and outlives the backend. */
struct moe_expert_tools {
    struct moe_blas *blas;
    struct moe_graph_timer *timer;
};

struct moe_expert_backend {
    const char *name;
    const char *help; /* one line */
    bool is_library;  /* belongs to the vendor's library, so that ours is measured against it */
    bool chosen;      /* measured unless --backends says otherwise */
    enum moe_expert_dtype dtype;     /* which it takes; MOE_EXPERT_DTYPE_COUNT: each */
    enum moe_expert_scaling scaling; /* fp8: which of the data's scales it takes */

    /* Optional: why it can't run this case, as a sentence, or NULL when it can. */
    const char *(*refuse)(const struct moe_expert_case *kase);

    /* Mandatory. Prepares one state for all sets of weights. Errors: MOE_UNSUPPORTED when the
     * library turns out to refuse; others as they come. On error nothing is held. */
    enum moe_status (*create)(const struct moe_expert_tools *tools,
                              const struct moe_expert_case *kase, void **state,
                              struct moe_error *err);

    /* Mandatory. Launches the FFN on stream (a cudaStream_t); may be captured. */
    moe_graph_launch run;

    /* Optional, for a backend with an out of its own: copies that into the data's out. */
    enum moe_status (*collect)(void *state, void *stream, struct moe_error *err);

    /* Mandatory. What was chosen ("8 streams"); valid as long as state. */
    const char *(*describe)(void *state);

    /* Mandatory. */
    void (*destroy)(void *state);
};

extern const struct moe_expert_backend *const moe_expert_backends[];
extern const size_t moe_expert_backend_count;

/* NULL when there is none of that name. */
const struct moe_expert_backend *moe_expert_backend_find(const char *name);

#endif
