#include "traces/json_stream.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NOTHING_AHEAD = EOF - 1 };

static void begin(struct moe_json_stream *stream, const char *path)
{
    *stream =
        (struct moe_json_stream){ .path = path, .line = 1, .column = 1, .ahead = NOTHING_AHEAD };
}

enum moe_status moe_json_stream_open(struct moe_json_stream *stream, const char *path,
                                     struct moe_error *err)
{
    begin(stream, path);
    stream->file = fopen(path, "rbe");
    return stream->file != NULL ? MOE_OK : moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
}

enum moe_status moe_json_stream_open_memory(struct moe_json_stream *stream, const char *name,
                                            const void *bytes, size_t size, struct moe_error *err)
{
    void *writable = NULL;
    begin(stream, name);
    memcpy(&writable, &bytes, sizeof writable); /* opened for reading only */
    stream->file = size == 0 ? fopen("/dev/null", "rbe") : fmemopen(writable, size, "rb");
    return stream->file != NULL ? MOE_OK
                                : moe_fail(err, MOE_LIMIT, "%s: %s", name, strerror(errno));
}

void moe_json_stream_close(struct moe_json_stream *stream)
{
    if (stream->file != NULL) {
        (void) fclose(stream->file);
        stream->file = NULL;
    }
}

static enum moe_status refuse(const struct moe_json_stream *stream, const char *what,
                              struct moe_error *err)
{
    return moe_fail(err, MOE_PARSE, "%s:%" PRIu64 ":%" PRIu64 ": not valid JSON: %s", stream->path,
                    stream->line, stream->column, what);
}

static int take(struct moe_json_stream *stream)
{
    int c = stream->ahead;
    stream->ahead = NOTHING_AHEAD;
    if (c == NOTHING_AHEAD) {
        c = getc_unlocked(stream->file);
    }
    stream->column++;
    if (c == '\n') {
        stream->line++;
        stream->column = 1;
    }
    return c;
}

static int peek(struct moe_json_stream *stream)
{
    if (stream->ahead == NOTHING_AHEAD) {
        stream->ahead = getc_unlocked(stream->file);
    }
    return stream->ahead;
}

static int peek_solid(struct moe_json_stream *stream)
{
    int c = peek(stream);
    while (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        (void) take(stream);
        c = peek(stream);
    }
    return c;
}

/* The rest of a string whose opening quote was read. Escapes other than \u are resolved; keys
 * of ours have none. */
static enum moe_status read_text(struct moe_json_stream *stream, struct moe_error *err)
{
    size_t length = 0;
    stream->text_is_cut = false;
    for (;;) {
        int c = take(stream);
        if (c == '"') {
            break;
        }
        if (c == EOF || c < ' ') {
            return refuse(stream, "a text does not end, or holds a control character", err);
        }
        if (c == '\\') {
            static const char from[] = "\"\\/bfnrtu";
            static const char to[] = "\"\\/\b\f\n\r\t?";
            c = take(stream);
            const char *found = c == EOF || c == '\0' ? NULL : strchr(from, c);
            if (found == NULL) {
                return refuse(stream, "an unknown escape in a text", err);
            }
            for (int i = 0; c == 'u' && i < 4; i++) {
                const int digit = take(stream);
                if (digit == EOF || digit == '\0' ||
                    strchr("0123456789abcdefABCDEF", digit) == NULL) {
                    return refuse(stream, "\\u without four hexadecimal digits", err);
                }
            }
            c = (unsigned char) to[found - from];
        }
        if (length + 1 < sizeof stream->text) {
            stream->text[length++] = (char) c;
        } else {
            stream->text_is_cut = true;
        }
    }
    stream->text[length] = '\0';
    return MOE_OK;
}

/* Longest number that is read: a double needs 17 digits and an exponent. */
enum { NUMBER_BYTES = 64 };

static enum moe_status read_number(struct moe_json_stream *stream, struct moe_error *err)
{
    char text[NUMBER_BYTES];
    size_t length = 0;
    for (int c = peek(stream); c != EOF && c != '\0' && strchr("+-.0123456789eE", c) != NULL;
         c = peek(stream)) {
        if (length + 1 == sizeof text) {
            return refuse(stream, "a number of more than 63 characters", err);
        }
        text[length++] = (char) take(stream);
    }
    text[length] = '\0';
    const char *digits = text + (text[0] == '-');
    const bool zero_led = digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9';
    const char *point = strchr(text, '.');
    char *end = NULL;
    const char *behind = digits + strspn(digits, "0123456789");
    if (*behind == '\0' && length <= 15) { /* exact, and ten times as fast as strtod */
        int64_t whole = 0;
        for (const char *digit = digits; *digit != '\0'; digit++) {
            whole = whole * 10 + (*digit - '0');
        }
        stream->number = text[0] == '-' ? -(double) whole : (double) whole;
        end = text + length;
    } else {
        stream->number = strtod(text, &end);
    }
    if (digits[0] < '0' || digits[0] > '9' || zero_led || *end != '\0' ||
        !isfinite(stream->number) || (point != NULL && (point[1] < '0' || point[1] > '9'))) {
        return refuse(stream, "a malformed or infinite number", err);
    }
    stream->number_is_whole =
        stream->number == floor(stream->number) && fabs(stream->number) <= 0x1p53;
    return MOE_OK;
}

