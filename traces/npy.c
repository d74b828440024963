#include "traces/npy.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "traces/expert_pack.h"
#include "traces/trace_store.h"

static const struct {
    const char *descr;
    uint32_t item_bytes;
    enum moe_tensor_type tensor;
} types[MOE_NPY_TYPE_COUNT] = {
    [MOE_NPY_U8] = { "|u1", 1, MOE_TENSOR_U8 },     [MOE_NPY_U16] = { "<u2", 2, MOE_TENSOR_U16 },
    [MOE_NPY_I16] = { "<i2", 2, MOE_TENSOR_I16 },   [MOE_NPY_I32] = { "<i4", 4, MOE_TENSOR_I32 },
    [MOE_NPY_I64] = { "<i8", 8, MOE_TENSOR_I64 },   [MOE_NPY_I8] = { "|i1", 1, MOE_TENSOR_I8 },
    [MOE_NPY_BOOL] = { "|b1", 1, MOE_TENSOR_BOOL }, [MOE_NPY_U32] = { "<u4", 4, MOE_TENSOR_U32 },
    [MOE_NPY_U64] = { "<u8", 8, MOE_TENSOR_U64 },   [MOE_NPY_F16] = { "<f2", 2, MOE_TENSOR_F16 },
    [MOE_NPY_F32] = { "<f4", 4, MOE_TENSOR_F32 },   [MOE_NPY_F64] = { "<f8", 8, MOE_TENSOR_F64 },
};

static const enum moe_npy_type last_in_pieces = MOE_NPY_I64;

/* A cursor over the header's dict literal. */
struct text {
    const char *name;
    const unsigned char *at;
    const unsigned char *end;
    struct moe_error *err;
};

static void skip_space(struct text *text)
{
    while (text->at < text->end && (*text->at == ' ' || *text->at == '\n')) {
        text->at++;
    }
}

/* The next character that is no space; 0 at the end. */
static unsigned char peek(struct text *text)
{
    skip_space(text);
    return text->at < text->end ? *text->at : 0;
}

static bool take(struct text *text, char wanted)
{
    if (peek(text) != (unsigned char) wanted) {
        return false;
    }
    text->at++;
    return true;
}

static enum moe_status expect(struct text *text, char wanted, const char *where)
{
    return take(text, wanted)
               ? MOE_OK
               : moe_fail(text->err, MOE_PARSE, "%s: not a .npy header: '%c' is missing %s",
                          text->name, wanted, where);
}

/* A quoted word without escapes, as numpy writes its keys and types. */
static enum moe_status read_word(struct text *text, char *word, size_t size)
{
    const unsigned char quote = peek(text);
    size_t length = 0;
    if (quote != '\'' && quote != '"') {
        return moe_fail(text->err, MOE_PARSE, "%s: not a .npy header: a quoted word is missing",
                        text->name);
    }
    for (text->at++; text->at < text->end && *text->at != quote; text->at++) {
        if (length + 1 >= size || *text->at < ' ' || *text->at > '~') {
            return moe_fail(text->err, MOE_PARSE,
                            "%s: not a .npy header: a quoted word of more than %zu characters or "
                            "not in ASCII",
                            text->name, size - 1);
        }
        word[length++] = (char) *text->at;
    }
    word[length] = '\0';
    return expect(text, (char) quote, "after a word");
}

static enum moe_status read_type(struct text *text, struct moe_npy_header *out)
{
    char descr[16];
    if (peek(text) == '[') {
        return moe_fail(text->err, MOE_UNSUPPORTED,
                        "%s: an array of records; |u1, <u2, <i2, <i4 and <i8 are read", text->name);
    }
    MOE_TRY(read_word(text, descr, sizeof descr));
    for (int i = 0; i < MOE_NPY_TYPE_COUNT; i++) {
        if (strcmp(types[i].descr, descr) == 0) {
            out->type = (enum moe_npy_type) i;
            out->item_bytes = types[i].item_bytes;
            return MOE_OK;
        }
    }
    return moe_fail(text->err, MOE_UNSUPPORTED,
                    "%s: values of type '%.15s'; |u1, <u2, <i2, <i4 and <i8 are read (as a whole "
                    "array also |i1, |b1, <u4, <u8, <f2, <f4 and <f8)",
                    text->name, descr);
}

