#include "tests/serving_twin.h"

#include <string.h>

void serving_twin_begin(struct twin_schedule *s)
{
    memset(s, 0, sizeof *s);
}

static uint32_t pages_for(const struct twin_scene *c, uint32_t tokens)
{
    return (tokens + c->page - 1) / c->page;
}

static uint32_t pages_of(const struct twin_schedule *s, const struct twin_scene *c, uint32_t rank,
                         uint32_t owner)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->pages; i++) {
        count += s->owner[rank][i] == owner;
    }
    return count;
}

/* Pages for rows more rows; all or none. */
static bool grow(struct twin_schedule *s, const struct twin_scene *c, uint32_t who, uint32_t rows)
{
    const uint32_t rank = s->rank[who];
    const uint32_t have = pages_of(s, c, rank, who + 1);
    const uint32_t want = pages_for(c, s->done[who] + rows);
    if (want > have + pages_of(s, c, rank, 0)) {
        return false;
    }
    for (uint32_t i = 0, more = want > have ? want - have : 0; more > 0; i++) {
        if (s->owner[rank][i] == 0) {
            s->owner[rank][i] = who + 1;
            more--;
        }
    }
    return true;
}

static void drop_pages(struct twin_schedule *s, const struct twin_scene *c, uint32_t who)
{
    for (uint32_t i = 0; i < c->pages; i++) {
        if (s->owner[s->rank[who]][i] == who + 1) {
            s->owner[s->rank[who]][i] = 0;
        }
    }
}

static void leave_line(struct twin_schedule *s, uint32_t who)
{
    const uint32_t rank = s->rank[who];
    uint32_t kept = 0;
    for (uint32_t i = 0; i < s->in_line[rank]; i++) {
        if (s->line[rank][i] != who) {
            s->line[rank][kept++] = s->line[rank][i];
        }
    }
    s->in_line[rank] = kept;
}

static void send_away(struct twin_schedule *s, const struct twin_scene *c, uint32_t who)
{
    const uint32_t rank = s->rank[who];
    drop_pages(s, c, who);
    leave_line(s, who);
    s->away[who] = true;
    s->done[who] = c->client[who].hit;
    s->pile[rank][s->on_pile[rank]++] = who;
    s->shut[rank] = true;
    s->preemptions++;
}

static bool decodes(const struct twin_schedule *s, const struct twin_scene *c, uint32_t who)
{
    return s->done[who] >= c->client[who].prompt && s->known[who] == s->done[who] + 1;
}

