#include "traces/generate/routing_classes.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/progress.h"
#include "sim/base/random.h"
#include "traces/generate/generate.h"
#include "traces/generate/routing_model.h"
#include "traces/trace_store.h"

enum { ITERATION_LIMIT = 30, PROGRESS_TOKENS = 256 };

/* Choices that the overall popularity adds to each layer of a class, so that no expert is
 * impossible. */
static const double PRIOR_CHOICES = 8.0;
static const double SEED_SHARE = 0.5; /* of a class's first popularity that is its first token's */
static const double RELATIVE_GAIN = 1e-5; /* of the likelihood: less ends the search */
static const double LEAST_SHARE = 1e-4;   /* of a token: less is not counted */

struct search {
    const struct moe_routing_sample *sample;
    const double *overall;
    uint32_t class_count;
    size_t cells; /* layers x experts */
    uint64_t key;
    double *counts;   /* [class][cell] */
    double *weight;   /* [class] share of tokens */
    float *log_score; /* [cell][class]: a token's classes are added up side by side */
    float *distance;  /* [token], while beginning */
    double *share;    /* [class] of one token */
    uint16_t *class_of;
    struct moe_progress progress;
};

static size_t choices_of(const struct moe_routing_sample *sample)
{
    return (size_t) sample->layer_count * sample->top_k;
}

/* Cell of choice i of a token, or cells for one that is unknown. */
static size_t cell_of(const struct moe_routing_sample *sample, uint64_t token, size_t i)
{
    const uint16_t expert = sample->experts[token * choices_of(sample) + i];
    return expert == MOE_EXPERT_UNKNOWN ? (size_t) sample->layer_count * sample->expert_count
                                        : i / sample->top_k * sample->expert_count + expert;
}

/* Class c begins as what one token chose. */
static void seed_class(struct search *s, uint32_t c, uint64_t token)
{
    const struct moe_routing_sample *sample = s->sample;
    double *counts = s->counts + c * s->cells;
    memset(counts, 0, s->cells * sizeof *counts);
    for (size_t i = 0; i < choices_of(sample); i++) {
        const size_t cell = cell_of(sample, token, i);
        if (cell < s->cells) {
            counts[cell] += 1.0;
        }
    }
    for (uint64_t t = 0; t < sample->token_count; t++) {
        double shared = 0.0;
        for (size_t i = 0; i < choices_of(sample); i++) {
            const size_t cell = cell_of(sample, t, i);
            shared += cell < s->cells ? counts[cell] : 0.0;
        }
        const float apart = (float) (1.0 - shared / (double) choices_of(sample));
        s->distance[t] = apart < s->distance[t] ? apart : s->distance[t];
    }
    for (size_t i = 0; i < s->cells; i++) {
        counts[i] = SEED_SHARE * counts[i] + (1.0 - SEED_SHARE) * sample->top_k * s->overall[i];
    }
}

/* First tokens far apart: each is drawn in proportion to its squared distance from those before
 * (D. Arthur, S. Vassilvitskii, k-means++, SODA 2007). */
static void begin(struct search *s)
{
    const uint64_t tokens = s->sample->token_count;
    for (uint64_t t = 0; t < tokens; t++) {
        s->distance[t] = 1.0f;
    }
    for (uint32_t c = 0; c < s->class_count; c++) {
        double sum = 0.0;
        for (uint64_t t = 0; t < tokens; t++) {
            sum += (double) s->distance[t] * (double) s->distance[t];
        }
        double left = moe_random_uniform(s->key, c) * sum;
        uint64_t chosen = moe_random_below(s->key, c + MOE_TRACE_EXPERT_LIMIT, tokens);
        for (uint64_t t = 0; sum > 0.0 && t < tokens; t++) {
            left -= (double) s->distance[t] * (double) s->distance[t];
            if (left < 0.0) {
                chosen = t;
                break;
            }
        }
        seed_class(s, c, chosen);
        s->weight[c] = 1.0 / s->class_count;
    }
}

/* Scores from counts: log of popularity with its prior, layer by layer. */
static void prepare(struct search *s)
{
    const uint32_t experts = s->sample->expert_count;
    for (uint32_t c = 0; c < s->class_count; c++) {
        for (uint32_t layer = 0; layer < s->sample->layer_count; layer++) {
            const double *counts = s->counts + c * s->cells + (size_t) layer * experts;
            const double *overall = s->overall + (size_t) layer * experts;
            double sum = PRIOR_CHOICES;
            for (uint32_t i = 0; i < experts; i++) {
                sum += counts[i];
            }
            for (uint32_t i = 0; i < experts; i++) {
                const double p = (counts[i] + PRIOR_CHOICES * overall[i]) / sum;
                s->log_score[((size_t) layer * experts + i) * s->class_count + c] =
                    p > 0.0 ? (float) log(p) : -100.0f;
            }
        }
    }
}

