/* The bootstrap as one process, and the watchdog. test_bootstrap_mpi.c: as several. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <string.h>
#include <time.h>

#include "calibrate/collective/bootstrap.h"
#include "calibrate/collective/watchdog.h"

static void wait_ms(long ms)
{
    const struct timespec pause = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };
    (void) nanosleep(&pause, NULL);
}

/* host 1 has processes 2 and 3, three GPUs among them; the one of host 0 drives all it has. */
Test(bootstrap, shares_gpus)
{
    struct moe_error err = { 0 };
    uint32_t first = 9;
    uint32_t count = 9;
    struct moe_bootstrap boot = { .process = 2,
                                  .process_count = 4,
                                  .host = 1,
                                  .host_count = 2,
                                  .local = 1,
                                  .local_count = 2,
                                  .host_name = "node-b" };
    cr_assert_eq(moe_bootstrap_share(&boot, 3, &first, &count, &err), MOE_OK);
    cr_assert(first == 1 && count == 1);
    cr_assert_eq(moe_bootstrap_share(&boot, 1, &first, &count, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "host node-b and has no GPU: there is 1"), "%s", err.text);
    boot.local_count = 1;
    boot.local = 0;
    cr_assert_eq(moe_bootstrap_share(&boot, 3, &first, &count, &err), MOE_OK);
    cr_assert(first == 0 && count == 3);
}

Test(bootstrap, alone)
{
    struct moe_error err = { 0 };
    struct moe_bootstrap boot;
    int mine = 5;
    int all = 0;
    cr_assert_eq(moe_bootstrap_start(&boot, &err), MOE_OK, "%s", err.text);
    cr_assert(boot.process == 0 && boot.process_count == 1 && boot.local_count == 1);
    cr_assert_eq(moe_bootstrap_gather(&boot, &mine, sizeof mine, &all, &err), MOE_OK);
    cr_assert_eq(all, 5);
    cr_assert_eq(moe_bootstrap_agree(&boot, MOE_OK, &err), MOE_OK);
    const enum moe_status own = moe_fail(&err, MOE_LIMIT, "mine");
    cr_assert_eq(moe_bootstrap_agree(&boot, own, &err), MOE_LIMIT);
    cr_assert_str_eq(err.text, "mine");
    moe_bootstrap_end(&boot);
}

Test(watchdog, ends_the_program, .exit_code = 1)
{
    struct moe_error err = { 0 };
    struct moe_watchdog *dog = NULL;
    cr_assert_eq(moe_watchdog_create(&dog, &err), MOE_OK);
    moe_watchdog_arm(dog, 0.05, "all_to_all of 1 KiB per peer on 2 ranks");
    wait_ms(10000);
    moe_watchdog_destroy(dog);
}

/* Disarmed, armed anew in time and destroyed while armed it does not. */
Test(watchdog, spares_the_program)
{
    struct moe_error err = { 0 };
    struct moe_watchdog *dog = NULL;
    cr_assert_eq(moe_watchdog_create(&dog, &err), MOE_OK);
    moe_watchdog_arm(dog, 0.2, "disarmed");
    moe_watchdog_disarm(dog);
    wait_ms(300);
    moe_watchdog_arm(dog, 2.0, "armed anew");
    wait_ms(100);
    moe_watchdog_arm(dog, 0.05, "and disarmed");
    moe_watchdog_disarm(dog);
    wait_ms(150);
    moe_watchdog_arm(dog, 60.0, "destroyed");
    moe_watchdog_destroy(dog);
}
