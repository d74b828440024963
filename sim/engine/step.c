#include "sim/engine/step.h"

#include <assert.h>
#include <string.h>

#include "sim/base/no_malloc.h"

static bool new_pair(struct moe_price_pair *pair, struct moe_arena *arena, size_t count)
{
    pair->real = MOE_NEW(arena, double, count);
    pair->nominal = MOE_NEW(arena, double, count);
    return pair->real != NULL && pair->nominal != NULL;
}

static enum moe_status init_unhindered(struct moe_step *s, const struct moe_fetcher *fetcher,
                                       struct moe_arena *arena, struct moe_error *err)
{
    const size_t all = (size_t) s->layer_count * s->gpu_count;
    if (fetcher == NULL) {
        return MOE_OK;
    }
    s->fetcher = fetcher;
    s->exchange_ns = MOE_NEW(arena, double, all);
    s->unhindered = s->times;
    s->unhindered.dispatch = MOE_NEW(arena, moe_time_ns, all);
    s->unhindered_barriers = MOE_NEW(arena, struct moe_barrier, moe_barrier_count(s->layer_count));
    return s->exchange_ns != NULL && s->unhindered.dispatch != NULL &&
                   s->unhindered_barriers != NULL
               ? MOE_OK
               : moe_fail(err, MOE_LIMIT, "no room for the transfers of %u layers on %u GPUs",
                          s->layer_count, s->gpu_count);
}

enum moe_status moe_step_init(struct moe_step *s, const struct moe_step_options *options,
                              struct moe_arena *arena, struct moe_error *err)
{
    const uint32_t gpus = options->gpu_count;
    const uint32_t drafting = options->drafts == NULL ? 0 : options->drafts->layer_count;
    const uint32_t layers = options->layer_count + drafting;
    const size_t all = (size_t) layers * gpus;
    *s = (struct moe_step){
        .cost = options->cost,
        .layer_count = layers,
        .gpu_count = gpus,
        .dense_layer_count = options->dense_layer_count,
        .drafts = drafting > 0 ? options->drafts : NULL,
        .exchange = options->serving->exchange,
        .barriers = MOE_NEW(arena, struct moe_barrier, moe_barrier_count(layers)),
        .expert_work = MOE_NEW(arena, struct moe_expert_work, all),
        .dispatch_work = MOE_NEW(arena, struct moe_exchange_work, all),
        .tokens = MOE_NEW(arena, struct moe_token_prices, gpus),
        .tokens_nominal = MOE_NEW(arena, struct moe_token_prices, gpus),
        .drafted = MOE_NEW(arena, struct moe_token_prices, gpus),
        .drafted_nominal = MOE_NEW(arena, struct moe_token_prices, gpus),
        .jitter = MOE_NEW(arena, double, (all + gpus) * MOE_STRETCH_COUNT),
        .dispatch_source = MOE_NEW(arena, uint8_t, all),
        .expert_source = MOE_NEW(arena, uint8_t, all),
        .combine_source = MOE_NEW(arena, uint8_t, all),
        .clock = MOE_NEW(arena, moe_time_ns, gpus),
        .priced = MOE_NEW(arena, struct moe_priced_work, gpus), /* factor 0: of nothing yet */
    };
    const bool pairs = new_pair(&s->before, arena, gpus) && new_pair(&s->shared, arena, gpus) &&
                       new_pair(&s->after, arena, gpus) && new_pair(&s->dispatch, arena, all) &&
                       new_pair(&s->expert, arena, all) && new_pair(&s->combine, arena, all);
    if (!pairs || s->barriers == NULL || s->expert_work == NULL || s->dispatch_work == NULL ||
        s->tokens == NULL || s->tokens_nominal == NULL || s->drafted == NULL ||
        s->drafted_nominal == NULL || s->jitter == NULL || s->dispatch_source == NULL ||
        s->expert_source == NULL || s->combine_source == NULL || s->clock == NULL ||
        s->priced == NULL) {
        return moe_fail(err, MOE_LIMIT, "no room for a step of %u layers on %u GPUs",
                        options->layer_count, gpus);
    }
    MOE_TRY(moe_step_times_init(&s->times, layers, gpus, options->serving, arena, err));
    MOE_TRY(init_unhindered(s, options->fetcher, arena, err));
    return moe_hardware_init(&s->hardware, options->cost,
                             (struct moe_hardware_size){ gpus, layers, options->first_gpu },
                             options->seed, options->noise, options->hardware, arena, err);
}