static enum moe_status read_word(struct moe_json_stream *stream, struct moe_error *err)
{
    size_t length = 0;
    for (int c = peek(stream); c >= 'a' && c <= 'z' && length < 6; c = peek(stream)) {
        stream->text[length++] = (char) take(stream);
    }
    stream->text[length] = '\0';
    return strcmp(stream->text, "true") == 0 || strcmp(stream->text, "false") == 0 ||
                   strcmp(stream->text, "null") == 0
               ? MOE_OK
               : refuse(stream, "a value is expected (NaN and Infinity are none)", err);
}

static enum moe_status open_container(struct moe_json_stream *stream, bool is_object,
                                      struct moe_error *err)
{
    (void) take(stream);
    if (stream->depth == MOE_JSON_DEPTH_LIMIT) {
        return refuse(stream, "nested more than 64 deep", err);
    }
    stream->is_object[stream->depth++] = is_object;
    stream->has_item = false;
    stream->after_key = false;
    return MOE_OK;
}

static enum moe_status read_value(struct moe_json_stream *stream, int c, enum moe_json_token *out,
                                  struct moe_error *err)
{
    stream->after_key = false;
    stream->has_item = true;
    if (c == '{' || c == '[') {
        *out = c == '{' ? MOE_JSON_OBJECT_BEGIN : MOE_JSON_ARRAY_BEGIN;
        return open_container(stream, c == '{', err);
    }
    if (c == '"') {
        (void) take(stream);
        *out = MOE_JSON_TEXT;
        return read_text(stream, err);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        *out = MOE_JSON_NUMBER;
        return read_number(stream, err);
    }
    *out = MOE_JSON_WORD;
    return read_word(stream, err);
}

static enum moe_status read_key(struct moe_json_stream *stream, enum moe_json_token *out,
                                struct moe_error *err)
{
    if (take(stream) != '"') {
        return refuse(stream, "a key is expected", err);
    }
    MOE_TRY(read_text(stream, err));
    if (peek_solid(stream) != ':') {
        return refuse(stream, "a colon is expected after a key", err);
    }
    (void) take(stream);
    stream->after_key = true;
    stream->has_item = true;
    *out = MOE_JSON_KEY;
    return MOE_OK;
}

enum moe_status moe_json_stream_next(struct moe_json_stream *stream, enum moe_json_token *out,
                                     struct moe_error *err)
{
    int c = peek_solid(stream);
    if (c == EOF && ferror(stream->file) != 0) {
        return moe_fail(err, MOE_IO, "%s: %s", stream->path, strerror(errno));
    }
    if (stream->depth == 0) {
        if (stream->begun) {
            *out = MOE_JSON_END;
            return c == EOF ? MOE_OK : refuse(stream, "something follows the document", err);
        }
        stream->begun = true;
        return read_value(stream, c, out, err);
    }
    const bool is_object = stream->is_object[stream->depth - 1];
    if (!stream->after_key && c == (is_object ? '}' : ']')) {
        (void) take(stream);
        stream->depth--;
        stream->has_item = true;
        *out = is_object ? MOE_JSON_OBJECT_END : MOE_JSON_ARRAY_END;
        return MOE_OK;
    }
    if (!stream->after_key && stream->has_item) {
        if (c != ',') {
            return refuse(stream, "a comma or the end of a list or object is expected", err);
        }
        (void) take(stream);
        c = peek_solid(stream);
        if (c == ']' || c == '}') {
            return refuse(stream, "a value is expected after a comma", err);
        }
    }
    return is_object && !stream->after_key ? read_key(stream, out, err)
                                           : read_value(stream, c, out, err);
}

enum moe_status moe_json_stream_skip(struct moe_json_stream *stream, struct moe_error *err)
{
    const uint32_t depth = stream->depth;
    enum moe_json_token token = MOE_JSON_END;
    do {
        MOE_TRY(moe_json_stream_next(stream, &token, err));
    } while (stream->depth > depth);
    return stream->depth == depth ? MOE_OK : refuse(stream, "a value is expected", err);
}

enum moe_status moe_json_stream_expect(struct moe_json_stream *stream, enum moe_json_token wanted,
                                       const char *what, struct moe_error *err)
{
    enum moe_json_token token = MOE_JSON_END;
    MOE_TRY(moe_json_stream_next(stream, &token, err));
    return token == wanted ? MOE_OK
                           : moe_fail(err, MOE_PARSE, "%s:%" PRIu64 ":%" PRIu64 ": %s is expected",
                                      stream->path, stream->line, stream->column, what);
}

/* Where a reader of matrices is. */
struct position {
    uint32_t depth;   /* lists that are open: 1 .. 3 */
    uint32_t deepest; /* depth at which the numbers stand; 0: not seen yet */
    uint64_t step;
    uint32_t row;
    uint32_t column;
};

