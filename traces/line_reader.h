/*
 * Line reader: a text file line by line, each of bounded length.
 */
#ifndef MOE_TRACES_LINE_READER_H
#define MOE_TRACES_LINE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sim/base/error.h"

#define MOE_LINE_LIMIT ((size_t) 512 << 20)

struct moe_line_reader {
    FILE *file; /* NULL when closed */
    const char *path;
    char *line; /* [length], a zero byte follows; without its line end */
    size_t length;
    uint64_t number; /* of the line in the file, from 1; 0 before the first */
    size_t room;
};

/* path must outlive the reader. Errors: MOE_IO. */
enum moe_status moe_line_reader_open(struct moe_line_reader *reader, const char *path,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* The same of bytes[size], which stay until close; name stands for the file in errors. */
enum moe_status moe_line_reader_open_memory(struct moe_line_reader *reader, const char *name,
                                            const void *bytes, size_t size,
                                            struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_line_reader_close(struct moe_line_reader *reader);

/* Back to the beginning. Errors: MOE_IO. */
enum moe_status moe_line_reader_rewind(struct moe_line_reader *reader,
                                       struct moe_error *err) MOE_MUST_CHECK;

/* The next line, which stays until the next call; *got is false at the end of the file. Lines end
 * with \n or \r\n. Errors: MOE_IO; MOE_RANGE for a longer line than MOE_LINE_LIMIT, MOE_PARSE for
 * one with a zero byte, naming the line; MOE_LIMIT. */
enum moe_status moe_line_reader_next(struct moe_line_reader *reader, bool *got,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Adds all that is left of the file to the current line, line ends included. */
enum moe_status moe_line_reader_rest(struct moe_line_reader *reader,
                                     struct moe_error *err) MOE_MUST_CHECK;

#endif
