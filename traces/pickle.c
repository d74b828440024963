#include "traces/pickle_machine.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum moe_status moe_pickle_refuse(struct moe_pickle_machine *machine, const char *what)
{
    return moe_fail(machine->err, MOE_PARSE, "%s: offset %zu: %s", machine->name,
                    machine->opcode_at, what);
}

static enum moe_status charge(struct moe_pickle_machine *machine, uint64_t bytes)
{
    machine->memory += bytes;
    return machine->memory <= MOE_PICKLE_LIMIT_BYTES
               ? MOE_OK
               : moe_pickle_refuse(machine,
                                   "unpacks to more memory than a dump of counts or ids needs");
}

static enum moe_status no_memory(struct moe_pickle_machine *machine)
{
    return moe_fail(machine->err, MOE_LIMIT, "%s: no memory to read it", machine->name);
}

/* Small objects that live as long as the pickle. */
enum moe_status moe_pickle_take(struct moe_pickle_machine *machine, size_t bytes, void **out)
{
    struct moe_pickle *pickle = machine->pickle;
    bytes = (bytes + 15) & ~(size_t) 15;
    if (pickle->chunks == NULL || pickle->chunks->used + bytes > CHUNK_BYTES) {
        MOE_TRY(charge(machine, sizeof(struct moe_pickle_chunk)));
        struct moe_pickle_chunk *chunk = malloc(sizeof *chunk);
        if (chunk == NULL) {
            return no_memory(machine);
        }
        chunk->next = pickle->chunks;
        chunk->used = 0;
        pickle->chunks = chunk;
    }
    *out = pickle->chunks->bytes + pickle->chunks->used;
    memset(*out, 0, bytes);
    pickle->chunks->used += bytes;
    return MOE_OK;
}

static enum moe_status reserve(struct moe_pickle_machine *machine, struct moe_pickle_list *list,
                               size_t count)
{
    if (count <= list->room) {
        return MOE_OK;
    }
    size_t room = list->room < 4 ? 4 : 2 * list->room;
    room = room < count ? count : room;
    MOE_TRY(charge(machine, (room - list->room) * sizeof *list->items));
    struct moe_pickle_value *items = realloc(list->items, room * sizeof *items);
    if (items == NULL) {
        return no_memory(machine);
    }
    list->items = items;
    list->room = room;
    return MOE_OK;
}

enum moe_status moe_pickle_push(struct moe_pickle_machine *machine, struct moe_pickle_value value)
{
    MOE_TRY(reserve(machine, &machine->stack, machine->stack.count + 1));
    machine->stack.items[machine->stack.count++] = value;
    return MOE_OK;
}

/* The lowest height to which the stack may be popped: that of the last MARK. */
static size_t floor_of(const struct moe_pickle_machine *machine)
{
    return machine->mark_count == 0 ? 0 : machine->marks[machine->mark_count - 1];
}

enum moe_status moe_pickle_pop(struct moe_pickle_machine *machine, struct moe_pickle_value *out)
{
    if (machine->stack.count <= floor_of(machine)) {
        return moe_pickle_refuse(machine, "takes a value from an empty stack");
    }
    *out = machine->stack.items[--machine->stack.count];
    return MOE_OK;
}

static enum moe_status new_list(struct moe_pickle_machine *machine, struct moe_pickle_list **out)
{
    void *place = NULL;
    MOE_TRY(moe_pickle_take(machine, sizeof(struct moe_pickle_node), &place));
    struct moe_pickle_node *node = place;
    node->next = machine->pickle->lists;
    machine->pickle->lists = node;
    *out = &node->list;
    return MOE_OK;
}

enum moe_status moe_pickle_push_list(struct moe_pickle_machine *machine, enum moe_pickle_kind kind)
{
    struct moe_pickle_value value = { .kind = kind };
    MOE_TRY(new_list(machine, &value.list));
    return moe_pickle_push(machine, value);
}

static enum moe_status append(struct moe_pickle_machine *machine, struct moe_pickle_list *list,
                              const struct moe_pickle_value *values, size_t count)
{
    /* values may lie in the stack, never in list: a list is not the stack. */
    if (values == NULL || count == 0) {
        return MOE_OK;
    }
    MOE_TRY(reserve(machine, list, list->count + count));
    memcpy(list->items + list->count, values, count * sizeof *values);
    list->count += count;
    return MOE_OK;
}

