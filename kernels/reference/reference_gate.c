#include "kernels/reference/reference_gate.h"

#include <assert.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>

struct token {
    double score[MOE_GATE_EXPERT_LIMIT];
    double choice[MOE_GATE_EXPERT_LIMIT];
    bool open[MOE_GATE_EXPERT_LIMIT]; /* can still be chosen */
    double margin;
};

static void compute_scores(const struct moe_gate *gate, const float *logits, const float *bias,
                           struct token *t)
{
    double largest = -INFINITY;
    double sum = 0.0;
    for (int32_t e = 0; e < gate->expert_count; e++) {
        largest = fmax(largest, (double) logits[e]);
    }
    for (int32_t e = 0; e < gate->expert_count; e++) {
        const double x = (double) logits[e];
        t->score[e] = gate->score == MOE_GATE_SOFTMAX ? exp(x - largest) : 1.0 / (1.0 + exp(-x));
        sum += t->score[e];
    }
    for (int32_t e = 0; e < gate->expert_count; e++) {
        t->score[e] /= gate->score == MOE_GATE_SOFTMAX ? sum : 1.0;
        t->choice[e] = t->score[e] + (bias != NULL ? (double) bias[e] : 0.0);
        t->open[e] = true;
    }
    t->margin = INFINITY;
}

/* The first of the largest that are open, -1 for none. */
static int32_t best_of(const double *value, const bool *open, int32_t count)
{
    int32_t best = -1;
    for (int32_t i = 0; i < count; i++) {
        if (open[i] && (best < 0 || value[i] > value[best])) {
            best = i;
        }
    }
    return best;
}

static void note_margin(struct token *t, double higher, double lower)
{
    if (higher > lower && higher - lower < t->margin) {
        t->margin = higher - lower;
    }
}

static void close_groups(const struct moe_gate *gate, struct token *t)
{
    const int32_t size = gate->expert_count / gate->group_count;
    double score[MOE_GATE_GROUP_LIMIT] = { 0.0 };
    bool open[MOE_GATE_GROUP_LIMIT] = { false };
    int32_t last = -1;
    assert(size >= 1 && gate->group_count >= 1 && gate->group_keep >= 1);
    for (int32_t g = 0; g < gate->group_count; g++) {
        bool candidate[MOE_GATE_EXPERT_LIMIT];
        for (int32_t i = 0; i < size; i++) {
            candidate[i] = true;
        }
        const double *choice = t->choice + (size_t) g * (size_t) size;
        const int32_t best = best_of(choice, candidate, size);
        candidate[best] = false;
        const int32_t second = best_of(choice, candidate, size);
        score[g] = choice[best] + (gate->group == MOE_GATE_GROUP_BEST ? 0.0 : choice[second]);
        open[g] = true;
    }
    for (int32_t n = 0; n < gate->group_keep; n++) {
        last = best_of(score, open, gate->group_count);
        open[last] = false;
    }
    const int32_t loser = best_of(score, open, gate->group_count);
    if (loser >= 0) {
        note_margin(t, score[last], score[loser]);
    }
    for (int32_t e = 0; e < gate->expert_count; e++) {
        t->open[e] = !open[e / size];
    }
}

static void choose(const struct moe_gate *gate, struct token *t, int32_t *ids, double *weights)
{
    double sum = 0.0;
    for (int32_t place = 0; place < gate->top_k; place++) {
        ids[place] = best_of(t->choice, t->open, gate->expert_count);
        t->open[ids[place]] = false;
        weights[place] = t->score[ids[place]];
        sum += weights[place];
        const int32_t next = best_of(t->choice, t->open, gate->expert_count);
        if (next >= 0) {
            note_margin(t, t->choice[ids[place]], t->choice[next]);
        }
    }
    for (int32_t place = 0; place < gate->top_k; place++) {
        weights[place] *= (double) gate->scale / (gate->renormalise ? sum : 1.0);
    }
}

void moe_reference_gate_choose(const struct moe_gate *gate, int32_t token_count, int32_t *ids,
                               double *weights, const float *logits, const float *bias,
                               double *margin)
{
    struct token t = { .margin = INFINITY };
    for (int64_t token = 0; token < token_count; token++) {
        compute_scores(gate, logits + token * gate->expert_count, bias, &t);
        if (gate->group_count > 1) {
            close_groups(gate, &t);
        }
        choose(gate, &t, ids + token * gate->top_k, weights + token * gate->top_k);
        if (margin != NULL) {
            margin[token] = t.margin;
        }
    }
}
