/*
 * A trace like the one that a routing model was fitted to. A request's domain, lengths and class
 * shares are drawn from its number; a row's slot from its position, the slot's class, then its
 * experts layer by layer from the class's popularity under the domain and phase, by the slot's
 * draws or its own. Layers are tied by the class, tokens of a request by its shares and slots;
 * which experts of one layer are taken together follows from the class and chance alone.
 *
 * A class's popularity is shifted for each domain and phase by one factor per expert, found by
 * raking (W. E. Deming, F. F. Stephan, 1940), so that all classes together give the domain's and
 * phase's own popularity.
 */
#include <gsl/gsl_cdf.h>
#include <gsl/gsl_errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/random.h"
#include "traces/generate/generate.h"
#include "traces/generate/routing_model.h"

enum { RAKE_ROUNDS = 12 };
/* 0 is that of the rows themselves. */
enum { STREAM_DOMAIN = 1, STREAM_LENGTHS, STREAM_SHARES, STREAM_SLOT, STREAM_COUNT };

static const double TABLE_LIMIT_BYTES = 2e9;
static const double PI = 3.14159265358979323846;

struct fitted {
    struct moe_routing_model model;
    uint64_t seed;
    uint64_t request_count;
    uint64_t key[STREAM_COUNT]; /* by STREAM_ */
    float *probability;         /* [domain][phase][class][layer][expert]; owned */
    /* Of the request that was begun: classes up to this one have that share. */
    double *cumulative; /* [phase][class]; owned */
    double *slots;      /* [slot] cumulative; owned */
    double *scratch;    /* [4 * experts]; owned */
};

static float *table_of(const struct fitted *f, uint32_t domain, uint32_t phase, uint32_t class)
{
    const size_t cells = (size_t) f->model.model.layer_count * f->model.model.expert_count;
    const size_t mix = (size_t) domain * MOE_ROUTING_PHASES + phase;
    return f->probability + (mix * f->model.class_count + class) * cells;
}

/* Probabilities of all classes in one layer of a mix whose shares[class] are given. */
static void rake_layer(struct fitted *f, uint32_t domain, uint32_t phase, uint32_t layer)
{
    const struct moe_trace_model *m = &f->model.model;
    const uint32_t experts = m->expert_count;
    const size_t cells = (size_t) m->layer_count * experts;
    const size_t mix = (size_t) domain * MOE_ROUTING_PHASES + phase;
    const double *share = f->model.class_share + mix * f->model.class_count;
    const double *wanted = f->model.popularity + mix * cells + (size_t) layer * experts;
    double *factor = f->scratch;
    double *weights = f->scratch + experts;
    double *p = f->scratch + 2 * (size_t) experts;
    double *total = f->scratch + 3 * (size_t) experts;
    for (uint32_t i = 0; i < experts; i++) {
        factor[i] = 1.0;
    }
    for (int round = 0; round <= RAKE_ROUNDS; round++) {
        memset(total, 0, experts * sizeof *total);
        for (uint32_t c = 0; c < f->model.class_count; c++) {
            const double *own = f->model.class_popularity + c * cells + (size_t) layer * experts;
            float *out = table_of(f, domain, phase, c) + (size_t) layer * experts;
            for (uint32_t i = 0; i < experts; i++) {
                weights[i] = own[i] * factor[i];
            }
            moe_choice_probabilities(weights, experts, m->top_k, p);
            for (uint32_t i = 0; i < experts; i++) {
                total[i] += share[c] * p[i];
                out[i] = (float) p[i];
            }
        }
        for (uint32_t i = 0; i < experts && round < RAKE_ROUNDS; i++) {
            factor[i] *= total[i] > 0.0 ? wanted[i] * m->top_k / total[i] : 1.0;
        }
    }
}

static enum moe_status allocate(struct fitted *f, struct moe_error *err)
{
    const struct moe_trace_model *m = &f->model.model;
    const size_t cells = (size_t) m->layer_count * m->expert_count;
    const size_t tables = (size_t) m->domain_count * MOE_ROUTING_PHASES * f->model.class_count;
    if ((double) tables * (double) cells * sizeof(float) > TABLE_LIMIT_BYTES) {
        return moe_fail(err, MOE_LIMIT,
                        "%zu mixes of %zu experts in all layers need more than %g bytes; fit fewer "
                        "classes",
                        tables, cells, TABLE_LIMIT_BYTES);
    }
    f->probability = malloc(tables * cells * sizeof *f->probability);
    f->cumulative =
        malloc(MOE_ROUTING_PHASES * (size_t) f->model.class_count * sizeof *f->cumulative);
    f->slots = malloc(f->model.slot_count * sizeof *f->slots);
    f->scratch = malloc(4 * (size_t) m->expert_count * sizeof *f->scratch);
    return f->probability == NULL || f->cumulative == NULL || f->slots == NULL || f->scratch == NULL
               ? moe_fail(err, MOE_LIMIT, "no memory for %zu mixes of %zu experts", tables, cells)
               : MOE_OK;
}

