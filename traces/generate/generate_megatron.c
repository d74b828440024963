/*
 * W0 to W7, after the token-imbalance workloads proposed for Megatron-LM (github
 * NVIDIA/Megatron-LM pull request 7488): each differs from the balanced one in one thing. What
 * is proposed there are the eight kinds; sizes, shares and periods here are ours.
 *
 * A step has step_tokens tokens, and request step * ranks + r holds those of source rank r: all
 * prompt, one token sampled. What token t of step s chooses is a function of (workload, seed, s,
 * t), so the same under any number of ranks, but where the ranks' experts are what is hot.
 *
 *   w0  all experts equally, exactly: in turn
 *   w1  a few hot experts (a 32nd of all, at least top-k), drawn for each layer
 *   w2  all experts of one rank are hot, drawn for each layer
 *   w3  as many hot experts as in w2, evenly spread over the ranks
 *   w4  as w0, but rank r sends tokens in proportion to 1 / (r + 1)
 *   w5  the experts of one rank get nothing, the others as in w0
 *   w6  as w2, the hot rank moving on by one every 16 steps
 *   w7  as w0, but 4 of every 32 steps, from the 9th on, are as in w2
 */
#include <stdlib.h>
#include <string.h>

#include "sim/base/random.h"
#include "traces/generate/generate.h"

enum { USUAL_STEPS = 64, USUAL_STEP_TOKENS = 4096, USUAL_RANKS = 8 };
enum { ROTATE_STEPS = 16, BURST_PERIOD = 32, BURST_FIRST = 8, BURST_STEPS = 4, HOT_SHARE = 32 };
static const double USUAL_HEAT = 0.5;

struct workload {
    int kind; /* w0 is 0 */
    struct moe_trace_model model;
    uint64_t seed;
    uint64_t key;
    uint32_t step_tokens;
    uint32_t rank_count;
    uint32_t *first_token; /* [rank_count + 1] of a step; owned */
    uint32_t *layer_draw;  /* [layer] the hot, or empty, rank; owned */
    float *layer_hot;      /* [layer][expert] of w1 and w3, else NULL; owned */
    float *rank_hot;       /* [rank][expert] of w2, w6 and w7, else NULL; owned */
    double *scratch;       /* [2 * expert]; owned */
};

static bool needs_rank_hot(int kind)
{
    return kind == 2 || kind == 6 || kind == 7;
}

/* Probabilities under which hot experts share that part of the choices. */
static void set_hot(struct workload *w, double heat, float *out)
{
    const uint32_t count = w->model.expert_count;
    double *weights = w->scratch; /* 1 marks a hot expert */
    uint32_t hot = 0;
    for (uint32_t i = 0; i < count; i++) {
        hot += weights[i] > 0.0;
    }
    for (uint32_t i = 0; i < count; i++) {
        weights[i] = weights[i] > 0.0 ? heat / hot : (1.0 - heat) / (count - hot);
    }
    moe_choice_probabilities(weights, count, w->model.top_k, weights + count);
    for (uint32_t i = 0; i < count; i++) {
        out[i] = (float) weights[count + i];
    }
}

/* w1: the first of a shuffle of the layer; w3: the layer's drawn offset in each rank, in turn. */
static void mark_layer(struct workload *w, uint32_t layer)
{
    const uint32_t count = w->model.expert_count;
    const uint32_t per_rank = count / w->rank_count;
    double *weights = w->scratch;
    memset(weights, 0, count * sizeof *weights);
    if (w->kind == 3) {
        for (uint32_t i = 0; i < per_rank; i++) {
            const uint32_t rank = i % w->rank_count;
            const uint32_t place = (w->layer_draw[layer] + i / w->rank_count) % per_rank;
            weights[rank * per_rank + place] = 1.0;
        }
        return;
    }
    const uint32_t share = count / HOT_SHARE;
    const uint32_t hot = share > w->model.top_k ? share : w->model.top_k;
    const uint64_t key = moe_generate_key("hot experts", w->seed, layer);
    for (uint32_t found = 0, draw = 0; found < hot; draw++) {
        const uint64_t expert = moe_random_below(key, draw, count);
        found += weights[expert] == 0.0;
        weights[expert] = 1.0;
    }
}

static void set_tables(struct workload *w, double heat)
{
    const uint32_t count = w->model.expert_count;
    const uint32_t per_rank = count / w->rank_count;
    for (uint32_t layer = 0; layer < w->model.layer_count; layer++) {
        const uint64_t key = moe_generate_key("rank", w->seed, layer);
        w->layer_draw[layer] = (uint32_t) moe_random_below(key, 0, w->rank_count);
        if (w->layer_hot != NULL) {
            mark_layer(w, layer);
            set_hot(w, heat, w->layer_hot + (size_t) layer * count);
        }
    }
    for (uint32_t rank = 0; w->rank_hot != NULL && rank < w->rank_count; rank++) {
        memset(w->scratch, 0, count * sizeof *w->scratch);
        for (uint32_t i = 0; i < per_rank; i++) {
            w->scratch[rank * per_rank + i] = 1.0;
        }
        set_hot(w, heat, w->rank_hot + (size_t) rank * count);
    }
}

