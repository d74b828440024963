/*
 * Expert ids between their two widths: one byte in files of models up to 256 experts,
 * two in memory. Plain loops, built with vectorisation on (see meson.build).
 */
#ifndef MOE_TRACES_EXPERT_PACK_H
#define MOE_TRACES_EXPERT_PACK_H

#include <stddef.h>
#include <stdint.h>

/* out[count] = in[count]; the two do not overlap. */
void moe_expert_widen(const uint8_t *restrict in, size_t count, uint16_t *restrict out);

/* out[count] = the low bytes of in[count]. The caller knows that all are below 256. */
void moe_expert_narrow(const uint16_t *restrict in, size_t count, uint8_t *restrict out);

/* The largest id, 0 for none; MOE_EXPERT_UNKNOWN is larger than every id. */
uint16_t moe_expert_max(const uint16_t *in, size_t count);
uint8_t moe_expert_max_narrow(const uint8_t *in, size_t count);

/* Writes MOE_EXPERT_UNKNOWN over out[i] wherever bit first_bit + i of mask is set (bit b
 * is bit b % 8 of byte b / 8). */
void moe_expert_mark_unknown(const uint8_t *mask, size_t first_bit, size_t count, uint16_t *out);

#endif
