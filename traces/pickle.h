/*
 * Pickle: the data of a Python pickle, and nothing of its power.
 *
 * A pickle is a program for a stack machine that may call any Python function. This reader
 * runs the part of it that builds data (None, bool, int, float, str, list, tuple, dict), and
 * knows four callables, which it does not call: torch._utils._rebuild_tensor_v2, the torch
 * storage types, collections.OrderedDict, and torch's persistent ids. Every other
 * global, and every opcode beyond those of protocol 2 that such files use, is refused by name.
 *
 * Source: Lib/pickletools.py of CPython for the opcodes; torch/_utils.py and
 * torch/serialization.py for the persistent ids. Memory is bounded by MOE_PICKLE_LIMIT_BYTES.
 */
#ifndef MOE_TRACES_PICKLE_H
#define MOE_TRACES_PICKLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim/base/error.h"
#include "traces/tensor.h"

#define MOE_PICKLE_LIMIT_BYTES (UINT64_C(512) << 20)
enum { MOE_PICKLE_KEY_LIMIT = 256 }; /* keys of one dict */

enum moe_pickle_kind {
    MOE_PICKLE_NONE,
    MOE_PICKLE_BOOL,
    MOE_PICKLE_INT,
    MOE_PICKLE_FLOAT,
    MOE_PICKLE_TEXT,
    MOE_PICKLE_LIST,
    MOE_PICKLE_TUPLE,
    MOE_PICKLE_DICT,
    MOE_PICKLE_TENSOR,
    MOE_PICKLE_GLOBAL,  /* only while reading */
    MOE_PICKLE_STORAGE, /* a torch storage, on its way into a tensor */
};

struct moe_pickle_list;
struct moe_pickle_text;
struct moe_pickle_storage;
struct moe_pickle_tensor;

struct moe_pickle_value {
    enum moe_pickle_kind kind;
    union {
        int64_t integer; /* INT, BOOL, GLOBAL */
        double real;
        const struct moe_pickle_text *text;
        struct moe_pickle_list *list; /* LIST, TUPLE; DICT: key, value, key, value, ... */
        const struct moe_pickle_storage *storage;
        const struct moe_pickle_tensor *tensor;
    };
};

struct moe_pickle_text {
    size_t length;
    const char *bytes; /* [length], not terminated; into the pickle */
};

struct moe_pickle_list {
    size_t count;
    size_t room;
    struct moe_pickle_value *items; /* owned by the pickle */
};

struct moe_pickle_storage {
    enum moe_tensor_type type;
    char key[32];        /* member data/<key> of a torch file */
    uint64_t item_count; /* of the storage */
};

struct moe_pickle_tensor {
    const struct moe_pickle_storage *storage;
    uint64_t offset;        /* of the first item, in items */
    struct moe_tensor view; /* type, shape and stride; data is NULL, item_count not set */
};

struct moe_pickle; /* everything that one pickle holds */

/* Reads bytes[size], which stay until close. name begins the errors. Errors: MOE_PARSE naming
 * the offset and what stands there; MOE_LIMIT when there is no memory. */
enum moe_status moe_pickle_parse(struct moe_pickle **out, const char *name,
                                 const unsigned char *bytes, size_t size,
                                 struct moe_error *err) MOE_MUST_CHECK;

/* Safe for NULL. */
void moe_pickle_close(struct moe_pickle *pickle);

const struct moe_pickle_value *moe_pickle_root(const struct moe_pickle *pickle);

/* The value of a text key of a dict; NULL when value is no dict or has no such key. */
const struct moe_pickle_value *moe_pickle_get(const struct moe_pickle_value *value,
                                              const char *key);

bool moe_pickle_is_text(const struct moe_pickle_value *value, const char *text);

/* "None", "a list", ... for errors; "missing" for NULL. */
const char *moe_pickle_kind_text(const struct moe_pickle_value *value);

#endif
