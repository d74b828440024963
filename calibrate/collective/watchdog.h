/*
 * Watchdog: ends the program when a call of a driver or of NCCL does not come back.
 *
 * The exception to "only main prints and exits": the thread that could return an error is the one
 * that hangs. Work queued on a GPU needs no watchdog, since its end can be asked for (lanes.h).
 */
#ifndef MOE_CALIBRATE_WATCHDOG_H
#define MOE_CALIBRATE_WATCHDOG_H

#include "sim/base/error.h"

struct moe_watchdog; /* opaque: a thread */

enum moe_status moe_watchdog_create(struct moe_watchdog **out,
                                    struct moe_error *err) MOE_MUST_CHECK;
void moe_watchdog_destroy(struct moe_watchdog *dog); /* NULL is allowed */

/* From now on, unless disarmed or armed anew within patience_s: "moecal: WHAT did not come back
 * within N s" on standard error, and exit code 1 without clean-up. what is copied. */
void moe_watchdog_arm(struct moe_watchdog *dog, double patience_s, const char *what);
void moe_watchdog_disarm(struct moe_watchdog *dog);

#endif
