/*
 * A routing model as a file:
 *
 *   {"format": "moesim.routing_model", "version": 1,
 *    "name": ..., "layers": L, "experts": E, "top_k": K, "groups": G, "group_limit": M,
 *    "source": "16 hexadecimal digits: content hash of the trace it was fitted to",
 *    "requests": N, "classes": C, "concentration": a,
 *    "slots": S, "repetition": [L],
 *    "domains": [{"name": ..., "share": s, "prompt_tokens": [33 quantiles],
 *                 "output_tokens": [33], "length_correlation": r,
 *                 "class_share": [[C of prefill], [C of decode]],
 *                 "popularity": [[[E] per layer] of prefill, the same of decode]}, ...],
 *    "class_drift": [C],
 *    "class_popularity": [[[E] per layer] per class]}
 *
 * Popularities are whole numbers, millionths of a layer's choices (rounded, so their sum is near
 * a million); they are divided by their sum when read.
 */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/output_file.h"
#include "sim/base/text_file.h"
#include "traces/generate/routing_model.h"
#include "traces/trace_schema.h"

enum { VERSION = 1, FILE_LIMIT = 256 << 20 };

static const char FORMAT[] = "moesim.routing_model";
static const double MILLION = 1e6;

enum moe_status moe_routing_model_allocate(struct moe_routing_model *model, struct moe_error *err)
{
    const size_t cells = (size_t) model->model.layer_count * model->model.expert_count;
    const size_t mixes = (size_t) model->model.domain_count * MOE_ROUTING_PHASES;
    const size_t classes = model->class_count;
    model->class_share = calloc(mixes * classes, sizeof(double));
    model->class_drift = calloc(classes, sizeof(double));
    model->repetition = calloc(model->model.layer_count, sizeof(double));
    model->popularity = calloc(mixes * cells, sizeof(double));
    model->class_popularity = calloc(classes * cells, sizeof(double));
    if (model->class_share == NULL || model->class_drift == NULL || model->repetition == NULL ||
        model->popularity == NULL || model->class_popularity == NULL) {
        moe_routing_model_finish(model);
        return moe_fail(err, MOE_LIMIT, "no memory for %zu classes of %zu experts in all layers",
                        classes, cells);
    }
    return MOE_OK;
}

void moe_routing_model_finish(struct moe_routing_model *model)
{
    free(model->class_share);
    free(model->class_drift);
    free(model->repetition);
    free(model->popularity);
    free(model->class_popularity);
    *model = (struct moe_routing_model){ 0 };
}

double moe_routing_quantile(const double *quantiles, double p)
{
    const double at = p * (MOE_ROUTING_QUANTILES - 1);
    const int i = at < MOE_ROUTING_QUANTILES - 2 ? (int) at : MOE_ROUTING_QUANTILES - 2;
    return quantiles[i] + (quantiles[i + 1] - quantiles[i]) * (at - i);
}

static void print_reals(FILE *out, const double *values, size_t count)
{
    (void) fputc('[', out);
    for (size_t i = 0; i < count; i++) {
        (void) fprintf(out, "%s%.6g", i == 0 ? "" : ",", values[i]);
    }
    (void) fputc(']', out);
}

/* [[E] per layer] in millionths. */
static void print_popularity(FILE *out, const double *values, const struct moe_trace_model *model)
{
    for (uint32_t layer = 0; layer < model->layer_count; layer++) {
        const double *row = values + (size_t) layer * model->expert_count;
        (void) fputs(layer == 0 ? "[[" : ",\n[", out);
        for (uint32_t i = 0; i < model->expert_count; i++) {
            (void) fprintf(out, "%s%.0f", i == 0 ? "" : ",", row[i] * MILLION);
        }
        (void) fputc(']', out);
    }
    (void) fputc(']', out);
}

static void print_domain(FILE *out, const struct moe_routing_model *model, uint32_t domain)
{
    const struct moe_routing_domain *d = &model->domains[domain];
    const size_t cells = (size_t) model->model.layer_count * model->model.expert_count;
    const size_t mix = (size_t) domain * MOE_ROUTING_PHASES;
    json_t *name = json_string(model->model.domains[domain]);
    (void) fprintf(out, "%s{\"name\": ", domain == 0 ? "" : ",\n");
    (void) json_dumpf(name, out, JSON_ENCODE_ANY); /* the stream is checked at the end */
    json_decref(name);
    (void) fprintf(out, ", \"share\": %.9g, \"length_correlation\": %.6g,\n\"prompt_tokens\": ",
                   d->share, d->length_correlation);
    print_reals(out, d->prompt_tokens, MOE_ROUTING_QUANTILES);
    (void) fputs(",\n\"output_tokens\": ", out);
    print_reals(out, d->output_tokens, MOE_ROUTING_QUANTILES);
    (void) fputs(",\n\"class_share\": [", out);
    print_reals(out, model->class_share + mix * model->class_count, model->class_count);
    (void) fputs(", ", out);
    print_reals(out, model->class_share + (mix + 1) * model->class_count, model->class_count);
    (void) fputs("],\n\"popularity\": [", out);
    print_popularity(out, model->popularity + mix * cells, &model->model);
    (void) fputs(",\n", out);
    print_popularity(out, model->popularity + (mix + 1) * cells, &model->model);
    (void) fputs("]}", out);
}

