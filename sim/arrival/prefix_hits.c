#include "sim/arrival/prefix_hits.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/random.h"
#include "traces/trace_loads.h"
#include "traces/trace_schema.h"

/* Block numbers seen so far, each with the group in which it came first. Open addressing, at
 * most half full. */
struct seen {
    int64_t *block;
    uint32_t *group; /* MOE_ARRIVAL_NO_GROUP: an empty place */
    uint64_t mask;
    uint64_t used;
    uint32_t group_count;
};

static enum moe_status make_room(struct seen *seen, uint64_t places, struct moe_error *err)
{
    int64_t *block = malloc(places * sizeof *block);
    uint32_t *group = malloc(places * sizeof *group);
    if (block == NULL || group == NULL) {
        free(block);
        free(group);
        return moe_fail(err, MOE_LIMIT, "no memory for %" PRIu64 " prefix blocks", places);
    }
    memset(group, 0xff, places * sizeof *group);
    for (uint64_t i = 0; seen->block != NULL && i <= seen->mask; i++) {
        if (seen->group[i] != MOE_ARRIVAL_NO_GROUP) {
            uint64_t at = moe_random_mix((uint64_t) seen->block[i]) & (places - 1);
            while (group[at] != MOE_ARRIVAL_NO_GROUP) {
                at = (at + 1) & (places - 1);
            }
            block[at] = seen->block[i];
            group[at] = seen->group[i];
        }
    }
    free(seen->block);
    free(seen->group);
    seen->block = block;
    seen->group = group;
    seen->mask = places - 1;
    return MOE_OK;
}

static uint64_t place_of(const struct seen *seen, int64_t block)
{
    uint64_t at = moe_random_mix((uint64_t) block) & seen->mask;
    while (seen->group[at] != MOE_ARRIVAL_NO_GROUP && seen->block[at] != block) {
        at = (at + 1) & seen->mask;
    }
    return at;
}

static enum moe_status add_request(struct seen *seen, const int64_t *blocks, uint32_t count,
                                   uint32_t block_tokens, struct moe_arrival *arrival,
                                   struct moe_error *err)
{
    uint32_t hits = 0;
    if (2 * (seen->used + count) > seen->mask + 1) {
        uint64_t places = seen->mask + 1;
        while (2 * (seen->used + count) > places) {
            places *= 2;
        }
        MOE_TRY(make_room(seen, places, err));
    }
    while (hits < count && seen->group[place_of(seen, blocks[hits])] != MOE_ARRIVAL_NO_GROUP) {
        hits++;
    }
    arrival->prefix_group = hits > 0 ? seen->group[place_of(seen, blocks[0])] : seen->group_count++;
    for (uint32_t i = hits; i < count; i++) {
        const uint64_t at = place_of(seen, blocks[i]);
        seen->used += seen->group[at] == MOE_ARRIVAL_NO_GROUP;
        seen->block[at] = blocks[i];
        seen->group[at] = arrival->prefix_group;
    }
    const uint64_t tokens = (uint64_t) hits * block_tokens;
    const uint32_t most = arrival->prompt_tokens - 1; /* the last one samples */
    arrival->hit_tokens = tokens < most ? (uint32_t) tokens : most;
    return MOE_OK;
}

/* The blocks of one request, looked up by its number. */
static enum moe_status read_request(struct moe_database *db, sqlite3_stmt *stmt, struct seen *seen,
                                    uint32_t block_tokens, struct moe_arrival *arrival,
                                    struct moe_error *err)
{
    int row = 0;
    (void) sqlite3_reset(stmt);
    (void) sqlite3_bind_int64(stmt, 1, arrival->request);
    MOE_TRY(moe_database_step(db, stmt, &row, err));
    if (row == 0) {
        return MOE_OK;
    }
    const int64_t *blocks = sqlite3_column_blob(stmt, 0);
    const size_t bytes = (size_t) sqlite3_column_bytes(stmt, 0);
    if (bytes % sizeof *blocks != 0 || (blocks == NULL && bytes > 0)) {
        return moe_fail(
            err, MOE_PARSE,
            "%s: request %u has %zu bytes of prefix blocks; a multiple of 8 is expected", db->path,
            arrival->request, bytes);
    }
    return bytes == 0 ? MOE_OK
                      : add_request(seen, blocks, (uint32_t) (bytes / sizeof *blocks), block_tokens,
                                    arrival, err);
}

enum moe_status moe_prefix_hits_find(struct moe_trace *store, struct moe_arrival *arrivals,
                                     uint32_t count, struct moe_error *err)
{
    struct moe_database *db = moe_trace_database(store);
    struct seen seen = { 0 };
    sqlite3_stmt *stmt = NULL;
    uint32_t block_tokens = 0;
    for (uint32_t i = 0; i < count; i++) {
        arrivals[i].hit_tokens = 0;
        arrivals[i].prefix_group = MOE_ARRIVAL_NO_GROUP;
    }
    MOE_TRY(moe_trace_block_tokens(store, &block_tokens, err));
    if (block_tokens == 0) {
        return MOE_OK;
    }
    enum moe_status status = make_room(&seen, 1024, err);
    if (status == MOE_OK) {
        status =
            moe_database_prepare(db, "SELECT blocks FROM prefix WHERE request = ?", &stmt, err);
    }
    for (uint32_t i = 0; status == MOE_OK && i < count; i++) {
        status = read_request(db, stmt, &seen, block_tokens, &arrivals[i], err);
    }
    (void) sqlite3_finalize(stmt);
    free(seen.block);
    free(seen.group);
    return status;
}
