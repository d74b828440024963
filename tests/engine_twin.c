#include "tests/engine_twin.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "sim/base/random.h"
#include "tests/count_twin.h"
#include "tests/fetch_twin.h"
#include "tests/memory_twin.h"

/* --- the run's state --- */

struct sequence {
    bool running;
    uint32_t request;
    uint32_t done;
    uint32_t now; /* rows of this step */
    int64_t admitted;
    int64_t first_token;
    int64_t last_token;
};

struct waiting {
    uint32_t request;
    bool planned;
};

struct run {
    const struct twin_case *c;
    struct twin_result *r;
    uint32_t gpus;
    uint32_t layers;
    struct waiting queue[TWIN_REQUESTS * (TWIN_PASSES + 1)];
    uint32_t queued;
    uint32_t next;
    struct sequence sequence[TWIN_GPUS][TWIN_RUNNING];
    struct twin_counted counted;
    struct twin_tokens own[TWIN_GPUS];
    struct step_twin step;
    struct twin_price free_dispatch[TWIN_LAYERS][TWIN_GPUS]; /* did transfers take no time */
    double drift[TWIN_GPUS];                                 /* log of time */
    uint32_t finished;                                       /* requests */
    uint64_t number;
    int64_t now;
    uint32_t phase;
};

static void fill_queue(struct run *run)
{
    const struct twin_case *c = run->c;
    const uint32_t planned = workload_twin_planned(c->requests, c->plan_share);
    const uint64_t id_bytes = c->cost.model.experts <= 256 ? 1 : 2;
    const uint64_t window =
        (UINT64_C(64) << 20) / ((uint64_t) c->trace_layers * c->cost.model.top_k * id_bytes);
    uint32_t rows[TWIN_REQUESTS];
    uint32_t order[TWIN_REQUESTS];
    for (uint32_t i = 0; i < c->requests; i++) {
        rows[i] = c->prompt[i] + c->output[i] - 1;
    }
    for (uint32_t turn = 1; turn <= c->passes + 1; turn++) {
        const uint32_t pass = turn <= c->passes ? turn : 0;
        const uint32_t first = pass == 0 ? 0 : planned;
        const uint32_t end = pass == 0 ? planned : c->requests;
        workload_twin_order(c->seed, pass, rows, first, end, window, order);
        for (uint32_t i = 0; i < end - first; i++) {
            run->queue[run->queued++] = (struct waiting){ order[i], pass == 0 };
        }
    }
}

/* --- batches --- */

static uint32_t whole_length(const struct twin_case *c, uint32_t request)
{
    return c->prompt[request] + c->output[request];
}

/* What the running requests of a GPU hold. */
static uint64_t held_by(const struct run *run, uint32_t gpu)
{
    uint64_t held = 0;
    for (uint32_t i = 0; i < run->c->running_per_gpu; i++) {
        const struct sequence *s = &run->sequence[gpu][i];
        held += s->running ? whole_length(run->c, s->request) : 0;
    }
    return held;
}

static uint32_t free_seats(const struct run *run, uint32_t gpu)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < run->c->running_per_gpu; i++) {
        count += !run->sequence[gpu][i].running;
    }
    return count;
}

static bool fits(const struct run *run, uint32_t gpu, uint32_t request)
{
    return free_seats(run, gpu) > 0 &&
           held_by(run, gpu) + whole_length(run->c, request) <= run->r->kv_tokens;
}

/* The queue's entry at `at` takes the lowest free seat; those before it move back by one. */
static void seat(struct run *run, uint32_t gpu, uint32_t at)
{
    const struct waiting chosen = run->queue[at];
    struct sequence *seat = run->sequence[gpu];
    while (seat->running) {
        seat++;
    }
    *seat = (struct sequence){ .running = true, .request = chosen.request, .admitted = run->now };
    for (uint32_t i = at; i > run->next; i--) {
        run->queue[i] = run->queue[i - 1];
    }
    run->next++;
}

static bool admit_one(struct run *run, uint32_t gpu)
{
    if (run->next == run->queued || !fits(run, gpu, run->queue[run->next].request)) {
        return false;
    }
    seat(run, gpu, run->next);
    return true;
}

