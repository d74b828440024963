#include "sim/engine/audit.h"

#include <inttypes.h>

#include "sim/engine/serving/batch.h"

#include "sim/base/no_malloc.h"

#define BREACH(err, ...) moe_fail((err), MOE_LIMIT, "audit: please report this: " __VA_ARGS__)

static enum moe_status check_rank(const struct moe_audit *a, const struct moe_serving_state *s,
                                  uint32_t rank, uint64_t *rows, struct moe_error *err)
{
    uint64_t held = s->leaving[rank];
    uint32_t seated = 0;
    for (uint32_t i = 0; i < s->running_per_gpu; i++) {
        const struct moe_sequence *q = moe_batch_sequences(s, rank) + i;
        seated += q->running || q->preempted;
        held += q->running ? q->kv_held : 0;
        *rows += q->running ? q->step_rows : 0;
        if (q->running && q->kv_held < (uint64_t) q->done_rows + q->step_rows) {
            return BREACH(err, "step %" PRIu64 ", rank %u: %u rows in a cache of %" PRIu64,
                          a->steps, rank, q->done_rows + q->step_rows, q->kv_held);
        }
        if (q->running && q->kv_held % s->page_tokens != 0) {
            return BREACH(err, "step %" PRIu64 ", rank %u: %" PRIu64 " tokens are no whole pages",
                          a->steps, rank, q->kv_held);
        }
    }
    if (held != s->kv_used[rank] || held > s->kv_tokens || seated != s->running[rank]) {
        return BREACH(err,
                      "step %" PRIu64 ", rank %u: requests hold %" PRIu64 " KV tokens, %" PRIu64
                      " are taken of %" PRIu64 "; %u slots in use, %u said",
                      a->steps, rank, held, s->kv_used[rank], s->kv_tokens, seated,
                      s->running[rank]);
    }
    return MOE_OK;
}

enum moe_status moe_audit_plan(struct moe_audit *a, const struct moe_serving_state *s,
                               const struct moe_token_work *work, uint64_t rows,
                               struct moe_error *err)
{
    uint64_t planned = 0;
    for (uint32_t rank = 0; rank < s->setup.rank_count; rank++) {
        uint64_t here = 0;
        MOE_TRY(check_rank(a, s, rank, &here, err));
        if (work[rank].tokens < (double) here || work[rank].tokens > (double) here ||
            here > s->setup.options->step_tokens) {
            return BREACH(err, "step %" PRIu64 ", rank %u: %" PRIu64 " rows planned, %.17g priced",
                          a->steps, rank, here, work[rank].tokens);
        }
        planned += here;
    }
    if (planned != rows) {
        return BREACH(err, "step %" PRIu64 ": %" PRIu64 " rows planned, %" PRIu64 " said", a->steps,
                      planned, rows);
    }
    a->rows += rows;
    return MOE_OK;
}

enum moe_status moe_audit_counts(struct moe_audit *a, const struct moe_route_counter *counter,
                                 uint64_t rows, uint64_t dropped, struct moe_error *err)
{
    const uint64_t choices = rows * counter->top_k;
    const uint64_t lost = counter->unknown - a->unknown_before + dropped - a->dropped_before;
    uint64_t in_slots = 0;
    uint32_t counted = 0;
    for (uint32_t layer = 0; layer < counter->layer_count; layer++) {
        if (counter->sample != NULL && !moe_layer_sample_counts(counter->sample, layer)) {
            continue;
        }
        counted++;
        const uint32_t *slots = moe_route_counter_slots(counter, layer);
        for (uint32_t i = 0; i < counter->slot_count; i++) {
            in_slots += slots[i];
        }
    }
    if (in_slots + lost != choices * counted) {
        return BREACH(err,
                      "step %" PRIu64 ": %" PRIu64 " rows chose %" PRIu64 " experts; %" PRIu64
                      " are in slots, %" PRIu64 " unknown or dropped",
                      a->steps, rows, choices * counted, in_slots, lost);
    }
    a->unknown_before = counter->unknown;
    a->dropped_before = dropped;
    return MOE_OK;
}

static bool differ(double a, double b)
{
    return a < b || a > b;
}