static enum moe_status refuse_at(const struct moe_json_stream *stream, const char *what,
                                 const struct position *at, enum moe_status status,
                                 const char *reason, struct moe_error *err)
{
    char step[32] = "";
    if (at->deepest == 3) {
        (void) snprintf(step, sizeof step, "[%" PRIu64 "]", at->step);
    }
    return moe_fail(err, status, "%s:%" PRIu64 ":%" PRIu64 ": %s%s[%u][%u] %s", stream->path,
                    stream->line, stream->column, what, step, at->row, at->column, reason);
}

static enum moe_status add_cell(struct moe_json_matrix *matrix, const struct position *at,
                                const struct moe_json_stream *stream, const char *what,
                                struct moe_error *err)
{
    const uint32_t limit = matrix->column_count != 0 ? matrix->column_count : matrix->column_limit;
    if (at->column >= limit || at->row >= matrix->row_limit) {
        return refuse_at(stream, what, at, MOE_PARSE,
                         matrix->column_count != 0 ? "makes a row longer than the ones before"
                                                   : "is beyond what a model can have",
                         err);
    }
    if (!(stream->number >= 0.0)) {
        return refuse_at(stream, what, at, MOE_RANGE, "is negative", err);
    }
    const size_t width = matrix->column_count != 0 ? matrix->column_count : 0;
    const size_t index = at->row * width + at->column;
    if (index >= matrix->room) {
        const size_t room = matrix->room == 0 ? 1024 : 2 * matrix->room;
        double *cells = realloc(matrix->cells, room * sizeof *cells);
        if (cells == NULL) {
            return moe_fail(err, MOE_LIMIT, "%s: no memory for %zu numbers", stream->path, room);
        }
        matrix->cells = cells;
        matrix->room = room;
    }
    matrix->cells[index] = stream->number;
    return MOE_OK;
}

static enum moe_status end_row(struct moe_json_matrix *matrix, struct position *at,
                               const struct moe_json_stream *stream, const char *what,
                               struct moe_error *err)
{
    if (at->column == 0 || (matrix->column_count != 0 && at->column != matrix->column_count)) {
        return refuse_at(stream, what, at, MOE_PARSE, "is missing: the rows differ in length", err);
    }
    matrix->column_count = at->column;
    at->row++;
    at->column = 0;
    return MOE_OK;
}

/* depth - 1 lists are left open afterwards. */
static enum moe_status end_list(struct moe_json_matrix *matrix, struct position *at,
                                const struct moe_json_stream *stream, const char *what,
                                moe_json_matrix_taker *taker, void *context, struct moe_error *err)
{
    const uint32_t depth = at->depth--;
    if (at->deepest == 0) {
        return refuse_at(stream, what, at, MOE_PARSE, "is missing: an empty list", err);
    }
    if (depth == at->deepest) {
        return end_row(matrix, at, stream, what, err);
    }
    if (depth + 1 != at->deepest) {
        return MOE_OK;
    }
    if (at->row == 0 || (matrix->row_count != 0 && at->row != matrix->row_count)) {
        return refuse_at(stream, what, at, MOE_PARSE,
                         "is missing: another number of rows than before", err);
    }
    matrix->row_count = at->row;
    at->row = 0;
    at->step++;
    return taker(context, matrix, err);
}

enum moe_status moe_json_stream_matrices(struct moe_json_stream *stream, bool stepped,
                                         const char *what, struct moe_json_matrix *matrix,
                                         moe_json_matrix_taker *taker, void *context,
                                         struct moe_error *err)
{
    struct position at = { .depth = 1 };
    MOE_TRY(
        moe_json_stream_expect(stream, MOE_JSON_ARRAY_BEGIN, "a list of lists of numbers", err));
    while (at.depth > 0) {
        enum moe_json_token token = MOE_JSON_END;
        MOE_TRY(moe_json_stream_next(stream, &token, err));
        if (token == MOE_JSON_ARRAY_BEGIN) {
            at.depth++;
            if (at.depth > (stepped ? 3 : 2) || (at.deepest != 0 && at.depth > at.deepest)) {
                return refuse_at(stream, what, &at, MOE_PARSE, "is nested too deep", err);
            }
        } else if (token == MOE_JSON_NUMBER) {
            at.deepest = at.deepest == 0 ? at.depth : at.deepest;
            if (at.depth != at.deepest || at.depth < 2) {
                return refuse_at(stream, what, &at, MOE_PARSE, "is not nested deep enough", err);
            }
            MOE_TRY(add_cell(matrix, &at, stream, what, err));
            at.column++;
        } else if (token == MOE_JSON_ARRAY_END) {
            MOE_TRY(end_list(matrix, &at, stream, what, taker, context, err));
        } else {
            return refuse_at(stream, what, &at, MOE_PARSE, "is no number", err);
        }
    }
    return MOE_OK;
}

void moe_json_matrix_finish(struct moe_json_matrix *matrix)
{
    free(matrix->cells);
    matrix->cells = NULL;
    matrix->room = 0;
}
