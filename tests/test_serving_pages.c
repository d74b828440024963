/* Paged cache and arrivals over time: every step of random scenes against the twin, rank by rank
 * and row by row, and what must hold of any of them. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "sim/engine/serving/serving.h"
#include "tests/property.h"
#include "tests/serving_twin.h"
#include "tests/trace_fixture.h"

static struct moe_trace *trace;
static struct moe_arena arena;

/* Requests of 3 + 2 rows, one for each client: only their number matters here. */
static void setup(void)
{
    const struct moe_trace_model model = {
        .name = "made up",
        .layer_count = 1,
        .expert_count = 4,
        .top_k = 1,
        .group_count = 1,
        .group_limit = 1,
        .domain_count = 1,
        .domains = { "all" },
    };
    const struct moe_trace_history history = { 0 };
    struct moe_trace_writer *writer = NULL;
    uint64_t hash = 0;
    fixture_setup();
    cr_assert_eq(
        moe_trace_writer_open(&writer, fixture_path("t.db"), false, &model, &history, NULL),
        MOE_OK);
    for (uint32_t i = 0; i < TWIN_CLIENTS; i++) {
        const struct moe_trace_request request = { .arrival_ns = -1,
                                                   .prompt_tokens = 3,
                                                   .output_tokens = 3 };
        cr_assert_eq(moe_trace_writer_requests(writer, &request, 1, NULL), MOE_OK);
    }
    for (uint32_t row = 0; row < 5 * TWIN_CLIENTS; row++) {
        const uint16_t expert = (uint16_t) (row % 4);
        cr_assert_eq(moe_trace_writer_rows(writer, &expert, 1, NULL), MOE_OK);
    }
    cr_assert_eq(moe_trace_writer_finish(writer, &hash, NULL), MOE_OK);
    (void) moe_trace_writer_close(writer, MOE_OK);
    cr_assert_eq(moe_trace_open(&trace, fixture_path("t.db"), NULL), MOE_OK);
    cr_assert_eq(moe_arena_init(&arena, (size_t) 4 << 20, NULL), MOE_OK);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
    moe_trace_close(trace);
    fixture_teardown();
}

TestSuite(serving_pages, .init = setup, .fini = teardown);

static void draw_scene(struct draws *draws, struct twin_scene *c)
{
    uint32_t longest = 1;
    int64_t now = 0;
    memset(c, 0, sizeof *c);
    c->ranks = 1 + draw_below(draws, TWIN_RANKS);
    c->seats = 1 + draw_below(draws, TWIN_SEATS);
    c->step_tokens = 1 + draw_below(draws, 24);
    c->page = 1 + draw_below(draws, 5);
    c->prefill_first = draw_below(draws, 2) == 1;
    c->least_output = draw_below(draws, 2) == 1;
    c->output_reserve = draw_below(draws, 3) / 2.0;
    c->clients = 1 + draw_below(draws, TWIN_CLIENTS);
    for (uint32_t i = 0; i < c->clients; i++) {
        struct twin_client *client = &c->client[i];
        now += draw_below(draws, 2) == 0 ? 0 : draw_below(draws, 40);
        client->arrival = now;
        client->prompt = 1 + draw_below(draws, 20);
        client->output = 1 + draw_below(draws, 12);
        client->hit = draw_below(draws, 4) == 3 ? draw_below(draws, client->prompt) : 0;
        const uint32_t length = client->prompt + client->output;
        longest = length > longest ? length : longest;
    }
    const uint32_t fewest = (longest + c->page - 1) / c->page;
    const uint32_t more = draw_below(draws, 20);
    c->pages = fewest + more < TWIN_PAGES ? fewest + more : TWIN_PAGES;
}

/* What is told at the ends of steps. */
struct told {
    uint64_t firsts;
    uint64_t nexts;
    uint64_t finished;
    int64_t sojourn; /* of those that have finished */
    bool odd;
};

static void on_first_token(void *context, moe_time_ns ttft_ns)
{
    struct told *told = context;
    told->firsts++;
    told->odd = told->odd || ttft_ns <= 0;
}

static void on_next_token(void *context, moe_time_ns gap_ns)
{
    struct told *told = context;
    told->nexts++;
    told->odd = told->odd || gap_ns <= 0;
}

