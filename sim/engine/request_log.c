#include "sim/engine/request_log.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "sim/base/no_malloc.h"

enum { MSER_BATCH = 5, TREND_PARTS = 20 };
static const double trend_t = 3.92;
static const double trend_share = 0.05;

size_t moe_request_log_bytes(uint64_t capacity)
{
    return (size_t) capacity * (sizeof(struct moe_request_record) + sizeof(double)) + 512;
}

enum moe_status moe_request_log_init(struct moe_request_log *log, uint64_t capacity,
                                     struct moe_arena *arena, struct moe_error *err)
{
    *log = (struct moe_request_log){
        .capacity = capacity,
        .records = MOE_NEW(arena, struct moe_request_record, capacity),
        .scratch = MOE_NEW(arena, double, capacity),
    };
    return log->records != NULL && log->scratch != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "no room for the records of %llu requests",
                          (unsigned long long) capacity);
}

void moe_request_log_add(struct moe_request_log *log, const struct moe_request_record *record)
{
    assert(log->count < log->capacity);
    assert(record->arrival_ns <= record->admitted_ns);
    assert(record->admitted_ns <= record->first_token_ns);
    assert(record->first_token_ns <= record->finished_ns);
    log->records[log->count++] = *record;
}

static double tpot_of(const struct moe_request_record *r)
{
    return r->output_tokens > 1
               ? (double) (r->finished_ns - r->first_token_ns) / (r->output_tokens - 1)
               : 0.0;
}

bool moe_slo_is_met(const struct moe_slo *slo, const struct moe_request_record *record)
{
    const double ttft = (double) (record->first_token_ns - record->arrival_ns);
    return (!(slo->ttft_ms > 0.0) || ttft <= slo->ttft_ms * 1e6) &&
           (!(slo->tpot_ms > 0.0) || tpot_of(record) <= slo->tpot_ms * 1e6);
}

static double first_token_time(const struct moe_request_record *r)
{
    return (double) (r->first_token_ns - r->arrival_ns);
}

static double whole_time(const struct moe_request_record *r)
{
    return (double) (r->finished_ns - r->arrival_ns);
}

/* Whether the best cut lies before the last one allowed. Batches of five values, and from the last
 * to the first the error of what remains. */
static bool settles(const struct moe_request_log *log,
                    double (*value)(const struct moe_request_record *r))
{
    const uint64_t batches = log->count / MSER_BATCH;
    double sum = 0.0;
    double squares = 0.0;
    double least = INFINITY;
    uint64_t cut = 0;
    if (batches < 4) {
        return true; /* too few to tell */
    }
    const struct moe_request_record *r = log->records + log->count - batches * MSER_BATCH;
    /* Relative to the mean of all, so that squares keep their digits. */
    double centre = 0.0;
    for (uint64_t i = 0; i < batches * MSER_BATCH; i++) {
        centre += value(&r[i]);
    }
    centre /= (double) (batches * MSER_BATCH);
    for (uint64_t batch = batches; batch-- > 0;) {
        double mean = 0.0;
        for (uint64_t i = batch * MSER_BATCH; i < (batch + 1) * MSER_BATCH; i++) {
            mean += value(&r[i]);
        }
        mean = mean / MSER_BATCH - centre;
        sum += mean;
        squares += mean * mean;
        const double n = (double) (batches - batch);
        const double error = (squares - sum * sum / n) / (n * n);
        if (batch <= batches / 2 && error <= least) { /* ties: keep more */
            least = error;
            cut = batch;
        }
    }
    return cut < batches / 2;
}

static int ascending(const void *left, const void *right)
{
    const double a = *(const double *) left;
    const double b = *(const double *) right;
    return (a > b) - (a < b);
}

static double order_statistic(const double *sorted, uint64_t count, double q)
{
    const double place = ceil(q * (double) count);
    const uint64_t index = place < 1.0 ? 0 : (uint64_t) place - 1;
    return sorted[index < count ? index : count - 1];
}

static struct moe_quantiles quantiles_of(double *values, uint64_t count)
{
    struct moe_quantiles q = { .count = count };
    double sum = 0.0;
    if (count == 0) {
        return q;
    }
    qsort(values, count, sizeof *values, ascending);
    for (uint64_t i = 0; i < count; i++) {
        sum += values[i];
    }
    q.mean = sum / (double) count;
    q.p50 = order_statistic(values, count, 0.5);
    q.p90 = order_statistic(values, count, 0.9);
    q.p99 = order_statistic(values, count, 0.99);
    q.p999 = order_statistic(values, count, 0.999);
    q.max = values[count - 1];
    return q;
}

static void measure_inside(const struct moe_request_record *r, struct moe_service *s)
{
    for (uint64_t i = 0; i < s->scored; i++) {
        const double inside = (double) (r[i].finished_ns - r[i].admitted_ns);
        s->inside_mean += inside / (double) s->scored;
        s->inside_max = inside > s->inside_max ? inside : s->inside_max;
    }
}

static void measure_latencies(const struct moe_request_log *log, struct moe_service *s)
{
    const struct moe_request_record *r = log->records + s->cut;
    double *values = log->scratch;
    uint64_t several = 0;
    for (uint64_t i = 0; i < s->scored; i++) {
        values[i] = (double) (r[i].admitted_ns - r[i].arrival_ns);
    }
    s->queue = quantiles_of(values, s->scored);
    for (uint64_t i = 0; i < s->scored; i++) {
        values[i] = (double) (r[i].first_token_ns - r[i].arrival_ns);
    }
    s->ttft = quantiles_of(values, s->scored);
    for (uint64_t i = 0; i < s->scored; i++) {
        values[i] = (double) (r[i].finished_ns - r[i].arrival_ns);
    }
    s->e2e = quantiles_of(values, s->scored);
    measure_inside(r, s);
    for (uint64_t i = 0; i < s->scored; i++) {
        if (r[i].output_tokens > 1) {
            values[several++] = tpot_of(&r[i]);
        }
    }
    s->tpot = quantiles_of(values, several);
}