static void print_all(FILE *out, const struct moe_routing_model *model)
{
    const struct moe_trace_model *m = &model->model;
    json_t *name = json_string(m->name);
    (void) fprintf(out, "{\"format\": \"%s\", \"version\": %d,\n\"name\": ", FORMAT, VERSION);
    (void) json_dumpf(name, out, JSON_ENCODE_ANY);
    json_decref(name);
    (void) fprintf(out,
                   ", \"layers\": %u, \"experts\": %u, \"top_k\": %u, \"groups\": %u, "
                   "\"group_limit\": %u,\n\"source\": \"%016" PRIx64 "\", \"requests\": %" PRIu64
                   ", \"classes\": %u, \"concentration\": %.6g,\n\"slots\": %u, \"repetition\": ",
                   m->layer_count, m->expert_count, m->top_k, m->group_count, m->group_limit,
                   model->source_hash, model->request_count, model->class_count,
                   model->concentration, model->slot_count);
    print_reals(out, model->repetition, m->layer_count);
    (void) fputs(",\n\"domains\": [", out);
    for (uint32_t domain = 0; domain < m->domain_count; domain++) {
        print_domain(out, model, domain);
    }
    (void) fputs("],\n\"class_drift\": ", out);
    print_reals(out, model->class_drift, model->class_count);
    (void) fputs(",\n\"class_popularity\": [", out);
    for (uint32_t i = 0; i < model->class_count; i++) {
        (void) fputs(i == 0 ? "" : ",\n", out);
        print_popularity(
            out, model->class_popularity + (size_t) i * m->layer_count * m->expert_count, m);
    }
    (void) fputs("]}\n", out);
}

enum moe_status moe_routing_model_write(const struct moe_routing_model *model, const char *path,
                                        bool overwrite, struct moe_error *err)
{
    struct moe_output_file file;
    MOE_TRY(moe_output_file_open(&file, path, overwrite, err));
    print_all(file.stream, model);
    if (ferror(file.stream) != 0) {
        moe_output_file_discard(&file);
        return moe_fail(err, MOE_IO, "%.200s cannot be written: %s", path, strerror(errno));
    }
    return moe_output_file_commit(&file, err);
}

/* What a reading needs everywhere. */
struct reader {
    const char *name;
    size_t size; /* of the text */
    struct moe_error *err;
};

static enum moe_status take_count(struct reader *r, const json_t *object, const char *key,
                                  uint64_t min, uint64_t max, uint64_t *out)
{
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value) || json_integer_value(value) < (json_int_t) min ||
        (uint64_t) json_integer_value(value) > max) {
        return moe_fail(r->err, MOE_RANGE,
                        "%.200s: \"%s\" is to be a whole number from %" PRIu64 " to %" PRIu64,
                        r->name, key, min, max);
    }
    *out = (uint64_t) json_integer_value(value);
    return MOE_OK;
}

static enum moe_status take_small(struct reader *r, const json_t *object, const char *key,
                                  uint32_t max, uint32_t *out)
{
    uint64_t value = 0;
    MOE_TRY(take_count(r, object, key, 1, max, &value));
    *out = (uint32_t) value;
    return MOE_OK;
}

static enum moe_status take_real(struct reader *r, const json_t *value, const char *what,
                                 double min, double max, double *out)
{
    const double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= min && number <= max)) {
        return moe_fail(r->err, MOE_RANGE, "%.200s: %s is to be a number from %g to %g", r->name,
                        what, min, max);
    }
    *out = number;
    return MOE_OK;
}

static enum moe_status take_reals(struct reader *r, const json_t *list, const char *what,
                                  size_t count, double min, double max, double *out)
{
    if (!json_is_array(list) || json_array_size(list) != count) {
        return moe_fail(r->err, MOE_RANGE, "%.200s: %s is to be a list of %zu numbers", r->name,
                        what, count);
    }
    for (size_t i = 0; i < count; i++) {
        MOE_TRY(take_real(r, json_array_get(list, i), what, min, max, &out[i]));
    }
    return MOE_OK;
}

