/* Batches: what must hold of every step, whatever its requests are. Which rows exactly run
 * where is held to the engine twin. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>

#include "sim/base/random.h"
#include "sim/engine/serving/serving.h"
#include "tests/engine_case.h"
#include "tests/engine_drive.h"

static struct engine_drive drive;
static struct twin_case c;
static char table[32 << 10];
static char text[32 << 10];

static void setup(void)
{
    FILE *file = fopen(MOE_SOURCE_ROOT "/tests/data/tiny-calibration.csv", "r");
    cr_assert_not_null(file);
    table[fread(table, 1, sizeof table - 1, file)] = '\0';
    cr_assert_eq(fclose(file), 0);
    engine_drive_open(&drive);
}

static void teardown(void)
{
    engine_drive_close(&drive);
}

TestSuite(serving, .init = setup, .fini = teardown);

/* What the whole run served. */
struct served {
    uint64_t tokens;
    uint64_t outputs;
    uint64_t finished;
    uint64_t finished_outputs;
    uint64_t first_tokens;
    uint64_t next_tokens;
    uint64_t steps;
    uint64_t digest; /* of all work of all steps */
    int64_t now_ns;
};

static void on_first_token(void *context, moe_time_ns ttft_ns)
{
    struct served *served = context;
    cr_assert_gt(ttft_ns, 0);
    served->first_tokens++;
}

static void on_next_token(void *context, moe_time_ns gap_ns)
{
    struct served *served = context;
    cr_assert_gt(gap_ns, 0);
    served->next_tokens++;
}

static void on_finish(void *context, const struct moe_finished *finished)
{
    struct served *served = context;
    cr_assert_eq(finished->finished_ns, served->now_ns);
    cr_assert_lt(finished->admitted_ns, finished->first_token_ns);
    cr_assert_leq(finished->first_token_ns, finished->finished_ns);
    cr_assert_eq(finished->arrival->output_tokens == 1,
                 finished->first_token_ns == finished->finished_ns);
    served->finished++;
    served->finished_outputs += finished->arrival->output_tokens;
    cr_assert_leq(served->finished, served->first_tokens);
}

static uint32_t kv_of(const struct moe_serving_state *state, uint32_t gpu, uint32_t *running)
{
    uint32_t tokens = 0;
    *running = 0;
    for (uint32_t i = 0; i < state->running_per_gpu; i++) {
        const struct moe_sequence *q = &state->sequence[(size_t) gpu * state->running_per_gpu + i];
        tokens += q->running ? q->prompt_tokens + q->output_tokens : 0;
        *running += q->running;
    }
    return tokens;
}

static uint64_t check_step(const struct moe_serving_state *state, const struct moe_token_work *work,
                           uint64_t kv_tokens)
{
    uint64_t sum = 0;
    for (uint32_t g = 0; g < state->setup.rank_count; g++) {
        uint32_t running = 0;
        const uint32_t held = kv_of(state, g, &running);
        cr_assert_eq(state->kv_used[g], held);
        cr_assert_eq(state->running[g], running);
        cr_assert_leq(held, kv_tokens);
        cr_assert_leq(work[g].tokens, c.step_tokens);
        cr_assert_leq(work[g].sampled, running);
        cr_assert_leq(work[g].kv_read, held);
        cr_assert_geq(work[g].score_pairs, work[g].tokens);
        cr_assert_leq(work[g].decode_read, work[g].kv_read);
        cr_assert_leq(work[g].window_read, work[g].kv_read);
        cr_assert_leq(work[g].window_pairs, work[g].score_pairs);
        /* A rank with a request never stands idle. */
        cr_assert_eq(work[g].tokens > 0, running > 0);
        sum += (uint64_t) work[g].tokens;
    }
    return sum;
}

/* A closed loop over the trace. */
static void open_stream(struct moe_trace *trace, double plan_share, uint32_t passes,
                        struct moe_arrival_stream *stream)
{
    static struct moe_arrival_source source;
    const struct moe_arrival_setup setup = { &drive.scenario.arrivals, trace, plan_share, passes };
    moe_arrival_source_finish(&source);
    cr_assert_eq(moe_arrival_source_init(&source, &setup, NULL), MOE_OK);
    cr_assert_eq(moe_arrival_stream_init(stream, &source, trace, c.seed, &drive.work, NULL),
                 MOE_OK);
}

