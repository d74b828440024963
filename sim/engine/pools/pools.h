/*
 * Pools: a run with prefill and decode on GPUs of their own.
 *
 * Each pool is a run of its own (run_state.h): its GPUs step together, its policy's plan is made
 * from the rows that it will run (planning.h), its memory, noise and hardware are its own. The
 * prefill pool serves every arrival up to its first token; hand-overs (handover.h) are what
 * arrives in the decode pool, in the order in which prompts were read.
 *
 * Time: the pool whose next step could begin earlier is looked at first, decode before prefill at
 * the same time. So whoever plans knows everything that the other has done up to then: prompts
 * read, caches gone. A pool that has nothing to run sleeps until its next arrival, or until a
 * cache comes or goes.
 *
 * A pool's phases are those of run.h by its own requests. The result is the decode pool's; that of
 * the prefill pool hangs on it. Latencies are of the whole way: waiting (arrival to admission) in
 * the prefill pool; the first token when the scenario says (pools.first_token); its last token.
 */
#ifndef MOE_SIM_ENGINE_POOLS_POOLS_H
#define MOE_SIM_ENGINE_POOLS_POOLS_H

#include "sim/engine/pools/handover.h"
#include "sim/engine/run.h"

struct moe_run_state;

/* Arena bytes of a run beyond those of its pools. */
size_t moe_pools_bytes(const struct moe_run_input *input);

/* One pool's input, with what the whole one says of the run. */
struct moe_run_input moe_pools_part(const struct moe_run_input *input, enum moe_pool pool);

/* As moe_run, of an input with pools. A pool whose plan does not fit is an answer
 * (result->fits). */
enum moe_status moe_pools_run(const struct moe_run_input *input,
                              const struct moe_composition *composition, uint64_t seed,
                              struct moe_trace *trace, struct moe_arena *results,
                              struct moe_arena *work, struct moe_run_result *result,
                              struct moe_error *err) MOE_MUST_CHECK;

/* A request has ended in a pool's run (run->pools is set). */
struct moe_finished;
void moe_pools_finish(struct moe_run_state *run, const struct moe_finished *finished);

/* Whether a request to score is still to come or to be admitted to a pool's run. */
bool moe_pools_scores_next(const struct moe_run_state *run);

#endif