static void give_rows(struct twin_schedule *s, uint32_t who, uint32_t rows)
{
    s->turn[who] = (struct twin_turn){ s->rank[who], s->done[who], rows };
    s->left[s->rank[who]] -= rows;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* A chunk as long as known rows, budget and free pages allow. */
static void chunk(struct twin_schedule *s, const struct twin_scene *c, uint32_t who)
{
    uint32_t rows = least(s->known[who] - s->done[who], s->left[s->rank[who]]);
    while (rows > 0 && !grow(s, c, who, rows)) {
        rows--;
    }
    if (rows > 0) {
        give_rows(s, who, rows);
    }
}

/* Fewest output tokens, longest prompt, last in line. */
static uint32_t poorest(const struct twin_schedule *s, const struct twin_scene *c, uint32_t rank)
{
    uint32_t best = s->line[rank][0];
    for (uint32_t i = 1; i < s->in_line[rank]; i++) {
        const uint32_t who = s->line[rank][i];
        const uint32_t mine = s->known[who] - c->client[who].prompt;
        const uint32_t theirs = s->known[best] - c->client[best].prompt;
        if (mine < theirs || (mine == theirs && c->client[who].prompt >= c->client[best].prompt)) {
            best = who;
        }
    }
    return best;
}

static bool all_decoders_can_go_on(const struct twin_schedule *s, const struct twin_scene *c,
                                   uint32_t rank)
{
    uint32_t missing = 0;
    for (uint32_t i = 0; i < s->in_line[rank]; i++) {
        const uint32_t who = s->line[rank][i];
        if (decodes(s, c, who)) {
            missing += pages_for(c, s->done[who] + 1) - pages_of(s, c, rank, who + 1);
        }
    }
    return missing <= pages_of(s, c, rank, 0);
}

/* Everybody in line, in order; the last ones go when pages are missing. */
static void run_line(struct twin_schedule *s, const struct twin_scene *c, uint32_t rank,
                     bool decoders_only)
{
    while (c->least_output && s->in_line[rank] > 1 && !all_decoders_can_go_on(s, c, rank)) {
        send_away(s, c, poorest(s, c, rank));
    }
    for (uint32_t i = 0; i < s->in_line[rank]; i++) {
        const uint32_t who = s->line[rank][i];
        if (decoders_only && !decodes(s, c, who)) {
            continue;
        }
        const uint32_t rows = least(s->known[who] - s->done[who], s->left[rank]);
        bool here = true;
        while (here && rows > 0 && !grow(s, c, who, rows)) {
            const uint32_t last = s->line[rank][s->in_line[rank] - 1];
            send_away(s, c, last);
            here = last != who;
        }
        if (here && rows > 0) {
            give_rows(s, who, rows);
        }
    }
}

static void run_prompts(struct twin_schedule *s, const struct twin_scene *c, uint32_t rank)
{
    for (uint32_t i = 0; i < s->in_line[rank]; i++) {
        const uint32_t who = s->line[rank][i];
        if (!decodes(s, c, who) && s->turn[who].rows == 0) {
            chunk(s, c, who);
        }
    }
}

/* Free tokens less what those in line were promised. */
static uint32_t open_tokens(const struct twin_schedule *s, const struct twin_scene *c,
                            uint32_t rank)
{
    uint32_t taken = (c->pages - pages_of(s, c, rank, 0)) * c->page;
    for (uint32_t i = 0; c->output_reserve > 0 && i < s->in_line[rank]; i++) {
        const uint32_t who = s->line[rank][i];
        const uint32_t held = pages_of(s, c, rank, who + 1) * c->page;
        const uint32_t rows = c->client[who].prompt + c->client[who].output - 1;
        taken += s->known[who] > held ? s->known[who] - held : 0;
        taken += (uint32_t) (c->output_reserve * (rows - s->known[who]));
    }
    return taken < c->pages * c->page ? c->pages * c->page - taken : 0;
}

static void come_back(struct twin_schedule *s, const struct twin_scene *c, uint32_t rank)
{
    while (s->on_pile[rank] > 0 && !s->shut[rank] && s->left[rank] > 0) {
        const uint32_t who = s->pile[rank][s->on_pile[rank] - 1];
        const uint32_t first = least(s->known[who] - s->done[who], s->left[rank]);
        if (s->in_line[rank] > 0 &&
            pages_for(c, s->done[who] + first) * c->page > open_tokens(s, c, rank)) {
            return;
        }
        s->on_pile[rank]--;
        s->away[who] = false;
        s->line[rank][s->in_line[rank]++] = who;
        chunk(s, c, who);
    }
}

static bool joins(struct twin_schedule *s, const struct twin_scene *c, uint32_t rank, int64_t now)
{
    const uint32_t who = s->next;
    if (who == c->clients || c->client[who].arrival > now || s->shut[rank] ||
        s->on_pile[rank] > 0 || s->in_line[rank] == c->seats || s->left[rank] == 0) {
        return false;
    }
    const struct twin_client *client = &c->client[who];
    uint32_t tokens = client->hit + least(client->prompt - client->hit, c->step_tokens);
    if (c->output_reserve > 0) {
        tokens = client->prompt + (uint32_t) (c->output_reserve * client->output);
    }
    if (s->in_line[rank] > 0 && pages_for(c, tokens) * c->page > open_tokens(s, c, rank)) {
        return false;
    }
    s->next++;
    s->seated[who] = true;
    s->rank[who] = rank;
    s->done[who] = client->hit;
    s->known[who] = client->prompt;
    s->line[rank][s->in_line[rank]++] = who;
    chunk(s, c, who);
    return true;
}

static void admit(struct twin_schedule *s, const struct twin_scene *c, int64_t now)
{
    for (bool any = true; any;) {
        const uint32_t first = s->next_rank;
        any = false;
        for (uint32_t i = 0; i < c->ranks; i++) {
            const uint32_t rank = (first + i) % c->ranks;
            if (joins(s, c, rank, now)) {
                any = true;
                s->next_rank = (rank + 1) % c->ranks;
            }
        }
    }
}

uint32_t serving_twin_plan(struct twin_schedule *s, const struct twin_scene *c, int64_t now)
{
    uint32_t rows = 0;
    memset(s->turn, 0, sizeof s->turn);
    for (uint32_t rank = 0; rank < c->ranks; rank++) {
        s->left[rank] = c->step_tokens;
        s->shut[rank] = false;
        if (c->prefill_first) {
            run_prompts(s, c, rank);
        } else {
            run_line(s, c, rank, false);
        }
    }
    for (uint32_t rank = 0; rank < c->ranks; rank++) {
        come_back(s, c, rank);
    }
    admit(s, c, now);
    for (uint32_t rank = 0; rank < c->ranks; rank++) {
        if (c->prefill_first && s->left[rank] == c->step_tokens) {
            run_line(s, c, rank, true);
        }
        while (s->left[rank] == c->step_tokens && s->in_line[rank] > 1) {
            send_away(s, c, s->line[rank][s->in_line[rank] - 1]);
            run_prompts(s, c, rank);
        }
        rows += c->step_tokens - s->left[rank];
    }
    return rows;
}

uint32_t serving_twin_end(struct twin_schedule *s, const struct twin_scene *c)
{
    uint32_t samples = 0;
    for (uint32_t who = 0; who < c->clients; who++) {
        const struct twin_client *client = &c->client[who];
        if (s->turn[who].rows == 0) {
            continue;
        }
        s->done[who] += s->turn[who].rows;
        if (s->done[who] < s->known[who]) {
            continue;
        }
        samples++;
        s->known[who]++;
        if (s->done[who] == client->prompt + client->output - 1) {
            s->gone[who] = true;
            drop_pages(s, c, who);
            leave_line(s, who);
        }
    }
    return samples;
}
