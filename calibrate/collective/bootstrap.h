/*
 * Bootstrap: how the processes of one measurement find each other, before there is any link that
 * NCCL could use. One process is enough for all GPUs of a node; of several nodes there is a process
 * on each, or one for each GPU, started by MPI.
 *
 * bootstrap_mpi.c is built with -Dmpi=enabled, otherwise bootstrap_alone.c, which knows one process
 * only. All functions are collective: every process calls them in the same order.
 */
#ifndef MOE_CALIBRATE_BOOTSTRAP_H
#define MOE_CALIBRATE_BOOTSTRAP_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

struct moe_bootstrap {
    uint32_t process; /* of process_count */
    uint32_t process_count;
    uint32_t host; /* numbered in the order of their first processes */
    uint32_t host_count;
    uint32_t local; /* this process among the local_count of its host */
    uint32_t local_count;
    char host_name[64];
};

/* Errors: MOE_DEVICE when MPI cannot be started. */
enum moe_status moe_bootstrap_start(struct moe_bootstrap *out,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* After this no process may call any other function of this file. */
void moe_bootstrap_end(struct moe_bootstrap *boot);

/* data[bytes] of process 0 comes to all. Errors: MOE_DEVICE. */
enum moe_status moe_bootstrap_broadcast(const struct moe_bootstrap *boot, void *data, size_t bytes,
                                        struct moe_error *err) MOE_MUST_CHECK;

/* all[process_count][bytes] gets every process's mine[bytes], in every process.
 * Errors: MOE_DEVICE. */
enum moe_status moe_bootstrap_gather(const struct moe_bootstrap *boot, const void *mine,
                                     size_t bytes, void *all, struct moe_error *err) MOE_MUST_CHECK;

/* All or none go on: when this process's own status, or any other's, is no success, every process
 * gets an error; the others' says whose it was. Errors: that one; MOE_DEVICE. */
enum moe_status moe_bootstrap_agree(const struct moe_bootstrap *boot, enum moe_status own,
                                    struct moe_error *err) MOE_MUST_CHECK;

/* Which of the gpu_count GPUs of this host the process drives: all when it is alone on its host,
 * else the one of its own number. Errors: MOE_RANGE when a host has more processes than GPUs. */
enum moe_status moe_bootstrap_share(const struct moe_bootstrap *boot, uint32_t gpu_count,
                                    uint32_t *first, uint32_t *count,
                                    struct moe_error *err) MOE_MUST_CHECK;

#endif