static void on_finish(void *context, const struct moe_finished *f)
{
    struct told *told = context;
    told->finished++;
    told->sojourn += f->finished_ns - f->since_ns;
    told->odd = told->odd || f->admitted_ns < f->since_ns || f->first_token_ns <= f->admitted_ns ||
                f->finished_ns < f->first_token_ns;
}

/* Both sides of one scene. */
struct stage {
    struct twin_scene scene;
    struct twin_schedule twin;
    struct moe_serving options;
    struct moe_arrival list[TWIN_CLIENTS];
    struct moe_intake intake;
    struct moe_serving_state state;
    struct told told;
    char *why;
};

static bool begin(struct stage *g, struct draws *draws)
{
    draw_scene(draws, &g->scene);
    const struct twin_scene *c = &g->scene;
    for (uint32_t i = 0; i < c->clients; i++) {
        g->list[i] = (struct moe_arrival){ .arrival_ns = c->client[i].arrival,
                                           .request = i,
                                           .prompt_tokens = c->client[i].prompt,
                                           .output_tokens = c->client[i].output,
                                           .hit_tokens = c->client[i].hit,
                                           .scored = true };
    }
    g->options = (struct moe_serving){
        .running_per_gpu = c->seats,
        .step_tokens = c->step_tokens,
        .kv = MOE_KV_PAGES,
        .page_tokens = c->page,
        .order = c->prefill_first ? MOE_BATCH_PREFILL_FIRST : MOE_BATCH_DECODE_FIRST,
        .preempt = c->least_output ? MOE_PREEMPT_LEAST_OUTPUT : MOE_PREEMPT_LAST_ADMITTED,
        .output_reserve = c->output_reserve,
        .attention_ranks = 1,
    };
    g->intake = (struct moe_intake){ .list = g->list, .count = c->clients };
    const struct moe_serving_setup setup = {
        .options = &g->options,
        .trace = trace,
        .intake = &g->intake,
        .rank_count = c->ranks,
        .kv_tokens = (uint64_t) c->pages * c->page + draw_below(draws, c->page),
    };
    moe_arena_reset(&arena);
    serving_twin_begin(&g->twin);
    return moe_serving_init(&g->state, &setup, &arena, NULL) == MOE_OK;
}

/* Rows of every slot against the twin's. */
static bool same_step(struct stage *g, uint64_t step)
{
    uint32_t seen = 0;
    for (uint32_t i = 0; i < g->scene.ranks * g->scene.seats; i++) {
        const struct moe_sequence *q = &g->state.sequence[i];
        const struct twin_turn *turn = &g->twin.turn[q->arrival.request];
        if (!q->running || q->step_rows == 0) {
            continue;
        }
        seen++;
        if (turn->rank != i / g->scene.seats || turn->from != q->done_rows ||
            turn->rows != q->step_rows) {
            (void) snprintf(g->why, PROPERTY_TEXT_LIMIT,
                            "step %" PRIu64 ": request %u has %u rows from %u on rank %u, the twin "
                            "%u from %u on %u",
                            step, q->arrival.request, q->step_rows, q->done_rows,
                            i / g->scene.seats, turn->rows, turn->from, turn->rank);
            return false;
        }
    }
    for (uint32_t i = 0; i < g->scene.clients; i++) {
        seen -= g->twin.turn[i].rows > 0;
    }
    (void) (seen == 0 ||
            snprintf(g->why, PROPERTY_TEXT_LIMIT, "step %" PRIu64 ": others run", step));
    return seen == 0;
}

/* Cache held is cache used, and no more than there is. */
static bool conserved(struct stage *g)
{
    for (uint32_t rank = 0; rank < g->scene.ranks; rank++) {
        uint64_t held = 0;
        uint32_t running = 0;
        uint32_t away = 0;
        for (uint32_t i = 0; i < g->scene.seats; i++) {
            const struct moe_sequence *q = &g->state.sequence[rank * g->scene.seats + i];
            held += q->running ? q->kv_held : 0;
            running += q->running || q->preempted;
            away += q->preempted;
            if (q->running && q->kv_held < q->done_rows) {
                (void) snprintf(g->why, PROPERTY_TEXT_LIMIT, "%u rows in a cache of %" PRIu64,
                                q->done_rows, q->kv_held);
                return false;
            }
        }
        if (held != g->state.kv_used[rank] || held > (uint64_t) g->scene.pages * g->scene.page ||
            running != g->state.running[rank] || away != g->state.preempted[rank]) {
            (void) snprintf(g->why, PROPERTY_TEXT_LIMIT,
                            "rank %u: %" PRIu64 " held, %" PRIu64 " used; %u run, %u said", rank,
                            held, g->state.kv_used[rank], running, g->state.running[rank]);
            return false;
        }
    }
    return true;
}

