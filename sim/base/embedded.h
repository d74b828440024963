/*
 * Embedded files: texts that ship inside the program, so that it runs from anywhere.
 * sim/base/embed.py writes one table per custom_target (see sim/meson.build):
 *
 *   extern const struct moe_embedded_file moe_NAME[];  sorted by stem, bytewise
 *   extern const char *const moe_NAME_stems[];         names without the extension
 *   extern const unsigned moe_NAME_count;
 *
 * The user of a table declares what it needs of these.
 */
#ifndef MOE_SIM_BASE_EMBEDDED_H
#define MOE_SIM_BASE_EMBEDDED_H

#include <stddef.h>

struct moe_embedded_file {
    const char *name; /* file name without folders: "deepseek-v3.yaml" */
    const char *text; /* text[bytes], and a zero byte after it */
    size_t bytes;
};

#endif
