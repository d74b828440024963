#include "kernels/reference/reference_number.h"

#include <math.h>
#include <string.h>

uint16_t moe_bf16_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (isnan(value)) {
        return (uint16_t) (bits >> 16 | 0x40);
    }
    /* Half of the last kept place, less a little where the kept part is even. */
    return (uint16_t) ((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float moe_float_from_bf16(uint16_t bits)
{
    const uint32_t wide = (uint32_t) bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

uint8_t moe_e4m3_from_float(float value)
{
    const uint8_t sign = signbit(value) ? 0x80 : 0;
    const float size = fabsf(value);
    int exponent;
    if (isnan(value)) {
        return (uint8_t) (sign | 0x7f);
    }
    if (size >= 448.0F) {
        return (uint8_t) (sign | 0x7e);
    }
    if (size < 0x1p-6F) { /* subnormal: a multiple of 2^-9 */
        return (uint8_t) (sign | (uint8_t) rintf(size * 0x1p9F));
    }
    (void) frexpf(size, &exponent); /* size = f * 2^exponent, f in [0.5, 1) */
    /* Eighths of 2^(exponent - 1), 8 .. 16; 16 carries into the exponent by itself. */
    const int eighths = (int) rintf(ldexpf(size, 4 - exponent));
    const int code = (exponent - 1 + 7) * 8 + eighths - 8;
    return (uint8_t) (sign | (code > 0x7e ? 0x7e : code));
}

float moe_float_from_e4m3(uint8_t bits)
{
    const int exponent = bits >> 3 & 15;
    const int fraction = bits & 7;
    float size;
    if ((bits & 0x7f) == 0x7f) {
        return NAN;
    }
    size = exponent == 0 ? ldexpf((float) fraction, -9)
                         : ldexpf((float) (8 + fraction), exponent - 10);
    return (bits & 0x80) != 0 ? -size : size;
}

float moe_e4m3_scale(float largest)
{
    return largest >= 0x1p-100F ? largest * (1.0F / 448.0F) : 1.0F;
}
