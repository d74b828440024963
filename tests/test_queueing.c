/* The whole engine as a queue: mean waits inside the 95 % interval of theory, at three loads.
 * tests/study_queueing.c does the same with more requests. */
#include <criterion/criterion.h>
#include <math.h>

#include "tests/queue_case.h"

TestSuite(queueing);

static void check_case(enum queue_law law, uint32_t servers, double rho)
{
    /* With several servers a request takes a step for every token. */
    const struct queue_case c = { law, servers, rho, 4000, 12, servers == 1 ? 100 : 25 };
    const struct queue_answer a = queue_case_run(&c);
    cr_expect(fabs(a.wait_s.mean - a.theory_s) <= a.wait_s.half,
              "law %d, %u servers, load %g: %g ± %g s, theory %g s", (int) law, servers, rho,
              a.wait_s.mean, a.wait_s.half, a.theory_s);
    cr_expect_lt(a.wait_s.half, 0.35 * a.theory_s, "an interval that proves nothing");
    cr_expect_float_eq(a.little.mean, 1.0, 0.01, "Little's law: %g", a.little.mean);
    cr_expect_eq(a.saturated, 0);
}

Test(queueing, exponential_services_on_one_server)
{
    check_case(QUEUE_EXPONENTIAL, 1, 0.3);
    check_case(QUEUE_EXPONENTIAL, 1, 0.6);
    check_case(QUEUE_EXPONENTIAL, 1, 0.9);
}

Test(queueing, fixed_services_on_one_server)
{
    check_case(QUEUE_FIXED, 1, 0.3);
    check_case(QUEUE_FIXED, 1, 0.6);
    check_case(QUEUE_FIXED, 1, 0.9);
}

Test(queueing, lognormal_services_on_one_server)
{
    check_case(QUEUE_LOGNORMAL, 1, 0.3);
    check_case(QUEUE_LOGNORMAL, 1, 0.6);
    check_case(QUEUE_LOGNORMAL, 1, 0.9);
}

Test(queueing, exponential_services_on_several_servers)
{
    check_case(QUEUE_EXPONENTIAL, 2, 0.3);
    check_case(QUEUE_EXPONENTIAL, 4, 0.6);
    check_case(QUEUE_EXPONENTIAL, 2, 0.9);
}

/* A search over rates finds the rate that theory gives. */
Test(queueing, goodput_of_exponential_services)
{
    const struct queue_case c = { QUEUE_EXPONENTIAL, 1, 0.0, 5000, 6, 100 };
    double theory = 0.0;
    const struct moe_estimate found = queue_case_goodput(&c, 15.0, &theory);
    cr_assert_float_eq(found.mean, theory, found.half, "%g ± %g requests/s, theory %g", found.mean,
                       found.half, theory);
    cr_assert_lt(found.half, 0.1 * theory, "an interval that proves nothing");
}

/* Ten per cent above what it can serve: told in every seed. */
Test(queueing, overload_is_called_saturated)
{
    const struct queue_case c = { QUEUE_EXPONENTIAL, 1, 1.1, 6000, 6, 100 };
    cr_assert_eq(queue_case_run(&c).saturated, 6);
}
