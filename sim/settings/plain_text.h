/*
 * Plain text: the texts that settings hold, and their form in YAML.
 */
#ifndef MOE_SIM_SETTINGS_PLAIN_TEXT_H
#define MOE_SIM_SETTINGS_PLAIN_TEXT_H

#include <stdbool.h>
#include <stddef.h>

/* Whether text[length] is valid UTF-8 without control characters, line separators and
 * whatever else YAML 1.1 does not call printable (its section 5.1). */
bool moe_text_is_plain(const char *text, size_t length);

/* A plain text as a YAML scalar: as it is where that is unambiguous, otherwise in double
 * quotes. Truncates like snprintf; returns the bytes written, without the zero. */
size_t moe_text_quote(const char *text, char *out, size_t out_bytes);

/* Edits (insert, delete, replace a byte) that turn a into b. Both under 64 bytes: longer
 * ones count as 64 apart. */
unsigned moe_text_distance(const char *a, const char *b);

#endif