static double after_ns(const struct moe_token_prices *prices)
{
    return prices->part[MOE_COST_HEAD].ns + prices->part[MOE_COST_HOST].ns;
}

static struct moe_draft_prices draft_prices(const struct moe_step *s, bool nominal)
{
    if (s->drafts == NULL) {
        return (struct moe_draft_prices){ 0 };
    }
    return (struct moe_draft_prices){
        .tokens = nominal ? s->drafted_nominal : s->drafted,
        .layer_count = s->drafts->layer_count,
        .pass_layers = s->drafts->pass_layers,
    };
}

static bool same_factor(const struct moe_gpu_factor *a, const struct moe_gpu_factor *b)
{
    return a->compute == b->compute && a->memory == b->memory && a->comm == b->comm;
}

/* A GPU that decodes has as many tokens as in the step before, with longer contexts. */
static void price_own(struct moe_step *s, uint32_t gpu, const struct moe_token_work *work)
{
    const struct moe_gpu_factor *factor = &s->hardware.factor[gpu];
    struct moe_priced_work *priced = &s->priced[gpu];
    if (priced->tokens == work->tokens && priced->sampled == work->sampled &&
        same_factor(&priced->factor, factor)) {
        moe_token_prices_of_context(s->cost, work, factor, &s->tokens[gpu]);
        return;
    }
    moe_token_prices(s->cost, work, factor, &s->tokens[gpu]);
    *priced = (struct moe_priced_work){ work->tokens, work->sampled, *factor };
}

static void price_tokens(struct moe_step *s, const struct moe_token_work *own, bool nominal)
{
    const bool drafts = s->drafts != NULL;
    for (uint32_t gpu = 0; gpu < s->gpu_count; gpu++) {
        const struct moe_gpu_factor *factor = &s->hardware.factor[gpu];
        price_own(s, gpu, &own[gpu]);
        if (drafts) {
            moe_token_prices(s->cost, &s->drafts->own[gpu], factor, &s->drafted[gpu]);
        }
        s->after.real[gpu] = after_ns(drafts ? &s->drafted[gpu] : &s->tokens[gpu]);
        if (nominal) {
            factor = &s->hardware.nominal;
            moe_token_prices(s->cost, &own[gpu], factor, &s->tokens_nominal[gpu]);
            if (drafts) {
                moe_token_prices(s->cost, &s->drafts->own[gpu], factor, &s->drafted_nominal[gpu]);
            }
            s->after.nominal[gpu] =
                after_ns(drafts ? &s->drafted_nominal[gpu] : &s->tokens_nominal[gpu]);
        }
    }
}

/* before and shared of a layer, with a GPU's factors or without. */
static void price_layer_tokens(const struct moe_step *s, uint32_t layer, bool nominal,
                               double *before, double *shared)
{
    const struct moe_draft_prices drafts = draft_prices(s, nominal);
    const uint32_t dense = moe_layer_dense(&drafts, s->layer_count, layer, s->dense_layer_count);
    const bool has_head = moe_layer_has_head(&drafts, s->layer_count, layer);
    const struct moe_token_prices *tokens =
        moe_layer_tokens(nominal ? s->tokens_nominal : s->tokens, &drafts, s->layer_count, layer);
    for (uint32_t gpu = 0; gpu < s->gpu_count; gpu++) {
        const struct moe_duration *p = tokens[gpu].part;
        before[gpu] =
            moe_before_ns(p[MOE_COST_ATTENTION].ns, p[MOE_COST_DENSE].ns, p[MOE_COST_GATE].ns,
                          has_head ? p[MOE_COST_HEAD].ns : 0.0, dense);
        shared[gpu] = p[MOE_COST_SHARED].ns;
    }
}

static void price_before(struct moe_step *s, uint32_t layer, bool nominal)
{
    price_layer_tokens(s, layer, false, s->before.real, s->shared.real);
    if (nominal) {
        price_layer_tokens(s, layer, true, s->before.nominal, s->shared.nominal);
    }
}

/* Padded mode: every rank sends and receives as much as the one that has most. */
static void pad(struct moe_exchange_work *work, uint32_t gpus)
{
    struct moe_exchange_work most = { 0 };
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        const struct moe_exchange_work *w = &work[gpu];
        const double near = w->near_out > w->near_in ? w->near_out : w->near_in;
        const double far = w->far_out > w->far_in ? w->far_out : w->far_in;
        most.near_out = near > most.near_out ? near : most.near_out;
        most.far_out = far > most.far_out ? far : most.far_out;
        most.near_own = w->near_own > most.near_own ? w->near_own : most.near_own;
    }
    most.near_in = most.near_out;
    most.far_in = most.far_out;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        work[gpu] = most;
    }
}

