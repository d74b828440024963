#include "sim/arrival/arrival.h"

#include <assert.h>
#include <math.h>

#include "sim/base/random.h"

#include "sim/base/no_malloc.h"

/* Streams of random numbers of one run, told apart by what is added to the mixed seed. */
enum { DRAW_GAP = 1, DRAW_PROMPT, DRAW_OUTPUT, DRAW_MIXTURE, DRAW_PRIORITY, DRAW_BURST };

static uint64_t key_of(uint64_t seed, uint64_t draw)
{
    return moe_random_key(moe_random_mix(seed) + draw, MOE_RANDOM_ARRIVALS);
}

void moe_arrival_route(const struct moe_arrival *arrival, const struct moe_trace_request *from,
                       uint32_t row, uint64_t *trace_row, uint32_t *count)
{
    const uint32_t decode_rows = from->output_tokens - 1;
    assert(row < moe_arrival_rows(arrival));
    const bool prompt = row < arrival->prompt_tokens;
    const uint32_t place = prompt ? row : row - arrival->prompt_tokens;
    const uint32_t end = prompt ? arrival->prompt_tokens : arrival->output_tokens - 1;
    const bool of_prompt = prompt || decode_rows == 0;
    const uint32_t length = of_prompt ? from->prompt_tokens : decode_rows;
    const uint32_t offset = place % length;
    const uint32_t left = length - offset;
    *trace_row = from->first_row + (of_prompt ? 0 : from->prompt_tokens) + offset;
    *count = end - place < left ? end - place : left;
}

static bool is_recorded(const struct moe_arrival_source *s)
{
    return s->recorded_count > 0;
}

static moe_time_ns recorded_time(const struct moe_arrival_source *s, uint64_t number)
{
    const uint64_t loop = number / s->recorded_count;
    const moe_time_ns at = s->recorded[number % s->recorded_count].arrival_ns +
                           (moe_time_ns) loop * s->recorded_span_ns;
    return s->options->rate > 0.0 ? (moe_time_ns) ((double) at * s->time_scale) : at;
}

/* Weight of a domain at a time, linear between the points. */
static double weight_at(const struct moe_arrival_source *s, uint32_t point, uint32_t domain,
                        double at_s)
{
    const double here = s->drift_weight[(size_t) point * s->domain_count + domain];
    if (point + 1 == s->drift_count) {
        return here;
    }
    const double next = s->drift_weight[(size_t) (point + 1) * s->domain_count + domain];
    const double width = s->drift_at_s[point + 1] - s->drift_at_s[point];
    return here + (next - here) * ((at_s - s->drift_at_s[point]) / width);
}

/* A request to score of a domain drawn by the weights of that moment. */
static uint32_t drawn_request(const struct moe_arrival_stream *t, moe_time_ns now_ns)
{
    const struct moe_arrival_source *s = t->source;
    const double at_s = (double) now_ns * 1e-9;
    uint32_t point = 0;
    double sum = 0.0;
    while (point + 1 < s->drift_count && s->drift_at_s[point + 1] <= at_s) {
        point++;
    }
    for (uint32_t d = 0; d < s->domain_count; d++) {
        sum += weight_at(s, point, d, at_s);
    }
    double left = moe_random_uniform(t->mixture_key, 2 * t->made) * sum;
    uint32_t chosen = s->domain_count; /* rounding may leave a little: the last with a weight */
    for (uint32_t d = 0; d < s->domain_count; d++) {
        const double weight = weight_at(s, point, d, at_s);
        if (weight > 0.0 && left >= 0.0) {
            chosen = d;
        }
        left -= weight;
    }
    assert(chosen < s->domain_count);
    const uint32_t first = s->domain_first[chosen];
    const uint32_t count = s->domain_first[chosen + 1] - first;
    return s->by_domain[first + moe_random_below(t->mixture_key, 2 * t->made + 1, count)];
}

/* Whose routes it replays. */
static uint32_t next_request(struct moe_arrival_stream *t, moe_time_ns now_ns)
{
    const struct moe_arrival_source *s = t->source;
    uint32_t request = 0;
    if (s->drift_count > 0) {
        return drawn_request(t, now_ns);
    }
    if (s->options->kind == MOE_ARRIVAL_TRACE) {
        return s->recorded[t->made % s->recorded_count].request;
    }
    const bool there = moe_workload_peek(&t->workload, &request);
    assert(there);
    (void) there;
    moe_workload_take(&t->workload);
    return request;
}

static void set_lengths(const struct moe_arrival_stream *t, struct moe_arrival *a)
{
    const struct moe_arrival_source *s = t->source;
    const struct moe_arrival_options *o = s->options;
    if (o->lengths == MOE_ARRIVAL_LENGTHS_LOGNORMAL) {
        a->prompt_tokens = moe_length_draw(o->prompt_tokens, o->prompt_cv, o->longest_tokens,
                                           t->prompt_key, t->made);
        a->output_tokens = moe_length_draw(o->output_tokens, o->output_cv, o->longest_tokens,
                                           t->output_key, t->made);
    } else if (o->lengths == MOE_ARRIVAL_LENGTHS_RECORDED && is_recorded(s)) {
        const struct moe_arrival *from = &s->recorded[t->made % s->recorded_count];
        a->prompt_tokens = from->prompt_tokens;
        a->output_tokens = from->output_tokens;
        a->hit_tokens = from->hit_tokens;
        a->prefix_group = from->prefix_group;
    } else {
        a->prompt_tokens = t->requests[a->request].prompt_tokens;
        a->output_tokens = t->requests[a->request].output_tokens;
    }
}

