#include <stdio.h>
#include <string.h>

#include "traces/pickle_machine.h"

/* What the callables that a pickle may name stand for. */
enum global { REBUILD_TENSOR, ORDERED_DICT, STORAGE_TYPE };

static const struct {
    const char *name; /* module, line feed, name: as the opcode has it */
    enum global global;
    enum moe_tensor_type type;
} globals[] = {
    { "torch._utils\n_rebuild_tensor_v2", REBUILD_TENSOR, MOE_TENSOR_U8 },
    { "collections\nOrderedDict", ORDERED_DICT, MOE_TENSOR_U8 },
    { "torch\nByteStorage", STORAGE_TYPE, MOE_TENSOR_U8 },
    { "torch\nCharStorage", STORAGE_TYPE, MOE_TENSOR_I8 },
    { "torch\nBoolStorage", STORAGE_TYPE, MOE_TENSOR_BOOL },
    { "torch\nShortStorage", STORAGE_TYPE, MOE_TENSOR_I16 },
    { "torch\nIntStorage", STORAGE_TYPE, MOE_TENSOR_I32 },
    { "torch\nLongStorage", STORAGE_TYPE, MOE_TENSOR_I64 },
    { "torch\nHalfStorage", STORAGE_TYPE, MOE_TENSOR_F16 },
    { "torch\nBFloat16Storage", STORAGE_TYPE, MOE_TENSOR_BF16 },
    { "torch\nFloatStorage", STORAGE_TYPE, MOE_TENSOR_F32 },
    { "torch\nDoubleStorage", STORAGE_TYPE, MOE_TENSOR_F64 },
};

enum moe_status moe_pickle_global(struct moe_pickle_machine *machine)
{
    const unsigned char *begin = machine->bytes + machine->at;
    const size_t left = machine->size - machine->at;
    const unsigned char *first = memchr(begin, '\n', left);
    const unsigned char *second =
        first == NULL ? NULL : memchr(first + 1, '\n', left - (size_t) (first + 1 - begin));
    if (second == NULL) {
        return moe_pickle_refuse(machine, "the pickle ends in the name of a global");
    }
    const size_t length = (size_t) (second - begin);
    machine->at += length + 1;
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++) {
        if (strlen(globals[i].name) == length && memcmp(globals[i].name, begin, length) == 0) {
            return moe_pickle_push(machine, (struct moe_pickle_value){ .kind = MOE_PICKLE_GLOBAL,
                                                                       .integer = (int64_t) i });
        }
    }
    char shown[160];
    size_t used = 0;
    for (size_t i = 0; i < length && used + 1 < sizeof shown; i++) {
        const unsigned char c = begin[i];
        const unsigned char printed = c == '\n' ? '.' : c < ' ' || c > '~' ? '?' : c;
        memcpy(&shown[used++], &printed, 1);
    }
    shown[used] = '\0';
    return moe_fail(
        machine->err, MOE_PARSE,
        "%s: offset %zu: the pickle calls %s; only torch tensors are rebuilt and no code "
        "is run",
        machine->name, machine->opcode_at, shown);
}

/* ('storage', type, key, location, item count): the location ('cpu', 'cuda:3') says where the
 * tensor lay, which does not matter here. */