/* Tokens of the ranks; of w4 rounded down, what is left going to the first ranks. */
static void set_ranks(struct workload *w)
{
    double sum = 0.0;
    uint32_t left = w->step_tokens;
    for (uint32_t rank = 0; rank < w->rank_count; rank++) {
        sum += w->kind == 4 ? 1.0 / (rank + 1) : 1.0;
    }
    for (uint32_t rank = 0; rank < w->rank_count; rank++) {
        const double share = (w->kind == 4 ? 1.0 / (rank + 1) : 1.0) / sum;
        const uint32_t tokens = (uint32_t) (share * (w->step_tokens - w->rank_count)) + 1;
        w->first_token[rank + 1] = tokens;
        left -= tokens;
    }
    for (uint32_t rank = 0; rank < w->rank_count; rank++) {
        const uint32_t more = left / w->rank_count + (rank < left % w->rank_count);
        w->first_token[rank + 1] += w->first_token[rank] + more;
    }
}

static enum moe_status check(const struct moe_trace_model *model, const struct workload *w,
                             double heat, const char *name, struct moe_error *err)
{
    if (model->expert_count % w->rank_count != 0) {
        return moe_fail(err, MOE_RANGE, "%s: %u experts do not divide over %u ranks", name,
                        model->expert_count, w->rank_count);
    }
    if (w->rank_count < 2) {
        return moe_fail(err, MOE_RANGE, "%s: --ranks %u; at least 2", name, w->rank_count);
    }
    if (w->step_tokens < w->rank_count) {
        return moe_fail(err, MOE_RANGE, "%s: --step-tokens %u; at least one for each of %u ranks",
                        name, w->step_tokens, w->rank_count);
    }
    if (model->expert_count - model->expert_count / w->rank_count < model->top_k) {
        return moe_fail(err, MOE_RANGE,
                        "%s: without one rank's there are fewer than top-%u experts", name,
                        model->top_k);
    }
    return heat > 0.0 && heat < 1.0
               ? MOE_OK
               : moe_fail(err, MOE_RANGE, "%s: --heat %g; above 0 and below 1", name, heat);
}

static enum moe_status allocate(struct workload *w, struct moe_error *err)
{
    const size_t count = w->model.expert_count;
    const size_t layers = w->model.layer_count;
    w->first_token = calloc((size_t) w->rank_count + 1, sizeof *w->first_token);
    w->layer_draw = calloc(layers, sizeof *w->layer_draw);
    w->scratch = calloc(2 * count, sizeof *w->scratch);
    if (w->kind == 1 || w->kind == 3) {
        w->layer_hot = calloc(layers * count, sizeof *w->layer_hot);
    }
    if (needs_rank_hot(w->kind)) {
        w->rank_hot = calloc(w->rank_count * count, sizeof *w->rank_hot);
    }
    return w->first_token == NULL || w->layer_draw == NULL || w->scratch == NULL ||
                   ((w->kind == 1 || w->kind == 3) && w->layer_hot == NULL) ||
                   (needs_rank_hot(w->kind) && w->rank_hot == NULL)
               ? moe_fail(err, MOE_LIMIT, "no memory for %zu layers of %zu experts", layers, count)
               : MOE_OK;
}

static uint32_t said_or(uint32_t said, uint32_t usual)
{
    return said == 0 ? usual : said;
}

static enum moe_status open_kind(int kind, const char *name, void **state,
                                 const struct moe_generate_options *options,
                                 struct moe_trace_model *model, uint64_t *request_count,
                                 struct moe_trace_provenance *record, struct moe_error *err)
{
    const bool is_hot = kind >= 1 && kind != 4 && kind != 5;
    const double heat = options->heat == 0.0 ? USUAL_HEAT : options->heat;
    const uint32_t steps = said_or(options->step_count, USUAL_STEPS);
    MOE_TRY(moe_generate_refuse_others(options, name,
                                       is_hot ? " --layers --experts --top-k --steps "
                                                "--step-tokens --ranks --heat"
                                              : " --layers --experts --top-k --steps "
                                                "--step-tokens --ranks",
                                       err));
    MOE_TRY(moe_generate_model(model, options, name, err));
    struct workload *w = calloc(1, sizeof *w);
    if (w == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to generate");
    }
    *state = w;
    w->kind = kind;
    w->model = *model;
    w->seed = options->seed;
    w->key = moe_generate_key(name, options->seed, 0);
    w->step_tokens = said_or(options->step_tokens, USUAL_STEP_TOKENS);
    w->rank_count = said_or(options->rank_count, USUAL_RANKS);
    MOE_TRY(check(model, w, heat, name, err));
    MOE_TRY(allocate(w, err));
    set_ranks(w);
    set_tables(w, heat);
    *request_count = (uint64_t) steps * w->rank_count;
    (void) snprintf(record->note, sizeof record->note,
                    "seed %llu; %u steps of %u tokens on %u ranks, a request for each step and "
                    "rank%s",
                    (unsigned long long) options->seed, steps, w->step_tokens, w->rank_count,
                    is_hot ? "; hot experts get a share as asked for" : "");
    return MOE_OK;
}

