/*
 * Import format "servegen": arrivals of ServeGen's client profiles: for each client
 *   chunk-N-trace.csv     window start s, requests/s, CV, Gamma or Weibull, shape, scale
 *                         (no header; no name: no traffic)
 *   chunk-N-dataset.json  {window start s: {input_tokens, output_tokens: "{45: 0.0097, ...}"}}
 * These are distributions, not requests: the requests are drawn with --seed. A window of
 * length T and rate r gets floor(r T + u) requests, u uniform; the gaps before, between and
 * after them are drawn from the named family with its shape and scaled to fill T, so the rate
 * is kept and the burstiness comes from the shape. Lengths are independent draws from the
 * data set's window; a window without any uses the nearest earlier one that has some, else
 * the next later one. Clients are domains while there are few enough.
 *
 * Gamma draws: G. Marsaglia and W. W. Tsang, "A simple method for generating gamma variables"
 * (2000), with the boost U^(1/a) for shapes a below 1.
 */
#include <gsl/gsl_cdf.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/options.h"
#include "sim/base/random.h"
#include "traces/csv.h"
#include "traces/import.h"
#include "traces/json_documents.h"

enum { WINDOW_LIMIT = 1 << 16, REQUEST_LIMIT = 1 << 24, PROFILE_LIMIT = 1024 };

/* A distribution over whole numbers. */
struct lengths {
    size_t count;
    uint32_t *value;
    double *sum; /* of the probabilities up to and with this one */
};

/* Lengths from a time on. */
struct profile {
    uint64_t start_s;
    struct lengths input;
    struct lengths output;
};

struct arrival {
    struct moe_trace_request request;
    uint32_t client;
    uint64_t number; /* within the client */
};

struct servegen {
    struct arrival *arrivals;
    size_t count;
    size_t room;
    struct profile profiles[PROFILE_LIMIT]; /* of the client at hand */
    size_t profile_count;
    double *gaps;
    size_t gap_room;
    uint64_t key; /* of the client's random numbers */
    uint64_t draws;
};

static bool recognise(const struct moe_import_input *input)
{
    bool found = false;
    for (size_t i = 0; i < input->file_count; i++) {
        found = found || moe_import_file_number(input->files[i].name, "chunk-", "-trace.csv") >= 0;
    }
    return found;
}

static double draw(struct servegen *import)
{
    return moe_random_inside(import->key, import->draws++);
}

static double draw_gamma(struct servegen *import, double shape)
{
    const double boost = shape < 1.0 ? pow(draw(import), 1.0 / shape) : 1.0;
    const double d = (shape < 1.0 ? shape + 1.0 : shape) - 1.0 / 3.0;
    const double c = 1.0 / sqrt(9.0 * d);
    for (;;) {
        const double x = gsl_cdf_ugaussian_Pinv(draw(import));
        const double v = (1.0 + c * x) * (1.0 + c * x) * (1.0 + c * x);
        if (v > 0.0 && log(draw(import)) < 0.5 * x * x + d - d * v + d * log(v)) {
            return boost * d * v;
        }
    }
}

static uint32_t draw_length(struct servegen *import, const struct lengths *lengths)
{
    const double u = draw(import) * lengths->sum[lengths->count - 1];
    size_t low = 0;
    size_t high = lengths->count - 1;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (lengths->sum[middle] > u) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return lengths->value[low];
}

static void free_profiles(struct servegen *import)
{
    for (size_t i = 0; i < import->profile_count; i++) {
        free(import->profiles[i].input.value);
        free(import->profiles[i].input.sum);
        free(import->profiles[i].output.value);
        free(import->profiles[i].output.sum);
    }
    import->profile_count = 0;
}