static enum moe_status take_text(struct reader *r, const json_t *object, const char *key, char *out,
                                 size_t size)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (text == NULL || text[0] == '\0' || strlen(text) >= size) {
        return moe_fail(r->err, MOE_RANGE, "%.200s: \"%s\" is to be a text of 1 to %zu bytes",
                        r->name, key, size - 1);
    }
    (void) snprintf(out, size, "%s", text);
    return MOE_OK;
}

/* values[count] are divided by their sum, which must be above 0. */
static enum moe_status normalise(struct reader *r, double *values, size_t count, const char *what)
{
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) {
        sum += values[i];
    }
    if (!(sum > 0.0)) {
        return moe_fail(r->err, MOE_RANGE, "%.200s: %s holds only zeros", r->name, what);
    }
    for (size_t i = 0; i < count; i++) {
        values[i] /= sum;
    }
    return MOE_OK;
}

static enum moe_status take_popularity(struct reader *r, const json_t *layers, const char *what,
                                       const struct moe_trace_model *model, double *out)
{
    if (!json_is_array(layers) || json_array_size(layers) != model->layer_count) {
        return moe_fail(r->err, MOE_RANGE, "%.200s: %s is to be a list of %u layers", r->name, what,
                        model->layer_count);
    }
    for (uint32_t layer = 0; layer < model->layer_count; layer++) {
        double *row = out + (size_t) layer * model->expert_count;
        MOE_TRY(take_reals(r, json_array_get(layers, layer), what, model->expert_count, 0.0,
                           2 * MILLION, row));
        MOE_TRY(normalise(r, row, model->expert_count, what));
    }
    return MOE_OK;
}

static enum moe_status check_ascending(struct reader *r, const double *quantiles, const char *what)
{
    for (int i = 1; i < MOE_ROUTING_QUANTILES; i++) {
        if (quantiles[i] < quantiles[i - 1]) {
            return moe_fail(r->err, MOE_RANGE, "%.200s: the quantiles of %s do not ascend", r->name,
                            what);
        }
    }
    return MOE_OK;
}

static enum moe_status take_domain(struct reader *r, const json_t *object,
                                   struct moe_routing_model *out, uint32_t domain)
{
    struct moe_routing_domain *d = &out->domains[domain];
    const json_t *shares = json_object_get(object, "class_share");
    const json_t *popularity = json_object_get(object, "popularity");
    const size_t cells = (size_t) out->model.layer_count * out->model.expert_count;
    MOE_TRY(take_real(r, json_object_get(object, "share"), "share", 0.0, 1.0, &d->share));
    MOE_TRY(take_real(r, json_object_get(object, "length_correlation"), "length_correlation", -1.0,
                      1.0, &d->length_correlation));
    MOE_TRY(take_reals(r, json_object_get(object, "prompt_tokens"), "prompt_tokens",
                       MOE_ROUTING_QUANTILES, 1.0, 1e8, d->prompt_tokens));
    MOE_TRY(take_reals(r, json_object_get(object, "output_tokens"), "output_tokens",
                       MOE_ROUTING_QUANTILES, 1.0, 1e8, d->output_tokens));
    MOE_TRY(check_ascending(r, d->prompt_tokens, "prompt_tokens"));
    MOE_TRY(check_ascending(r, d->output_tokens, "output_tokens"));
    for (size_t phase = 0; phase < MOE_ROUTING_PHASES; phase++) {
        const size_t mix = (size_t) domain * MOE_ROUTING_PHASES + phase;
        double *share = out->class_share + mix * out->class_count;
        MOE_TRY(take_reals(r, json_array_get(shares, phase), "class_share", out->class_count, 0.0,
                           1.0, share));
        MOE_TRY(normalise(r, share, out->class_count, "class_share"));
        MOE_TRY(take_popularity(r, json_array_get(popularity, phase), "popularity", &out->model,
                                out->popularity + mix * cells));
    }
    return MOE_OK;
}

