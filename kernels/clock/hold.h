/*
 * A hold: a kernel that keeps its stream waiting until the host lets go, so that work can be
 * queued behind it without a gap and starts on several GPUs at once. A hold that is forgotten
 * ends by itself.
 *
 * One moe_hold may be enqueued any number of times, on any stream of any GPU; moe_hold_open lets
 * go of all that were enqueued before it. It must not be captured into a graph: a replay would
 * meet a hold that was opened long ago. And what is queued behind it must have run once before:
 * CUDA brings a kernel's code to the GPU at its first launch, which may wait for the GPU, and so
 * for the hold. (CUDA Programming Guide, lazy loading, concurrent execution.)
 *
 * As in kernels.h, results are cudaError_t as int.
 */
#ifndef MOE_KERNELS_HOLD_H
#define MOE_KERNELS_HOLD_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct moe_hold; /* opaque */

int moe_hold_create(struct moe_hold **out);

/* Nothing enqueued may still be running: synchronise its streams first. NULL is allowed. */
void moe_hold_destroy(struct moe_hold *hold);

/* Asynchronous. After timeout_ns (at least 1) of waiting on the GPU the stream goes on and the
 * hold says so. Errors: cudaErrorInvalidValue for a timeout below 1. */
int moe_hold_enqueue(struct moe_hold *hold, int64_t timeout_ns, void *stream);

void moe_hold_open(struct moe_hold *hold);

/* Whether any of those enqueued since creation ended by its timeout; true as of the last
 * synchronisation with their streams. What was measured behind it is then worth nothing. */
int moe_hold_timed_out(const struct moe_hold *hold);

#ifdef __cplusplus
}
#endif
#endif
