#include "traces/expert_pack.h"

#include "traces/trace_store.h"

void moe_expert_widen(const uint8_t *restrict in, size_t count, uint16_t *restrict out)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = in[i];
    }
}

void moe_expert_narrow(const uint16_t *restrict in, size_t count, uint8_t *restrict out)
{
    for (size_t i = 0; i < count; i++) {
        out[i] = (uint8_t) (in[i] & 0xff);
    }
}

uint16_t moe_expert_max(const uint16_t *in, size_t count)
{
    uint16_t max = 0;
    for (size_t i = 0; i < count; i++) {
        max = in[i] > max ? in[i] : max;
    }
    return max;
}

uint8_t moe_expert_max_narrow(const uint8_t *in, size_t count)
{
    uint8_t max = 0;
    for (size_t i = 0; i < count; i++) {
        max = in[i] > max ? in[i] : max;
    }
    return max;
}

void moe_expert_mark_unknown(const uint8_t *mask, size_t first_bit, size_t count, uint16_t *out)
{
    for (size_t i = 0; i < count; i++) {
        const size_t bit = first_bit + i;
        if ((mask[bit / 8] >> (bit % 8) & 1) != 0) {
            out[i] = MOE_EXPERT_UNKNOWN;
        }
    }
}