/* "{45: 0.0097, 46: 0.0117}": a Python dict of whole numbers to probabilities. */
static enum moe_status read_lengths(const json_t *value, const char *place, struct lengths *out,
                                    struct moe_error *err)
{
    const char *at = json_string_value(value);
    if (at == NULL || *at != '{') {
        return moe_fail(err, MOE_PARSE, "%s: %s; a text {length: probability, ...} is expected",
                        place, moe_json_kind_text(value));
    }
    const size_t most = json_string_length(value) / 4 + 1; /* "1:1," is the shortest entry */
    out->value = malloc(most * sizeof *out->value);
    out->sum = malloc(most * sizeof *out->sum);
    if (out->value == NULL || out->sum == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory for %zu lengths", place, most);
    }
    double sum = 0.0;
    for (at++; *at != '}'; at += strspn(at, ", ")) {
        char *end = NULL;
        const double length = strtod(at, &end);
        const bool has_length = end != at && *end == ':';
        const char *from = has_length ? end + 1 : at;
        const double share = strtod(from, &end);
        if (!has_length || end == from || (*end != ',' && *end != '}') || !(length >= 1.0) ||
            length > UINT32_MAX || length != floor(length) || !(share >= 0.0) || share > 1.0 ||
            out->count == most) {
            return moe_fail(err, MOE_PARSE,
                            "%s: '%.40s': a length of at least 1 and its probability are expected",
                            place, at);
        }
        sum += share;
        out->value[out->count] = (uint32_t) length;
        out->sum[out->count++] = sum;
        at = end;
    }
    return sum > 0.0 || out->count == 0
               ? MOE_OK
               : moe_fail(err, MOE_PARSE, "%s: probabilities that are all 0", place);
}

static enum moe_status read_profile(struct servegen *import, const char *path, const char *key,
                                    const json_t *value, struct moe_error *err)
{
    char place[4200];
    uint64_t start = 0;
    if (import->profile_count == PROFILE_LIMIT ||
        moe_parse_count(key, path, 0, UINT32_MAX, &start, err) != MOE_OK ||
        (import->profile_count > 0 &&
         start <= import->profiles[import->profile_count - 1].start_s)) {
        return moe_fail(err, MOE_PARSE,
                        "%s: key '%.40s'; at most %d ascending times in seconds are expected", path,
                        key, PROFILE_LIMIT);
    }
    struct profile *profile = &import->profiles[import->profile_count++];
    *profile = (struct profile){ .start_s = start };
    (void) snprintf(place, sizeof place, "%s: %.20s.input_tokens", path, key);
    MOE_TRY(read_lengths(json_object_get(value, "input_tokens"), place, &profile->input, err));
    (void) snprintf(place, sizeof place, "%s: %.20s.output_tokens", path, key);
    return read_lengths(json_object_get(value, "output_tokens"), place, &profile->output, err);
}

static enum moe_status read_profiles(struct servegen *import, const char *path,
                                     struct moe_error *err)
{
    struct moe_json_documents documents;
    const json_t *document = NULL;
    const char *key = NULL;
    json_t *value = NULL;
    free_profiles(import);
    MOE_TRY(moe_json_documents_open(&documents, path, err));
    enum moe_status status = moe_json_documents_next(&documents, &document, err);
    if (status == MOE_OK) {
        json_t *object = documents.current; /* the same, but for const */
        json_object_foreach(object, key, value)
        {
            status = status == MOE_OK ? read_profile(import, path, key, value, err) : status;
        }
    }
    moe_json_documents_close(&documents);
    return status;
}

static bool has_lengths(const struct profile *profile)
{
    return profile->input.count > 0 && profile->output.count > 0;
}

/* The profile for a window: the last one that has begun and has lengths, else the first. */
static const struct profile *find_profile(const struct servegen *import, uint64_t start_s)
{
    const struct profile *found = NULL;
    for (size_t i = 0; i < import->profile_count; i++) {
        const struct profile *profile = &import->profiles[i];
        if (has_lengths(profile) && (profile->start_s <= start_s || found == NULL)) {
            found = profile;
        }
    }
    return found;
}

static enum moe_status reserve(struct servegen *import, size_t more, const char *place,
                               struct moe_error *err)
{
    if (more > REQUEST_LIMIT - import->count) {
        return moe_fail(err, MOE_RANGE, "%s: more than %d requests", place, REQUEST_LIMIT);
    }
    if (import->count + more > import->room) {
        const size_t room = 2 * (import->count + more);
        struct arrival *arrivals = realloc(import->arrivals, room * sizeof *arrivals);
        if (arrivals == NULL) {
            return moe_fail(err, MOE_LIMIT, "%s: no memory for %zu requests", place, room);
        }
        import->arrivals = arrivals;
        import->room = room;
    }
    if (more + 1 > import->gap_room) {
        double *gaps = realloc(import->gaps, 2 * (more + 1) * sizeof *gaps);
        if (gaps == NULL) {
            return moe_fail(err, MOE_LIMIT, "%s: no memory for %zu gaps", place, more);
        }
        import->gaps = gaps;
        import->gap_room = 2 * (more + 1);
    }
    return MOE_OK;
}

