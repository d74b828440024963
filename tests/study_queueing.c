/* Makes results/studies/queueing.md's table: the engine against queueing theory. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/queue_case.h"

static void print_waits(void)
{
    static const struct {
        const char *name;
        enum queue_law law;
        uint32_t servers;
    } queues[] = {
        { "M/M/1", QUEUE_EXPONENTIAL, 1 }, { "M/D/1", QUEUE_FIXED, 1 },
        { "M/G/1", QUEUE_LOGNORMAL, 1 },   { "M/M/2", QUEUE_EXPONENTIAL, 2 },
        { "M/M/8", QUEUE_EXPONENTIAL, 8 },
    };
    static const double loads[] = { 0.3, 0.6, 0.9 };
    (void) puts("| queue | load | service ms | its cv | wait by theory ms | wait of the engine ms |"
                " inside | L / (rate x W) | called saturated |\n"
                "|---|---|---|---|---|---|---|---|---|");
    uint32_t inside = 0;
    for (size_t q = 0; q < sizeof queues / sizeof queues[0]; q++) {
        for (size_t l = 0; l < sizeof loads / sizeof loads[0]; l++) {
            const struct queue_case c = {
                queues[q].law, queues[q].servers, loads[l], 20000, 20, 100
            };
            const struct queue_answer a = queue_case_run(&c);
            const bool in = fabs(a.wait_s.mean - a.theory_s) <= a.wait_s.half;
            inside += in;
            (void) printf(
                "| %s | %.1f | %.3f | %.3f | %.4f | %.4f ± %.4f | %s | %.4f ± %.4f | %u |\n",
                queues[q].name, loads[l], a.service_s * 1e3, a.service_cv, a.theory_s * 1e3,
                a.wait_s.mean * 1e3, a.wait_s.half * 1e3, in ? "yes" : "no", a.little.mean,
                a.little.half, a.saturated);
            (void) fflush(stdout);
        }
    }
    (void) printf("\n%u of 15 inside the 95 %% interval over 20 seeds of 20,000 requests each.\n",
                  inside);
}

static void print_rates(void)
{
    uint32_t inside = 0;
    (void) puts(
        "| limit, services | goodput by theory 1/s | found 1/s | inside |\n|---|---|---|---|");
    static const double limits[] = { 8.0, 15.0, 40.0 };
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        const struct queue_case c = { QUEUE_EXPONENTIAL, 1, 0.0, 10000, 10, 100 };
        double theory = 0.0;
        const struct moe_estimate found = queue_case_goodput(&c, limits[i], &theory);
        const bool in = fabs(found.mean - theory) <= found.half;
        inside += in;
        (void) printf("| %.0f | %.2f | %.2f ± %.2f | %s |\n", limits[i], theory, found.mean,
                      found.half, in ? "yes" : "no");
        (void) fflush(stdout);
    }
    (void) printf("\n%u of 3 inside the 95 %% interval over 10 seeds of 10,000 requests each.\n",
                  inside);
}

/* waits, rates, or nothing for both. */
int main(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "waits") == 0) {
        print_waits();
    }
    if (argc < 2 || strcmp(argv[1], "rates") == 0) {
        print_rates();
    }
    return 0;
}
