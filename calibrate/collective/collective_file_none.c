/* In the place of collective_file.c where the build found no SQLite. */
#include "calibrate/collective/collective_file.h"

enum moe_status moe_collective_file_open(const char *path, int argc, char **argv, uint64_t seed,
                                         uint32_t gpu_count, const struct moe_nvml *nvml,
                                         struct moe_collective_file *out, struct moe_error *err)
{
    (void) argc;
    (void) argv;
    (void) seed;
    (void) gpu_count;
    (void) nvml;
    (void) out;
    return moe_fail(err, MOE_UNSUPPORTED,
                    "%s: this moecal was built without SQLite, which -o needs", path);
}

enum moe_status moe_collective_file_close(struct moe_collective_file *file, int ended,
                                          double wall_s, struct moe_error *err)
{
    (void) file;
    (void) ended;
    (void) wall_s;
    (void) err;
    return MOE_OK;
}
