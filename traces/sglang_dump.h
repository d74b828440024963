/*
 * SGLang dump: the files that SGLang's expert distribution recorder writes in the modes
 * per_pass and per_token: one torch file per rank,
 *   { records: [ {forward_pass_id, rank, gatherer_key, ...} ],
 *     last_physical_to_logical_map: [layer][physical expert] }.
 *
 * Source: sglang, expert_distribution.py at commit 02295fe5. The map is that of the moment of
 * the dump; passes before an earlier rebalancing were routed by another one, which is not
 * recorded.
 */
#ifndef MOE_TRACES_SGLANG_DUMP_H
#define MOE_TRACES_SGLANG_DUMP_H

#include "traces/import.h"
#include "traces/torch_file.h"

struct moe_sglang_rank {
    const char *path;
    struct moe_torch_file *file;
    const struct moe_pickle_list *records; /* dicts */
};

struct moe_sglang_dump {
    size_t rank_count;
    struct moe_sglang_rank *ranks; /* [rank_count], rank r at r; owned */
    uint32_t layer_count;
    uint32_t slot_count;
    uint32_t expert_count;
    uint16_t *map; /* [layer_count][slot_count], logical expert of a physical one; owned */
};

/* Whether some file of the input is a torch file whose first record (or, when record_key is
 * NULL, whose top) is a dict with that key. */
bool moe_sglang_recognise(const struct moe_import_input *input, const char *top_key,
                          const char *record_key);

/* Whether the first torch file of the input cannot be read at all: then some format must take it
 * to say why. */
bool moe_sglang_is_unreadable(const struct moe_import_input *input);

/* Opens all torch files of the input: those of ranks 0 .. n-1, with the same passes. Fills in
 * model, layers, engine and placement of out. Errors: MOE_PARSE, naming the missing rank. */
enum moe_status moe_sglang_dump_open(struct moe_sglang_dump *dump, struct moe_import_input *input,
                                     struct moe_import_description *out,
                                     struct moe_error *err) MOE_MUST_CHECK;

/* Safe on a zeroed struct and safe twice. */
void moe_sglang_dump_close(struct moe_sglang_dump *dump);

/* A whole number of a record. Errors: MOE_PARSE naming file, record and key. */
enum moe_status moe_sglang_record_number(const struct moe_sglang_dump *dump, size_t rank,
                                         size_t record, const char *key, int64_t *out,
                                         struct moe_error *err) MOE_MUST_CHECK;

/* A tensor of a record with dimension_count dimensions, the first of which is the layers; *bytes
 * is to be freed. Errors: likewise. */
enum moe_status moe_sglang_record_tensor(const struct moe_sglang_dump *dump, size_t rank,
                                         size_t record, const char *key, uint32_t dimension_count,
                                         struct moe_tensor *out, unsigned char **bytes,
                                         struct moe_error *err) MOE_MUST_CHECK;

#endif
