/* The shrinker finds the smallest instance that fails, and does not blame what holds. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "tests/property.h"

/* "No list of numbers below 1000 sums to 700 or more": the smallest failing one is 700 alone. */
static bool sums_below_700(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    const uint32_t count = 1 + draw_below(draws, 20);
    uint32_t sum = 0;
    (void) context;
    for (uint32_t i = 0; i < count; i++) {
        sum += draw_below(draws, 1000);
    }
    (void) snprintf(why, PROPERTY_TEXT_LIMIT, "%u numbers sum to %u", count, sum);
    return sum < 700;
}

static bool is_below_its_bound(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    (void) why;
    ++*(uint32_t *) context;
    return draw_below(draws, 7) < 7 && draw_below(draws, 1) == 0;
}

Test(property, shrinks_to_the_smallest)
{
    const char *text = property_fails(sums_below_700, NULL, 1, 1000);
    cr_assert_not_null(text);
    cr_assert_not_null(strstr(text, "1 numbers sum to 700"), "%s", text);
    cr_assert_not_null(strstr(text, "shrunk to 2 numbers: 0 700"), "%s", text);
}

Test(property, tries_every_case_of_what_holds)
{
    uint32_t tried = 0;
    cr_assert_null(property_fails(is_below_its_bound, &tried, 1, 1234));
    cr_assert_eq(tried, 1234);
}