/* Every request served once, and Little's law: the time requests spent is the requests there
 * were, over time. */
static bool settled(struct stage *g, uint64_t outputs, int64_t presence)
{
    uint64_t wanted = 0;
    for (uint32_t i = 0; i < g->scene.clients; i++) {
        wanted += g->scene.client[i].output;
    }
    const struct told *t = &g->told;
    (void) snprintf(g->why, PROPERTY_TEXT_LIMIT,
                    "%" PRIu64 " tokens, %" PRIu64 " wanted; %" PRIu64 " of %u finished; %" PRId64
                    " ns spent, %" PRId64 " ns there; %" PRIu64 " preempted, the twin %u",
                    outputs, wanted, t->finished, g->scene.clients, t->sojourn, presence,
                    g->state.preemptions, g->twin.preemptions);
    return outputs == wanted && t->firsts + t->nexts == wanted && t->firsts == g->scene.clients &&
           t->finished == g->scene.clients && !t->odd && t->sojourn == presence &&
           g->state.preemptions == g->twin.preemptions;
}

/* Requests there between begin and end, times the time: those that have arrived and not left. */
static int64_t presence_of(const struct stage *g, int64_t begin, int64_t end)
{
    int64_t sum = 0;
    for (uint32_t i = 0; i < g->scene.clients; i++) {
        const int64_t from =
            g->scene.client[i].arrival > begin ? g->scene.client[i].arrival : begin;
        sum += !g->twin.gone[i] && from < end ? end - from : 0;
    }
    return sum;
}

static bool follows_the_twin(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    static struct stage g;
    struct moe_token_work work[TWIN_RANKS];
    const struct moe_serving_observer observer = { &g.told, on_first_token, on_next_token,
                                                   on_finish };
    uint64_t *preempted = context;
    uint64_t outputs = 0;
    int64_t now = 0;
    int64_t presence = 0;
    memset(&g, 0, sizeof g);
    g.why = why;
    if (!begin(&g, draws)) {
        return false;
    }
    for (uint64_t step = 0;; step++) {
        uint64_t rows = 0;
        uint64_t sampled = 0;
        moe_time_ns next = 0;
        struct moe_error err = { 0 };
        if (moe_serving_plan_step(&g.state, now, work, &rows, &err) != MOE_OK) {
            (void) snprintf(why, PROPERTY_TEXT_LIMIT, "%s", err.text);
            return false;
        }
        if (serving_twin_plan(&g.twin, &g.scene, now) != rows || !same_step(&g, step)) {
            (void) (why[0] != '\0' ||
                    snprintf(why, PROPERTY_TEXT_LIMIT, "other rows in step %" PRIu64, step));
            return false;
        }
        if (rows > 0) {
            const int64_t end = now + 1 + draw_below(draws, 9);
            presence += presence_of(&g, now, end);
            now = end;
            moe_serving_end_step(&g.state, now, &sampled, &observer);
            outputs += sampled;
            if (serving_twin_end(&g.twin, &g.scene) != sampled) {
                (void) snprintf(why, PROPERTY_TEXT_LIMIT, "other samples");
                return false;
            }
        } else if (moe_serving_next_arrival(&g.state, &next)) {
            if (next <= now) {
                (void) snprintf(why, PROPERTY_TEXT_LIMIT, "one waits, and nobody runs");
                return false;
            }
            now = next;
        } else {
            *preempted += g.state.preemptions;
            return settled(&g, outputs, presence);
        }
        if (!conserved(&g)) {
            return false;
        }
    }
}

Test(serving_pages, every_step_is_the_twins)
{
    uint64_t preempted = 0;
    const char *fault = property_fails(follows_the_twin, &preempted, 6, 4000);
    cr_assert(fault == NULL, "%s", fault);
    cr_assert_gt(preempted, 4000, "too few preemptions to mean something: %" PRIu64, preempted);
}