static enum moe_status read_order(struct text *text, struct moe_npy_header *out)
{
    skip_space(text);
    const size_t left = (size_t) (text->end - text->at);
    if (left >= 5 && memcmp(text->at, "False", 5) == 0) {
        text->at += 5;
        return MOE_OK;
    }
    if (left >= 4 && memcmp(text->at, "True", 4) == 0) {
        text->at += 4;
        out->fortran_order = true;
        return MOE_OK;
    }
    return moe_fail(text->err, MOE_PARSE,
                    "%s: not a .npy header: fortran_order is neither True nor False", text->name);
}

static enum moe_status read_extent(struct text *text, uint64_t *out)
{
    uint64_t value = 0;
    if (peek(text) < '0' || peek(text) > '9') {
        return moe_fail(text->err, MOE_PARSE, "%s: not a .npy header: shape is no tuple of numbers",
                        text->name);
    }
    for (; text->at < text->end && *text->at >= '0' && *text->at <= '9'; text->at++) {
        if (value > (UINT64_MAX - 9) / 10) {
            return moe_fail(text->err, MOE_PARSE, "%s: a shape of more than 2^64 values",
                            text->name);
        }
        value = value * 10 + (uint64_t) (*text->at - '0');
    }
    *out = value;
    return MOE_OK;
}

static enum moe_status read_shape(struct text *text, struct moe_npy_header *out)
{
    MOE_TRY(expect(text, '(', "before the shape"));
    out->dimension_count = 0;
    out->item_count = 1;
    while (!take(text, ')')) {
        uint64_t extent = 0;
        if (out->dimension_count == MOE_NPY_DIMENSION_LIMIT) {
            return moe_fail(text->err, MOE_UNSUPPORTED, "%s: more than %d dimensions", text->name,
                            MOE_NPY_DIMENSION_LIMIT);
        }
        MOE_TRY(read_extent(text, &extent));
        out->shape[out->dimension_count++] = extent;
        /* The bytes must fit a file offset, whatever the type. */
        if (__builtin_mul_overflow(out->item_count, extent, &out->item_count) ||
            out->item_count > INT64_MAX / 16) {
            return moe_fail(text->err, MOE_PARSE, "%s: a shape of more than 2^59 values",
                            text->name);
        }
        if (!take(text, ',') && peek(text) != ')') {
            return expect(text, ')', "after the shape");
        }
    }
    return MOE_OK;
}

static enum moe_status read_dict(struct text *text, struct moe_npy_header *out)
{
    unsigned seen = 0;
    MOE_TRY(expect(text, '{', "at the beginning"));
    while (!take(text, '}')) {
        char key[16];
        unsigned bit = 0;
        MOE_TRY(read_word(text, key, sizeof key));
        MOE_TRY(expect(text, ':', "after a key"));
        if (strcmp(key, "descr") == 0) {
            bit = 1;
            MOE_TRY(read_type(text, out));
        } else if (strcmp(key, "fortran_order") == 0) {
            bit = 2;
            MOE_TRY(read_order(text, out));
        } else if (strcmp(key, "shape") == 0) {
            bit = 4;
            MOE_TRY(read_shape(text, out));
        } else {
            return moe_fail(text->err, MOE_PARSE, "%s: not a .npy header: unknown key '%s'",
                            text->name, key);
        }
        if ((seen & bit) != 0) {
            return moe_fail(text->err, MOE_PARSE, "%s: not a .npy header: key '%s' stands twice",
                            text->name, key);
        }
        seen |= bit;
        if (!take(text, ',') && peek(text) != '}') {
            return expect(text, '}', "at the end");
        }
    }
    if (seen != 7 || peek(text) != 0) {
        return moe_fail(text->err, MOE_PARSE, "%s: not a .npy header: %s", text->name,
                        seen != 7 ? "descr, fortran_order or shape is missing"
                                  : "something follows the dict");
    }
    return MOE_OK;
}

