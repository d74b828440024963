#include "kernels/expert/expert_ffn.h"

#include <cuda_runtime_api.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/expert/expert_ffn_parts.h"

enum { FASTEST = 3, PORTABLE = 2 };

struct moe_expert_ffn {
    int version;
    struct moe_expert_gemm first;
    struct moe_expert_gemm second;
    struct moe_expert_v3 *v3; /* version 3 only */
    char text[64];
};

int32_t moe_expert_ffn_w1_matrix_count(enum moe_expert_activation activation)
{
    return activation == MOE_EXPERT_SWIGLU ? 2 : 1;
}

static bool is_valid(const struct moe_expert_ffn_shape *shape)
{
    return shape->hidden >= 64 && shape->hidden % 16 == 0 && shape->inter >= 64 &&
           shape->inter % 16 == 0 && shape->expert_count >= 1 &&
           shape->expert_count <= MOE_EXPERT_COUNT_LIMIT &&
           (unsigned) shape->dtype < MOE_EXPERT_DTYPE_COUNT &&
           (unsigned) shape->activation < MOE_EXPERT_ACTIVATION_COUNT;
}

/* Compute capability as 90 for 9.0; 0 when there is no device. */
static int capability(void)
{
    int device = 0;
    int major = 0;
    int minor = 0;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess) {
        return 0;
    }
    return 10 * major + minor;
}

/* Of the current device; 1 when there is none. */
static int multiprocessors(void)
{
    int device = 0;
    int count = 0;
    return cudaGetDevice(&device) == cudaSuccess &&
                   cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) ==
                       cudaSuccess
               ? count
               : 1;
}

const char *moe_expert_ffn_refusal(const struct moe_expert_ffn_shape *shape, int version)
{
    if (version < 0 || version > MOE_EXPERT_FFN_VERSION_COUNT) {
        return "there is no such version";
    }
    if (!is_valid(shape)) {
        return "hidden and inter must be multiples of 16 from 64, experts 1 to 1024";
    }
    if (capability() < 80) {
        return "the kernels need compute capability 8.0";
    }
    if (version == FASTEST && capability() != 90) {
        return "version 3 needs compute capability 9.0";
    }
    return NULL;
}

static bool batch_is_valid(const struct moe_expert_ffn_shape *shape,
                           const struct moe_expert_ffn_weights *weights,
                           const struct moe_expert_ffn_batch *batch)
{
    const bool fp8 = shape->dtype == MOE_EXPERT_FP8;
    if (weights->w1_dev == NULL || weights->w2_dev == NULL || batch->x_dev == NULL ||
        batch->mid_dev == NULL || batch->out_dev == NULL || batch->row_offset == NULL ||
        batch->row_offset_dev == NULL || batch->row_count < 1) {
        return false;
    }
    if (fp8 && (weights->w1_scale_dev == NULL || weights->w2_scale_dev == NULL ||
                batch->x_scale_dev == NULL || batch->mid_scale_dev == NULL ||
                batch->scale_stride < batch->row_count || batch->scale_stride % 4 != 0)) {
        return false;
    }
    for (int32_t e = 0; e < shape->expert_count; e++) {
        if (batch->row_offset[e] > batch->row_offset[e + 1]) {
            return false;
        }
    }
    return batch->row_offset[0] == 0 && batch->row_offset[shape->expert_count] == batch->row_count;
}

static enum moe_expert_epilogue epilogue_of(enum moe_expert_activation activation)
{
    switch (activation) {
    case MOE_EXPERT_SWIGLU:
        return MOE_EPILOGUE_SWIGLU;
    case MOE_EXPERT_RELU:
        return MOE_EPILOGUE_RELU;
    case MOE_EXPERT_GELU:
        return MOE_EPILOGUE_GELU;
    case MOE_EXPERT_ACTIVATION_COUNT:
        break;
    }
    return MOE_EPILOGUE_NONE;
}

static struct moe_expert_gemm_size size_of(const struct moe_expert_gemm *gemm)
{
    const int32_t columns = MOE_V3_TILE_WEIGHT_ROWS / moe_expert_gemm_matrix_count(gemm);
    return (struct moe_expert_gemm_size){
        .weight_tiles = moe_split_ceil(gemm->columns, columns),
        .stages = moe_split_ceil(gemm->depth, MOE_V3_ROW_BYTES / 2), /* of bf16 */
    };
}

/* Only bf16 has a wide launch. */
static int is_wide(const struct moe_expert_ffn *ffn, const int32_t *row_offset)
{
    return ffn->first.dtype == MOE_EXPERT_BF16 &&
           moe_expert_split_is_wide(row_offset, ffn->first.expert_count, size_of(&ffn->first),
                                    size_of(&ffn->second), multiprocessors());
}

