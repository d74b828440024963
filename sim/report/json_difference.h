/*
 * JSON difference: the first place at which two documents are not the same.
 */
#ifndef MOE_SIM_REPORT_JSON_DIFFERENCE_H
#define MOE_SIM_REPORT_JSON_DIFFERENCE_H

#include <stddef.h>

/* Fills text with "policies[1].metrics.itl_p50_ms.mean: 12.5 before, 12.7 now", in the
 * order of the document before; with what is wrong when one is no JSON. text is "" when they
 * hold the same, whatever their layout. Truncates. */
void moe_json_difference(const char *before, const char *now, char *text, size_t text_bytes);

#endif