/* TWIN_SHORTEST, one request. */
static bool admit_shortest(struct run *run)
{
    uint32_t best = UINT32_MAX;
    uint32_t best_gpu = 0;
    for (uint32_t at = run->next; at < run->queued && at < run->next + 3; at++) {
        const uint32_t request = run->queue[at].request;
        const bool apart = run->queue[at].planned != run->queue[run->next].planned;
        const bool shorter = best == UINT32_MAX ||
                             run->c->prompt[request] < run->c->prompt[run->queue[best].request];
        for (uint32_t g = 0; g < run->gpus && !apart && shorter; g++) {
            const bool roomier = best != at || free_seats(run, g) > free_seats(run, best_gpu);
            if (fits(run, g, request) && roomier) {
                best = at;
                best_gpu = g;
            }
        }
    }
    if (best != UINT32_MAX) {
        seat(run, best_gpu, best);
    }
    return best != UINT32_MAX;
}

static void admit(struct run *run)
{
    bool any = true;
    while (any && run->c->group == TWIN_SHORTEST) {
        any = admit_shortest(run);
    }
    any = run->c->group == TWIN_OFFERED;
    while (any) {
        any = false;
        for (uint32_t g = 0; g < run->gpus; g++) {
            any = admit_one(run, g) || any;
        }
    }
}

/* Rows of this step: decoding requests first, then chunks of prompts, lowest slot first. */
static void plan_rows(struct run *run, uint32_t gpu)
{
    const struct twin_case *c = run->c;
    uint32_t budget = c->step_tokens;
    for (uint32_t i = 0; i < c->running_per_gpu; i++) {
        struct sequence *s = &run->sequence[gpu][i];
        s->now = 0;
        if (s->running && s->done >= c->prompt[s->request] && budget > 0) {
            s->now = 1;
            budget--;
        }
    }
    for (uint32_t i = 0; i < c->running_per_gpu; i++) {
        struct sequence *s = &run->sequence[gpu][i];
        while (s->running && s->done < c->prompt[s->request] &&
               s->done + s->now < c->prompt[s->request] && budget > 0) {
            s->now++;
            budget--;
        }
    }
}

/* What rows choose of what they see: which tokens is not known, so all that they can be. */
static void sum_chosen(const struct twin_model *m, uint32_t done, uint32_t now,
                       struct twin_tokens *own)
{
    const uint32_t most = m->sparse_entries * m->sparse_ratio;
    double pairs = 0;
    for (uint32_t row = done; row < done + now; row++) {
        pairs += row + 1 < most ? row + 1 : most;
    }
    own->sparse_pairs += pairs;
    own->sparse_read += fmin(pairs, now == 0 ? 0 : done + now);
    own->sparse_decode += now == 1 ? pairs : 0;
}

/* What the rank's rows attend to, key by key. */
static void sum_own(struct run *run, uint32_t gpu)
{
    const struct twin_case *c = run->c;
    struct twin_tokens *own = &run->own[gpu];
    const uint32_t window = c->cost.model.window;
    memset(own, 0, sizeof *own);
    for (uint32_t i = 0; i < c->running_per_gpu; i++) {
        const struct sequence *s = &run->sequence[gpu][i];
        bool seen[TWIN_CASE_ROWS] = { false };
        for (uint32_t row = s->done; row < s->done + s->now; row++) {
            own->tokens++;
            own->sampled += row + 1 >= c->prompt[s->request];
            for (uint32_t key = 0; key <= row; key++) {
                own->pairs++;
                if (window > 0 && row - key < window) {
                    own->window_pairs++;
                    own->window_read += !seen[key];
                    seen[key] = true;
                }
            }
        }
        const uint32_t read = s->now == 0 ? 0 : s->done + s->now;
        own->read += read;
        own->decode_read += s->now == 1 ? read : 0;
        own->decode_sequences += s->now == 1;
        sum_chosen(&c->cost.model, s->done, s->now, own);
    }
}

/* --- counts and prices --- */

/* Every row of the step, rank by rank in the order of its slots. */
static void each_row(struct run *run,
                     void (*look)(struct twin_counted *counted, const struct twin_case *c,
                                  uint32_t gpu, uint32_t row))
{
    for (uint32_t g = 0; g < run->gpus; g++) {
        for (uint32_t i = 0; i < run->c->running_per_gpu; i++) {
            const struct sequence *s = &run->sequence[g][i];
            for (uint32_t row = s->done; row < s->done + s->now; row++) {
                look(&run->counted, run->c, g, run->c->first_row[s->request] + row);
            }
        }
    }
}

static void count_step(struct run *run)
{
    const uint64_t before = run->counted.assignments;
    count_twin_begin(&run->counted, run->number);
    each_row(run, count_twin_want);
    for (uint32_t l = 0; l < run->layers; l++) {
        fetch_twin_layer(&run->counted, run->c, l);
    }
    each_row(run, count_twin_row);
    run->r->account[run->phase].assignments += run->counted.assignments - before;
    run->r->unknown = run->counted.unknown;
    run->r->dropped = run->counted.dropped;
}

