#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/arrival/arrival.h"
#include "sim/arrival/prefix_hits.h"

static int by_time(const void *left, const void *right)
{
    const struct moe_arrival *a = left;
    const struct moe_arrival *b = right;
    if (a->arrival_ns != b->arrival_ns) {
        return a->arrival_ns < b->arrival_ns ? -1 : 1;
    }
    return a->request < b->request ? -1 : 1; /* no two are the same request */
}

/* Requests first .. of the store, by time, the first at 0. */
static enum moe_status take_times(struct moe_arrival_source *s, struct moe_trace *store,
                                  uint32_t first, struct moe_error *err)
{
    const struct moe_trace_request *requests = moe_trace_requests(store);
    const uint64_t all = moe_trace_request_count(store);
    if (all <= first || all >= UINT32_MAX) {
        return moe_fail(err, MOE_RANGE, "%s: %" PRIu64 " requests; %u to %u are needed",
                        moe_trace_path(store), all, first + 1, UINT32_MAX - 1);
    }
    s->recorded_count = (uint32_t) all - first;
    s->recorded = calloc(s->recorded_count, sizeof *s->recorded);
    if (s->recorded == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %u arrivals", s->recorded_count);
    }
    for (uint32_t i = 0; i < s->recorded_count; i++) {
        const struct moe_trace_request *r = &requests[first + i];
        if (r->arrival_ns < 0) {
            return moe_fail(err, MOE_RANGE,
                            "%s: request %u has no arrival time; arrivals.kind poisson, gamma, "
                            "weibull or bursts draws times",
                            moe_trace_path(store), first + i);
        }
        s->recorded[i] = (struct moe_arrival){
            .arrival_ns = r->arrival_ns,
            .request = first + i,
            .prompt_tokens = r->prompt_tokens,
            .output_tokens = r->output_tokens,
            .domain = r->domain,
            .scored = true,
        };
    }
    qsort(s->recorded, s->recorded_count, sizeof *s->recorded, by_time);
    const moe_time_ns begin = s->recorded[0].arrival_ns;
    for (uint32_t i = 0; i < s->recorded_count; i++) {
        s->recorded[i].arrival_ns -= begin;
    }
    return moe_prefix_hits_find(store, s->recorded, s->recorded_count, err);
}

/* How fast the recorded requests come, and what makes them come at the rate asked for. */
static enum moe_status scale_times(struct moe_arrival_source *s, const char *path,
                                   struct moe_error *err)
{
    const uint32_t n = s->recorded_count;
    const moe_time_ns last = s->recorded[n - 1].arrival_ns;
    s->time_scale = 1.0;
    s->recorded_span_ns = n > 1 ? last + last / (n - 1) : 0;
    s->recorded_rate = s->recorded_span_ns > 0 ? 1e9 * n / (double) s->recorded_span_ns : 0.0;
    if (s->recorded_span_ns == 0 && (s->options->rate > 0.0 || s->total > n)) {
        return moe_fail(err, MOE_RANGE,
                        "%s: its %u requests to serve arrive at one moment: their times can "
                        "neither be scaled to arrivals.rate nor repeated",
                        path, n);
    }
    if (s->options->rate > 0.0) {
        s->time_scale = s->recorded_rate / s->options->rate;
    }
    return MOE_OK;
}

static enum moe_status load_recorded(struct moe_arrival_source *s, struct moe_trace *trace,
                                     uint32_t planned, struct moe_error *err)
{
    struct moe_trace *file = NULL;
    if (s->options->kind == MOE_ARRIVAL_TRACE) {
        MOE_TRY(take_times(s, trace, planned, err));
    } else {
        MOE_TRY(moe_trace_open_any(&file, s->options->file, err));
        enum moe_status status = MOE_OK;
        s->file_hash = moe_trace_hash(file);
        (void) snprintf(s->file_name, sizeof s->file_name, "%s", moe_trace_model(file)->name);
        if (moe_trace_model(file)->content == MOE_TRACE_LOADS) {
            status = moe_fail(err, MOE_RANGE, "arrivals.file: %s holds loads; requests are needed",
                              s->options->file);
        } else {
            status = take_times(s, file, 0, err);
        }
        moe_trace_close(file);
        MOE_TRY(status);
    }
    s->total =
        s->options->requests > 0 ? s->options->requests : (uint64_t) s->passes * s->recorded_count;
    return scale_times(
        s, s->options->kind == MOE_ARRIVAL_TRACE ? moe_trace_path(trace) : s->options->file, err);
}

