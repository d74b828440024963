/* Compositions and parameters as text, both ways. What needs a policy with parameters stands in
 * script_plugin.sh, which has the template for one. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "policies/composition.h"
#include "policies/parameter.h"
#include "sim/base/random.h"

static void expect_label(const char *text, const char *label)
{
    struct moe_composition c;
    struct moe_composition again;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_composition_parse(&c, text, &err), MOE_OK, "%s: %s", text, err.text);
    cr_assert_str_eq(c.label, label);
    cr_assert_eq(moe_composition_parse(&again, c.label, &err), MOE_OK, "%s", err.text);
    cr_assert_str_eq(again.label, label);
    for (int kind = 0; kind < MOE_POLICY_KIND_COUNT; kind++) {
        cr_assert_eq(again.part[kind].policy, c.part[kind].policy);
    }
}

static void expect_refused(const char *text, const char *reason)
{
    struct moe_composition c = { .label = "untouched" };
    struct moe_error err = { 0 };
    cr_assert_eq(moe_composition_parse(&c, text, &err), MOE_RANGE, "%s", text);
    cr_assert_not_null(strstr(err.text, reason), "%s: %s", text, err.text);
    cr_assert_str_eq(c.label, "untouched");
}

Test(composition, labels_are_canonical)
{
    expect_label("eplb", "eplb");
    expect_label("place=eplb", "eplb");
    expect_label("eplb+dispatch=even", "eplb");
    expect_label("group=round_robin+dispatch=even+place=lpt", "lpt");
}

Test(composition, what_nobody_says_is_as_the_engine_does_it)
{
    struct moe_composition c;
    struct moe_composition alone;
    cr_assert_eq(moe_composition_parse(&c, "hindsight", NULL), MOE_OK);
    cr_assert(c.part[MOE_POLICY_DISPATCH].policy->dispatch->in_turn);
    cr_assert(c.part[MOE_POLICY_GROUP].policy->group->in_turn);
    cr_assert_null(c.part[MOE_POLICY_PREDICT].policy);
    cr_assert_eq(moe_composition_needs(&c), MOE_POLICY_NEEDS_FUTURE);
    moe_composition_of(&alone, c.part[MOE_POLICY_PLACE].policy);
    cr_assert_str_eq(alone.label, "hindsight");
    cr_assert_eq(alone.part[MOE_POLICY_GROUP].policy, c.part[MOE_POLICY_GROUP].policy);
}

Test(composition, faults_name_the_term_and_what_is_allowed)
{
    char lengthy[MOE_COMPOSITION_BYTES + 8];
    memset(lengthy, 'x', sizeof lengthy);
    lengthy[MOE_COMPOSITION_BYTES] = '\0';
    expect_refused("eplb2", "no policy 'eplb2'; there are: contiguous");
    expect_refused("eplb+dispatch=eplb", "no dispatch policy 'eplb'; there are: even");
    expect_refused("eplb+dispatch=eplb", "'eplb+dispatch=eplb': ");
    expect_refused("eplb+even", "'even' does not say what it decides");
    expect_refused("eplb+route=even", "no kind of decision 'route'; there are: place dispatch");
    expect_refused("eplb+place=lpt", "place is said twice");
    expect_refused("eplb+dispatch=even+dispatch=even", "dispatch is said twice");
    expect_refused("dispatch=even", "it names no place policy");
    expect_refused("eplb:R=8", "eplb has no parameter 'R'; it has: none");
    expect_refused("eplb:R", "eplb: 'R' is no parameter; write :name=value");
    expect_refused("eplb:", "'' is no parameter");
    expect_refused("", "no policy ''");
    expect_refused("+eplb", "no policy ''");
    expect_refused("eplb+", "'' does not say what it decides");
    expect_refused("mine.so", "the path of a plug-in has a '/': ./mine.so");
    expect_refused(lengthy, "has 256 letters; at most 255 are read");
}

Test(composition, plug_in_paths_get_their_folder_and_nothing_else_does)
{
    char out[MOE_COMPOSITION_BYTES];
    char deep[MOE_COMPOSITION_BYTES];
    memset(deep, 'd', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    cr_assert_eq(
        moe_composition_resolve("./a.so:x=1+dispatch=b/c.so+group=even", "dir/", out, NULL),
        MOE_OK);
    cr_assert_str_eq(out, "dir/./a.so:x=1+dispatch=dir/b/c.so+group=even");
    cr_assert_eq(moe_composition_resolve("eplb:x=1+dispatch=/b/c.so", "dir/", out, NULL), MOE_OK);
    cr_assert_str_eq(out, "eplb:x=1+dispatch=/b/c.so");
    cr_assert_eq(moe_composition_resolve("./a.so", deep, out, NULL), MOE_RANGE);
}

static const char *const colours[] = { "red", "green", NULL };
static const struct moe_policy_parameter real = {
    "alpha", MOE_PARAMETER_REAL, 0.7, 0, 1, NULL, "help", "own"
};
static const struct moe_policy_parameter whole = {
    "R", MOE_PARAMETER_WHOLE, 8, -2, 64, NULL, "help", "own"
};
static const struct moe_policy_parameter choice = {
    "colour", MOE_PARAMETER_CHOICE, 0, 0, 0, colours, "help", "own"
};
static const struct moe_policy_parameter flag = { "deep", MOE_PARAMETER_FLAG, 0, 0, 0, NULL, "help",
                                                  "own" };

Test(composition, parameters_read_what_they_allow)
{
    const struct {
        const struct moe_policy_parameter *parameter;
        const char *text;
        double value; /* NAN: refused */
    } cases[] = {
        { &real, "0", 0.0 },       { &real, "1", 1.0 },      { &real, "1e-3", 1e-3 },
        { &real, "1.0001", NAN },  { &real, "-1e-9", NAN },  { &real, "nan", NAN },
        { &real, "", NAN },        { &real, "0.5x", NAN },   { &whole, "64", 64.0 },
        { &whole, "-2", -2.0 },    { &whole, "65", NAN },    { &whole, "1.5", NAN },
        { &choice, "green", 1.0 }, { &choice, "blue", NAN }, { &choice, "1", NAN },
        { &flag, "true", 1.0 },    { &flag, "false", 0.0 },  { &flag, "yes", NAN },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct moe_error err = { 0 };
        double value = 77.0;
        const enum moe_status status =
            moe_parameter_parse(cases[i].parameter, cases[i].text, &value, &err);
        if (isnan(cases[i].value)) {
            cr_expect_eq(status, MOE_RANGE, "'%s'", cases[i].text);
            cr_expect_eq(value, 77.0);
            cr_expect_not_null(strstr(err.text, cases[i].parameter->name), "%s", err.text);
        } else {
            cr_expect_eq(status, MOE_OK, "'%s': %s", cases[i].text, err.text);
            cr_expect_eq(value, cases[i].value, "'%s' is %g", cases[i].text, value);
        }
    }
}