static struct twin_price pair(struct twin_duration real, struct twin_duration nominal)
{
    return (struct twin_price){ real.ns, nominal.ns, real.source };
}

static void price_gpu(struct run *run, uint32_t g)
{
    static const struct twin_factor one = { 1, 1, 1 };
    static const enum twin_part own[] = { TWIN_ATTENTION, TWIN_DENSE, TWIN_GATE,
                                          TWIN_SHARED,    TWIN_HEAD,  TWIN_HOST };
    const struct cost_twin *cost = &run->c->cost;
    const struct twin_factor factor = run->r->factor[g];
    for (uint32_t i = 0; i < 6; i++) {
        run->step.own[g][own[i]] = pair(cost_twin_own(cost, own[i], &run->own[g], factor),
                                        cost_twin_own(cost, own[i], &run->own[g], one));
    }
    for (uint32_t l = 0; l < run->layers; l++) {
        const struct twin_expert_work w = count_twin_expert(&run->counted, run->c, l, g);
        const struct twin_exchange out = count_twin_exchange(&run->counted, run->c, l, g);
        const struct twin_exchange back = { out.near_in, out.near_out, out.far_in, out.far_out,
                                            out.near_own };
        struct twin_price *price = run->step.moe[l][g];
        price[TWIN_EXPERT] =
            pair(cost_twin_expert(cost, w.tokens, w.active, w.tiles, w.fullest, factor),
                 cost_twin_expert(cost, w.tokens, w.active, w.tiles, w.fullest, one));
        price[TWIN_DISPATCH] = pair(cost_twin_exchange(cost, TWIN_DISPATCH, out, factor),
                                    cost_twin_exchange(cost, TWIN_DISPATCH, out, one));
        price[TWIN_COMBINE] = pair(cost_twin_exchange(cost, TWIN_COMBINE, back, factor),
                                   cost_twin_exchange(cost, TWIN_COMBINE, back, one));
        run->free_dispatch[l][g] = price[TWIN_DISPATCH];
        fetch_twin_delay(&run->counted, run->c, l, g, factor.comm, &price[TWIN_DISPATCH]);
    }
}

/* The drift of one GPU moves on by a step; step 0 draws from the stationary distribution. */
static void move_drift(struct run *run, uint32_t g)
{
    const struct calibration_twin *table = &run->c->cost.table;
    const double sigma = calibration_twin_drift(table, "sigma");
    const double phi = run->number == 0 ? 0 : calibration_twin_drift(table, "phi");
    const uint64_t key = moe_random_key(run->c->seed, MOE_RANDOM_DRIFT);
    const double u = moe_random_uniform(key, run->number * run->gpus + g) + 0x1p-54;
    const double normal = floor(calibration_twin_normal(u) * 0x1p40 + 0.5) * 0x1p-40;
    run->drift[g] = phi * run->drift[g] + sigma * sqrt(1 - phi * phi) * normal;
}

static void draw_noise(struct run *run)
{
    static const enum twin_noise kind[] = { TWIN_NOISE_COMPUTE, TWIN_NOISE_COMM, TWIN_NOISE_EXPERT,
                                            TWIN_NOISE_COMM };
    const uint64_t key = moe_random_key(run->c->seed, MOE_RANDOM_JITTER);
    for (uint32_t g = 0; g < run->gpus && run->c->noise; g++) {
        move_drift(run, g);
    }
    for (uint32_t l = 0; l <= run->layers; l++) {
        for (uint32_t g = 0; g < run->gpus; g++) {
            for (uint32_t s = 0; s < TWIN_STRETCHES; s++) {
                double factor = 1;
                if (run->c->noise) {
                    const uint64_t which = run->number * (run->layers + 1) + l;
                    const double u =
                        moe_random_uniform(key, (which * run->gpus + g) * TWIN_STRETCHES + s);
                    factor = calibration_twin_jitter(&run->c->cost.table, kind[s], u);
                    factor *= kind[s] == TWIN_NOISE_COMM ? 1 : exp(run->drift[g]);
                }
                run->step.jitter[l][s][g] = factor;
            }
        }
    }
}

/* --- what is written down --- */

static void sample(struct twin_samples *samples, int64_t ns)
{
    assert(samples->count < TWIN_STEPS);
    samples->ns[samples->count++] = ns;
}