static struct served serve(struct moe_trace *trace, uint64_t kv_tokens)
{
    struct moe_serving_state state;
    struct moe_arrival_stream stream;
    struct moe_intake intake = { .stream = &stream };
    struct moe_token_work work[TWIN_GPUS];
    struct served served = { 0 };
    uint64_t tokens = 0;
    engine_drive_scenario(&c, &drive.scenario);
    moe_arena_reset(&drive.work);
    open_stream(trace, c.plan_share, c.passes, &stream);
    const struct moe_serving_setup options = {
        .options = &drive.scenario.serving,
        .trace = trace,
        .intake = &intake,
        .rank_count = c.cost.nodes * c.cost.gpus_per_node,
        .kv_tokens = kv_tokens,
        .window_size = c.cost.model.window,
    };
    const struct moe_serving_observer observer = { &served, on_first_token, on_next_token,
                                                   on_finish };
    cr_assert_eq(moe_serving_init(&state, &options, &drive.work, NULL), MOE_OK);
    for (;;) {
        uint64_t outputs = 0;
        cr_assert_eq(moe_serving_plan_step(&state, served.now_ns, work, &tokens, NULL), MOE_OK);
        if (tokens == 0) {
            return served;
        }
        cr_assert_eq(check_step(&state, work, kv_tokens), tokens);
        for (uint32_t g = 0; g < options.rank_count; g++) {
            served.digest = moe_random_mix(served.digest ^ (uint64_t) work[g].tokens);
            served.digest = moe_random_mix(served.digest ^ (uint64_t) work[g].score_pairs);
        }
        served.now_ns += 10;
        served.steps++;
        served.tokens += tokens;
        moe_serving_end_step(&state, served.now_ns, &outputs, &observer);
        served.outputs += outputs;
    }
}

static uint64_t longest_request(void)
{
    uint64_t longest = 0;
    for (uint32_t i = 0; i < c.requests; i++) {
        const uint64_t tokens = (uint64_t) c.prompt[i] + c.output[i];
        longest = tokens > longest ? tokens : longest;
    }
    return longest;
}

static struct moe_trace *open_case(uint64_t seed)
{
    struct moe_trace *trace = NULL;
    engine_case_make(seed, table, &c, text, sizeof text);
    cr_assert_eq(engine_drive_store(&drive, &c, NULL), MOE_OK);
    cr_assert_eq(moe_trace_open(&trace, drive.path, NULL), MOE_OK);
    return trace;
}

Test(serving, serves_every_token_once_within_budget_and_memory)
{
    for (uint64_t seed = 0; seed < 80; seed++) {
        struct moe_trace *trace = open_case(seed);
        const uint32_t planned = workload_twin_planned(c.requests, c.plan_share);
        /* Every other pool holds just the longest request. */
        const uint64_t kv_tokens = longest_request() * (seed % 2 == 0 ? 1 : 3);
        uint64_t tokens = 0;
        uint64_t outputs = 0;
        uint64_t requests = 0;
        for (uint32_t i = 0; i < c.requests; i++) {
            const uint64_t times = i < planned ? 1 : c.passes;
            tokens += times * (c.prompt[i] + c.output[i] - 1);
            outputs += times * c.output[i];
            requests += times;
        }
        const struct served served = serve(trace, kv_tokens);
        cr_assert_eq(served.tokens, tokens, "seed %" PRIu64, seed);
        cr_assert_eq(served.outputs, outputs, "seed %" PRIu64, seed);
        cr_assert_eq(served.finished_outputs, outputs, "seed %" PRIu64, seed);
        cr_assert_eq(served.finished, requests, "seed %" PRIu64, seed);
        cr_assert_eq(served.first_tokens, requests, "seed %" PRIu64, seed);
        cr_assert_eq(served.first_tokens + served.next_tokens, outputs, "seed %" PRIu64, seed);
        const struct served again = serve(trace, kv_tokens);
        cr_assert(again.digest == served.digest && again.steps == served.steps);
        moe_trace_close(trace);
    }
}

Test(serving, a_request_longer_than_an_empty_pool_is_refused)
{
    struct moe_serving_state state;
    struct moe_arrival_stream stream;
    struct moe_intake intake = { .stream = &stream };
    struct moe_token_work work[TWIN_GPUS];
    struct moe_error err = { 0 };
    uint64_t tokens = 0;
    struct moe_trace *trace = open_case(5);
    engine_drive_scenario(&c, &drive.scenario);
    open_stream(trace, 0.1, 1, &stream);
    const struct moe_serving_setup options = { .options = &drive.scenario.serving,
                                               .trace = trace,
                                               .intake = &intake,
                                               .rank_count = 1,
                                               .kv_tokens = 1 };
    cr_assert_eq(moe_serving_init(&state, &options, &drive.work, NULL), MOE_OK);
    cr_assert_eq(moe_serving_plan_step(&state, 0, work, &tokens, &err), MOE_LIMIT);
    cr_assert_not_null(strstr(err.text, "holds 1"), "%s", err.text);
    moe_trace_close(trace);
}
