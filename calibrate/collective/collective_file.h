/*
 * The file of one `moecal collectives` run: a sample store with its run begun. collective_file.c
 * where the build found SQLite, else collective_file_none.c, which refuses.
 */
#ifndef MOE_CALIBRATE_COLLECTIVE_FILE_H
#define MOE_CALIBRATE_COLLECTIVE_FILE_H

#include <stdint.h>

#include "calibrate/device/device.h"
#include "calibrate/device/nvml.h"
#include "sim/base/error.h"

struct moe_sample_store;

struct moe_collective_file {
    struct moe_sample_store *store; /* NULL: none */
    int64_t run;
};

/* argv[argc]: the command's arguments, for the record. Errors: MOE_UNSUPPORTED without SQLite; what
 * the store says. */
enum moe_status moe_collective_file_open(const char *path, int argc, char **argv, uint64_t seed,
                                         uint32_t gpu_count, const struct moe_nvml *nvml,
                                         struct moe_collective_file *out,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* ended: the run came to its end, after wall_s; otherwise what is there stays, and the run is
 * marked as not ended. Safe on a zeroed one. */
enum moe_status moe_collective_file_close(struct moe_collective_file *file, int ended,
                                          double wall_s, struct moe_error *err) MOE_MUST_CHECK;

#endif