static void score_loads(struct run *run, uint32_t l)
{
    struct twin_result *r = run->r;
    uint32_t expert[TWIN_EXPERTS] = { 0 };
    double sum = 0;
    double max = 0;
    double hottest = 0;
    for (uint32_t g = 0; g < run->gpus; g++) {
        const double tokens = count_twin_expert(&run->counted, run->c, l, g).tokens;
        r->gpu_tokens[l][g] += (uint64_t) tokens;
        sum += tokens;
        max = fmax(max, tokens);
    }
    for (uint32_t s = 0; s < run->counted.slots; s++) {
        if (run->counted.plan[l][s] != TWIN_EMPTY) {
            expert[run->counted.plan[l][s]] += run->counted.slot[l][s];
        }
    }
    for (uint32_t e = 0; e < run->c->cost.model.experts; e++) {
        r->expert_tokens[l][e] += expert[e];
        hottest = fmax(hottest, expert[e]);
    }
    const double mean = sum / run->gpus;
    r->balancedness += sum > 0 ? mean / max : 1;
    r->imbalance += sum > 0 ? (max - mean) / mean : 0;
    r->mean_load += mean;
    r->max_load += max;
    r->no_copy_load += fmax(mean, hottest);
    r->layer_max[l] += max;
    r->layer_mean[l] += mean;
    r->layer_steps++;
    for (uint32_t g = 0; g < run->gpus; g++) {
        const struct twin_exchange w = count_twin_exchange(&run->counted, run->c, l, g);
        r->near_copies += w.near_out;
        r->far_copies += w.far_out;
        r->local_copies += run->counted.copies[l][g][g];
    }
}

static void score_barriers(struct run *run, const struct twin_played *played)
{
    struct twin_result *r = run->r;
    assert(run->gpus > 0);
    const uint32_t slots_per_gpu = run->counted.slots_per_gpu;
    for (uint32_t b = 0; b <= 2 * run->layers; b++) {
        const struct twin_barrier *barrier = &played->barrier[b];
        r->idle += barrier->idle;
        r->barriers++;
        r->gpu_last[barrier->last]++;
        r->gpu_lead[barrier->last] += barrier->lead;
        if (b < 2 * run->layers) {
            r->layer_idle[b / 2] += barrier->idle;
        }
        if (b < 2 * run->layers && b % 2 == 1) {
            const uint32_t *tokens = run->counted.slot[b / 2];
            uint32_t most = barrier->last * slots_per_gpu;
            for (uint32_t s = most; s < (barrier->last + 1) * slots_per_gpu; s++) {
                most = tokens[s] > tokens[most] ? s : most;
            }
            if (tokens[most] > 0) {
                r->expert_lead[b / 2][run->counted.plan[b / 2][most]] += barrier->lead;
            }
        }
    }
    for (uint32_t p = 0; p < TWIN_PARTS; p++) {
        for (uint32_t s = 0; s < TWIN_SOURCES; s++) {
            r->path[p][s] += played->path[p][s];
        }
    }
}

/* All counterfactuals of a scored step, each played from its durations. */
static void score_replays(struct run *run)
{
    static struct twin_times times;
    static struct twin_played played;
    for (uint32_t subset = 0; subset < TWIN_SUBSETS; subset++) {
        step_twin_times(&run->step, subset, &times);
        step_twin_play(&run->step, &times, &played);
        run->r->subset_idle[subset] += played.idle;
        run->r->subset_time[subset] += played.length;
    }
    for (uint32_t lane = 0; lane < TWIN_LANES; lane++) {
        step_twin_scaled(&run->step, (enum twin_part)(lane / 2), lane % 2 == 0 ? 0.8 : 1.2, &times);
        step_twin_play(&run->step, &times, &played);
        run->r->lane_time[lane] += played.length;
    }
}

/* What was fetched for a scored step, and what it would have been without. */
static void score_fetches(struct run *run, int64_t length)
{
    static struct step_twin step;
    static struct twin_times times;
    static struct twin_played played;
    struct twin_result *r = run->r;
    if (run->c->dispatch == TWIN_IN_TURN || run->c->fetch_slots == 0) {
        return;
    }
    step = run->step;
    for (uint32_t l = 0; l < run->layers; l++) {
        double longest = 0;
        for (uint32_t g = 0; g < run->gpus; g++) {
            longest = fmax(longest, fetch_twin_transfer(&run->counted, run->c, l, g).ns);
            step.moe[l][g][TWIN_DISPATCH] = run->free_dispatch[l][g];
        }
        r->transfer += longest;
        r->fetched_near += run->counted.fetched_near[l];
        r->fetched_far += run->counted.fetched[l] - run->counted.fetched_near[l];
        r->fetching_layers += run->counted.fetched[l] > 0;
        r->even_balance += run->counted.even[l];
    }
    step_twin_times(&step, TWIN_SUBSETS - 1, &times);
    step_twin_play(&step, &times, &played);
    r->fetch_exposed += length - played.length;
}