/* One row of a client's table. */
struct window {
    uint64_t start_s;
    uint64_t length_s;
    double rate;
    double shape;
    bool is_gamma;
};

static enum moe_status draw_window(struct servegen *import, const struct window *window,
                                   uint32_t client, const char *place, struct moe_error *err)
{
    const double length = (double) window->length_s;
    const double expected = window->rate * length;
    const struct profile *profile = find_profile(import, window->start_s);
    if (!(expected < REQUEST_LIMIT) || profile == NULL) {
        return moe_fail(err, MOE_RANGE, "%s: %g requests, or no lengths for them in the data set",
                        place, expected);
    }
    const size_t count = (size_t) (expected + draw(import));
    double total = 0.0;
    MOE_TRY(reserve(import, count, place, err));
    for (size_t i = 0; i <= count; i++) {
        import->gaps[i] = window->is_gamma ? draw_gamma(import, window->shape)
                                           : pow(-log(draw(import)), 1.0 / window->shape);
        total += import->gaps[i];
    }
    double passed = 0.0;
    for (size_t i = 0; i < count; i++) {
        passed += import->gaps[i];
        const double share = total > 0.0 && passed < total ? passed / total : 0.5;
        struct arrival *arrival = &import->arrivals[import->count++];
        arrival->client = client;
        arrival->number = import->count;
        arrival->request = (struct moe_trace_request){
            .arrival_ns = (int64_t) (((double) window->start_s + share * length) * 1e9),
            .prompt_tokens = draw_length(import, &profile->input),
            .output_tokens = draw_length(import, &profile->output),
        };
    }
    return MOE_OK;
}

static enum moe_status read_window(const struct moe_csv *csv, struct window *out, bool *has_traffic,
                                   struct moe_error *err)
{
    const char *family = csv->field_count == 6 ? csv->fields[3] : "?";
    out->is_gamma = strcmp(family, "Gamma") == 0;
    if (csv->field_count != 6 ||
        (!out->is_gamma && strcmp(family, "Weibull") != 0 && family[0] != '\0')) {
        return moe_fail(err, MOE_PARSE,
                        "%s:%" PRIu64 ": %zu fields, family '%.20s'; 6 and Gamma or Weibull are "
                        "expected",
                        csv->lines.path, csv->lines.number, csv->field_count, family);
    }
    MOE_TRY(moe_csv_whole(csv, 0, UINT32_MAX, &out->start_s, err));
    MOE_TRY(moe_csv_real(csv, 1, 0.0, 1e6, &out->rate, err));
    *has_traffic = family[0] != '\0' && out->rate > 0.0;
    return *has_traffic ? moe_csv_real(csv, 4, 1e-6, 1e6, &out->shape, err) : MOE_OK;
}

/* The length of a window is known when the next one begins; the last one is as long as the one
 * before. */
static enum moe_status read_windows(struct servegen *import, struct moe_csv *csv, uint32_t client,
                                    struct moe_error *err)
{
    struct window held = { .length_s = 0 };
    bool held_traffic = false;
    bool holding = false;
    for (size_t count = 0;; count++) {
        struct window window = { .length_s = 0 };
        bool has_traffic = false;
        bool got = false;
        char place[4200];
        (void) snprintf(place, sizeof place, "%s:%" PRIu64, csv->lines.path, csv->lines.number);
        MOE_TRY(moe_csv_next(csv, &got, err));
        if (got) {
            MOE_TRY(read_window(csv, &window, &has_traffic, err));
            if (count == WINDOW_LIMIT || (holding && window.start_s <= held.start_s)) {
                return moe_fail(err, MOE_PARSE,
                                "%s:%" PRIu64 ": at most %d ascending windows are "
                                "expected",
                                csv->lines.path, csv->lines.number, WINDOW_LIMIT);
            }
        }
        const uint64_t length = got ? window.start_s - held.start_s : held.length_s;
        held.length_s = length;
        if (holding && held_traffic && length > 0) {
            MOE_TRY(draw_window(import, &held, client, place, err));
        }
        if (!got) {
            return MOE_OK;
        }
        window.length_s = holding ? length : 0;
        held = window;
        held_traffic = has_traffic;
        holding = true;
    }
}

