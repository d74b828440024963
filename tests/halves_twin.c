#include "tests/halves_twin.h"

#include <math.h>
#include <string.h>

enum { COMPUTING, EXCHANGING, RESOURCES };

/* One resource of one rank. */
struct resource {
    uint32_t next; /* operation that runs or is to run */
    bool runs;
    double rest;   /* of it, in ns alone, at `since` */
    double factor; /* of the moment */
    int64_t since;
    int64_t ended[HALVES_OPERATIONS]; /* -1: not yet; of an exchange: its own data is there */
};

struct schedule {
    const struct halves_case *c;
    uint32_t operations;
    struct resource of[HALVES_RANKS][RESOURCES];
    int64_t now;
};

/* Whether a rank has left exchange j by now; with a common exit when all have their data. */
static bool left(const struct schedule *s, uint32_t rank, uint32_t j)
{
    bool all = true;
    for (uint32_t r = 0; r < s->c->ranks; r++) {
        all = all && s->of[r][EXCHANGING].ended[j] >= 0;
    }
    return s->c->common_exit ? all : s->of[rank][EXCHANGING].ended[j] >= 0;
}

static int64_t left_at(const struct schedule *s, uint32_t rank, uint32_t j)
{
    int64_t latest = 0;
    for (uint32_t r = 0; r < s->c->ranks; r++) {
        const int64_t end = s->of[r][EXCHANGING].ended[j];
        latest = end > latest ? end : latest;
    }
    return s->c->common_exit ? latest : s->of[rank][EXCHANGING].ended[j];
}

static bool arrived(const struct schedule *s, uint32_t rank, uint32_t j)
{
    return s->of[rank][COMPUTING].ended[j] >= 0 && (j == 0 || left(s, rank, j - 1));
}

static void start(struct schedule *s, struct resource *r, int64_t duration)
{
    r->runs = duration > 0;
    r->rest = (double) duration;
    r->since = s->now;
    r->factor = 1;
    if (duration == 0) {
        r->ended[r->next++] = s->now;
    }
}

/* Starts one operation that may start; false when there is none. An exchange starts on all. */
static bool start_one(struct schedule *s, struct halves_outcome *out)
{
    for (uint32_t r = 0; r < s->c->ranks; r++) {
        struct resource *own = &s->of[r][COMPUTING];
        const uint32_t j = own->next;
        if (!own->runs && j < s->operations && (j < 2 || left(s, r, j - 2))) {
            start(s, own, s->c->compute[j][r]);
            return true;
        }
    }
    const uint32_t j = s->of[0][EXCHANGING].next;
    bool all = j < s->operations;
    for (uint32_t r = 0; r < s->c->ranks && all; r++) {
        all = !s->of[r][EXCHANGING].runs && s->of[r][EXCHANGING].next == j && arrived(s, r, j);
    }
    for (uint32_t r = 0; r < s->c->ranks && all; r++) {
        start(s, &s->of[r][EXCHANGING], s->c->exchange[j][r]);
    }
    if (all) {
        out->open[j] = s->now;
    }
    return all;
}

static int64_t end_of(const struct resource *r)
{
    return r->since + (int64_t) ceil(r->rest > 0 ? r->rest * r->factor : 0);
}

/* Both run or one alone from now on. */
static void settle_speed(struct schedule *s, struct resource *r, double factor)
{
    if (r->runs && r->factor != factor) {
        r->rest -= (double) (s->now - r->since) / r->factor;
        r->since = s->now;
        r->factor = factor;
    }
}

static void settle_speeds(struct schedule *s)
{
    for (uint32_t r = 0; r < s->c->ranks; r++) {
        const bool both = s->of[r][COMPUTING].runs && s->of[r][EXCHANGING].runs;
        settle_speed(s, &s->of[r][COMPUTING], both ? s->c->compute_factor : 1);
        settle_speed(s, &s->of[r][EXCHANGING], both ? s->c->comm_factor : 1);
    }
}

/* On to the next end; false when nothing runs. */
static bool go_on(struct schedule *s, struct halves_outcome *out)
{
    int64_t next = INT64_MAX;
    for (uint32_t r = 0; r < s->c->ranks; r++) {
        for (uint32_t i = 0; i < RESOURCES; i++) {
            const struct resource *own = &s->of[r][i];
            next = own->runs && end_of(own) < next ? end_of(own) : next;
        }
    }
    if (next == INT64_MAX) {
        return false;
    }
    for (uint32_t r = 0; r < s->c->ranks; r++) {
        const bool both = s->of[r][COMPUTING].runs && s->of[r][EXCHANGING].runs;
        out->hidden += both ? next - s->now : 0;
    }
    s->now = next;
    for (uint32_t r = 0; r < s->c->ranks; r++) {
        for (uint32_t i = 0; i < RESOURCES; i++) {
            struct resource *own = &s->of[r][i];
            if (own->runs && end_of(own) == next) {
                own->runs = false;
                own->ended[own->next++] = next;
            }
        }
    }
    return true;
}

/* A rank is idle from when it has arrived and computed what it could until the exchange begins. */
static int64_t idle_at(const struct schedule *s, const struct halves_outcome *out, uint32_t j)
{
    int64_t idle = 0;
    for (uint32_t r = 0; r < s->c->ranks; r++) {
        int64_t from = s->of[r][COMPUTING].ended[j];
        if (j > 0 && left_at(s, r, j - 1) > from) {
            from = left_at(s, r, j - 1);
        }
        if (j + 1 < s->operations && s->of[r][COMPUTING].ended[j + 1] > from) {
            from = s->of[r][COMPUTING].ended[j + 1];
        }
        idle += out->open[j] > from ? out->open[j] - from : 0;
    }
    return idle;
}

void halves_twin_run(const struct halves_case *c, struct halves_outcome *out)
{
    struct schedule s = { .c = c, .operations = 4 * c->layers };
    memset(out, 0, sizeof *out);
    for (uint32_t r = 0; r < c->ranks; r++) {
        for (uint32_t i = 0; i < RESOURCES; i++) {
            memset(s.of[r][i].ended, 0xff, sizeof s.of[r][i].ended);
        }
    }
    do {
        while (start_one(&s, out)) {
        }
        settle_speeds(&s);
    } while (go_on(&s, out));
    int64_t total = 0;
    for (uint32_t r = 0; r < c->ranks; r++) {
        const int64_t computed = s.of[r][COMPUTING].ended[s.operations - 1];
        const int64_t moved = left_at(&s, r, s.operations - 1);
        const int64_t end = (moved > computed ? moved : computed) + c->after[r];
        out->length = end > out->length ? end : out->length;
        total += end;
    }
    for (uint32_t j = 0; j < s.operations; j++) {
        out->idle[j] = idle_at(&s, out, j);
    }
    out->idle[s.operations] = out->length * c->ranks - total;
}