static void end_request(struct run *run, const struct sequence *s)
{
    struct twin_result *r = run->r;
    const uint32_t outputs = run->c->output[s->request];
    r->account[run->phase].requests++;
    if (run->phase != TWIN_SCORED) {
        return;
    }
    sample(&r->e2e, run->now - s->admitted);
    if (outputs > 1) {
        sample(&r->tpot, (run->now - s->first_token) / (outputs - 1));
    }
}

/* The step is over at run->now: who has sampled what, who is done. Returns the samples. */
static uint32_t end_step(struct run *run)
{
    const struct twin_case *c = run->c;
    uint32_t outputs = 0;
    for (uint32_t g = 0; g < run->gpus; g++) {
        for (uint32_t i = 0; i < c->running_per_gpu; i++) {
            struct sequence *s = &run->sequence[g][i];
            for (; s->now > 0; s->now--) {
                s->done++;
                if (s->done < c->prompt[s->request]) {
                    continue;
                }
                outputs++;
                if (s->done == c->prompt[s->request]) {
                    s->first_token = run->now;
                    if (run->phase == TWIN_SCORED) {
                        sample(&run->r->ttft, run->now - s->admitted);
                    }
                } else if (run->phase == TWIN_SCORED) {
                    sample(&run->r->itl, run->now - s->last_token);
                }
                s->last_token = run->now;
            }
            if (s->running && s->done == c->prompt[s->request] + c->output[s->request] - 1) {
                end_request(run, s);
                run->finished++;
                s->running = false;
            }
        }
    }
    return outputs;
}

/* As it stands after the step's admissions. */
static uint32_t phase_now(const struct run *run)
{
    if (run->finished < run->gpus * run->c->running_per_gpu) {
        return TWIN_WARMUP;
    }
    return run->next < run->queued && !run->queue[run->next].planned ? TWIN_SCORED : TWIN_DRAIN;
}

/* False when everything is served. */
static bool one_step(struct run *run)
{
    static struct twin_times times;
    static struct twin_played played;
    struct twin_result *r = run->r;
    double tokens = 0;
    admit(run);
    run->phase = phase_now(run);
    for (uint32_t g = 0; g < run->gpus; g++) {
        plan_rows(run, g);
        sum_own(run, g);
        tokens += run->own[g].tokens;
    }
    if (tokens == 0) {
        return false;
    }
    count_step(run);
    draw_noise(run);
    for (uint32_t g = 0; g < run->gpus; g++) {
        price_gpu(run, g);
    }
    step_twin_times(&run->step, TWIN_SUBSETS - 1, &times);
    step_twin_play(&run->step, &times, &played);
    run->now += played.length;
    const uint32_t outputs = end_step(run);
    struct twin_account *account = &r->account[run->phase];
    account->steps++;
    account->tokens += (uint64_t) tokens;
    account->outputs += outputs;
    account->time += played.length;
    if (run->phase == TWIN_SCORED) {
        for (uint32_t l = 0; l < run->layers; l++) {
            score_loads(run, l);
        }
        score_barriers(run, &played);
        score_replays(run);
        score_fetches(run, played.length);
        sample(&r->step, played.length);
    }
    run->number++;
    return true;
}

void engine_twin_run(const struct twin_case *c, struct twin_result *result)
{
    static struct run run;
    memset(&run, 0, sizeof run);
    memset(result, 0, sizeof *result);
    run.c = c;
    run.r = result;
    run.gpus = c->cost.nodes * c->cost.gpus_per_node;
    run.layers = c->cost.model.moe_layers;
    run.step.layers = run.layers;
    run.step.gpus = run.gpus;
    run.step.dense_layers = c->cost.model.layers - run.layers;
    run.step.common_exit = c->common_exit;
    run.step.serial = c->serial;
    memory_twin_find(c, result);
    if (!result->fits) {
        return;
    }
    for (uint32_t g = 0; g < run.gpus; g++) {
        result->factor[g] = c->noise ? calibration_twin_factor(&c->cost.table, c->seed, g)
                                     : (struct twin_factor){ 1, 1, 1 };
    }
    fill_queue(&run);
    while (one_step(&run)) {
    }
    result->nothing_scored = result->account[TWIN_SCORED].steps == 0;
    step_twin_split(result->subset_idle, result->cause_idle);
}