/* Shares of a token's classes into s->share; the log of its likelihood. */
static double judge(struct search *s, uint64_t token, uint16_t *likeliest)
{
    float score[MOE_ROUTING_CLASS_LIMIT];
    double sum = 0.0;
    uint32_t best = 0;
    score[0] = 0.0f; /* there is one class at least */
    for (uint32_t c = 0; c < s->class_count; c++) {
        score[c] = s->weight[c] > 0.0 ? (float) log(s->weight[c]) : -100.0f;
    }
    for (size_t i = 0; i < choices_of(s->sample); i++) {
        const size_t cell = cell_of(s->sample, token, i);
        if (cell < s->cells) {
            const float *row = s->log_score + cell * s->class_count;
            for (uint32_t c = 0; c < s->class_count; c++) {
                score[c] += row[c];
            }
        }
    }
    for (uint32_t c = 1; c < s->class_count; c++) {
        best = score[c] > score[best] ? c : best;
    }
    for (uint32_t c = 0; c < s->class_count; c++) {
        const double apart = (double) score[c] - (double) score[best];
        s->share[c] = apart > -40.0 ? exp(apart) : 0.0;
        sum += s->share[c];
    }
    for (uint32_t c = 0; c < s->class_count; c++) {
        s->share[c] /= sum;
    }
    *likeliest = (uint16_t) best;
    return (double) score[best] + log(sum);
}

/* One round, after so many tokens of earlier ones; the log likelihood of the sample before it. */
static double iterate(struct search *s, uint64_t done)
{
    const struct moe_routing_sample *sample = s->sample;
    double likelihood = 0.0;
    prepare(s);
    memset(s->counts, 0, s->class_count * s->cells * sizeof *s->counts);
    double *weight = s->share + s->class_count; /* of the next round */
    memset(weight, 0, s->class_count * sizeof *weight);
    for (uint64_t t = 0; t < sample->token_count; t++) {
        if (t % PROGRESS_TOKENS == 0) {
            moe_progress_update(&s->progress, done + t);
        }
        likelihood += judge(s, t, &s->class_of[t]);
        for (uint32_t c = 0; c < s->class_count; c++) {
            const double share = s->share[c];
            weight[c] += share / (double) sample->token_count;
            if (share < LEAST_SHARE) {
                continue;
            }
            double *counts = s->counts + c * s->cells;
            for (size_t i = 0; i < choices_of(sample); i++) {
                const size_t cell = cell_of(sample, t, i);
                if (cell < s->cells) {
                    counts[cell] += share;
                }
            }
        }
    }
    memcpy(s->weight, weight, s->class_count * sizeof *weight);
    return likelihood;
}

static void finish_popularity(struct search *s, double *popularity)
{
    prepare(s);
    for (uint32_t c = 0; c < s->class_count; c++) {
        for (size_t cell = 0; cell < s->cells; cell++) {
            popularity[c * s->cells + cell] = exp((double) s->log_score[cell * s->class_count + c]);
        }
    }
}

enum moe_status moe_routing_classes_find(const struct moe_routing_sample *sample,
                                         const double *overall, uint32_t class_count, uint64_t seed,
                                         double *popularity, uint16_t *class_of, FILE *progress,
                                         struct moe_error *err)
{
    struct search s = {
        .sample = sample,
        .overall = overall,
        .class_count = class_count,
        .cells = (size_t) sample->layer_count * sample->expert_count,
        .key = moe_generate_key("classes", seed, 0),
        .class_of = class_of,
    };
    s.counts = calloc(class_count * s.cells, sizeof *s.counts);
    s.weight = calloc(class_count, sizeof *s.weight);
    s.log_score = calloc(class_count * s.cells, sizeof *s.log_score);
    s.distance = calloc((size_t) sample->token_count, sizeof *s.distance);
    s.share = calloc(2 * (size_t) class_count, sizeof *s.share);
    enum moe_status status = MOE_OK;
    if (s.counts == NULL || s.weight == NULL || s.log_score == NULL || s.distance == NULL ||
        s.share == NULL) {
        status = moe_fail(err, MOE_LIMIT, "no memory for %u classes of %zu experts in all layers",
                          class_count, s.cells);
    } else {
        begin(&s);
        double before = -INFINITY;
        moe_progress_begin(&s.progress, progress, "finding classes, at most", "tokens", 0,
                           ITERATION_LIMIT * sample->token_count);
        for (int i = 0; i < ITERATION_LIMIT; i++) {
            const double now = iterate(&s, (uint64_t) i * sample->token_count);
            if (now - before < RELATIVE_GAIN * fabs(now)) {
                break;
            }
            before = now;
        }
        moe_progress_end(&s.progress);
        finish_popularity(&s, popularity);
    }
    free(s.counts);
    free(s.weight);
    free(s.log_score);
    free(s.distance);
    free(s.share);
    return status;
}
