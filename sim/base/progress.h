/*
 * Progress: one line on a terminal that says how far a long job is and when it ends.
 *
 * Silent when the stream is no terminal, so that logs and tests see nothing. The wall
 * clock used here reaches the terminal only, never a result.
 */
#ifndef MOE_SIM_BASE_PROGRESS_H
#define MOE_SIM_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

struct moe_progress {
    FILE *stream; /* NULL: silent */
    const char *what;
    const char *unit;
    uint64_t first; /* already done when the job began (a resumed import) */
    uint64_t total;
    double begin_s;
    double shown_s; /* when the line was last written */
    bool shown;
};

/* what and unit ("importing", "rows") must outlive the job. stream may be NULL. */
void moe_progress_begin(struct moe_progress *progress, FILE *stream, const char *what,
                        const char *unit, uint64_t first, uint64_t total);

/* done of total, first included. Cheap: looks at the clock and writes at most four lines
 * a second, the first after half a second. progress may be NULL. */
void moe_progress_update(struct moe_progress *progress, uint64_t done);

/* Wipes the line. Safe when nothing was shown, and for NULL. */
void moe_progress_end(struct moe_progress *progress);

#endif