/* Off first: its rate, then that of bursts. */
static enum moe_status set_schedule(struct moe_arrival_source *s, struct moe_error *err)
{
    const struct moe_arrival_options *o = s->options;
    struct moe_arrival_point points[MOE_ARRIVAL_POINT_LIMIT];
    const double cycle_s = o->burst_off_s + o->burst_on_s;
    s->schedule = (struct moe_rate_schedule){
        .rate = o->rate,
        .count = o->schedule_count,
        .bursts = o->kind == MOE_ARRIVAL_BURSTS,
        .stay_s = { o->burst_off_s, o->burst_on_s },
        .multiplier = { (1.0 - o->burst_share) * cycle_s / o->burst_off_s,
                        o->burst_share * cycle_s / o->burst_on_s },
    };
    MOE_TRY(
        moe_arrival_points_read(o->schedule, o->schedule_count, "arrivals.schedule", points, err));
    for (uint32_t i = 0; i < o->schedule_count; i++) {
        s->schedule.at_s[i] = points[i].at_s;
        MOE_TRY(moe_arrival_factor_read(&points[i], &s->schedule.factor[i], err));
    }
    return MOE_OK;
}

/* Requests to score by their domain: a counting sort. */
static enum moe_status sort_domains(struct moe_arrival_source *s, const struct moe_trace *trace,
                                    uint32_t planned, struct moe_error *err)
{
    const struct moe_trace_request *requests = moe_trace_requests(trace);
    const uint32_t count = (uint32_t) moe_trace_request_count(trace);
    s->domain_count = moe_trace_model(trace)->domain_count;
    s->domain_first = calloc(s->domain_count + 1, sizeof *s->domain_first);
    s->by_domain = calloc(count, sizeof *s->by_domain);
    s->drift_weight =
        calloc((size_t) s->options->drift_count * s->domain_count, sizeof *s->drift_weight);
    if (s->domain_first == NULL || s->by_domain == NULL || s->drift_weight == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for %u requests by domain", count);
    }
    for (uint32_t i = planned; i < count; i++) {
        s->domain_first[requests[i].domain + 1]++;
    }
    for (uint32_t d = 0; d < s->domain_count; d++) {
        s->domain_first[d + 1] += s->domain_first[d];
    }
    for (uint32_t i = count; i > planned; i--) { /* downwards: ends become firsts */
        s->by_domain[--s->domain_first[requests[i - 1].domain + 1]] = i - 1;
    }
    memmove(s->domain_first, s->domain_first + 1, s->domain_count * sizeof *s->domain_first);
    s->domain_first[s->domain_count] = count - planned;
    return MOE_OK;
}

static enum moe_status refuse_domain(const struct moe_trace *trace, const char *domain, bool known,
                                     struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(trace);
    char names[200] = "";
    size_t used = 0;
    for (uint32_t d = 0; d < model->domain_count && used < sizeof names; d++) {
        used += (size_t) snprintf(names + used, sizeof names - used, " %s", model->domains[d]);
    }
    return moe_fail(err, MOE_RANGE, "arrivals.drift: domain '%s' %s in %s; it has:%s", domain,
                    known ? "has no request to score" : "is not", moe_trace_path(trace), names);
}

static enum moe_status set_weights(struct moe_arrival_source *s, const struct moe_trace *trace,
                                   uint32_t point, const char *at, struct moe_error *err)
{
    const struct moe_trace_model *model = moe_trace_model(trace);
    for (;;) {
        char domain[32];
        double weight = 0.0;
        bool got = false;
        uint32_t d = 0;
        MOE_TRY(moe_arrival_weight_read(&at, domain, &weight, &got, err));
        if (!got) {
            return MOE_OK;
        }
        while (d < s->domain_count && strcmp(model->domains[d], domain) != 0) {
            d++;
        }
        if (d == s->domain_count || s->domain_first[d] == s->domain_first[d + 1]) {
            return refuse_domain(trace, domain, d < s->domain_count, err);
        }
        s->drift_weight[(size_t) point * s->domain_count + d] += weight;
    }
}

