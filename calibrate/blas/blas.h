/*
 * BLAS: handles of cuBLAS and cuBLASLt, and streams with a workspace each to spread calls over.
 */
#ifndef MOE_CALIBRATE_BLAS_H
#define MOE_CALIBRATE_BLAS_H

#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

enum {
    MOE_BLAS_LANE_LIMIT = 16,
    /* What the library's documentation advises for Hopper. */
    MOE_BLAS_WORKSPACE_BYTES = 32 << 20,
};

struct moe_lt_cache; /* opaque: plans already tried out; see lt_plan.h */

/* CUDA types are pointers to structs there; they are void * here so that a header needs no CUDA. */
struct moe_blas {
    void *handle;                     /* cublasHandle_t */
    void *lt;                         /* cublasLtHandle_t */
    void *lanes[MOE_BLAS_LANE_LIMIT]; /* cudaStream_t; lane 0 is unused: the caller's stream */
    void *done[MOE_BLAS_LANE_LIMIT];  /* cudaEvent_t */
    void *fork;                       /* cudaEvent_t */
    void *workspaces[MOE_BLAS_LANE_LIMIT];
    struct moe_lt_cache *cache;
};

/* On the current device. Errors: MOE_DEVICE, MOE_LIMIT. */
enum moe_status moe_blas_create(struct moe_blas **out, struct moe_error *err) MOE_MUST_CHECK;
void moe_blas_destroy(struct moe_blas *blas); /* NULL is allowed */

/* Makes lanes 1 .. lane_count-1 wait for stream. */
enum moe_status moe_blas_fork(struct moe_blas *blas, void *stream, uint32_t lane_count,
                              struct moe_error *err) MOE_MUST_CHECK;
/* Makes stream wait for lanes 1 .. lane_count-1. */
enum moe_status moe_blas_join(struct moe_blas *blas, void *stream, uint32_t lane_count,
                              struct moe_error *err) MOE_MUST_CHECK;

/* Turns the cublasStatus_t that call returned into ours: not supported is MOE_UNSUPPORTED, and so
 * is an invalid value, by which cuBLASLt says the same of some scale modes; no memory is
 * MOE_LIMIT, every other one MOE_DEVICE. */
enum moe_status moe_blas_check(int blas_status, const char *call,
                               struct moe_error *err) MOE_MUST_CHECK;

/* "13.1.0". */
void moe_blas_version(const struct moe_blas *blas, char *out, size_t size);

#endif