static void describe_gemms(struct moe_expert_ffn *ffn, const struct moe_expert_ffn_shape *shape,
                           const struct moe_expert_ffn_weights *weights,
                           const struct moe_expert_ffn_batch *batch)
{
    int32_t largest = 0;
    for (int32_t e = 0; e < shape->expert_count; e++) {
        const int32_t rows = batch->row_offset[e + 1] - batch->row_offset[e];
        largest = rows > largest ? rows : largest;
    }
    ffn->first = (struct moe_expert_gemm){ .expert_count = shape->expert_count,
                                           .columns = shape->inter,
                                           .depth = shape->hidden,
                                           .row_count = batch->row_count,
                                           .largest_row_count = largest,
                                           .scale_stride = batch->scale_stride,
                                           .dtype = shape->dtype,
                                           .epilogue = epilogue_of(shape->activation),
                                           .out_is_fp8 = shape->dtype == MOE_EXPERT_FP8,
                                           .row_offset_dev = batch->row_offset_dev,
                                           .x_dev = batch->x_dev,
                                           .x_scale_dev = batch->x_scale_dev,
                                           .w_dev = weights->w1_dev,
                                           .w_scale_dev = weights->w1_scale_dev,
                                           .out_dev = batch->mid_dev,
                                           .out_scale_dev = batch->mid_scale_dev };
    ffn->second = ffn->first;
    ffn->second.columns = shape->hidden;
    ffn->second.depth = shape->inter;
    ffn->second.epilogue = MOE_EPILOGUE_NONE;
    ffn->second.out_is_fp8 = 0;
    ffn->second.x_dev = batch->mid_dev;
    ffn->second.x_scale_dev = batch->mid_scale_dev;
    ffn->second.w_dev = weights->w2_dev;
    ffn->second.w_scale_dev = weights->w2_scale_dev;
    ffn->second.out_dev = batch->out_dev;
    ffn->second.out_scale_dev = NULL;
}

static int prepare_v3(struct moe_expert_ffn *ffn, const int32_t *row_offset)
{
    const size_t queue_bytes =
        (size_t) moe_expert_v3_queue_count(ffn->first.expert_count) * sizeof(int32_t);
    /* A tensor map must lie on a 64-byte boundary. */
    ffn->v3 = aligned_alloc(64, (sizeof *ffn->v3 + 63) / 64 * 64);
    if (ffn->v3 == NULL) {
        return (int) cudaErrorMemoryAllocation;
    }
    ffn->v3->queue_dev = NULL;
    ffn->v3->is_wide = is_wide(ffn, row_offset);
    int error = (int) cudaMalloc((void **) &ffn->v3->queue_dev, queue_bytes);
    if (error == 0) {
        error = (int) cudaMemset(ffn->v3->queue_dev, 0, queue_bytes);
    }
    if (error == 0) {
        error = moe_expert_v3_init(&ffn->v3->first, &ffn->first);
    }
    return error != 0 ? error : moe_expert_v3_init(&ffn->v3->second, &ffn->second);
}

int moe_expert_ffn_create(const struct moe_expert_ffn_shape *shape,
                          const struct moe_expert_ffn_weights *weights,
                          const struct moe_expert_ffn_batch *batch, int version,
                          struct moe_expert_ffn **out)
{
    if (moe_expert_ffn_refusal(shape, version) != NULL) {
        return is_valid(shape) ? (int) cudaErrorNotSupported : (int) cudaErrorInvalidValue;
    }
    if (!batch_is_valid(shape, weights, batch)) {
        return (int) cudaErrorInvalidValue;
    }
    struct moe_expert_ffn *ffn = calloc(1, sizeof *ffn);
    if (ffn == NULL) {
        return (int) cudaErrorMemoryAllocation;
    }
    ffn->version = version != 0 ? version : capability() == 90 ? FASTEST : PORTABLE;
    describe_gemms(ffn, shape, weights, batch);
    const int error = ffn->version == FASTEST ? prepare_v3(ffn, batch->row_offset) : 0;
    if (error != 0) {
        moe_expert_ffn_destroy(ffn);
        return error;
    }
    (void) snprintf(ffn->text, sizeof ffn->text, "v%d%s", ffn->version,
                    ffn->v3 != NULL && ffn->v3->is_wide ? " wide" : "");
    *out = ffn;
    return 0;
}

void moe_expert_ffn_destroy(struct moe_expert_ffn *ffn)
{
    if (ffn != NULL) {
        if (ffn->v3 != NULL) {
            (void) cudaFree(ffn->v3->queue_dev); /* nothing to be done about a failure here */
            free(ffn->v3);
        }
        free(ffn);
    }
}

const char *moe_expert_ffn_describe(const struct moe_expert_ffn *ffn)
{
    return ffn->text;
}

int moe_expert_ffn_run(const struct moe_expert_ffn *ffn, void *stream)
{
    int error = 0;
    switch (ffn->version) {
    case 1:
        error = moe_expert_gemm_v1(&ffn->first, stream);
        return error != 0 ? error : moe_expert_gemm_v1(&ffn->second, stream);
    case PORTABLE:
        error = moe_expert_gemm_v2(&ffn->first, stream);
        return error != 0 ? error : moe_expert_gemm_v2(&ffn->second, stream);
    default:
        return moe_expert_v3_run(ffn->v3, stream);
    }
}
