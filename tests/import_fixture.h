/*
 * Fixture of the import tests: files of tests/formats, imported into a temporary store, and
 * the ids that they all hold: the array "indices" [40][8][6] of generic_stored.npz, read here
 * without the project's readers (a stored member lies in the file as it is).
 */
#ifndef MOE_TESTS_IMPORT_FIXTURE_H
#define MOE_TESTS_IMPORT_FIXTURE_H

#include <stdarg.h>

#include "tests/trace_fixture.h"
#include "traces/import.h"

enum { TRUE_TOKENS = 40, TRUE_LAYERS = 8, TRUE_TOP_K = 6, TRUE_EXPERTS = 64 };

static int32_t true_ids[TRUE_TOKENS][TRUE_LAYERS][TRUE_TOP_K];

static inline void read_true_ids(void)
{
    static unsigned char bytes[1 << 16];
    FILE *file = fopen(MOE_SOURCE_ROOT "/tests/formats/generic_stored.npz", "rb");
    cr_assert_not_null(file);
    const size_t size = fread(bytes, 1, sizeof bytes, file);
    (void) fclose(file);
    size_t at = 0;
    while (at + 6 < size && memcmp(bytes + at, "\x93NUMPY", 6) != 0) {
        at++;
    }
    const size_t header = bytes[at + 8] + 256U * bytes[at + 9];
    cr_assert(at + 10 + header + sizeof true_ids <= size);
    memcpy(true_ids, bytes + at + 10 + header, sizeof true_ids);
}

static inline void import_setup(void)
{
    fixture_setup();
    read_true_ids();
}

/* Imports tests/formats/NAME ... (names parted by spaces) into t.db. */
static inline enum moe_status import_files(const char *format, const char *names,
                                           const struct moe_import_options *options,
                                           struct moe_import_result *result, struct moe_error *err)
{
    static char paths[8][512];
    const char *inputs[8];
    size_t count = 0;
    for (const char *at = names; *at != '\0'; at += strspn(at, " ")) {
        const size_t length = strcspn(at, " ");
        if (*at == '/') {
            (void) snprintf(paths[count], sizeof paths[0], "%.*s", (int) length, at);
        } else {
            (void) snprintf(paths[count], sizeof paths[0], "%s/tests/formats/%.*s", MOE_SOURCE_ROOT,
                            (int) length, at);
        }
        inputs[count] = paths[count];
        count++;
        at += length;
    }
    const struct moe_import_request request = {
        .format = format,
        .inputs = inputs,
        .input_count = count,
        .output = fixture_path("t.db"),
        .options = *options,
        .overwrite = true,
    };
    return moe_import_run(&request, result, err);
}

/* Writes text into a file of the fixture's folder; its path. */
static inline const char *import_write(const char *name, const void *bytes, size_t size)
{
    const char *path = fixture_path(name);
    FILE *file = fopen(path, "wb");
    cr_assert_not_null(file);
    cr_assert_eq(fwrite(bytes, 1, size, file), size);
    cr_assert_eq(fclose(file), 0);
    return path;
}

#endif
