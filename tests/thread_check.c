/* Proves the thread-sanitizer build itself: `thread_check race` must be reported,
 * `thread_check clean` must not be, although libomp is not instrumented. Both exit 0 when so.
 *
 * What is checked is what moesim uses: parallel loops, reductions, barriers, single and
 * critical sections. OpenMP tasks are not: libomp 14 recycles their memory unseen by the
 * sanitizer, which then reports races that are none. */
#include <stdio.h>
#include <string.h>

/* Called by the sanitizer at exit; what it returns decides the exit code. */
int __tsan_on_finalize(int failed);

static int race_wanted;

int __tsan_on_finalize(int failed)
{
    (void) printf("%s, %s\n", race_wanted ? "a race was planted" : "there is no race",
                  failed ? "reported" : "not reported");
    return race_wanted != failed;
}

int main(int argc, char **argv)
{
    enum { COUNT = 4096, THREADS = 4 };
    static long cells[COUNT];
    long shared = 0;
    long sum = 0;
    race_wanted = argc > 1 && strcmp(argv[1], "race") == 0;
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
    (void) printf("sum %ld, shared %ld\n", sum, shared);
    return 0;
}