static enum moe_status take_shape(struct reader *r, const json_t *root,
                                  struct moe_routing_model *out)
{
    struct moe_trace_model *m = &out->model;
    const json_t *domains = json_object_get(root, "domains");
    char hash[17];
    MOE_TRY(take_text(r, root, "name", m->name, sizeof m->name));
    MOE_TRY(take_small(r, root, "layers", MOE_TRACE_LAYER_LIMIT, &m->layer_count));
    MOE_TRY(take_small(r, root, "experts", MOE_TRACE_EXPERT_LIMIT, &m->expert_count));
    MOE_TRY(take_small(r, root, "top_k", MOE_TRACE_TOP_K_LIMIT, &m->top_k));
    MOE_TRY(take_small(r, root, "groups", 1024, &m->group_count));
    MOE_TRY(take_small(r, root, "group_limit", 1024, &m->group_limit));
    MOE_TRY(take_small(r, root, "classes", MOE_ROUTING_CLASS_LIMIT, &out->class_count));
    MOE_TRY(take_count(r, root, "requests", 1, UINT64_C(1) << 32, &out->request_count));
    MOE_TRY(take_real(r, json_object_get(root, "concentration"), "concentration", 1e-3, 1e9,
                      &out->concentration));
    MOE_TRY(take_text(r, root, "source", hash, sizeof hash));
    if (strspn(hash, "0123456789abcdef") != 16) {
        return moe_fail(r->err, MOE_PARSE, "%.200s: \"source\" is not 16 hexadecimal digits",
                        r->name);
    }
    MOE_TRY(take_small(r, root, "slots", MOE_ROUTING_SLOT_LIMIT, &out->slot_count));
    out->source_hash = strtoull(hash, NULL, 16);
    if (!json_is_array(domains) || json_array_size(domains) > MOE_TRACE_DOMAIN_LIMIT) {
        return moe_fail(r->err, MOE_RANGE, "%.200s: \"domains\" is to be a list of 1 to %d",
                        r->name, MOE_TRACE_DOMAIN_LIMIT);
    }
    m->domain_count = (uint32_t) json_array_size(domains);
    for (uint32_t i = 0; i < m->domain_count; i++) {
        MOE_TRY(
            take_text(r, json_array_get(domains, i), "name", m->domains[i], sizeof m->domains[i]));
    }
    return moe_trace_model_check(m, r->name, r->err);
}

static enum moe_status take_all(struct reader *r, const json_t *root, struct moe_routing_model *out)
{
    const char *format = json_string_value(json_object_get(root, "format"));
    uint64_t version = 0;
    if (format == NULL || strcmp(format, FORMAT) != 0) {
        return moe_fail(r->err, MOE_PARSE,
                        "%.200s: is no routing model; `moesim trace fit` makes "
                        "one",
                        r->name);
    }
    MOE_TRY(take_count(r, root, "version", 1, UINT32_MAX, &version));
    if (version != VERSION) {
        return moe_fail(r->err, MOE_UNSUPPORTED,
                        "%.200s: is a routing model of version %" PRIu64 "; this program reads %d",
                        r->name, version, VERSION);
    }
    MOE_TRY(take_shape(r, root, out));
    /* Every number takes two letters: a claim beyond the text is not believed. */
    const uint64_t cells = (uint64_t) out->model.layer_count * out->model.expert_count;
    if (cells * (out->class_count + out->model.domain_count) > r->size) {
        return moe_fail(r->err, MOE_RANGE,
                        "%.200s: is too short for %u classes of %" PRIu64 " experts in all layers",
                        r->name, out->class_count, cells);
    }
    MOE_TRY(moe_routing_model_allocate(out, r->err));
    double share = 0.0;
    for (uint32_t i = 0; i < out->model.domain_count; i++) {
        MOE_TRY(take_domain(r, json_array_get(json_object_get(root, "domains"), i), out, i));
        share += out->domains[i].share;
    }
    if (!(fabs(share - 1.0) < 1e-3)) {
        return moe_fail(r->err, MOE_RANGE, "%.200s: the domains' shares sum to %g, not 1", r->name,
                        share);
    }
    MOE_TRY(take_reals(r, json_object_get(root, "class_drift"), "class_drift", out->class_count,
                       -20.0, 20.0, out->class_drift));
    MOE_TRY(take_reals(r, json_object_get(root, "repetition"), "repetition", out->model.layer_count,
                       0.0, 1.0, out->repetition));
    const json_t *classes = json_object_get(root, "class_popularity");
    for (uint32_t i = 0; i < out->class_count; i++) {
        MOE_TRY(take_popularity(r, json_array_get(classes, i), "class_popularity", &out->model,
                                out->class_popularity + i * cells));
    }
    return MOE_OK;
}

enum moe_status moe_routing_model_parse(struct moe_routing_model *model, const char *name,
                                        const char *text, size_t size, struct moe_error *err)
{
    struct moe_routing_model read = { 0 };
    struct reader reader = { name, size, err };
    json_error_t why = { 0 };
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    if (root == NULL) {
        return moe_fail(err, MOE_PARSE, "%.200s:%d:%d: not valid JSON: %s", name, why.line,
                        why.column, why.text);
    }
    const enum moe_status status = take_all(&reader, root, &read);
    json_decref(root);
    if (status != MOE_OK) {
        moe_routing_model_finish(&read);
        return status;
    }
    *model = read;
    return MOE_OK;
}

enum moe_status moe_routing_model_read(struct moe_routing_model *model, const char *path,
                                       struct moe_error *err)
{
    char *text = NULL;
    size_t size = 0;
    MOE_TRY(moe_text_file_read(path, FILE_LIMIT, &text, &size, err));
    const enum moe_status status = moe_routing_model_parse(model, path, text, size, err);
    free(text);
    return status;
}