static enum moe_status build(struct fitted *f, struct moe_error *err)
{
    const struct moe_trace_model *m = &f->model.model;
    MOE_TRY(allocate(f, err));
    for (uint32_t domain = 0; domain < m->domain_count; domain++) {
        for (uint32_t phase = 0; phase < MOE_ROUTING_PHASES; phase++) {
            for (uint32_t layer = 0; layer < m->layer_count; layer++) {
                rake_layer(f, domain, phase, layer);
            }
        }
    }
    double sum = 0.0;
    for (uint32_t slot = 0; slot < f->model.slot_count; slot++) {
        f->slots[slot] = sum += 1.0 / (slot + 1);
    }
    for (uint64_t stream = 0; stream < STREAM_COUNT; stream++) {
        f->key[stream] = moe_generate_key("fitted", f->seed, stream);
    }
    return MOE_OK;
}

static enum moe_status open_fitted(void **state, const struct moe_generate_options *options,
                                   struct moe_trace_model *model, uint64_t *request_count,
                                   struct moe_trace_provenance *record, struct moe_error *err)
{
    MOE_TRY(moe_generate_refuse_others(options, "fitted", " --input --requests", err));
    if (options->input == NULL) {
        return moe_fail(err, MOE_RANGE, "fitted: --input MODEL.json is needed");
    }
    struct fitted *f = calloc(1, sizeof *f);
    if (f == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to generate");
    }
    *state = f;
    gsl_set_error_handler_off();
    MOE_TRY(moe_routing_model_read(&f->model, options->input, err));
    f->seed = options->seed;
    f->request_count =
        options->request_count == 0 ? f->model.request_count : options->request_count;
    MOE_TRY(build(f, err));
    *model = f->model.model;
    model->content = MOE_TRACE_ROUTES;
    *request_count = f->request_count;
    (void) snprintf(record->note, sizeof record->note,
                    "seed %llu; like the trace with content %016llx in popularity, phases, "
                    "affinity, drift; choices within a layer by class and chance",
                    (unsigned long long) options->seed, (unsigned long long) f->model.source_hash);
    const char *name = strrchr(options->input, '/');
    return moe_trace_provenance_add_file(record, name == NULL ? options->input : name + 1,
                                         options->input, NULL, err);
}

static uint32_t domain_of(const struct fitted *f, uint64_t index)
{
    double left = moe_random_uniform(f->key[STREAM_DOMAIN], index);
    uint32_t domain = 0;
    uint32_t last = 0; /* that has any share */
    for (; domain < f->model.model.domain_count; domain++) {
        left -= f->model.domains[domain].share;
        last = f->model.domains[domain].share > 0.0 ? domain : last;
        if (left < 0.0) {
            return domain;
        }
    }
    return last;
}

/* Lengths by a Gaussian copula: their quantiles are the domain's, their ranks correlate as in the
 * trace (2 sin(pi r / 6) is the normal correlation of Spearman's r). */
static void request(const void *state, uint64_t index, struct moe_trace_request *out)
{
    const struct fitted *f = state;
    const uint32_t domain = domain_of(f, index);
    const struct moe_routing_domain *d = &f->model.domains[domain];
    const double r = 2.0 * sin(PI / 6.0 * d->length_correlation);
    const double first =
        gsl_cdf_ugaussian_Pinv(moe_random_inside(f->key[STREAM_LENGTHS], 2 * index));
    const double other =
        gsl_cdf_ugaussian_Pinv(moe_random_inside(f->key[STREAM_LENGTHS], 2 * index + 1));
    const double second = r * first + sqrt(1.0 - r * r) * other;
    *out = (struct moe_trace_request){
        .arrival_ns = -1,
        .prompt_tokens =
            (uint32_t) lround(moe_routing_quantile(d->prompt_tokens, gsl_cdf_ugaussian_P(first))),
        .output_tokens =
            (uint32_t) lround(moe_routing_quantile(d->output_tokens, gsl_cdf_ugaussian_P(second))),
        .domain = domain,
    };
}

/* Logarithm of a gamma variate of that shape, from the draws of one counter on (G. Marsaglia,
 * W. W. Tsang, 2000; a shape below 1 from shape + 1 by a power of a uniform). */
