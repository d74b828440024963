#include <criterion/criterion.h>
#include <string.h>

#include "traces/load_matrix.h"

static enum moe_status parse(struct moe_load_matrix *matrix, const char *text,
                             struct moe_error *err)
{
    return moe_load_matrix_parse_sglang(matrix, "loads.json", text, strlen(text), err);
}

Test(load_matrix, reads_layers_of_experts)
{
    struct moe_load_matrix matrix = { 0 };
    struct moe_error err = { 0 };
    cr_assert_eq(parse(&matrix, "{\"rank\": 0, \"logical_count\": [[1, 2.5, 0], [0, 0, 0]]}", &err),
                 MOE_OK, "%s", err.text);
    const double wanted[] = { 1, 2.5, 0, 0, 0, 0 };
    cr_assert_eq(matrix.layer_count, 2);
    cr_assert_eq(matrix.expert_count, 3);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        cr_assert_eq(matrix.load[i], wanted[i]);
    }
    moe_load_matrix_finish(&matrix);
    moe_load_matrix_finish(&matrix);
}

Test(load_matrix, sums_the_steps)
{
    struct moe_load_matrix matrix = { 0 };
    struct moe_error err = { 0 };
    cr_assert_eq(parse(&matrix, "{\"logical_count\": [[[1, 2]], [[10, 20]], [[0.5, 0]]]}", &err),
                 MOE_OK, "%s", err.text);
    cr_assert_eq(matrix.layer_count, 1);
    cr_assert_eq(matrix.load[0], 11.5);
    cr_assert_eq(matrix.load[1], 22.0);
    moe_load_matrix_finish(&matrix);
}

Test(load_matrix, refuses_with_the_place)
{
    static const struct {
        const char *text;
        enum moe_status status;
        const char *wanted;
    } cases[] = {
        { "{\"logical_count\": [[1, 2], [3, \"x\"]]}", MOE_PARSE,
          "loads.json: logical_count[1][1] is a string, expected a number" },
        { "{\"logical_count\": [[1, 2], [3]]}", MOE_PARSE,
          "loads.json: logical_count[1] has 1 experts, expected 2" },
        { "{\"logical_count\": [[1, 2], [3, -0.5]]}", MOE_RANGE,
          "loads.json: logical_count[1][1] is -0.5, a load is at least 0" },
        { "{\"logical_count\": [[[1], [2]], [[1]]]}", MOE_PARSE,
          "loads.json: logical_count[1] has 1 layers, expected 2" },
        { "{\"logical_count\": [[[1], [2]], [[1], [true]]]}", MOE_PARSE,
          "loads.json: logical_count[1][1][0] is true, expected a number" },
        { "{\"logical_count\": [[1e308], [1e308]]}", MOE_OK, "" },
        { "{\"logical_count\": [[[1e308]], [[1e308]]]}", MOE_RANGE,
          "loads.json: logical_count[1][0][0] makes the sum larger than a double holds" },
        { "{\"logical_count\": [[]]}", MOE_PARSE,
          "loads.json: logical_count[0] has 0 experts, expected at least 1" },
        { "{\"logical_count\": []}", MOE_PARSE,
          "loads.json: logical_count has 0 layers, expected at least 1" },
        { "{\"logical_count\": 3}", MOE_PARSE,
          "loads.json: logical_count is a number, expected a list of layers" },
        { "{}", MOE_PARSE,
          "loads.json: no key \"logical_count\"; expected an object with \"logical_count\"" },
        { "[[1]]", MOE_PARSE,
          "loads.json: not an object; expected an object with "
          "\"logical_count\"" },
        { "{\"logical_count\": [[1, NaN]]}", MOE_PARSE, "loads.json:1:" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct moe_load_matrix matrix = { 0 };
        struct moe_error err = { 0 };
        cr_expect_eq(parse(&matrix, cases[i].text, &err), cases[i].status, "%s", cases[i].text);
        cr_expect_eq(strncmp(err.text, cases[i].wanted, strlen(cases[i].wanted)), 0, "%s gave '%s'",
                     cases[i].text, err.text);
        cr_expect_eq(matrix.load != NULL, cases[i].status == MOE_OK);
        moe_load_matrix_finish(&matrix);
    }
}

Test(load_matrix, says_which_file_is_missing)
{
    struct moe_load_matrix matrix = { 0 };
    struct moe_error err = { 0 };
    cr_assert_eq(moe_load_matrix_read_sglang(&matrix, "/nowhere/loads.json", &err), MOE_IO);
    cr_assert_str_eq(err.text, "/nowhere/loads.json: No such file or directory");
}