enum moe_status moe_npy_parse(struct moe_npy_header *out, const char *name,
                              const unsigned char *bytes, size_t size, struct moe_error *err)
{
    struct moe_npy_header header = { 0 };
    if (size < 10 || memcmp(bytes, "\x93NUMPY", 6) != 0) {
        return moe_fail(err, MOE_PARSE, "%s: not a .npy file: it does not begin with \\x93NUMPY",
                        name);
    }
    const unsigned major = bytes[6];
    if (major < 1 || major > 3 || bytes[7] != 0) {
        return moe_fail(err, MOE_UNSUPPORTED,
                        "%s: a .npy file of version %u.%u; 1.0, 2.0 and 3.0 are read", name, major,
                        bytes[7]);
    }
    const size_t begin = major == 1 ? 10 : 12;
    uint64_t length = (uint64_t) bytes[8] | (uint64_t) bytes[9] << 8;
    if (major > 1 && size >= begin) {
        length |= (uint64_t) bytes[10] << 16 | (uint64_t) bytes[11] << 24;
    }
    if (size < begin || length > size - begin) {
        return moe_fail(err, MOE_PARSE,
                        "%s: the header has %llu bytes; the file ends in it, or it is longer than "
                        "the %d that are read",
                        name, (unsigned long long) length, MOE_NPY_HEADER_LIMIT);
    }
    struct text text = { name, bytes + begin, bytes + begin + length, err };
    MOE_TRY(read_dict(&text, &header));
    header.data_begin = begin + length;
    *out = header;
    return MOE_OK;
}

enum moe_status moe_npy_tensor(struct moe_tensor *out, const char *name, const unsigned char *bytes,
                               size_t size, struct moe_error *err)
{
    struct moe_npy_header header;
    MOE_TRY(moe_npy_parse(&header, name, bytes, size, err));
    struct moe_tensor tensor = {
        .type = types[header.type].tensor,
        .dimension_count = header.dimension_count,
        .data = bytes + header.data_begin,
    };
    const uint64_t expected = header.item_count * header.item_bytes;
    if (expected != size - header.data_begin) {
        return moe_fail(err, MOE_PARSE, "%s: %llu bytes of values are expected, %llu were found",
                        name, (unsigned long long) expected,
                        (unsigned long long) (size - header.data_begin));
    }
    memcpy(tensor.shape, header.shape, sizeof tensor.shape);
    moe_tensor_set_strides(&tensor, header.fortran_order);
    MOE_TRY(moe_tensor_check(&tensor, expected, name, err));
    *out = tensor;
    return MOE_OK;
}

/* In pieces of a file only what one finds there. */
static enum moe_status check_plain(const struct moe_npy *npy, struct moe_error *err)
{
    if (npy->header.fortran_order) {
        return moe_fail(err, MOE_UNSUPPORTED,
                        "%s: in Fortran order; save it with numpy.ascontiguousarray first",
                        npy->path);
    }
    return npy->header.type <= last_in_pieces
               ? MOE_OK
               : moe_fail(err, MOE_UNSUPPORTED,
                          "%s: values of type '%s'; |u1, <u2, <i2, <i4 and <i8 are read", npy->path,
                          types[npy->header.type].descr);
}

static enum moe_status read_at(const struct moe_npy *npy, uint64_t offset, uint64_t size,
                               unsigned char *bytes, uint64_t *got_out, struct moe_error *err)
{
    uint64_t done = 0;
    while (done < size) {
        const ssize_t got =
            pread(npy->file, bytes + done, (size_t) (size - done), (off_t) (offset + done));
        if (got < 0 && errno != EINTR) {
            return moe_fail(err, MOE_IO, "%s: %s", npy->path, strerror(errno));
        }
        if (got == 0) {
            break;
        }
        done += got > 0 ? (uint64_t) got : 0;
    }
    *got_out = done;
    return MOE_OK;
}

