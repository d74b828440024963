/*
 * Calibration hash: tells two calibrations apart by what they say, wherever they lie and
 * whichever program wrote them. A run keeps it, so that a repeat can be refused when the
 * costs are no longer the same. The same on every machine.
 */
#ifndef MOE_SIM_COST_CALIBRATION_HASH_H
#define MOE_SIM_COST_CALIBRATION_HASH_H

#include <stdint.h>

#include "sim/cost/calibration.h"

/* Over every cell of every table, in the order of the rows; not over the name. */
uint64_t moe_calibration_hash(const struct moe_calibration *calibration);

#endif
