/* A build without SQLite or cuBLAS. */
#include "calibrate/verb.h"

static const char reason[] =
    "this moecal was built without SQLite (sqlite3.h and libsqlite3, 3.35 or newer) or without "
    "cuBLAS, and so can store no samples; install Debian's libsqlite3-dev and build anew";

enum moe_status moe_verb_measure(int argc, char **argv, struct moe_error *err)
{
    (void) argc;
    (void) argv;
    return moe_fail(err, MOE_UNSUPPORTED, "measure: %s", reason);
}

enum moe_status moe_verb_card(int argc, char **argv, struct moe_error *err)
{
    (void) argc;
    (void) argv;
    return moe_fail(err, MOE_UNSUPPORTED, "card: %s", reason);
}