static enum moe_status read_header(struct moe_npy *npy, struct moe_error *err)
{
    struct stat info;
    uint64_t got = 0;
    if (fstat(npy->file, &info) != 0) {
        return moe_fail(err, MOE_IO, "%s: %s", npy->path, strerror(errno));
    }
    if (!S_ISREG(info.st_mode)) {
        return moe_fail(err, MOE_PARSE, "%s: not a regular file", npy->path);
    }
    unsigned char *bytes = malloc(MOE_NPY_HEADER_LIMIT);
    if (bytes == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", npy->path);
    }
    enum moe_status status = read_at(npy, 0, MOE_NPY_HEADER_LIMIT, bytes, &got, err);
    if (status == MOE_OK) {
        status = moe_npy_parse(&npy->header, npy->path, bytes, (size_t) got, err);
    }
    free(bytes);
    if (status != MOE_OK) {
        return status;
    }
    MOE_TRY(check_plain(npy, err));
    const struct moe_npy_header *header = &npy->header;
    const uint64_t expected = header->data_begin + header->item_count * header->item_bytes;
    if ((uint64_t) info.st_size != expected) {
        return moe_fail(
            err, MOE_PARSE, "%s: %s: %llu bytes are expected, %lld were found", npy->path,
            (uint64_t) info.st_size < expected ? "the file is truncated" : "the file is too long",
            (unsigned long long) expected, (long long) info.st_size);
    }
    return MOE_OK;
}

enum moe_status moe_npy_open(struct moe_npy *npy, const char *path, struct moe_error *err)
{
    *npy = (struct moe_npy){ .file = -1 };
    if (snprintf(npy->path, sizeof npy->path, "%s", path) >= (int) sizeof npy->path) {
        return moe_fail(err, MOE_RANGE, "a path of %zu bytes; at most %zu are allowed",
                        strlen(path), sizeof npy->path - 1);
    }
    npy->file = open(path, O_RDONLY | O_CLOEXEC);
    if (npy->file < 0) {
        return moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
    }
    const enum moe_status status = read_header(npy, err);
    if (status != MOE_OK) {
        moe_npy_close(npy);
    }
    return status;
}

void moe_npy_close(struct moe_npy *npy)
{
    if (npy->file >= 0) {
        (void) close(npy->file);
        npy->file = -1;
    }
}

enum moe_status moe_npy_read(const struct moe_npy *npy, uint64_t first, uint64_t count, void *bytes,
                             struct moe_error *err)
{
    const struct moe_npy_header *header = &npy->header;
    const uint64_t size = count * header->item_bytes;
    uint64_t got = 0;
    assert(first <= header->item_count);
    assert(count <= header->item_count - first);
    MOE_TRY(read_at(npy, header->data_begin + first * header->item_bytes, size, bytes, &got, err));
    return got == size ? MOE_OK
                       : moe_fail(err, MOE_PARSE,
                                  "%s: the file became shorter while it was read: %llu bytes were "
                                  "expected, %llu were found",
                                  npy->path, (unsigned long long) size, (unsigned long long) got);
}

int64_t moe_npy_value(enum moe_npy_type type, const void *bytes, size_t index)
{
    uint16_t u16 = 0;
    int16_t i16 = 0;
    int32_t i32 = 0;
    int64_t i64 = 0;
    const unsigned char *p = bytes;
    assert(type <= last_in_pieces);
    if (type == MOE_NPY_U8) {
        return p[index];
    }
    if (type == MOE_NPY_U16) {
        memcpy(&u16, p + index * sizeof u16, sizeof u16);
        return u16;
    }
    if (type == MOE_NPY_I16) {
        memcpy(&i16, p + index * sizeof i16, sizeof i16);
        return i16;
    }
    if (type == MOE_NPY_I32) {
        memcpy(&i32, p + index * sizeof i32, sizeof i32);
        return i32;
    }
    memcpy(&i64, p + index * sizeof i64, sizeof i64);
    return i64;
}

size_t moe_npy_to_experts(enum moe_npy_type type, const void *bytes, size_t count,
                          uint32_t expert_count, uint16_t *out)
{
    /* The common case at the speed of the memory; the loop below finds the culprit. */
    if (type == MOE_NPY_U8 && moe_expert_max_narrow(bytes, count) < expert_count) {
        moe_expert_widen(bytes, count, out);
        return count;
    }
    for (size_t i = 0; i < count; i++) {
        const int64_t value = moe_npy_value(type, bytes, i);
        if (value < -1 || value >= (int64_t) expert_count) {
            return i;
        }
        out[i] = value < 0 ? MOE_EXPERT_UNKNOWN : (uint16_t) value;
    }
    return count;
}