/* Gathering: every GPU gets the tokens of all others, those of other nodes over its own far link
 * in equal parts, which it passes on in its node; what it gets it hands on (a ring), so in and out
 * are the same. */
static void gather(struct moe_exchange_work *work, const struct moe_token_work *own, uint32_t gpus,
                   uint32_t gpus_per_node, double ranks)
{
    double all = 0.0;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        all += own[gpu].tokens / ranks;
    }
    for (uint32_t first = 0; first < gpus; first += gpus_per_node) {
        double node = 0.0;
        for (uint32_t gpu = first; gpu < first + gpus_per_node; gpu++) {
            node += own[gpu].tokens / ranks;
        }
        const double far = (all - node) / gpus_per_node;
        for (uint32_t gpu = first; gpu < first + gpus_per_node; gpu++) {
            const double near = all - own[gpu].tokens / ranks - far;
            work[gpu] = (struct moe_exchange_work){ near, near, far, far, 0.0 };
        }
    }
}

/* The expert and exchange prices of one GPU in one layer, into index at. */
static void price_gpu(struct moe_step *s, size_t at, const struct moe_gpu_factor *factor,
                      bool nominal)
{
    const struct moe_expert_work *expert = &s->expert_work[at];
    const struct moe_exchange_work *out = &s->dispatch_work[at];
    const struct moe_exchange_work back = { .near_out = out->near_in,
                                            .near_in = out->near_out,
                                            .far_out = out->far_in,
                                            .far_in = out->far_out,
                                            .near_own = out->near_own };
    const struct moe_duration e = moe_cost_expert(s->cost, expert, factor);
    const struct moe_duration d = moe_cost_exchange(s->cost, MOE_COST_DISPATCH, out, factor);
    const struct moe_duration c = moe_cost_exchange(s->cost, MOE_COST_COMBINE, &back, factor);
    s->expert.real[at] = e.ns;
    s->dispatch.real[at] = d.ns;
    s->combine.real[at] = c.ns;
    s->expert_source[at] = (uint8_t) e.provenance;
    s->dispatch_source[at] = (uint8_t) d.provenance;
    s->combine_source[at] = (uint8_t) c.provenance;
    if (nominal) {
        s->expert.nominal[at] = moe_cost_expert(s->cost, expert, &s->hardware.nominal).ns;
        s->dispatch.nominal[at] =
            moe_cost_exchange(s->cost, MOE_COST_DISPATCH, out, &s->hardware.nominal).ns;
        s->combine.nominal[at] =
            moe_cost_exchange(s->cost, MOE_COST_COMBINE, &back, &s->hardware.nominal).ns;
    }
}

/* What the layer's transfers add to the dispatch of each of its GPUs. */
static void price_fetches(struct moe_step *s, uint32_t layer, bool nominal)
{
    for (uint32_t gpu = 0; gpu < s->gpu_count; gpu++) {
        const size_t at = (size_t) layer * s->gpu_count + gpu;
        const struct moe_duration d =
            moe_fetcher_exposed(s->fetcher, layer, gpu, &s->hardware.factor[gpu]);
        s->dispatch.real[at] += d.ns;
        if (d.ns > 0.0 && (uint8_t) d.provenance > s->dispatch_source[at]) {
            s->dispatch_source[at] = (uint8_t) d.provenance; /* the worse of both */
        }
        if (nominal) {
            s->dispatch.nominal[at] +=
                moe_fetcher_exposed(s->fetcher, layer, gpu, &s->hardware.nominal).ns;
        }
    }
}

static struct moe_stretch_prices stretch(const struct moe_step *s,
                                         const struct moe_price_pair *pair, size_t row,
                                         uint32_t layer, enum moe_stretch kind)
{
    return (struct moe_stretch_prices){
        .real = pair->real + row,
        .nominal = pair->nominal + row,
        .jitter = s->jitter + ((size_t) layer * MOE_STRETCH_COUNT + kind) * s->gpu_count,
    };
}

