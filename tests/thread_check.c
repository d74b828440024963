/* Proves the thread-sanitizer build itself: `thread_check race` must be reported,
 * `thread_check clean` must not be, although libomp is not instrumented. Both exit 0 when so.
 *
 * What is checked is what moesim uses: parallel loops, reductions, barriers, single and
 * critical sections. OpenMP tasks are not: libomp 14 recycles their memory unseen by the
 * sanitizer, which then reports races that are none. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Called by the sanitizer for each race that it reports. */
void __tsan_on_report(void *report);

static int report_count;

void __tsan_on_report(void *report)
{
    (void) report;
    report_count++;
}

int main(int argc, char **argv)
{
    enum { COUNT = 4096, THREADS = 4 };
    static long cells[COUNT];
    long shared = 0;
    long sum = 0;
    const int race_wanted = argc > 1 && strcmp(argv[1], "race") == 0;
#pragma omp parallel for num_threads(THREADS)
    for (long i = 0; i < COUNT; i++) {
        cells[i] = i;
        if (race_wanted) {
            shared += i;
        }
    }
#pragma omp parallel for num_threads(THREADS) reduction(+ : sum)
    for (long i = 0; i < COUNT; i++) {
        sum += cells[COUNT - 1 - i];
    }
#pragma omp parallel num_threads(THREADS)
    {
#pragma omp for schedule(dynamic, 7) nowait
        for (long i = 0; i < COUNT; i++) {
            cells[i] += 1;
        }
#pragma omp barrier
#pragma omp single
        for (long i = 0; i < COUNT; i++) {
            sum += cells[i];
        }
#pragma omp critical
        sum += 1;
    }
    (void) printf("sum %ld, shared %ld: %d races reported, %s\n", sum, shared, report_count,
                  race_wanted ? "one was planted" : "there are none");
    (void) fflush(stdout);
    /* Not through exit(), where the sanitizer would put its own code in place of ours. */
    _Exit(race_wanted ? report_count == 0 : report_count != 0);
}