Test(composition, refused_values_name_what_is_allowed)
{
    struct moe_error err = { 0 };
    double value = 0.0;
    cr_assert_eq(moe_parameter_parse(&choice, "blue", &value, &err), MOE_RANGE);
    cr_assert_str_eq(err.text, "parameter colour: 'blue'; allowed: red green");
    cr_assert_eq(moe_parameter_parse(&whole, "65", &value, &err), MOE_RANGE);
    cr_assert_str_eq(err.text, "parameter R: '65'; allowed: whole, -2 to 64");
}

Test(composition, printed_values_read_back_exactly)
{
    const uint64_t key = moe_random_key(3, MOE_RANDOM_TEST);
    const struct moe_policy_parameter wide = {
        "n", MOE_PARAMETER_REAL, 0, -2000, 2000, NULL, "help", "own"
    };
    char whole_text[64];
    moe_parameter_print(&wide, 1000.0, whole_text, sizeof whole_text);
    cr_assert_str_eq(whole_text, "1000");
    for (uint64_t i = 0; i < 20000; i++) {
        char text[64];
        double back = -1.0;
        const double u = moe_random_uniform(key, i);
        const double value = i % 3 == 0 ? floor(u * 1000.0) / 1000.0 : u;
        moe_parameter_print(&real, value, text, sizeof text);
        cr_assert_eq(moe_parameter_parse(&real, text, &back, NULL), MOE_OK, "%s", text);
        cr_assert_eq(back, value, "%s", text);
        cr_assert(i % 3 != 0 || strlen(text) <= 5, "%s is longer than it need be", text);
    }
}
