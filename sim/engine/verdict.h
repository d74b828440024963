/*
 * Verdict: what the runs of a study say about its policies.
 *
 * Contenders are the policies that fit in every seed and are no oracles. The best is the one
 * with the highest mean speed-up, the first of equal ones; every other contender whose
 * interval overlaps its interval ties with it. With one seed there are no intervals and
 * only equal speed-ups tie. Without a fitting baseline nothing is compared: best is then
 * policy_count, as when nothing contends.
 * A lane (sensitivity.h) flips the verdict when another contender is best in it and the
 * intervals of the two in that lane do not overlap.
 */
#ifndef MOE_SIM_ENGINE_VERDICT_H
#define MOE_SIM_ENGINE_VERDICT_H

#include "sim/engine/study.h"

/* Fills summaries, best, ties and flips from the runs that policies[i].runs point to.
 * scratch[seed_count]. flips: room for MOE_SENSITIVITY_LANES. */
void moe_verdict_reach(struct moe_study *study, double *scratch);

#endif
