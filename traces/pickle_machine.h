/*
 * What the two files of the pickle reader share: pickle.c, the stack machine, and
 * pickle_torch.c, the few callables that it knows.
 */
#ifndef MOE_TRACES_PICKLE_MACHINE_H
#define MOE_TRACES_PICKLE_MACHINE_H

#include "traces/pickle.h"

enum { CHUNK_BYTES = 1 << 16 };

struct moe_pickle_chunk {
    struct moe_pickle_chunk *next;
    size_t used;
    _Alignas(16) unsigned char bytes[CHUNK_BYTES];
};

/* A list and its place in the chain of all lists, by which they are freed: values may share
 * lists, or even hold themselves. */
struct moe_pickle_node {
    struct moe_pickle_list list;
    struct moe_pickle_node *next;
};

struct moe_pickle {
    struct moe_pickle_chunk *chunks;
    struct moe_pickle_node *lists;
    struct moe_pickle_value root;
};

/* The stack machine. */
struct moe_pickle_machine {
    struct moe_pickle *pickle;
    const char *name;
    const unsigned char *bytes;
    size_t size;
    size_t at;
    size_t opcode_at;
    uint64_t memory; /* bytes taken so far, also those given back */
    struct moe_pickle_list stack;
    struct moe_pickle_list memo;
    size_t *marks; /* heights of the stack at which MARKs lie */
    size_t mark_count;
    size_t mark_room;
    struct moe_error *err;
};

/* MOE_PARSE with the place. */
enum moe_status moe_pickle_refuse(struct moe_pickle_machine *machine, const char *what);

/* Zeroed bytes for a small object that lives as long as the pickle. */
enum moe_status moe_pickle_take(struct moe_pickle_machine *machine, size_t bytes, void **out);

enum moe_status moe_pickle_push(struct moe_pickle_machine *machine, struct moe_pickle_value value);
enum moe_status moe_pickle_pop(struct moe_pickle_machine *machine, struct moe_pickle_value *out);

/* Pushes an empty list, tuple or dict. */
enum moe_status moe_pickle_push_list(struct moe_pickle_machine *machine, enum moe_pickle_kind kind);

/* The opcodes GLOBAL, BINPERSID and REDUCE. */
enum moe_status moe_pickle_global(struct moe_pickle_machine *machine);
enum moe_status moe_pickle_persistent(struct moe_pickle_machine *machine);
enum moe_status moe_pickle_reduce(struct moe_pickle_machine *machine);

#endif