static enum moe_status read_client(struct servegen *import, struct moe_import_input *input,
                                   size_t trace, int32_t number, uint32_t client,
                                   struct moe_error *err)
{
    struct moe_import_file *lengths = NULL;
    for (size_t i = 0; i < input->file_count; i++) {
        if (moe_import_file_number(input->files[i].name, "chunk-", "-dataset.json") == number) {
            lengths = &input->files[i];
        }
    }
    if (lengths == NULL) {
        return moe_fail(err, MOE_PARSE, "%s: chunk-%d-dataset.json is missing beside it",
                        input->files[trace].path, number);
    }
    lengths->is_used = true;
    input->files[trace].is_used = true;
    import->key = moe_random_key(moe_random_mix(input->options.seed) ^ (uint64_t) number,
                                 MOE_RANDOM_ARRIVALS);
    import->draws = 0;
    MOE_TRY(read_profiles(import, lengths->path, err));
    struct moe_csv *csv = calloc(1, sizeof *csv);
    if (csv == NULL) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", input->files[trace].path);
    }
    enum moe_status status = moe_csv_open(csv, input->files[trace].path, err);
    if (status == MOE_OK) {
        status = read_windows(import, csv, client, err);
    }
    moe_csv_close(csv);
    free(csv);
    return status;
}

static int by_time(const void *a, const void *b)
{
    const struct arrival *x = a;
    const struct arrival *y = b;
    if (x->request.arrival_ns != y->request.arrival_ns) {
        return x->request.arrival_ns < y->request.arrival_ns ? -1 : 1;
    }
    return x->number < y->number ? -1 : x->number > y->number;
}

static void close_import(void *state)
{
    struct servegen *import = state;
    if (import != NULL) {
        free_profiles(import);
        free(import->arrivals);
        free(import->gaps);
        free(import);
    }
}

static enum moe_status open_import(void **state, struct moe_import_input *input,
                                   struct moe_import_description *out, struct moe_error *err)
{
    uint32_t clients = 0;
    struct servegen *import = calloc(1, sizeof *import);
    if (import == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory to import");
    }
    *state = import;
    for (size_t i = 0; i < input->file_count; i++) {
        const int32_t number = moe_import_file_number(input->files[i].name, "chunk-", "-trace.csv");
        if (number >= 0) {
            if (clients < MOE_TRACE_DOMAIN_LIMIT) {
                (void) snprintf(out->model.domains[clients], sizeof out->model.domains[0],
                                "client %d", number);
            }
            MOE_TRY(read_client(import, input, i, number, clients++, err));
        }
    }
    out->model.domain_count = clients <= MOE_TRACE_DOMAIN_LIMIT ? clients : 0;
    for (size_t i = 0; i < import->count && out->model.domain_count > 0; i++) {
        import->arrivals[i].request.domain = import->arrivals[i].client;
    }
    if (import->count > 0) {
        qsort(import->arrivals, import->count, sizeof *import->arrivals, by_time);
    }
    out->model.content = MOE_TRACE_ARRIVALS;
    (void) snprintf(out->record->engine, sizeof out->record->engine, "ServeGen");
    (void) snprintf(out->record->note, sizeof out->record->note,
                    "drawn from the profiles of %u clients, seed %" PRIu64, clients,
                    input->options.seed);
    return MOE_OK;
}

static enum moe_status feed(void *state, struct moe_import_sink *sink, struct moe_error *err)
{
    const struct servegen *import = state;
    for (size_t i = 0; i < import->count; i++) {
        MOE_TRY(sink->request(sink, &import->arrivals[i].request, NULL, 0, err));
    }
    return MOE_OK;
}

const struct moe_import_format moe_import_servegen = {
    .name = "servegen",
    .summary = "arrivals: drawn from ServeGen's client profiles, chunk-N-*",
    .recognise = recognise,
    .open = open_import,
    .feed = feed,
    .close = close_import,
};
