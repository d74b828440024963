/* What all versions do to a sum before they store it, so that they differ in speed only. */
#ifndef MOE_KERNELS_EXPERT_EPILOGUE_CUH
#define MOE_KERNELS_EXPERT_EPILOGUE_CUH

#include "kernels/expert_ffn_parts.h"

static __device__ __forceinline__ float expert_epilogue(int epilogue, float first, float second)
{
    switch (epilogue) {
    case MOE_EPILOGUE_SWIGLU:
        return __fdividef(first, 1.0F + __expf(-first)) * second;
    case MOE_EPILOGUE_RELU:
        return fmaxf(first, 0.0F);
    case MOE_EPILOGUE_GELU:
        return 0.5F * first * erfcf(first * -0.70710678F); /* 1 + erf would cancel below 0 */
    default:
        return first;
    }
}

/* The scale under which the largest of 128 values becomes e4m3's largest, 448. A block of zeros
 * takes 1, so that nothing is divided by zero. */
static __device__ __forceinline__ float expert_scale(float largest)
{
    return largest > 0.0F ? largest * (1.0F / 448.0F) : 1.0F;
}

#endif
