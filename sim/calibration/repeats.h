/*
 * Repeats: how often a later pass over a point says what its first one said.
 *
 * An event is one visit of a point: on each GPU its own, but of what several GPUs do together (a
 * series of more than one rank: exchanges, and all cards reading the host's memory at once) one,
 * which takes as long as its slowest GPU. Sentinels are left out: they are there to move.
 *
 * Two readings of each repeat, both by the sample's time (observation.h):
 * - as measured, in microseconds: within 1.5 % of the first pass;
 * - besides, where both visits ran at the power cap, their cycles (time x clock) are compared, and
 *   no difference below the timer's 0.1 us counts. At the cap the clock is regulated, of H200 with
 *   a period of 1.0 s and by 2 to 5 % over the 0.12 s that a visit lasts, so that its time says
 *   when it was measured; the same work in the same cycles is what a kernel can repeat. A point
 *   of 5 us is measured in event ticks of that size.
 *
 * At the cap means: a clock below three quarters of the highest of the run's samples. The
 * driver's throttle reasons do not tell: between its 20 readings a second a visit of 0.1 s at 1.1
 * GHz has none, and one at full clock that of its neighbour. Above that share times of what reads
 * memory do not follow the clock, and cycles would be wrong.
 */
#ifndef MOE_SIM_CALIBRATION_REPEATS_H
#define MOE_SIM_CALIBRATION_REPEATS_H

#include "sim/calibration/evidence.h"

/* What is asked of the first reading: issue "Calibrate real GPUs". */
#define MOE_REPEATS_ASKED 0.90

struct moe_repeats {
    uint32_t count;     /* later passes */
    uint32_t agreeing;  /* of them, in microseconds */
    uint32_t in_cycles; /* of them, by the second reading */
};

/* One row per series of the evidence. Errors: MOE_LIMIT when the arena is full. */
enum moe_status moe_repeats_count(struct moe_repeats *series, const struct moe_evidence *evidence,
                                  struct moe_arena *arena, struct moe_error *err) MOE_MUST_CHECK;

/* Arena bytes that counting takes. */
size_t moe_repeats_bytes(const struct moe_evidence *evidence);

/* Series summed up by kind, into kinds[MOE_EVIDENCE_KIND_COUNT]; gives the sum of all. */
struct moe_repeats moe_repeats_by_kind(struct moe_repeats *kinds, const struct moe_repeats *series,
                                       const struct moe_evidence *evidence);

#endif
