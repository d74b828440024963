#include "traces/line_reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 1 << 12 };

enum moe_status moe_line_reader_open(struct moe_line_reader *reader, const char *path,
                                     struct moe_error *err)
{
    *reader = (struct moe_line_reader){ .path = path };
    reader->file = fopen(path, "rbe");
    return reader->file != NULL ? MOE_OK : moe_fail(err, MOE_IO, "%s: %s", path, strerror(errno));
}

enum moe_status moe_line_reader_open_memory(struct moe_line_reader *reader, const char *name,
                                            const void *bytes, size_t size, struct moe_error *err)
{
    *reader = (struct moe_line_reader){ .path = name };
    if (size == 0) {
        reader->file = fopen("/dev/null", "rbe"); /* some fmemopen refuse nothing at all */
    } else {
        void *writable = NULL;
        memcpy(&writable, &bytes, sizeof writable); /* opened for reading only */
        reader->file = fmemopen(writable, size, "rb");
    }
    return reader->file != NULL ? MOE_OK
                                : moe_fail(err, MOE_LIMIT, "%s: %s", name, strerror(errno));
}

void moe_line_reader_close(struct moe_line_reader *reader)
{
    if (reader->file != NULL) {
        (void) fclose(reader->file);
        reader->file = NULL;
    }
    free(reader->line);
    reader->line = NULL;
    reader->room = 0;
}

enum moe_status moe_line_reader_rewind(struct moe_line_reader *reader, struct moe_error *err)
{
    reader->number = 0;
    reader->length = 0;
    return fseeko(reader->file, 0, SEEK_SET) == 0
               ? MOE_OK
               : moe_fail(err, MOE_IO, "%s: %s", reader->path, strerror(errno));
}

static enum moe_status reserve(struct moe_line_reader *reader, struct moe_error *err)
{
    if (reader->length + 2 <= reader->room) {
        return MOE_OK;
    }
    if (reader->length >= MOE_LINE_LIMIT) {
        return moe_fail(err, MOE_RANGE, "%s:%" PRIu64 ": a line of more than %zu bytes",
                        reader->path, reader->number, MOE_LINE_LIMIT);
    }
    const size_t room = reader->room == 0 ? FIRST_ROOM : 2 * reader->room;
    char *line = realloc(reader->line, room);
    if (line == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s:%" PRIu64 ": no memory for the line", reader->path,
                        reader->number);
    }
    reader->line = line;
    reader->room = room;
    return MOE_OK;
}

/* Reads up to a line feed (kept out) or, when whole is set, the end of the file. */
static enum moe_status fill(struct moe_line_reader *reader, bool whole, bool *ended,
                            struct moe_error *err)
{
    for (;;) {
        MOE_TRY(reserve(reader, err));
        const int c = getc_unlocked(reader->file);
        if (c == EOF || (c == '\n' && !whole)) {
            *ended = c == EOF;
            reader->line[reader->length] = '\0';
            return ferror(reader->file) == 0
                       ? MOE_OK
                       : moe_fail(err, MOE_IO, "%s: %s", reader->path, strerror(errno));
        }
        if (c == '\0') {
            return moe_fail(err, MOE_PARSE, "%s:%" PRIu64 ": byte %zu is zero: no text",
                            reader->path, reader->number, reader->length);
        }
        reader->line[reader->length++] = (char) c;
    }
}

enum moe_status moe_line_reader_next(struct moe_line_reader *reader, bool *got,
                                     struct moe_error *err)
{
    bool ended = false;
    reader->length = 0;
    reader->number++;
    MOE_TRY(fill(reader, false, &ended, err));
    *got = !ended || reader->length > 0;
    if (reader->length > 0 && reader->line[reader->length - 1] == '\r') {
        reader->line[--reader->length] = '\0';
    }
    return MOE_OK;
}

enum moe_status moe_line_reader_rest(struct moe_line_reader *reader, struct moe_error *err)
{
    bool ended = false;
    MOE_TRY(reserve(reader, err));
    reader->line[reader->length++] = '\n';
    return fill(reader, true, &ended, err);
}