enum moe_status moe_audit_step(struct moe_audit *a, const struct moe_step *step,
                               moe_time_ns step_ns, struct moe_error *err)
{
    struct moe_critical_path path = { 0 };
    const struct moe_price_sources sources = moe_step_sources(step);
    moe_time_ns sum = 0;
    for (uint32_t layer = 0; layer < step->layer_count; layer++) {
        struct moe_exchange_work all = { 0 };
        for (uint32_t gpu = 0; gpu < step->gpu_count; gpu++) {
            const struct moe_exchange_work *w =
                &step->dispatch_work[(size_t) layer * step->gpu_count + gpu];
            all.near_out += w->near_out;
            all.near_in += w->near_in;
            all.far_out += w->far_out;
            all.far_in += w->far_in;
        }
        if (differ(all.near_out, all.near_in) || differ(all.far_out, all.far_in)) {
            return BREACH(err,
                          "step %" PRIu64 ", layer %u: %g and %g copies sent near and far, %g and "
                          "%g received",
                          a->steps, layer, all.near_out, all.far_out, all.near_in, all.far_in);
        }
    }
    moe_timeline_critical(&step->times, step->barriers, &sources, &path);
    for (uint32_t part = 0; part < MOE_COST_PART_COUNT; part++) {
        for (uint32_t source = 0; source < MOE_PROVENANCE_COUNT; source++) {
            sum += path.ns[part][source];
        }
    }
    a->steps++;
    return sum == step_ns
               ? MOE_OK
               : BREACH(err, "step %" PRIu64 ": %" PRId64 " ns long, %" PRId64 " along its path",
                        a->steps - 1, step_ns, sum);
}

void moe_audit_pass(struct moe_audit *a, const struct moe_serving_state *s, moe_time_ns now_ns)
{
    const uint64_t length = (uint64_t) (now_ns - a->now_ns);
    a->gone_ns += a->finished * length;
    a->joined_ns += (s->admissions - a->lost) * length;
    a->now_ns = now_ns;
}

void moe_audit_finish_request(struct moe_audit *a, const struct moe_finished *f)
{
    a->finished++;
    a->finished_rows += moe_arrival_rows(f->arrival);
    a->sojourn_ns += (uint64_t) (f->finished_ns - f->since_ns);
}

/* Arrivals so far, summed over time until now. */
static enum moe_status walk(const struct moe_audit *a, const struct moe_serving_state *s,
                            const struct moe_arrival_source *arrivals, uint64_t seed,
                            struct moe_arena *scratch, uint64_t *count, uint64_t *come_ns,
                            struct moe_error *err)
{
    struct moe_arrival_stream stream;
    MOE_TRY(moe_arrival_stream_init(&stream, arrivals, s->setup.trace, seed, scratch, err));
    *count = 0;
    *come_ns = 0;
    for (const struct moe_arrival *next; (next = moe_arrival_peek(&stream)) != NULL;
         moe_arrival_take(&stream)) {
        *count += 1;
        *come_ns += (uint64_t) (a->now_ns - next->arrival_ns);
    }
    if (!moe_intake_is_open(s->setup.intake)) {
        *come_ns = a->joined_ns;
    }
    return MOE_OK;
}

enum moe_status moe_audit_end(const struct moe_audit *a, const struct moe_serving_state *s,
                              const struct moe_arrival_source *arrivals, uint64_t seed,
                              struct moe_arena *scratch, struct moe_error *err)
{
    uint64_t count = 0;
    uint64_t come_ns = 0;
    MOE_TRY(walk(a, s, arrivals, seed, scratch, &count, &come_ns, err));
    return moe_audit_close(a, s, count, come_ns, err);
}

enum moe_status moe_audit_close(const struct moe_audit *a, const struct moe_serving_state *s,
                                uint64_t count, uint64_t come_ns, struct moe_error *err)
{
    const uint64_t due = a->finished_rows - s->hit_rows - s->moved_rows + s->recomputed_rows +
                         s->rejected_rows + s->lost_rows;
    if (a->finished != count || s->admissions - a->lost != count) {
        return BREACH(err, "%" PRIu64 " arrivals, %" PRIu64 " admitted, %" PRIu64 " finished",
                      count, s->admissions, a->finished);
    }
    if (a->rows != due) {
        return BREACH(err,
                      "%" PRIu64 " rows processed; %" PRIu64 " of requests, less %" PRIu64
                      " cached, plus %" PRIu64 " recomputed and %" PRIu64 " rejected",
                      a->rows, a->finished_rows, s->hit_rows, s->recomputed_rows, s->rejected_rows);
    }
    for (uint32_t rank = 0; rank < s->setup.rank_count; rank++) {
        if (s->kv_used[rank] != 0 || s->running[rank] != 0) {
            return BREACH(err, "rank %u still holds %" PRIu64 " KV tokens", rank, s->kv_used[rank]);
        }
    }
    return come_ns - a->gone_ns == a->sojourn_ns
               ? MOE_OK
               : BREACH(err,
                        "Little's law: %" PRIu64 " request-ns of presence, %" PRIu64 " of sojourns",
                        come_ns - a->gone_ns, a->sojourn_ns);
}
