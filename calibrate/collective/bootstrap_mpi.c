/* Processes that mpirun has started; also works when it has not, as one process. */
#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/collective/bootstrap.h"

static enum moe_status check(int code, const char *call, struct moe_error *err)
{
    char text[MPI_MAX_ERROR_STRING] = "unknown error";
    int length = 0;
    if (code == MPI_SUCCESS) {
        return MOE_OK;
    }
    (void) MPI_Error_string(code, text, &length);
    return moe_fail(err, MOE_DEVICE, "%s: %.300s", call, text);
}

/* Hosts are told apart by name, since nothing else of MPI says which processes share GPUs. */
static enum moe_status find_hosts(struct moe_bootstrap *boot, struct moe_error *err)
{
    const size_t size = sizeof boot->host_name;
    char *names = calloc(boot->process_count, size);
    if (names == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for the names of %u hosts",
                        (unsigned) boot->process_count);
    }
    const enum moe_status status = moe_bootstrap_gather(boot, boot->host_name, size, names, err);
    for (uint32_t i = 0; status == MOE_OK && i < boot->process_count; i++) {
        uint32_t first = 0; /* process of the same host */
        while (strcmp(names + first * size, names + i * size) != 0) {
            first++;
        }
        const int mine = strcmp(names + i * size, boot->host_name) == 0;
        if (mine && first == i) {
            boot->host = boot->host_count;
        }
        boot->host_count += first == i;
        boot->local += mine && i < boot->process;
        boot->local_count += mine != 0;
    }
    free(names);
    return status;
}

enum moe_status moe_bootstrap_start(struct moe_bootstrap *out, struct moe_error *err)
{
    struct moe_bootstrap boot = { 0 };
    char name[MPI_MAX_PROCESSOR_NAME] = "";
    int length = 0;
    int process = 0;
    int count = 0;
    MOE_TRY(check(MPI_Init(NULL, NULL), "MPI_Init", err));
    enum moe_status status =
        check(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI", err);
    if (status == MOE_OK) {
        status = check(MPI_Comm_rank(MPI_COMM_WORLD, &process), "MPI_Comm_rank", err);
    }
    if (status == MOE_OK) {
        status = check(MPI_Comm_size(MPI_COMM_WORLD, &count), "MPI_Comm_size", err);
    }
    if (status == MOE_OK) {
        status = check(MPI_Get_processor_name(name, &length), "MPI_Get_processor_name", err);
    }
    boot.process = (uint32_t) process;
    boot.process_count = (uint32_t) count;
    (void) snprintf(boot.host_name, sizeof boot.host_name, "%.60s", name);
    if (status == MOE_OK) {
        status = find_hosts(&boot, err);
    }
    if (status != MOE_OK) {
        (void) MPI_Finalize();
        return status;
    }
    *out = boot;
    return MOE_OK;
}

void moe_bootstrap_end(struct moe_bootstrap *boot)
{
    (void) boot;
    (void) MPI_Finalize();
}

enum moe_status moe_bootstrap_broadcast(const struct moe_bootstrap *boot, void *data, size_t bytes,
                                        struct moe_error *err)
{
    (void) boot;
    if (bytes > INT_MAX) {
        return moe_fail(err, MOE_LIMIT, "%zu bytes are too many for one message", bytes);
    }
    return check(MPI_Bcast(data, (int) bytes, MPI_BYTE, 0, MPI_COMM_WORLD), "MPI_Bcast", err);
}

enum moe_status moe_bootstrap_gather(const struct moe_bootstrap *boot, const void *mine,
                                     size_t bytes, void *all, struct moe_error *err)
{
    (void) boot;
    if (bytes > INT_MAX) {
        return moe_fail(err, MOE_LIMIT, "%zu bytes are too many for one message", bytes);
    }
    return check(
        MPI_Allgather(mine, (int) bytes, MPI_BYTE, all, (int) bytes, MPI_BYTE, MPI_COMM_WORLD),
        "MPI_Allgather", err);
}
