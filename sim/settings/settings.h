/*
 * Settings: a plain struct described by one table, from which everything that touches
 * it by name is made: reading YAML, `--set a.b=c`, canonical YAML, and the list of keys
 * in the help. Scenarios and model cards are such structs.
 *
 * A path is "key" or "group.key"; fields of one group follow one another in the table.
 * Numbers are strict: no quotes, no leading zeros, no hexadecimal, no underscores;
 * truth is "true" or "false". Texts are printable UTF-8 on one line.
 */
#ifndef MOE_SIM_SETTINGS_SETTINGS_H
#define MOE_SIM_SETTINGS_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sim/base/error.h"

enum moe_setting_kind {
    MOE_SETTING_TEXT,   /* char[text_bytes]; at least min bytes long */
    MOE_SETTING_COUNT,  /* uint32_t in min .. max */
    MOE_SETTING_SEED,   /* uint64_t */
    MOE_SETTING_REAL,   /* double: the key's value in min .. max, times scale (0 means 1) */
    MOE_SETTING_FLAG,   /* bool */
    MOE_SETTING_CHOICE, /* an enum counted from 0; its names are choices[] */
    MOE_SETTING_LIST,   /* char[max][text_bytes] and a uint32_t count; min .. max items */
};

struct moe_setting {
    const char *path;
    enum moe_setting_kind kind;
    bool required; /* a file must give it */
    size_t offset; /* in the struct */
    double min;
    double max;
    double scale;               /* REAL */
    const char *const *choices; /* CHOICE: NULL-terminated */
    size_t text_bytes;          /* TEXT, LIST: capacity, with the zero byte */
    size_t count_offset;        /* LIST */
    const char *help;           /* one line, with the unit */
};

enum { MOE_SETTINGS_LIMIT = 128 }; /* fields of one table */

struct moe_settings {
    const char *noun; /* "scenario", "model card": used in errors */
    const struct moe_setting *items;
    uint32_t count;
};

/* The setting of that path; NULL when there is none. */
const struct moe_setting *moe_settings_find(const struct moe_settings *settings, const char *path);

/* Stores text into object; a list takes items parted by commas,
 * bare or in brackets as in YAML ("a,b", "[a, b]"). where names the place in
 * errors ("file.yaml:7: slots"). Errors: MOE_RANGE with the text and what is allowed;
 * object is then as it was. */
enum moe_status moe_setting_store(const struct moe_setting *setting, void *object, const char *text,
                                  const char *where, struct moe_error *err) MOE_MUST_CHECK;

/* Adds one item to a list. */
enum moe_status moe_setting_append(const struct moe_setting *setting, void *object,
                                   const char *text, const char *where,
                                   struct moe_error *err) MOE_MUST_CHECK;

/* What the setting accepts, in words: "a whole number from 1 to 512". */
void moe_setting_describe(const struct moe_setting *setting, char *text, size_t text_bytes);

/* The value as YAML, in the shortest form that reads back to the same bits. Truncates. */
void moe_setting_show(const struct moe_setting *setting, const void *object, char *text,
                      size_t text_bytes);

/* Whether the numbers of object lie in their ranges; for objects not read from text.
 * Errors: MOE_RANGE as "where: path: ...". */
enum moe_status moe_settings_check(const struct moe_settings *settings, const void *object,
                                   const char *where, struct moe_error *err) MOE_MUST_CHECK;

/* Applies "path=value". Errors: MOE_RANGE, as moe_setting_store, and for an unknown path
 * listing those there are. */
enum moe_status moe_settings_override(const struct moe_settings *settings, void *object,
                                      const char *assignment, struct moe_error *err) MOE_MUST_CHECK;

/* Reads one YAML document over what object holds. name stands in errors, which name
 * the line and the key. Errors: MOE_PARSE when it is no YAML, has a second document, an
 * anchor, an alias, a tag, a key twice or more than its share of bytes or depth;
 * MOE_RANGE for unknown and missing keys and for values. On error object may hold a part:
 * callers read into a copy. */
enum moe_status moe_settings_read(const struct moe_settings *settings, void *object,
                                  const char *text, size_t bytes, const char *name,
                                  struct moe_error *err) MOE_MUST_CHECK;

/* Canonical YAML: every key in the table's order. Asserts that it fits.
 * Returns the length. */
size_t moe_settings_write(const struct moe_settings *settings, const void *object, char *text,
                          size_t text_bytes);

/* One line per key: path, what it accepts, help, and object's value as the default. */
void moe_settings_print(FILE *out, const struct moe_settings *settings, const void *object);

/* Fails with the keys allowed in group ("" = top level) and the one nearest to key. */
enum moe_status moe_settings_refuse_unknown(const struct moe_settings *settings, const char *group,
                                            const char *key, const char *where,
                                            struct moe_error *err);

#endif