/* Length of the part of begin .. end that lies in from .. to. */
static double overlap(moe_time_ns begin, moe_time_ns end, double from, double to)
{
    const double low = (double) begin > from ? (double) begin : from;
    const double high = (double) end < to ? (double) end : to;
    return high > low ? high - low : 0.0;
}

/* Least squares of the parts' means against their numbers; the line's rise over the window. */
static void fit_trend(const double *part, struct moe_service *s)
{
    const double middle = 0.5 * (TREND_PARTS - 1);
    double mean = 0.0;
    double product = 0.0;
    double width = 0.0;
    double residual = 0.0;
    for (int i = 0; i < TREND_PARTS; i++) {
        mean += part[i] / TREND_PARTS;
    }
    for (int i = 0; i < TREND_PARTS; i++) {
        product += (i - middle) * (part[i] - mean);
        width += (i - middle) * (i - middle);
    }
    const double slope = product / width;
    for (int i = 0; i < TREND_PARTS; i++) {
        const double off = part[i] - mean - slope * (i - middle);
        residual += off * off;
    }
    const double error = sqrt(residual / (TREND_PARTS - 2) / width);
    s->waiting_slope = slope * TREND_PARTS / s->window_s;
    s->slope_t = error > 0.0 ? slope / error : slope > 0.0 ? INFINITY : 0.0;
    s->is_saturated =
        s->slope_t > trend_t && slope * TREND_PARTS > trend_share * s->offered_rate * s->window_s;
}

static void measure_window(const struct moe_request_log *log, double from, double to,
                           struct moe_service *s)
{
    double part[TREND_PARTS] = { 0.0 };
    double finished = 0.0;
    double running = 0.0;
    double tokens = 0.0;
    const double width = (to - from) / TREND_PARTS;
    for (uint64_t i = 0; i < log->count; i++) {
        const struct moe_request_record *r = &log->records[i];
        const double span = (double) (r->finished_ns - r->first_token_ns);
        finished += (double) r->finished_ns >= from && (double) r->finished_ns < to;
        running += overlap(r->admitted_ns, r->finished_ns, from, to);
        tokens += (double) r->first_token_ns >= from && (double) r->first_token_ns < to;
        if (span > 0.0) {
            tokens += (r->output_tokens - 1) *
                      (overlap(r->first_token_ns, r->finished_ns, from, to) / span);
        }
        for (int p = 0; p < TREND_PARTS && (double) r->admitted_ns > from + p * width; p++) {
            part[p] +=
                overlap(r->arrival_ns, r->admitted_ns, from + p * width, from + (p + 1) * width);
        }
    }
    for (int p = 0; p < TREND_PARTS; p++) {
        part[p] /= width;
        s->waiting_mean += part[p] / TREND_PARTS;
    }
    s->running_mean = running / (to - from);
    s->served_rate = finished / s->window_s;
    s->output_rate = tokens / s->window_s;
    fit_trend(part, s);
}

/* The most that wait at once in the window: arrivals and admissions merged in time. Arrivals
 * stand in order; admissions are sorted in scratch. At one time admissions go first. */
static double largest_queue(const struct moe_request_log *log, double from, double to)
{
    double *admitted = log->scratch;
    uint64_t gone = 0;
    double largest = 0.0;
    for (uint64_t i = 0; i < log->count; i++) {
        admitted[i] = (double) log->records[i].admitted_ns;
    }
    qsort(admitted, log->count, sizeof *admitted, ascending);
    for (uint64_t i = 0; i < log->count; i++) {
        const double now = (double) log->records[i].arrival_ns;
        while (gone < log->count && admitted[gone] <= now) {
            gone++;
        }
        const double waiting = (double) (i + 1) - (double) gone;
        if (now >= from && now <= to && waiting > largest) {
            largest = waiting;
        }
    }
    return largest;
}

static int by_number(const void *left, const void *right)
{
    const struct moe_request_record *a = left;
    const struct moe_request_record *b = right;
    return (a->number > b->number) - (a->number < b->number);
}

void moe_request_log_measure(struct moe_request_log *log, const struct moe_slo *slo,
                             struct moe_service *service)
{
    struct moe_service s = { .known = true, .arrived = log->count };
    assert(log->count > 0);
    qsort(log->records, log->count, sizeof *log->records, by_number);
    s.is_steady = settles(log, first_token_time) && settles(log, whole_time);
    s.cut = log->count / 10;
    s.scored = log->count - s.cut;
    const double from = (double) log->records[s.cut].arrival_ns;
    const double to = (double) log->records[log->count - 1].arrival_ns;
    uint64_t good_tokens = 0;
    for (uint64_t i = s.cut; i < log->count; i++) {
        const struct moe_request_record *r = &log->records[i];
        const bool met = moe_slo_is_met(slo, r);
        s.slo_met += met;
        good_tokens += met ? r->output_tokens : 0;
        s.preemptions += r->preemptions;
    }
    s.slo_share = (double) s.slo_met / (double) s.scored;
    measure_latencies(log, &s);
    if (to > from) {
        s.window_s = (to - from) * 1e-9;
        s.offered_rate = (double) (s.scored - 1) / s.window_s; /* gaps over their sum */
        s.goodput = s.offered_rate * s.slo_share;
        s.goodput_tokens = s.offered_rate * (double) good_tokens / (double) s.scored;
        measure_window(log, from, to, &s);
        s.waiting_max = largest_queue(log, from, to);
    }
    *service = s;
}