static enum moe_status read_bytes(struct moe_pickle_machine *machine, size_t count,
                                  const unsigned char **out)
{
    if (count > machine->size - machine->at) {
        return moe_pickle_refuse(machine, "the pickle ends in the middle of an opcode");
    }
    *out = machine->bytes + machine->at;
    machine->at += count;
    return MOE_OK;
}

/* count <= 8 bytes, little endian. */
static enum moe_status read_number(struct moe_pickle_machine *machine, size_t count, uint64_t *out)
{
    const unsigned char *bytes = NULL;
    MOE_TRY(read_bytes(machine, count, &bytes));
    *out = 0;
    memcpy(out, bytes, count);
    return MOE_OK;
}

static enum moe_status push_integer(struct moe_pickle_machine *machine, size_t count,
                                    bool is_signed)
{
    uint64_t bits = 0;
    MOE_TRY(read_number(machine, count, &bits));
    if (is_signed && count < 8 && count > 0 && (bits >> (8 * count - 1) & 1) != 0) {
        bits |= UINT64_MAX << 8 * count;
    }
    struct moe_pickle_value value = { .kind = MOE_PICKLE_INT };
    memcpy(&value.integer, &bits, 8);
    return moe_pickle_push(machine, value);
}

static enum moe_status push_long(struct moe_pickle_machine *machine)
{
    uint64_t count = 0;
    MOE_TRY(read_number(machine, 1, &count));
    return count <= 8 ? push_integer(machine, (size_t) count, true)
                      : (enum moe_status) moe_pickle_refuse(machine,
                                                            "a whole number of more than 64 bits");
}

static enum moe_status push_float(struct moe_pickle_machine *machine)
{
    const unsigned char *bytes = NULL;
    struct moe_pickle_value value = { .kind = MOE_PICKLE_FLOAT };
    uint64_t bits = 0;
    MOE_TRY(read_bytes(machine, 8, &bytes));
    for (int i = 0; i < 8; i++) {
        bits = bits << 8 | bytes[i];
    }
    memcpy(&value.real, &bits, 8);
    return moe_pickle_push(machine, value);
}

static enum moe_status push_text(struct moe_pickle_machine *machine)
{
    uint64_t length = 0;
    const unsigned char *bytes = NULL;
    void *place = NULL;
    MOE_TRY(read_number(machine, 4, &length));
    MOE_TRY(read_bytes(machine, (size_t) length, &bytes));
    MOE_TRY(moe_pickle_take(machine, sizeof(struct moe_pickle_text), &place));
    struct moe_pickle_text *text = place;
    *text = (struct moe_pickle_text){ (size_t) length, (const char *) bytes };
    return moe_pickle_push(machine,
                           (struct moe_pickle_value){ .kind = MOE_PICKLE_TEXT, .text = text });
}

static enum moe_status push_mark(struct moe_pickle_machine *machine)
{
    if (machine->mark_count == machine->mark_room) {
        const size_t room = machine->mark_room == 0 ? 16 : 2 * machine->mark_room;
        MOE_TRY(charge(machine, (room - machine->mark_room) * sizeof *machine->marks));
        size_t *marks = realloc(machine->marks, room * sizeof *marks);
        if (marks == NULL) {
            return no_memory(machine);
        }
        machine->marks = marks;
        machine->mark_room = room;
    }
    machine->marks[machine->mark_count++] = machine->stack.count;
    return MOE_OK;
}

/* The values above the last MARK, which is taken away with them; they stay readable until the
 * next push. */
static enum moe_status pop_mark(struct moe_pickle_machine *machine,
                                const struct moe_pickle_value **values, size_t *count)
{
    if (machine->mark_count == 0) {
        return moe_pickle_refuse(machine, "there is no MARK to go back to");
    }
    const size_t height = machine->marks[--machine->mark_count];
    *count = machine->stack.count - height;
    *values = machine->stack.count == 0 ? NULL : machine->stack.items + height;
    machine->stack.count = height;
    return MOE_OK;
}