/* Of the layer that price_before was last called for. */
static struct moe_layer_prices layer_prices(const struct moe_step *s, uint32_t layer)
{
    const size_t row = (size_t) layer * s->gpu_count;
    return (struct moe_layer_prices){
        .before = stretch(s, &s->before, 0, layer, MOE_STRETCH_BEFORE),
        .shared = stretch(s, &s->shared, 0, layer, MOE_STRETCH_BEFORE),
        .dispatch = stretch(s, &s->dispatch, row, layer, MOE_STRETCH_DISPATCH),
        .expert = stretch(s, &s->expert, row, layer, MOE_STRETCH_EXPERT),
        .combine = stretch(s, &s->combine, row, layer, MOE_STRETCH_COMBINE),
    };
}

struct moe_layer_prices moe_step_layer_prices(struct moe_step *s, uint32_t layer)
{
    price_before(s, layer, true);
    return layer_prices(s, layer);
}

static void add_to_straggler(const struct moe_step *s, uint32_t layer,
                             struct moe_straggler *straggler)
{
    const struct moe_layer_prices p = layer_prices(s, layer);
    moe_straggler_add_layer(straggler, &p.before, &p.shared, &p.dispatch, &p.expert, &p.combine);
}

static void round_layer(struct moe_step *s, uint32_t layer)
{
    const uint32_t gpus = s->gpu_count;
    const size_t row = (size_t) layer * gpus;
    const double *jitter = s->jitter + row * MOE_STRETCH_COUNT;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        const double before = jitter[MOE_STRETCH_BEFORE * gpus + gpu];
        s->times.before[row + gpu] = moe_time_round_up(s->before.real[gpu] * before);
        s->times.shared[row + gpu] = moe_time_round_up(s->shared.real[gpu] * before);
        s->times.dispatch[row + gpu] = moe_time_round_up(s->dispatch.real[row + gpu] *
                                                         jitter[MOE_STRETCH_DISPATCH * gpus + gpu]);
        s->times.expert[row + gpu] =
            moe_time_round_up(s->expert.real[row + gpu] * jitter[MOE_STRETCH_EXPERT * gpus + gpu]);
        s->times.combine[row + gpu] = moe_time_round_up(s->combine.real[row + gpu] *
                                                        jitter[MOE_STRETCH_COMBINE * gpus + gpu]);
    }
    for (uint32_t gpu = 0; s->fetcher != NULL && gpu < gpus; gpu++) {
        s->unhindered.dispatch[row + gpu] = moe_time_round_up(
            s->exchange_ns[row + gpu] * jitter[MOE_STRETCH_DISPATCH * gpus + gpu]);
    }
}

/* Tokens, copies and prices of a layer, from what was counted in it. */
static void price_counted(struct moe_step *s, uint32_t layer, const struct moe_token_work *own,
                          const struct moe_route_counter *counter, bool nominal)
{
    const uint32_t gpus = s->gpu_count;
    const size_t row = (size_t) layer * gpus;
    const bool further =
        layer >= counter->layer_count && layer - counter->layer_count >= s->drafts->pass_layers;
    const struct moe_route_counter *counted = further ? &s->drafts->counter : counter;
    const uint32_t last = counted->layer_count - 1;
    moe_route_counter_work(counted, layer < last ? layer : last, moe_cost_tile_tokens(s->cost),
                           s->expert_work + row, s->dispatch_work + row);
    if (s->exchange == MOE_EXCHANGE_PADDED) {
        pad(s->dispatch_work + row, gpus);
    } else if (s->exchange == MOE_EXCHANGE_ALL_GATHER) {
        gather(s->dispatch_work + row, further ? s->drafts->own : own, gpus, counter->gpus_per_node,
               moe_cost_attention_ranks(s->cost));
    }
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        price_gpu(s, row + gpu, &s->hardware.factor[gpu], nominal);
    }
    if (s->fetcher != NULL) {
        memcpy(s->exchange_ns + row, s->dispatch.real + row, gpus * sizeof *s->exchange_ns);
        price_fetches(s, layer, nominal);
    }
}

static void copy_pair(const struct moe_price_pair *pair, size_t to, size_t from, size_t count)
{
    memcpy(pair->real + to, pair->real + from, count * sizeof *pair->real);
    memcpy(pair->nominal + to, pair->nominal + from, count * sizeof *pair->nominal);
}