enum moe_status moe_pickle_persistent(struct moe_pickle_machine *machine)
{
    struct moe_pickle_value id;
    void *place = NULL;
    MOE_TRY(moe_pickle_pop(machine, &id));
    if (id.kind != MOE_PICKLE_TUPLE || id.list->count != 5 ||
        !moe_pickle_is_text(&id.list->items[0], "storage") ||
        id.list->items[1].kind != MOE_PICKLE_GLOBAL ||
        globals[id.list->items[1].integer].global != STORAGE_TYPE ||
        id.list->items[2].kind != MOE_PICKLE_TEXT || id.list->items[3].kind != MOE_PICKLE_TEXT ||
        id.list->items[4].kind != MOE_PICKLE_INT || id.list->items[4].integer < 0) {
        return moe_pickle_refuse(machine, "a persistent id that is no torch storage");
    }
    MOE_TRY(moe_pickle_take(machine, sizeof(struct moe_pickle_storage), &place));
    struct moe_pickle_storage *storage = place;
    const struct moe_pickle_text *key = id.list->items[2].text;
    storage->type = globals[id.list->items[1].integer].type;
    storage->item_count = (uint64_t) id.list->items[4].integer;
    if (key->length == 0 || key->length >= sizeof storage->key ||
        memchr(key->bytes, '/', key->length) != NULL ||
        memchr(key->bytes, '\0', key->length) != NULL) {
        return moe_pickle_refuse(machine, "the key of a storage is no name of a member");
    }
    memcpy(storage->key, key->bytes, key->length);
    return moe_pickle_push(
        machine, (struct moe_pickle_value){ .kind = MOE_PICKLE_STORAGE, .storage = storage });
}

/* A tuple of sizes into extents; false when it is none, or of more dimensions than are read. */
static bool read_extents(const struct moe_pickle_value *value, uint64_t *extents, uint32_t *count)
{
    if (value->kind != MOE_PICKLE_TUPLE || value->list->count > MOE_TENSOR_DIMENSION_LIMIT) {
        return false;
    }
    for (size_t i = 0; i < value->list->count; i++) {
        if (value->list->items[i].kind != MOE_PICKLE_INT || value->list->items[i].integer < 0) {
            return false;
        }
        extents[i] = (uint64_t) value->list->items[i].integer;
    }
    *count = (uint32_t) value->list->count;
    return true;
}

/* _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, ...) */
static enum moe_status rebuild(struct moe_pickle_machine *machine,
                               const struct moe_pickle_list *arguments)
{
    const struct moe_pickle_value *items = arguments->items;
    struct moe_pickle_tensor read = { 0 };
    uint32_t strides = 0;
    void *place = NULL;
    if (arguments->count < 5 || items[0].kind != MOE_PICKLE_STORAGE ||
        items[1].kind != MOE_PICKLE_INT || items[1].integer < 0 ||
        !read_extents(&items[2], read.view.shape, &read.view.dimension_count) ||
        !read_extents(&items[3], read.view.stride, &strides) ||
        strides != read.view.dimension_count) {
        return moe_pickle_refuse(machine,
                                 "a tensor whose offset, shape or strides make no sense (at most 4 "
                                 "dimensions are read)");
    }
    read.storage = items[0].storage;
    read.offset = (uint64_t) items[1].integer;
    read.view.type = read.storage->type;
    if (read.offset > read.storage->item_count) {
        return moe_pickle_refuse(machine, "a tensor that begins behind the end of its storage");
    }
    MOE_TRY(moe_pickle_take(machine, sizeof read, &place));
    memcpy(place, &read, sizeof read);
    return moe_pickle_push(machine,
                           (struct moe_pickle_value){ .kind = MOE_PICKLE_TENSOR, .tensor = place });
}

enum moe_status moe_pickle_reduce(struct moe_pickle_machine *machine)
{
    struct moe_pickle_value arguments;
    struct moe_pickle_value callable;
    MOE_TRY(moe_pickle_pop(machine, &arguments));
    MOE_TRY(moe_pickle_pop(machine, &callable));
    if (callable.kind != MOE_PICKLE_GLOBAL || arguments.kind != MOE_PICKLE_TUPLE) {
        return moe_pickle_refuse(machine, "calls what cannot be called");
    }
    const enum global global = globals[callable.integer].global;
    if (global == REBUILD_TENSOR) {
        return rebuild(machine, arguments.list);
    }
    if (global == ORDERED_DICT && arguments.list->count == 0) {
        return moe_pickle_push_list(machine, MOE_PICKLE_DICT);
    }
    return moe_pickle_refuse(machine, "calls a storage type, or OrderedDict with arguments");
}