static enum moe_status push_tuple(struct moe_pickle_machine *machine,
                                  const struct moe_pickle_value *values, size_t count)
{
    struct moe_pickle_value tuple = { .kind = MOE_PICKLE_TUPLE };
    MOE_TRY(new_list(machine, &tuple.list));
    MOE_TRY(count == 0 ? MOE_OK : append(machine, tuple.list, values, count));
    return moe_pickle_push(machine, tuple);
}

static enum moe_status make_tuple(struct moe_pickle_machine *machine, size_t count)
{
    if (machine->stack.count - floor_of(machine) < count) {
        return moe_pickle_refuse(machine, "a tuple of more values than there are");
    }
    machine->stack.count -= count;
    return push_tuple(machine, count == 0 ? NULL : machine->stack.items + machine->stack.count,
                      count);
}

static enum moe_status make_marked_tuple(struct moe_pickle_machine *machine)
{
    if (machine->mark_count == 0) {
        return moe_pickle_refuse(machine, "there is no MARK to go back to");
    }
    return make_tuple(machine, machine->stack.count - machine->marks[--machine->mark_count]);
}

/* The container on top of the stack. */
static enum moe_status top(struct moe_pickle_machine *machine, enum moe_pickle_kind kind,
                           struct moe_pickle_list **out)
{
    if (machine->stack.count <= floor_of(machine) ||
        machine->stack.items[machine->stack.count - 1].kind != kind) {
        return moe_pickle_refuse(machine, kind == MOE_PICKLE_LIST
                                              ? "appends to what is no list"
                                              : "sets an item of what is no dict");
    }
    *out = machine->stack.items[machine->stack.count - 1].list;
    return MOE_OK;
}

static bool same_text(const struct moe_pickle_text *a, const struct moe_pickle_text *b)
{
    return a->length == b->length && memcmp(a->bytes, b->bytes, a->length) == 0;
}

static enum moe_status set_items(struct moe_pickle_machine *machine,
                                 const struct moe_pickle_value *values, size_t count)
{
    struct moe_pickle_list *dict = NULL;
    MOE_TRY(top(machine, MOE_PICKLE_DICT, &dict));
    if (count % 2 != 0 || dict->count + count > (size_t) 2 * MOE_PICKLE_KEY_LIMIT) {
        return moe_pickle_refuse(machine, count % 2 != 0 ? "a key without a value"
                                                         : "a dict of more keys than are read");
    }
    for (size_t i = 0; values != NULL && i < count; i += 2) {
        for (size_t j = 0; values[i].kind == MOE_PICKLE_TEXT && j < dict->count; j += 2) {
            if (dict->items[j].kind == MOE_PICKLE_TEXT &&
                same_text(dict->items[j].text, values[i].text)) {
                return moe_fail(machine->err, MOE_PARSE, "%s: offset %zu: key '%.*s' stands twice",
                                machine->name, machine->opcode_at,
                                (int) (values[i].text->length < 100 ? values[i].text->length : 100),
                                values[i].text->bytes);
            }
        }
        MOE_TRY(append(machine, dict, values + i, 2));
    }
    return MOE_OK;
}

/* APPEND and SETITEM: the last values are popped, the container under them stays. */
static enum moe_status add_one(struct moe_pickle_machine *machine, enum moe_pickle_kind kind)
{
    struct moe_pickle_value pair[2];
    struct moe_pickle_list *list = NULL;
    MOE_TRY(moe_pickle_pop(machine, &pair[1]));
    if (kind == MOE_PICKLE_DICT) {
        MOE_TRY(moe_pickle_pop(machine, &pair[0]));
        return set_items(machine, pair, 2);
    }
    MOE_TRY(top(machine, MOE_PICKLE_LIST, &list));
    return append(machine, list, &pair[1], 1);
}

