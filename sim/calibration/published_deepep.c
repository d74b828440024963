/*
 * What DeepEP's low-latency test prints per rank:
 *
 *   [rank 3] Dispatch bandwidth: 204.55 GB/s, avg_t=36.72 us | Combine bandwidth: ...
 *
 * Bytes are bandwidth times time (it counts GB as 1e9). The slowest rank of each block of lines
 * counts, and a block ends where a rank comes again; blocks of several token counts in one file
 * give several points. Ranks are the highest number seen plus one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/calibration/published.h"

enum { RANK_LIMIT = 4096 };

static bool probe(const char *text)
{
    return strstr(text, "Dispatch bandwidth: ") != NULL && strstr(text, "avg_t=") != NULL;
}

/* One direction of a line: its figures, or false when it is not there. */
static bool read_part(const char *line, const char *end, const char *word, double *gb_s,
                      double *time_us)
{
    const char *at = strstr(line, word);
    char *after = NULL;
    if (at == NULL || at >= end) {
        return false;
    }
    *gb_s = strtod(at + strlen(word), &after);
    const char *time = strstr(after, "avg_t=");
    if (after == at + strlen(word) || time == NULL || time >= end) {
        return false;
    }
    *time_us = strtod(time + strlen("avg_t="), &after);
    return after != time + strlen("avg_t=");
}

struct block {
    double bytes[2]; /* dispatch, combine: of the slowest rank */
    double ns[2];
    bool seen[RANK_LIMIT];
    uint32_t ranks; /* highest number plus one */
    uint32_t lines;
};

static enum moe_status end_block(struct moe_published *out, struct block *block,
                                 const struct moe_published_options *options, struct moe_error *err)
{
    static const enum moe_segment_op ops[] = { MOE_SEGMENT_DISPATCH, MOE_SEGMENT_COMBINE };
    const uint32_t ranks = options->ranks != 0 ? options->ranks : block->ranks;
    for (int k = 0; k < 2 && block->lines > 0; k++) {
        if (ranks < 2) {
            return moe_fail(err, MOE_RANGE, "times of %u rank; give --ranks, 2 or more", ranks);
        }
        const struct moe_published_exchange exchange = { .op = ops[k],
                                                         .link = options->link,
                                                         .ranks = ranks,
                                                         .bytes = block->bytes[k],
                                                         .ns = block->ns[k] };
        MOE_TRY(moe_published_add_exchange(out, &exchange, err));
    }
    memset(block, 0, sizeof *block);
    return MOE_OK;
}

static enum moe_status read_line(struct moe_published *out, struct block *block, const char *line,
                                 const char *place, const struct moe_published_options *options,
                                 struct moe_error *err)
{
    static const char *const words[] = { "Dispatch bandwidth: ", "Combine bandwidth: " };
    const char *end = line + strcspn(line, "\n");
    const char *tag = strstr(line, "[rank ");
    double gb_s[2] = { 0 };
    double time_us[2] = { 0 };
    if (tag == NULL || tag >= end || !read_part(line, end, words[0], &gb_s[0], &time_us[0])) {
        return MOE_OK;
    }
    const unsigned long rank = strtoul(tag + strlen("[rank "), NULL, 10);
    if (rank >= RANK_LIMIT || !read_part(line, end, words[1], &gb_s[1], &time_us[1])) {
        return moe_fail(err, MOE_PARSE,
                        "%s: a line of dispatch without a combine, or of rank %lu (0 to %d)", place,
                        rank, RANK_LIMIT - 1);
    }
    for (int k = 0; k < 2; k++) {
        if (!(gb_s[k] > 0.0 && gb_s[k] < 1e6 && time_us[k] > 0.0 && time_us[k] < 1e9)) {
            return moe_fail(err, MOE_RANGE, "%s: %g GB/s in %g us; both are above 0", place,
                            gb_s[k], time_us[k]);
        }
    }
    if (block->seen[rank]) {
        MOE_TRY(end_block(out, block, options, err));
    }
    block->seen[rank] = true;
    block->ranks = rank + 1 > block->ranks ? (uint32_t) rank + 1 : block->ranks;
    block->lines++;
    for (int k = 0; k < 2; k++) {
        if (time_us[k] * 1e3 > block->ns[k]) {
            block->ns[k] = time_us[k] * 1e3;
            block->bytes[k] = gb_s[k] * time_us[k] * 1e3;
        }
    }
    return MOE_OK;
}

static enum moe_status read(struct moe_published *out, const char *text, const char *name,
                            const struct moe_published_options *options, struct moe_error *err)
{
    struct block *block = MOE_NEW(out->arena, struct block, 1);
    unsigned line = 0;
    char place[200];
    if (block == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", name);
    }
    for (const char *at = text; *at != '\0';) {
        (void) snprintf(place, sizeof place, "%.180s:%u", name, ++line);
        MOE_TRY(read_line(out, block, at, place, options, err));
        at += strcspn(at, "\n");
        at += *at == '\n' ? 1 : 0;
    }
    return end_block(out, block, options, err);
}

const struct moe_published_format moe_published_deepep = {
    .name = "deepep",
    .summary = "what DeepEP's low-latency test prints: dispatch and combine by rank",
    .probe = probe,
    .read = read,
};
