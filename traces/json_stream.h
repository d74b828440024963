/*
 * JSON stream: a JSON document token by token, so that memory does not grow with the file.
 * The document is checked as it passes (RFC 8259), nesting and lengths are bounded.
 */
#ifndef MOE_TRACES_JSON_STREAM_H
#define MOE_TRACES_JSON_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sim/base/error.h"

enum { MOE_JSON_DEPTH_LIMIT = 64, MOE_JSON_TEXT_BYTES = 256 };

enum moe_json_token {
    MOE_JSON_END, /* of the document; nothing but white space follows it */
    MOE_JSON_OBJECT_BEGIN,
    MOE_JSON_OBJECT_END,
    MOE_JSON_ARRAY_BEGIN,
    MOE_JSON_ARRAY_END,
    MOE_JSON_KEY,    /* text holds it; its colon has been read */
    MOE_JSON_TEXT,   /* likewise */
    MOE_JSON_NUMBER, /* number holds it */
    MOE_JSON_WORD,   /* true, false or null, in text */
};

struct moe_json_stream {
    FILE *file; /* NULL when closed */
    const char *path;
    uint64_t line; /* of the next character, from 1 */
    uint64_t column;
    int ahead; /* a character that was read too far; EOF - 1 when there is none */
    uint32_t depth;
    bool is_object[MOE_JSON_DEPTH_LIMIT];
    bool has_item; /* the innermost container has one */
    bool after_key;
    bool begun;
    double number;
    bool number_is_whole;           /* and within 2^53 */
    char text[MOE_JSON_TEXT_BYTES]; /* what is longer is cut, which text_is_cut tells */
    bool text_is_cut;
};

/* path must outlive the stream. Errors: MOE_IO. */
enum moe_status moe_json_stream_open(struct moe_json_stream *stream, const char *path,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* The same of bytes[size], which stay until close; name stands for the file in errors. */
enum moe_status moe_json_stream_open_memory(struct moe_json_stream *stream, const char *name,
                                            const void *bytes, size_t size,
                                            struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_json_stream_close(struct moe_json_stream *stream);

/* Errors: MOE_IO; MOE_PARSE with line and column. */
enum moe_status moe_json_stream_next(struct moe_json_stream *stream, enum moe_json_token *out,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Passes over the value that comes next (after a key, or in a list). */
enum moe_status moe_json_stream_skip(struct moe_json_stream *stream,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* The next token must be that one. Errors: MOE_PARSE naming what was expected. */
enum moe_status moe_json_stream_expect(struct moe_json_stream *stream, enum moe_json_token wanted,
                                       const char *what, struct moe_error *err) MOE_MUST_CHECK;

/* A matrix in the making, from nested lists of numbers; also a shape that all must have. */
struct moe_json_matrix {
    uint32_t row_count;    /* 0: not known yet */
    uint32_t column_count; /* 0: not known yet */
    uint32_t row_limit;
    uint32_t column_limit;
    double *cells; /* [row_count][column_count]; owned */
    size_t room;
};

/* Called with each matrix that was read, in order. */
typedef enum moe_status moe_json_matrix_taker(void *context, const struct moe_json_matrix *matrix,
                                              struct moe_error *err);

/* Reads the value that comes next: [row][column], or when stepped, also [step][row][column].
 * what names the value in errors. Errors: MOE_PARSE for anything else, for rows of different
 * lengths and for values that are no numbers, MOE_RANGE for negative ones, with their place. */
enum moe_status moe_json_stream_matrices(struct moe_json_stream *stream, bool stepped,
                                         const char *what, struct moe_json_matrix *matrix,
                                         moe_json_matrix_taker *take, void *context,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_json_matrix_finish(struct moe_json_matrix *matrix);

#endif
