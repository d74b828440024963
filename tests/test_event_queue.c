#include <criterion/criterion.h>

#include "sim/engine/event_queue.h"

static struct moe_arena arena;
static struct moe_event_queue queue;

static void setup(void)
{
    cr_assert_eq(moe_arena_init(&arena, 1 << 20, NULL), MOE_OK);
    cr_assert_eq(moe_event_queue_init(&queue, &arena, 1000, NULL), MOE_OK);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(event_queue, .init = setup, .fini = teardown);

Test(event_queue, pops_equal_times_in_order_of_pushing)
{
    struct moe_event event;
    for (uint32_t i = 0; i < 100; i++) {
        cr_assert_eq(moe_event_queue_push(&queue, 5, MOE_EVENT_COMPUTE_DONE, i, 0, NULL), MOE_OK);
    }
    for (uint32_t i = 0; i < 100; i++) {
        cr_assert(moe_event_queue_pop(&queue, &event));
        cr_assert_eq(event.subject, i);
    }
    cr_assert_not(moe_event_queue_pop(&queue, &event));
}

Test(event_queue, within_one_instant_what_ends_comes_before_what_begins)
{
    struct moe_event event;
    cr_assert_eq(moe_event_queue_push(&queue, 7, MOE_EVENT_REQUEST_ARRIVES, 1, 0, NULL), MOE_OK);
    cr_assert_eq(moe_event_queue_push(&queue, 7, MOE_EVENT_TRANSFER_DONE, 2, 0, NULL), MOE_OK);
    cr_assert(moe_event_queue_pop(&queue, &event));
    cr_assert_eq(event.subject, 2);
}

Test(event_queue, pops_any_mix_in_order_of_time)
{
    uint64_t x = 88172645463325252u;
    moe_time_ns last_ns = 0;
    struct moe_event event;
    for (int i = 0; i < 1000; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        cr_assert_eq(moe_event_queue_push(&queue, (moe_time_ns) (x % 97), MOE_EVENT_COMPUTE_DONE, 0,
                                          0, NULL),
                     MOE_OK);
    }
    while (moe_event_queue_pop(&queue, &event)) {
        cr_assert_geq(event.time_ns, last_ns);
        last_ns = event.time_ns;
    }
}

Test(event_queue, refuses_when_full_and_says_so)
{
    struct moe_error err = { 0 };
    for (int i = 0; i < 1000; i++) {
        cr_assert_eq(moe_event_queue_push(&queue, i, MOE_EVENT_COMPUTE_DONE, 0, 0, &err), MOE_OK);
    }
    cr_assert_eq(moe_event_queue_push(&queue, 0, MOE_EVENT_COMPUTE_DONE, 0, 0, &err), MOE_LIMIT);
    cr_assert_str_eq(err.text, "more than 1000 events pending");
    cr_assert_eq(queue.count, 1000);
}
