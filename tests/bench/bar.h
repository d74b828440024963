/*
 * Bar: a speed that was promised, as one row of a table beside the published programs' figures
 * (results/performance/README.md says how the rows are collected). Times are processor time of one
 * thread: what a core that nobody else uses takes, also on a busy machine.
 */
#ifndef MOE_TESTS_BENCH_BAR_H
#define MOE_TESTS_BENCH_BAR_H

#include <stdio.h>
#include <time.h>

static inline double bar_seconds(void)
{
    struct timespec now;
    (void) clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double) now.tv_sec + 1e-9 * (double) now.tv_nsec;
}

/* 1 when missed. limit 0: no bar, printed to show how time grows. */
static inline int bar_row(const char *what, double measured, double limit, const char *unit,
                          const char *published)
{
    char text[32] = "none";
    const int missed = limit > 0.0 && measured > limit;
    if (limit > 0.0) {
        (void) snprintf(text, sizeof text, "%g %s", limit, unit);
    }
    (void) printf("bar | %s | %.*f %s | %s | %s |%s\n", what, measured < 10.0 ? 2 : 1, measured,
                  unit, text, published, missed ? " MISSED" : "");
    return missed;
}

#endif
