/*
 * The table that nccl-tests print (its doc/PERFORMANCE.md): size, count, type, redop, root, then
 * time, algbw, busbw and #wrong out of place. size is the whole buffer in bytes; what the
 * busiest rank sends follows from it. Lines of mpirun's tagging ("[1,0]<stdout>:", "0: ") are
 * understood. Times are means over the iterations.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/options.h"
#include "sim/calibration/published.h"

static const struct {
    const char *name; /* of the program, without _perf */
    enum moe_segment_op op;
    double sent; /* times size * (n - 1) / n */
} ops[] = {
    { "alltoall", MOE_SEGMENT_ALL_TO_ALL, 1.0 },
    { "all_gather", MOE_SEGMENT_ALL_GATHER, 1.0 },
    { "reduce_scatter", MOE_SEGMENT_REDUCE_SCATTER, 1.0 },
    { "all_reduce", MOE_SEGMENT_ALL_REDUCE, 2.0 },
};
enum { OP_COUNT = sizeof ops / sizeof ops[0], FIELD_LIMIT = 16, FIELD_BYTES = 32 };

static bool probe(const char *text)
{
    return strstr(text, "busbw") != NULL && strstr(text, "redop") != NULL;
}

static uint32_t find_op(const char *name)
{
    uint32_t i = 0;
    while (i < OP_COUNT && strncmp(name, ops[i].name, strlen(ops[i].name)) != 0) {
        i++;
    }
    return i;
}

/* The line behind what mpirun puts before it. */
static const char *skip_tag(const char *line)
{
    const char *tag = strstr(line, "<stdout>:");
    const char *end = line + strcspn(line, "\n");
    if (tag != NULL && tag < end) {
        return tag + strlen("<stdout>:");
    }
    const size_t digits = strspn(line, "0123456789");
    return digits > 0 && strncmp(line + digits, ": ", 2) == 0 ? line + digits + 2 : line;
}

static uint32_t split(const char *line, char fields[][FIELD_BYTES])
{
    uint32_t count = 0;
    while (count < FIELD_LIMIT) {
        line += strspn(line, " \t\r");
        const size_t bytes = strcspn(line, " \t\r\n");
        if (bytes == 0) {
            break;
        }
        (void) snprintf(fields[count++], FIELD_BYTES, "%.*s", (int) bytes, line);
        line += bytes;
    }
    return count;
}

struct reader {
    struct moe_published *out;
    const char *name;
    unsigned line;
    uint32_t op;
    uint32_t ranks;
    enum moe_link link;
};

/* A row of figures: at least nine fields of which the first two are whole numbers. */
static enum moe_status read_row(const struct reader *reader, char fields[][FIELD_BYTES],
                                struct moe_error *err)
{
    char place[200];
    double size = 0.0;
    double time_us = 0.0;
    (void) snprintf(place, sizeof place, "%.150s:%u: size", reader->name, reader->line);
    MOE_TRY(moe_parse_real(fields[0], place, 0.0, 1e15, &size, err));
    (void) snprintf(place, sizeof place, "%.150s:%u: time", reader->name, reader->line);
    MOE_TRY(moe_parse_real(fields[5], place, 0.0, 1e9, &time_us, err));
    const double sent = ops[reader->op].sent * size * (reader->ranks - 1.0) / reader->ranks;
    if (sent < 1.0 || time_us <= 0.0) {
        reader->out->skipped++; /* sizes that round down to nothing are printed with time 0 */
        return MOE_OK;
    }
    const struct moe_published_exchange exchange = {
        .op = ops[reader->op].op,
        .link = reader->link,
        .ranks = reader->ranks,
        .bytes = sent,
        .ns = time_us * 1e3,
    };
    return moe_published_add_exchange(reader->out, &exchange, err);
}

static enum moe_status need(const struct reader *reader,
                            const struct moe_published_options *options, struct moe_error *err)
{
    if (reader->op == OP_COUNT) {
        return moe_fail(err, MOE_RANGE,
                        "%s:%u: which operation this is of is not said%s%s; give --op, one of "
                        "alltoall all_gather reduce_scatter all_reduce",
                        reader->name, reader->line, options->op == NULL ? "" : ": ",
                        options->op == NULL ? "" : options->op);
    }
    if (reader->ranks < 2) {
        return moe_fail(err, MOE_RANGE,
                        "%s:%u: no '# Rank' lines before the first row; give --ranks, 2 or more",
                        reader->name, reader->line);
    }
    return MOE_OK;
}

static enum moe_status read(struct moe_published *out, const char *text, const char *name,
                            const struct moe_published_options *options, struct moe_error *err)
{
    static const char starting[] = "# Collective test starting: ";
    struct reader reader = { .out = out, .name = name, .op = OP_COUNT, .link = options->link };
    uint32_t seen_ranks = 0;
    reader.op = options->op == NULL ? OP_COUNT : find_op(options->op);
    for (const char *at = text; *at != '\0';) {
        const char *line = skip_tag(at);
        char fields[FIELD_LIMIT][FIELD_BYTES];
        const uint32_t count = split(line, fields);
        reader.line++;
        if (strncmp(line, starting, strlen(starting)) == 0) {
            const uint32_t op = find_op(line + strlen(starting));
            reader.op = options->op == NULL ? op : reader.op;
            seen_ranks = 0;
        } else if (count >= 3 && strcmp(fields[0], "#") == 0 && strcmp(fields[1], "Rank") == 0) {
            seen_ranks++;
        } else if (count >= 9 && strspn(fields[0], "0123456789") == strlen(fields[0]) &&
                   strspn(fields[1], "0123456789") == strlen(fields[1])) {
            reader.ranks = options->ranks != 0 ? options->ranks : seen_ranks;
            MOE_TRY(need(&reader, options, err));
            MOE_TRY(read_row(&reader, fields, err));
        }
        at += strcspn(at, "\n");
        at += *at == '\n' ? 1 : 0;
    }
    return MOE_OK;
}

const struct moe_published_format moe_published_nccl_tests = {
    .name = "nccl-tests",
    .summary =
        "the table that nccl-tests print; all-to-all, all-gather, reduce-scatter, all-reduce",
    .probe = probe,
    .read = read,
};
