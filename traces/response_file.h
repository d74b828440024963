/*
 * Response file: what import formats of servers' answers share: JSON documents, whose routes lie
 * in memory, all with the same layers and choices.
 */
#ifndef MOE_TRACES_RESPONSE_FILE_H
#define MOE_TRACES_RESPONSE_FILE_H

#include "traces/json_documents.h"
#include "traces/route_list.h"

struct moe_response_file {
    struct moe_route_list list;
    struct moe_import_description *out;
    const struct moe_import_options *options;
};

/* Adds what one document holds. */
typedef enum moe_status moe_response_reader(struct moe_response_file *file, const json_t *document,
                                            const char *place, struct moe_error *err);

/* open, feed and close of such a format. All layers are taken for recorded ones. */
enum moe_status moe_response_open(void **state, struct moe_import_input *input,
                                  struct moe_import_description *out, const char *engine,
                                  moe_response_reader *read, struct moe_error *err) MOE_MUST_CHECK;
enum moe_status moe_response_feed(void *state, struct moe_import_sink *sink,
                                  struct moe_error *err) MOE_MUST_CHECK;
void moe_response_close(void *state);

/* Fixes the axes at the first response; later ones must agree. place begins the error. Errors:
 * MOE_PARSE. */
enum moe_status moe_response_axes(struct moe_response_file *file, uint64_t layers, uint64_t top_k,
                                  const char *place, struct moe_error *err) MOE_MUST_CHECK;

/* The first document of the first file, for recognise; NULL when it is no JSON. The caller closes
 * documents (zeroed before) in any case. */
const json_t *moe_response_first(struct moe_json_documents *documents,
                                 const struct moe_import_input *input);

#endif