static enum moe_status add_marked(struct moe_pickle_machine *machine, enum moe_pickle_kind kind)
{
    const struct moe_pickle_value *values = NULL;
    struct moe_pickle_list *list = NULL;
    size_t count = 0;
    MOE_TRY(pop_mark(machine, &values, &count));
    if (kind == MOE_PICKLE_DICT) {
        // NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the stack is freed by moe_pickle_parse
        return set_items(machine, values, count);
    }
    MOE_TRY(top(machine, MOE_PICKLE_LIST, &list));
    return count == 0 ? MOE_OK : append(machine, list, values, count);
}

static enum moe_status put(struct moe_pickle_machine *machine, size_t bytes)
{
    const struct moe_pickle_value unset = { .kind = MOE_PICKLE_GLOBAL, .integer = -1 };
    uint64_t index = 0;
    MOE_TRY(read_number(machine, bytes, &index));
    /* Python numbers them one after another, and each takes two bytes of the pickle. */
    if (index > machine->size || machine->stack.count <= floor_of(machine)) {
        return moe_pickle_refuse(machine, index > machine->size
                                              ? "a memo of an absurd number"
                                              : "keeps a value of an empty stack");
    }
    MOE_TRY(reserve(machine, &machine->memo, (size_t) index + 1));
    while (machine->memo.count <= index) {
        machine->memo.items[machine->memo.count++] = unset;
    }
    machine->memo.items[index] = machine->stack.items[machine->stack.count - 1];
    return MOE_OK;
}

static enum moe_status get(struct moe_pickle_machine *machine, size_t bytes)
{
    uint64_t index = 0;
    MOE_TRY(read_number(machine, bytes, &index));
    if (index >= machine->memo.count || (machine->memo.items[index].kind == MOE_PICKLE_GLOBAL &&
                                         machine->memo.items[index].integer < 0)) {
        return moe_pickle_refuse(machine, "takes a memo that was not kept");
    }
    return moe_pickle_push(machine, machine->memo.items[index]);
}

static enum moe_status push_bool(struct moe_pickle_machine *machine, int64_t value)
{
    return moe_pickle_push(machine,
                           (struct moe_pickle_value){ .kind = MOE_PICKLE_BOOL, .integer = value });
}

/* One opcode but PROTO and STOP. Names and bytes: pickletools.py. */
static enum moe_status step(struct moe_pickle_machine *machine, unsigned char opcode)
{
    switch (opcode) {
    case 'N':
        return moe_pickle_push(machine, (struct moe_pickle_value){ .kind = MOE_PICKLE_NONE });
    case 0x88: /* NEWTRUE */
        return push_bool(machine, 1);
    case 0x89: /* NEWFALSE */
        return push_bool(machine, 0);
    case 'K': /* BININT1 */
        return push_integer(machine, 1, false);
    case 'M': /* BININT2 */
        return push_integer(machine, 2, false);
    case 'J': /* BININT */
        return push_integer(machine, 4, true);
    case 0x8a: /* LONG1 */
        return push_long(machine);
    case 'G': /* BINFLOAT */
        return push_float(machine);
    case 'X': /* BINUNICODE */
        return push_text(machine);
    case ']': /* EMPTY_LIST */
        return moe_pickle_push_list(machine, MOE_PICKLE_LIST);
    case ')': /* EMPTY_TUPLE */
        return moe_pickle_push_list(machine, MOE_PICKLE_TUPLE);
    case '}': /* EMPTY_DICT */
        return moe_pickle_push_list(machine, MOE_PICKLE_DICT);
    case '(': /* MARK */
        return push_mark(machine);
    case 't': /* TUPLE */
        return make_marked_tuple(machine);
    case 0x85: /* TUPLE1 .. TUPLE3 */
    case 0x86:
    case 0x87:
        return make_tuple(machine, opcode - 0x84U);
    case 'a': /* APPEND */
        return add_one(machine, MOE_PICKLE_LIST);
    case 'e': /* APPENDS */
        return add_marked(machine, MOE_PICKLE_LIST);
    case 's': /* SETITEM */
        return add_one(machine, MOE_PICKLE_DICT);
    case 'u': /* SETITEMS */
        return add_marked(machine, MOE_PICKLE_DICT);
    case 'q': /* BINPUT, LONG_BINPUT */
    case 'r':
        return put(machine, opcode == 'q' ? 1 : 4);
    case 'h': /* BINGET, LONG_BINGET */
    case 'j':
        return get(machine, opcode == 'h' ? 1 : 4);
    case 'c': /* GLOBAL */
        return moe_pickle_global(machine);
    case 'Q': /* BINPERSID */
        return moe_pickle_persistent(machine);
    case 'R': /* REDUCE */
        return moe_pickle_reduce(machine);
    default:
        return moe_fail(machine->err, MOE_PARSE,
                        "%s: offset %zu: opcode 0x%02x is none that a dump of tensors uses",
                        machine->name, machine->opcode_at, opcode);
    }
}

