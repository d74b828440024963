/* What all versions do to a sum before they store it, so that they differ in speed only. */
#ifndef MOE_KERNELS_EXPERT_EPILOGUE_CUH
#define MOE_KERNELS_EXPERT_EPILOGUE_CUH

#include "kernels/expert/expert_ffn_parts.h"

static __device__ __forceinline__ float expert_swiglu(float gate, float up)
{
    return __fdividef(gate, 1.0F + __expf(-gate)) * up;
}

/* GELU with erfc(z) for z > 0 after Abramowitz and Stegun, 7.1.26: off by less than 2e-7, which no
 * bf16 shows, and a tenth of erfcf's code, of which every sum in registers would hold a copy. The
 * lower half takes erfc itself, since 1 + erf would cancel there. */
static __device__ __forceinline__ float expert_gelu(float value)
{
    const float z = fabsf(value) * 0.70710678F;
    const float t = __fdividef(1.0F, 1.0F + 0.3275911F * z);
    const float polynomial =
        t * (0.254829592F +
             t * (-0.284496736F + t * (1.421413741F + t * (-1.453152027F + t * 1.061405429F))));
    const float erfc = polynomial * __expf(-z * z);
    return 0.5F * value * (value < 0.0F ? erfc : 2.0F - erfc);
}

/* None, ReLU or GELU. */
static __device__ __forceinline__ float expert_activate(int epilogue, float value)
{
    switch (epilogue) {
    case MOE_EPILOGUE_RELU:
        return fmaxf(value, 0.0F);
    case MOE_EPILOGUE_GELU:
        return expert_gelu(value);
    default:
        return value;
    }
}

/* The scale under which the largest of 128 values becomes e4m3's largest, 448. A block of zeros
 * takes 1, so that nothing is divided by zero. */
static __device__ __forceinline__ float expert_scale(float largest)
{
    return largest > 0.0F ? largest * (1.0F / 448.0F) : 1.0F;
}

#endif