static double log_gamma_draw(uint64_t key, uint64_t counter, double shape)
{
    const double d = (shape < 1.0 ? shape + 1.0 : shape) - 1.0 / 3.0;
    const double c = 1.0 / sqrt(9.0 * d);
    const double boost = shape < 1.0 ? log(moe_random_inside(key, counter << 8)) / shape : 0.0;
    double result = log(d); /* what 100 rejections in a row, which do not happen, would leave */
    for (uint64_t i = 1; i < 100; i++) {
        const double x = gsl_cdf_ugaussian_Pinv(moe_random_inside(key, (counter << 8) + 2 * i));
        const double v = (1.0 + c * x) * (1.0 + c * x) * (1.0 + c * x);
        const double u = moe_random_inside(key, (counter << 8) + 2 * i + 1);
        if (v > 0.0 && log(u) < 0.5 * x * x + d - d * v + d * log(v)) {
            result = log(d) + log(v);
            break;
        }
    }
    return result + boost;
}

/* Class shares of a request: its domain's, moved by drift, then drawn around them; a phase differs
 * from the other as it does in the domain. */
static void begin(void *state, uint64_t index, const struct moe_trace_request *of)
{
    struct fitted *f = state;
    const uint32_t classes = f->model.class_count;
    const double time = ((double) index + 0.5) / (double) f->request_count - 0.5;
    const size_t mix = (size_t) of->domain * MOE_ROUTING_PHASES;
    const double *prefill = f->model.class_share + mix * classes;
    const double *decode = prefill + classes;
    double sum[MOE_ROUTING_PHASES] = { 0.0 };
    double drawn[MOE_ROUTING_CLASS_LIMIT];
    double top = -INFINITY;
    double total = 0.0;
    for (uint32_t c = 0; c < classes; c++) {
        drawn[c] = (prefill[c] + decode[c]) / 2.0 * exp(f->model.class_drift[c] * time);
        total += drawn[c];
    }
    for (uint32_t c = 0; c < classes; c++) {
        const double shape = f->model.concentration * drawn[c] / total;
        drawn[c] = shape > 0.0 ? log_gamma_draw(f->key[STREAM_SHARES], index * classes + c, shape)
                               : -INFINITY;
        top = drawn[c] > top ? drawn[c] : top;
    }
    for (uint32_t c = 0; c < classes; c++) {
        const double both = prefill[c] + decode[c];
        const double own = both > 0.0 ? exp(drawn[c] - top) / both : 0.0;
        f->cumulative[c] = sum[MOE_ROUTING_PREFILL] += own * prefill[c];
        f->cumulative[classes + c] = sum[MOE_ROUTING_DECODE] += own * decode[c];
    }
}

/* One of count, in proportion to what cumulative[count] rises by. */
static uint32_t draw(const double *cumulative, uint32_t count, double u)
{
    const double wanted = u * cumulative[count - 1];
    uint32_t low = 0;
    uint32_t high = count - 1;
    while (low < high) {
        const uint32_t middle = (low + high) / 2;
        if (cumulative[middle] > wanted) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static void row(const void *state, const struct moe_generate_row *where, uint16_t *experts)
{
    const struct fitted *f = state;
    const struct moe_choice_shape shape = moe_generate_shape(&f->model.model);
    const uint32_t phase = where->is_decode ? MOE_ROUTING_DECODE : MOE_ROUTING_PREFILL;
    const uint32_t classes = f->model.class_count;
    struct moe_generate_row slot = *where;
    slot.key = moe_generate_row_key(
        f->key[STREAM_SLOT], where->request,
        draw(f->slots, f->model.slot_count, moe_random_uniform(where->key, 0)));
    const uint32_t class =
        draw(f->cumulative + (size_t) phase * classes, classes, moe_random_uniform(slot.key, 4));
    const float *table = table_of(f, where->domain, phase, class);
    for (uint32_t layer = 0; layer < f->model.model.layer_count; layer++) {
        uint64_t bits[3];
        const double u = moe_random_uniform(where->key, 4 * (uint64_t) layer + 8);
        moe_generate_bits(u < f->model.repetition[layer] ? &slot : where, layer, bits);
        moe_choice_draw(&shape, table + (size_t) layer * shape.expert_count, bits,
                        experts + (size_t) layer * shape.top_k);
    }
}

static void close_fitted(void *state)
{
    struct fitted *f = state;
    if (f != NULL) {
        moe_routing_model_finish(&f->model);
        free(f->probability);
        free(f->cumulative);
        free(f->slots);
        free(f->scratch);
        free(f);
    }
}

const struct moe_generator moe_generator_fitted = {
    .name = "fitted",
    .summary = "like a recorded trace: --input of a model that `moesim trace fit` made",
    .open = open_fitted,
    .request = request,
    .begin = begin,
    .row = row,
    .close = close_fitted,
};
