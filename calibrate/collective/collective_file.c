#include "calibrate/collective/collective_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calibrate/collective/exchange.h"
#include "calibrate/samples/sample_store.h"

/* NCCL's variables that were set, as a JSON object; those with odd characters are left out. */
static void write_settings(char *out, size_t size)
{
    static const char *const names[] = { "NCCL_NVLS_ENABLE",   "NCCL_ALGO",
                                         "NCCL_PROTO",         "NCCL_P2P_DISABLE",
                                         "NCCL_P2P_LEVEL",     "NCCL_SHM_DISABLE",
                                         "NCCL_MIN_NCHANNELS", "NCCL_MAX_NCHANNELS",
                                         "NCCL_NTHREADS",      "CUDA_VISIBLE_DEVICES" };
    size_t used = (size_t) snprintf(out, size, "{");
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = i == 0 ? "0" : getenv(names[i]); /* the first we set ourselves */
        if (value == NULL || strpbrk(value, "\"\\\n\r\t") != NULL ||
            used + strlen(names[i]) + strlen(value) + 10 > size) {
            continue;
        }
        used += (size_t) snprintf(out + used, size - used, "%s\"%s\": \"%s\"", used > 1 ? ", " : "",
                                  names[i], value);
    }
    (void) snprintf(out + used, size - used, "}");
}

static void write_command(char *out, size_t size, int argc, char **argv)
{
    size_t used = (size_t) snprintf(out, size, "moecal collectives");
    for (int i = 0; i < argc && used < size; i++) {
        used += (size_t) snprintf(out + used, size - used, " %s", argv[i]);
    }
}

enum moe_status moe_collective_file_open(const char *path, int argc, char **argv, uint64_t seed,
                                         uint32_t gpu_count, const struct moe_nvml *nvml,
                                         struct moe_collective_file *out, struct moe_error *err)
{
    char settings[1024];
    char command[1024];
    char started[32];
    char nccl[32];
    char cuda[32];
    struct moe_cuda_version driver;
    struct moe_cuda_version runtime;
    struct moe_collective_file file = { 0 };
    struct tm utc;
    const time_t now = time(NULL);
    MOE_TRY(moe_cuda_versions(&driver, &runtime, err));
    (void) snprintf(cuda, sizeof cuda, "%u.%u", (unsigned) runtime.major, (unsigned) runtime.minor);
    moe_exchange_version(nccl, sizeof nccl);
    write_settings(settings, sizeof settings);
    write_command(command, sizeof command, argc, argv);
    if (gmtime_r(&now, &utc) == NULL ||
        strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0) {
        return moe_fail(err, MOE_IO, "the clock of this machine gives no date");
    }
    const struct moe_sample_run run = {
        .started_at = started,
        .command = command,
        .moecal = MOE_VERSION,
        .driver = nvml == NULL ? "" : moe_nvml_driver(nvml),
        .cuda = cuda,
        .cublas = "",
        .nccl = nccl,
        .seed = seed,
        .gpu_count = gpu_count,
        .settings = settings,
    };
    MOE_TRY(moe_sample_store_open(path, &file.store, err));
    const enum moe_status status = moe_sample_begin_run(file.store, &run, &file.run, err);
    if (status != MOE_OK) {
        moe_sample_store_close(file.store);
        return status;
    }
    *out = file;
    return MOE_OK;
}

enum moe_status moe_collective_file_close(struct moe_collective_file *file, int ended,
                                          double wall_s, struct moe_error *err)
{
    enum moe_status status = MOE_OK;
    if (file->store == NULL) {
        return MOE_OK;
    }
    if (ended) {
        status = moe_sample_end_run(file->store, file->run, wall_s, err);
    }
    if (status == MOE_OK) {
        status = moe_sample_store_commit(file->store, err);
    }
    moe_sample_store_close(file->store);
    *file = (struct moe_collective_file){ 0 };
    return status;
}