static enum moe_status set_drift(struct moe_arrival_source *s, const struct moe_trace *trace,
                                 uint32_t planned, struct moe_error *err)
{
    struct moe_arrival_point points[MOE_ARRIVAL_POINT_LIMIT];
    const struct moe_arrival_options *o = s->options;
    if (o->drift_count == 0) {
        return MOE_OK;
    }
    MOE_TRY(sort_domains(s, trace, planned, err));
    MOE_TRY(moe_arrival_points_read(o->drift, o->drift_count, "arrivals.drift", points, err));
    s->drift_count = o->drift_count;
    for (uint32_t i = 0; i < s->drift_count; i++) {
        s->drift_at_s[i] = points[i].at_s;
        MOE_TRY(set_weights(s, trace, i, points[i].rest, err));
    }
    return MOE_OK;
}

static enum moe_status fill(struct moe_arrival_source *s, struct moe_trace *trace,
                            struct moe_error *err)
{
    const struct moe_arrival_options *o = s->options;
    const uint64_t count = moe_trace_request_count(trace);
    if (count < 2 || count >= UINT32_MAX - 1) {
        return moe_fail(err, MOE_RANGE, "%s: %" PRIu64 " requests; a study needs 2 to %u",
                        moe_trace_path(trace), count, UINT32_MAX - 2);
    }
    const uint32_t planned = moe_workload_planned_count((uint32_t) count, s->plan_share);
    const uint64_t once = (uint64_t) s->passes * (count - planned);
    s->total = o->kind == MOE_ARRIVAL_CLOSED ? once + planned
               : o->requests > 0             ? o->requests
                                             : once;
    s->is_stretched = o->lengths == MOE_ARRIVAL_LENGTHS_LOGNORMAL ||
                      (o->lengths == MOE_ARRIVAL_LENGTHS_RECORDED && o->kind == MOE_ARRIVAL_FILE);
    s->family = moe_gap_family_of(o->kind, o->cv);
    if (o->kind == MOE_ARRIVAL_TRACE || o->kind == MOE_ARRIVAL_FILE) {
        MOE_TRY(load_recorded(s, trace, planned, err));
    }
    double sum = 0.0;
    MOE_TRY(moe_arrival_priorities_read(o, s->priority_sum, err));
    s->priority_count = o->priority_count;
    for (uint32_t i = 0; i < s->priority_count; i++) {
        sum += s->priority_sum[i];
        s->priority_sum[i] = sum;
    }
    MOE_TRY(set_schedule(s, err));
    return set_drift(s, trace, planned, err);
}

enum moe_status moe_arrival_source_init(struct moe_arrival_source *source,
                                        const struct moe_arrival_setup *setup,
                                        struct moe_error *err)
{
    *source = (struct moe_arrival_source){
        .options = setup->options,
        .plan_share = setup->plan_share,
        .passes = setup->passes,
    };
    const enum moe_status status = fill(source, setup->trace, err);
    if (status != MOE_OK) {
        moe_arrival_source_finish(source);
    }
    return status;
}

struct moe_arrival_source moe_arrival_source_at_rate(const struct moe_arrival_source *source,
                                                     double rate,
                                                     struct moe_arrival_options *options)
{
    struct moe_arrival_source copy = *source;
    assert(source->options->kind != MOE_ARRIVAL_CLOSED);
    assert(rate > 0.0);
    *options = *source->options;
    options->rate = rate;
    copy.options = options;
    copy.schedule.rate = rate;
    if (source->recorded_count > 0) {
        assert(source->recorded_rate > 0.0);
        copy.time_scale = source->recorded_rate / rate;
    }
    return copy;
}

void moe_arrival_source_finish(struct moe_arrival_source *source)
{
    free(source->recorded);
    free(source->drift_weight);
    free(source->domain_first);
    free(source->by_domain);
    *source = (struct moe_arrival_source){ 0 };
}