static void request(const void *state, uint64_t index, struct moe_trace_request *out)
{
    const struct workload *w = state;
    const uint64_t rank = index % w->rank_count;
    *out = (struct moe_trace_request){
        .arrival_ns = -1,
        .prompt_tokens = w->first_token[rank + 1] - w->first_token[rank],
        .output_tokens = 1,
    };
}

/* The probabilities in force, or NULL where experts are taken in turn. */
static const float *table_of(const struct workload *w, uint64_t step, uint32_t layer)
{
    const size_t count = w->model.expert_count;
    uint64_t rank = w->layer_draw[layer];
    switch (w->kind) {
    case 1:
    case 3:
        return w->layer_hot + layer * count;
    case 6:
        rank = (rank + step / ROTATE_STEPS) % w->rank_count;
        break;
    case 7: {
        const uint64_t at = step % BURST_PERIOD;
        if (at < BURST_FIRST || at >= BURST_FIRST + BURST_STEPS) {
            return NULL;
        }
        break;
    }
    default:
        if (w->kind != 2) {
            return NULL;
        }
        break;
    }
    return w->rank_hot + rank * count;
}

/* In turn: token t takes the next k after those of token t - 1; of w5, of the experts that are
 * not the empty rank's. Each step and layer begins somewhere else. */
static void take_in_turn(const struct workload *w, uint64_t step, uint64_t token, uint32_t layer,
                         uint16_t *out)
{
    const uint32_t count = w->model.expert_count;
    const uint32_t per_rank = count / w->rank_count;
    const uint32_t used = w->kind == 5 ? count - per_rank : count;
    const uint32_t empty = w->kind == 5 ? w->layer_draw[layer] * per_rank : count;
    const uint64_t begin = moe_random_below(w->key, step * MOE_TRACE_LAYER_LIMIT + layer, used);
    for (uint32_t k = 0; k < w->model.top_k; k++) {
        const uint32_t place = (uint32_t) ((begin + token * w->model.top_k + k) % used);
        out[k] = (uint16_t) (place < empty ? place : place + per_rank);
    }
}

static void row(const void *state, const struct moe_generate_row *where, uint16_t *experts)
{
    const struct workload *w = state;
    const struct moe_choice_shape shape = moe_generate_shape(&w->model);
    const uint64_t step = where->request / w->rank_count;
    const uint64_t token = w->first_token[where->request % w->rank_count] + where->position;
    const struct moe_generate_row own = { .key = moe_generate_row_key(w->key, step, token) };
    for (uint32_t layer = 0; layer < w->model.layer_count; layer++) {
        uint16_t *out = experts + (size_t) layer * shape.top_k;
        const float *table = table_of(w, step, layer);
        if (table == NULL) {
            take_in_turn(w, step, token, layer, out);
            continue;
        }
        uint64_t bits[3];
        moe_generate_bits(&own, layer, bits);
        moe_choice_draw(&shape, table, bits, out);
    }
}

static void close_workload(void *state)
{
    struct workload *w = state;
    if (w != NULL) {
        free(w->first_token);
        free(w->layer_draw);
        free(w->layer_hot);
        free(w->rank_hot);
        free(w->scratch);
        free(w);
    }
}

#define WORKLOAD(kind, title, words)                                                             \
    static enum moe_status open_##title(                                                         \
        void **state, const struct moe_generate_options *options, struct moe_trace_model *model, \
        uint64_t *request_count, struct moe_trace_provenance *record, struct moe_error *err)     \
    {                                                                                            \
        return open_kind(kind, #title, state, options, model, request_count, record, err);       \
    }                                                                                            \
    const struct moe_generator moe_generator_##title = {                                         \
        .name = #title,                                                                          \
        .summary = (words),                                                                      \
        .open = open_##title,                                                                    \
        .request = request,                                                                      \
        .row = row,                                                                              \
        .close = close_workload,                                                                 \
    }

WORKLOAD(0, w0_balanced, "Megatron W0: every expert equally often, exactly");
WORKLOAD(1, w1_hot_experts, "Megatron W1: a few hot experts in each layer");
WORKLOAD(2, w2_hot_rank, "Megatron W2: all experts of one rank are hot");
WORKLOAD(3, w3_spread_hot_experts, "Megatron W3: as many hot experts, spread over the ranks");
WORKLOAD(4, w4_ragged_source, "Megatron W4: balanced experts, source ranks with unequal tokens");
WORKLOAD(5, w5_zero_rank, "Megatron W5: one rank's experts get nothing");
WORKLOAD(6, w6_rotating, "Megatron W6: the hot rank moves on every 16 steps");
WORKLOAD(7, w7_burst, "Megatron W7: balanced, but 4 of 32 steps have a hot rank");
