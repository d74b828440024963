/*
 * Import input: the files that a user gave together, found and looked into once, so that
 * every format can recognise its own by content.
 */
#ifndef MOE_TRACES_IMPORT_INPUT_H
#define MOE_TRACES_IMPORT_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"

enum {
    MOE_IMPORT_HEAD_BYTES = 4096,
    MOE_IMPORT_FILE_LIMIT = 8192, /* files of one import */
    MOE_IMPORT_DEPTH_LIMIT = 4,   /* folders below one that was given */
};

struct moe_import_file {
    char *path;       /* to open it; owned */
    const char *name; /* within the folder that was given, or its last part; into path */
    uint64_t size_bytes;
    bool is_used; /* set by the format that reads it: then its hash goes into the provenance */
    size_t head_bytes;
    unsigned char head[MOE_IMPORT_HEAD_BYTES + 1]; /* its beginning; a zero byte follows */
};

/* What the user decides; 0 and NULL: not said. */
struct moe_import_options {
    const char *layers;     /* "all", "moe", or the engine's layer numbers: "3-60,62" */
    uint32_t expert_count;  /* of the model, where the input does not say */
    uint32_t top_k;         /* likewise */
    uint32_t prompt_tokens; /* of every request, where the input does not say */
    bool skip_warmup;
    uint64_t seed; /* for formats that state distributions instead of requests */
};

struct moe_import_input {
    const char *const *paths; /* [path_count], as given */
    size_t path_count;
    struct moe_import_file *files; /* [file_count]: those given, and those in folders given, in
                                    * that order, a folder's in bytewise order; owned */
    size_t file_count;
    struct moe_import_options options;
};

/* Finds and opens all files. Hidden files and what is no regular file inside folders are passed
 * over. Errors: MOE_IO for a path that does not exist or cannot be read; MOE_RANGE beyond the
 * limits, or for a path that is neither file nor folder. On error *input is finished. */
enum moe_status moe_import_input_open(struct moe_import_input *input, const char *const *paths,
                                      size_t path_count, struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_import_input_finish(struct moe_import_input *input);

/* Whether the file's head begins with text, or (leading white space skipped) with a JSON
 * object or list; and whether text stands anywhere in the head. */
bool moe_import_file_begins(const struct moe_import_file *file, const char *text);
bool moe_import_file_is_json(const struct moe_import_file *file);
bool moe_import_file_has(const struct moe_import_file *file, const char *text);

/* Whether the name ends with suffix. */
bool moe_import_file_ends(const struct moe_import_file *file, const char *suffix);

/* The number that stands in name between before and after, both of which must be there:
 * ("rank12.safetensors", "rank", ".safetensors") is 12. before is searched from the end. -1 when
 * there is none. */
int32_t moe_import_file_number(const char *name, const char *before, const char *after);

/* All ranks 0 .. count-1 must be among ranks[count], each once; folder begins the error.
 * Errors: MOE_PARSE naming the missing or double one. */
enum moe_status moe_import_check_ranks(const int32_t *ranks, size_t count, const char *folder,
                                       struct moe_error *err) MOE_MUST_CHECK;

#endif