static uint32_t drawn_priority(const struct moe_arrival_stream *t)
{
    const struct moe_arrival_source *s = t->source;
    const double u = moe_random_uniform(t->priority_key, t->made);
    uint32_t class = 0;
    while (class + 1 < s->priority_count && u >= s->priority_sum[class]) {
        class ++;
    }
    return class;
}

/* The arrival time of the next one; false when none comes. */
static bool next_time(struct moe_arrival_stream *t, moe_time_ns *at_ns)
{
    const struct moe_arrival_source *s = t->source;
    const double duration_s = s->options->duration_s;
    *at_ns = 0;
    if (is_recorded(s)) {
        *at_ns = recorded_time(s, t->made);
    } else if (!t->is_closed_loop) {
        if (!moe_rate_clock_advance(&t->clock, moe_gap_draw(&s->family, t->gap_key, t->made))) {
            return false;
        }
        if (t->clock.now_s >= 9e9) { /* the clock's end, 285 years on */
            return false;
        }
        *at_ns = (moe_time_ns) (t->clock.now_s * 1e9);
    }
    return duration_s == 0.0 || (double) *at_ns < duration_s * 1e9;
}

static void make_next(struct moe_arrival_stream *t)
{
    struct moe_arrival a = { .number = t->made, .prefix_group = MOE_ARRIVAL_NO_GROUP };
    t->has_next = t->made < t->source->total && next_time(t, &a.arrival_ns);
    if (!t->has_next) {
        return;
    }
    a.scored = !t->is_closed_loop || moe_workload_scores_next(&t->workload);
    a.request = next_request(t, a.arrival_ns);
    a.domain = t->requests[a.request].domain;
    a.priority = t->source->priority_count > 0 ? drawn_priority(t) : 0;
    set_lengths(t, &a);
    t->next = a;
    t->made++;
}

enum moe_status moe_arrival_stream_init(struct moe_arrival_stream *stream,
                                        const struct moe_arrival_source *source,
                                        const struct moe_trace *trace, uint64_t seed,
                                        struct moe_arena *arena, struct moe_error *err)
{
    const bool closed = source->options->kind == MOE_ARRIVAL_CLOSED;
    *stream = (struct moe_arrival_stream){
        .source = source,
        .requests = moe_trace_requests(trace),
        .gap_key = key_of(seed, DRAW_GAP),
        .prompt_key = key_of(seed, DRAW_PROMPT),
        .output_key = key_of(seed, DRAW_OUTPUT),
        .mixture_key = key_of(seed, DRAW_MIXTURE),
        .priority_key = key_of(seed, DRAW_PRIORITY),
        .is_closed_loop = closed,
    };
    MOE_TRY(moe_workload_init(&stream->workload, trace, source->plan_share,
                              closed ? source->passes : UINT32_MAX, seed, arena, err));
    moe_rate_clock_init(&stream->clock, &source->schedule, key_of(seed, DRAW_BURST));
    make_next(stream);
    return MOE_OK;
}

void moe_arrival_take(struct moe_arrival_stream *stream)
{
    assert(stream->has_next);
    make_next(stream);
}

enum moe_status moe_arrival_survey(const struct moe_arrival_source *source,
                                   const struct moe_trace *trace, uint64_t seed,
                                   struct moe_arena *arena, struct moe_arrival_survey *survey,
                                   struct moe_error *err)
{
    struct moe_arrival_stream stream;
    struct moe_arrival_survey sum = { 0 };
    MOE_TRY(moe_arrival_stream_init(&stream, source, trace, seed, arena, err));
    for (const struct moe_arrival *a = moe_arrival_peek(&stream); a != NULL;
         a = moe_arrival_peek(&stream)) {
        const uint64_t length = (uint64_t) a->prompt_tokens + a->output_tokens;
        sum.count++;
        sum.longest_tokens = length > sum.longest_tokens ? length : sum.longest_tokens;
        sum.longest_prompt = a->prompt_tokens > sum.longest_prompt
                                 ? a->prompt_tokens
                                 : sum.longest_prompt;
        sum.prompt_tokens += a->prompt_tokens;
        sum.output_tokens += a->output_tokens;
        sum.hit_tokens += a->hit_tokens;
        sum.last_ns = a->arrival_ns;
        moe_arrival_take(&stream);
    }
    *survey = sum;
    return MOE_OK;
}

uint64_t moe_arrival_warmup(const struct moe_arrival_source *source, uint64_t seats)
{
    const uint64_t tenth = source->total / 10 > 0 ? source->total / 10 : 1;
    const bool all = source->options->kind == MOE_ARRIVAL_CLOSED || seats < tenth;
    return all ? seats : tenth;
}