static enum moe_status run(struct moe_pickle_machine *machine)
{
    const unsigned char *opcode = NULL;
    MOE_TRY(read_bytes(machine, 2, &opcode));
    if (opcode[0] != 0x80 || opcode[1] != 2) {
        return moe_pickle_refuse(machine, "not a pickle of protocol 2");
    }
    for (;;) {
        machine->opcode_at = machine->at;
        MOE_TRY(read_bytes(machine, 1, &opcode));
        if (*opcode == '.') {
            break;
        }
        MOE_TRY(step(machine, *opcode));
    }
    if (machine->stack.count != 1 || machine->mark_count != 0) {
        return moe_pickle_refuse(machine, "the pickle stops with other than one value");
    }
    machine->pickle->root = machine->stack.items[0];
    return MOE_OK;
}

enum moe_status moe_pickle_parse(struct moe_pickle **out, const char *name,
                                 const unsigned char *bytes, size_t size, struct moe_error *err)
{
    struct moe_pickle_machine machine = { .name = name, .bytes = bytes, .size = size, .err = err };
    machine.pickle = calloc(1, sizeof *machine.pickle);
    if (machine.pickle == NULL) {
        return no_memory(&machine);
    }
    const enum moe_status status = run(&machine);
    free(machine.stack.items);
    free(machine.memo.items);
    free(machine.marks);
    if (status != MOE_OK) {
        moe_pickle_close(machine.pickle);
        return status;
    }
    *out = machine.pickle;
    return MOE_OK;
}

void moe_pickle_close(struct moe_pickle *pickle)
{
    if (pickle == NULL) {
        return;
    }
    for (struct moe_pickle_node *node = pickle->lists; node != NULL; node = node->next) {
        free(node->list.items);
    }
    while (pickle->chunks != NULL) {
        struct moe_pickle_chunk *chunk = pickle->chunks;
        pickle->chunks = chunk->next;
        free(chunk);
    }
    free(pickle);
}

const struct moe_pickle_value *moe_pickle_root(const struct moe_pickle *pickle)
{
    return &pickle->root;
}

bool moe_pickle_is_text(const struct moe_pickle_value *value, const char *text)
{
    return value->kind == MOE_PICKLE_TEXT && value->text->length == strlen(text) &&
           memcmp(value->text->bytes, text, value->text->length) == 0;
}

const struct moe_pickle_value *moe_pickle_get(const struct moe_pickle_value *value, const char *key)
{
    if (value == NULL || value->kind != MOE_PICKLE_DICT) {
        return NULL;
    }
    for (size_t i = 0; i + 1 < value->list->count; i += 2) {
        if (moe_pickle_is_text(&value->list->items[i], key)) {
            return &value->list->items[i + 1];
        }
    }
    return NULL;
}

const char *moe_pickle_kind_text(const struct moe_pickle_value *value)
{
    static const char *const texts[] = {
        [MOE_PICKLE_NONE] = "None",         [MOE_PICKLE_BOOL] = "a bool",
        [MOE_PICKLE_INT] = "an int",        [MOE_PICKLE_FLOAT] = "a float",
        [MOE_PICKLE_TEXT] = "a text",       [MOE_PICKLE_LIST] = "a list",
        [MOE_PICKLE_TUPLE] = "a tuple",     [MOE_PICKLE_DICT] = "a dict",
        [MOE_PICKLE_TENSOR] = "a tensor",   [MOE_PICKLE_GLOBAL] = "a global",
        [MOE_PICKLE_STORAGE] = "a storage",
    };
    return value == NULL ? "missing" : texts[value->kind];
}