/* The same of a layer that was not counted: those of the layer that stands for it. */
static void copy_counted(struct moe_step *s, uint32_t layer, uint32_t source)
{
    const size_t gpus = s->gpu_count;
    const size_t to = layer * gpus;
    const size_t from = source * gpus;
    memcpy(s->expert_work + to, s->expert_work + from, gpus * sizeof *s->expert_work);
    memcpy(s->dispatch_work + to, s->dispatch_work + from, gpus * sizeof *s->dispatch_work);
    copy_pair(&s->dispatch, to, from, gpus);
    copy_pair(&s->expert, to, from, gpus);
    copy_pair(&s->combine, to, from, gpus);
    memcpy(s->dispatch_source + to, s->dispatch_source + from, gpus);
    memcpy(s->expert_source + to, s->expert_source + from, gpus);
    memcpy(s->combine_source + to, s->combine_source + from, gpus);
}

/* At the hardware's moment. straggler: NULL or who is told. */
static void price(struct moe_step *s, const struct moe_token_work *own,
                  const struct moe_route_counter *counter, bool nominal,
                  struct moe_straggler *straggler)
{
    const uint32_t gpus = s->gpu_count;
    price_tokens(s, own, nominal);
    const struct moe_layer_sample *sample = counter->sample;
    for (uint32_t layer = 0; sample != NULL && layer < s->layer_count; layer++) {
        if (moe_layer_sample_counts(sample, layer)) {
            price_counted(s, layer, own, counter, nominal);
        }
    }
    for (uint32_t layer = 0; layer < s->layer_count; layer++) {
        const size_t row = (size_t) layer * gpus;
        moe_hardware_jitter(&s->hardware, layer, s->jitter + row * MOE_STRETCH_COUNT);
        if (sample == NULL) {
            price_counted(s, layer, own, counter, nominal);
        } else if (!moe_layer_sample_counts(sample, layer)) {
            copy_counted(s, layer, sample->source[layer]);
        }
        price_before(s, layer, nominal);
        round_layer(s, layer);
        if (straggler != NULL) {
            add_to_straggler(s, layer, straggler);
        }
    }
    double *jitter = s->jitter + (size_t) s->layer_count * MOE_STRETCH_COUNT * gpus;
    moe_hardware_jitter(&s->hardware, s->layer_count, jitter);
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        s->times.after[gpu] =
            moe_time_round_up(s->after.real[gpu] * jitter[MOE_STRETCH_BEFORE * gpus + gpu]);
    }
}

void moe_step_price(struct moe_step *s, uint64_t number, moe_time_ns now_ns,
                    const struct moe_token_work *own, const struct moe_route_counter *counter,
                    bool nominal, struct moe_straggler *straggler)
{
    assert(nominal || straggler == NULL);
    moe_hardware_begin_step(&s->hardware, number, now_ns);
    price(s, own, counter, nominal, straggler);
}

void moe_step_price_part(struct moe_step *part, const struct moe_step *whole,
                         const struct moe_token_work *own, const struct moe_route_counter *counter,
                         bool nominal)
{
    part->hardware = whole->hardware;
    price(part, own, counter, nominal, NULL);
}

void moe_step_end_straggler(const struct moe_step *s, struct moe_straggler *straggler)
{
    const struct moe_stretch_prices after =
        stretch(s, &s->after, 0, s->layer_count, MOE_STRETCH_BEFORE);
    moe_straggler_end_step(straggler, &after);
}

moe_time_ns moe_step_play(struct moe_step *s)
{
    return moe_timeline_run(&s->times, s->clock, s->barriers);
}

moe_time_ns moe_step_fetch_exposed(struct moe_step *s, moe_time_ns step_ns)
{
    return s->fetcher == NULL
               ? 0
               : step_ns - moe_timeline_run(&s->unhindered, s->clock, s->unhindered_barriers);
}

struct moe_step_prices moe_step_prices(const struct moe_step *s)
{
    return (struct moe_step_prices){
        .tokens = s->tokens,
        .dispatch = s->dispatch.real,
        .expert = s->expert.real,
        .combine = s->combine.real,
        .jitter = s->jitter,
        .dense_layer_count = s->dense_layer_count,
        .drafts = draft_prices(s, false),
    };
}

struct moe_price_sources moe_step_sources(const struct moe_step *s)
{
    return (struct moe_price_sources){
        .tokens = s->tokens,
        .dispatch = s->dispatch_source,
        .expert = s->expert_source,
        .combine = s->combine_source,
        .dense_layer_count = s->dense_layer_count,
        .drafts = draft_prices(s, false),
    };
}
