#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sim/base/output_file.h"

static char folder[64];

static void open_folder(void)
{
    (void) snprintf(folder, sizeof folder, "/tmp/moesim_output_XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
    cr_assert_eq(chdir(folder), 0);
}

static void close_folder(void)
{
    (void) remove("a");
    cr_assert_eq(rmdir(folder), 0, "%s holds more than a", folder);
}

TestSuite(output_file, .init = open_folder, .fini = close_folder);

static void expect_content(const char *expected)
{
    char text[64] = "";
    FILE *file = fopen("a", "rb");
    cr_assert_not_null(file);
    (void) fread(text, 1, sizeof text - 1, file);
    (void) fclose(file);
    cr_assert_str_eq(text, expected);
}

static enum moe_status write_a(const char *text, bool overwrite)
{
    struct moe_output_file file;
    MOE_TRY(moe_output_file_open(&file, "a", overwrite, NULL));
    (void) fputs(text, file.stream);
    return moe_output_file_commit(&file, NULL);
}

Test(output_file, appears_whole_or_not_at_all)
{
    struct moe_output_file file;
    const mode_t mask = umask(027);
    cr_assert_eq(moe_output_file_open(&file, "a", false, NULL), MOE_OK);
    (void) fputs("half", file.stream);
    (void) fflush(file.stream);
    cr_assert_neq(access("a", F_OK), 0, "visible before commit");
    moe_output_file_discard(&file);
    moe_output_file_discard(&file);
    cr_assert_neq(access("a", F_OK), 0);
    cr_assert_eq(write_a("one", false), MOE_OK);
    expect_content("one");
    struct stat found;
    cr_assert_eq(stat("a", &found), 0);
    cr_assert_eq(found.st_mode & 0777, 0640, "the user's umask decides");
    (void) umask(mask);
}

Test(output_file, replaces_only_when_told)
{
    cr_assert_eq(write_a("one", false), MOE_OK);
    cr_assert_eq(write_a("two", false), MOE_RANGE);
    expect_content("one");
    cr_assert_eq(write_a("two", true), MOE_OK);
    expect_content("two");
}

Test(output_file, who_comes_first_keeps_the_name)
{
    struct moe_output_file file;
    struct moe_error err = { 0 };
    cr_assert_eq(moe_output_file_open(&file, "a", false, NULL), MOE_OK);
    (void) fputs("late", file.stream);
    FILE *other = fopen("a", "wb");
    cr_assert_not_null(other);
    (void) fputs("early", other);
    (void) fclose(other);
    cr_assert_eq(moe_output_file_commit(&file, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "a: exists already"), "%s", err.text);
    expect_content("early");
}

Test(output_file, refuses_what_it_cannot_make)
{
    struct moe_output_file file;
    char path[5000];
    memset(path, 'x', sizeof path);
    path[sizeof path - 1] = '\0';
    cr_assert_eq(moe_output_file_open(&file, path, false, NULL), MOE_RANGE);
    cr_assert_eq(moe_output_file_open(&file, "none/a", false, NULL), MOE_IO);
    cr_assert_eq(moe_output_file_open(&file, "/dev/null", true, NULL), MOE_RANGE);
    cr_assert_eq(moe_output_file_open(&file, ".", true, NULL), MOE_RANGE);
    cr_assert_eq(symlink("b", "a"), 0);
    cr_assert_eq(moe_output_file_open(&file, "a", true, NULL), MOE_RANGE);
}
