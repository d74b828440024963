/*
 * Verdict: what the runs of a study say about its policies.
 */
#ifndef MOE_SIM_ENGINE_VERDICT_H
#define MOE_SIM_ENGINE_VERDICT_H

#include "sim/engine/study.h"

/* Fills summaries, best, ties and flips from the runs that policies[i].runs point to.
 * scratch[seed_count]. flips: room for MOE_SENSITIVITY_LANES. */
void moe_verdict_reach(struct moe_study *study, double *scratch);

#endif
