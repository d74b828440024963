/* How like its original a fitted trace is: study_generator RECORDED.db GENERATED.db prints a
 * Markdown table. Everything is counted here, with nothing of the generator; exit 1 when a
 * tolerance is missed. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/trace_store.h"

enum { PARTS = 8, STEP_ROWS = 1024, GPUS = 32, REQUEST_ROWS = 64 };

enum { PREFILL, DECODE, PHASES };

struct counts {
    struct moe_trace_model model;
    uint16_t *rows;
    const struct moe_trace_request *requests;
    uint64_t request_count;
    uint64_t row_count;
    double *loads;  /* [domain][phase][layer][expert] */
    double *parts;  /* [PARTS][layer][expert] */
    double *next;   /* [layer - 1][expert][expert] choices here and in the next layer */
    double *beside; /* [layer][expert][expert] choices in one layer */
};

struct figures {
    double max_over_mean;
    double variation;
    double phase_correlation;
    double domain_max[MOE_TRACE_DOMAIN_LIMIT];
    double affinity;
    double beside;
    double drift;
    double request_spread;
    double step_balance;
    double prompt_tokens;
    double output_tokens;
};

static void *room(size_t count, size_t size)
{
    void *memory = calloc(count, size);
    if (memory == NULL) {
        (void) fputs("no memory\n", stderr);
        exit(1);
    }
    return memory;
}

static void fail(const struct moe_error *err)
{
    (void) fprintf(stderr, "%s\n", err->text);
    exit(1);
}

static size_t cells_of(const struct counts *c)
{
    return (size_t) c->model.layer_count * c->model.expert_count;
}

static void count_row(struct counts *c, uint64_t row, double *load, double *part)
{
    const uint32_t k = c->model.top_k;
    const size_t e = c->model.expert_count;
    const uint16_t *experts = c->rows + row * c->model.layer_count * k;
    for (uint32_t layer = 0; layer < c->model.layer_count; layer++) {
        const uint16_t *here = experts + (size_t) layer * k;
        for (uint32_t i = 0; i < k; i++) {
            load[layer * e + here[i]] += 1.0;
            part[layer * e + here[i]] += 1.0;
            for (uint32_t j = 0; j < k; j++) {
                if (i != j) {
                    c->beside[(layer * e + here[i]) * e + here[j]] += 1.0;
                }
                if (layer + 1 < c->model.layer_count) {
                    c->next[(layer * e + here[i]) * e + here[k + j]] += 1.0;
                }
            }
        }
    }
}

static void count_all(struct counts *c, struct moe_trace *trace)
{
    struct moe_error err = { 0 };
    c->model = *moe_trace_model(trace);
    c->requests = moe_trace_requests(trace);
    c->request_count = moe_trace_request_count(trace);
    c->row_count = moe_trace_row_count(trace);
    const size_t cells = cells_of(c);
    c->rows = room((size_t) c->row_count * c->model.layer_count * c->model.top_k, sizeof *c->rows);
    c->loads = room((size_t) c->model.domain_count * PHASES * cells, sizeof *c->loads);
    c->parts = room(PARTS * cells, sizeof *c->parts);
    c->next = room(cells * c->model.expert_count, sizeof *c->next);
    c->beside = room(cells * c->model.expert_count, sizeof *c->beside);
    if (moe_trace_read(trace, 0, c->row_count, c->rows, &err) != MOE_OK) {
        fail(&err);
    }
    for (uint64_t r = 0; r < c->request_count; r++) {
        const struct moe_trace_request *request = &c->requests[r];
        double *part = c->parts + r * PARTS / c->request_count * cells;
        for (uint64_t i = 0; i < moe_trace_request_rows(request); i++) {
            const int phase = i < request->prompt_tokens ? PREFILL : DECODE;
            count_row(c, request->first_row + i,
                      c->loads + ((size_t) request->domain * PHASES + (size_t) phase) * cells,
                      part);
        }
    }
}

/* Half the sum of differences of two loads[count], each divided by its own sum. */
static double apart(const double *a, const double *b, size_t count)
{
    double sa = 0.0;
    double sb = 0.0;
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) {
        sa += a[i];
        sb += b[i];
    }
    for (size_t i = 0; i < count && sa > 0.0 && sb > 0.0; i++) {
        sum += fabs(a[i] / sa - b[i] / sb) / 2.0;
    }
    return sum;
}

static double correlation(const double *a, const double *b, size_t count)
{
    double ma = 0.0;
    double mb = 0.0;
    double aa = 0.0;
    double bb = 0.0;
    double ab = 0.0;
    for (size_t i = 0; i < count; i++) {
        ma += a[i] / (double) count;
        mb += b[i] / (double) count;
    }
    for (size_t i = 0; i < count; i++) {
        aa += (a[i] - ma) * (a[i] - ma);
        bb += (b[i] - mb) * (b[i] - mb);
        ab += (a[i] - ma) * (b[i] - mb);
    }
    return aa > 0.0 && bb > 0.0 ? ab / sqrt(aa * bb) : 1.0;
}

static double max_over_mean(const double *load, size_t count)
{
    double max = 0.0;
    double sum = 0.0;
    for (size_t i = 0; i < count; i++) {
        max = load[i] > max ? load[i] : max;
        sum += load[i];
    }
    return sum > 0.0 ? max * (double) count / sum : 1.0;
}

/* Sum of phases first .. last of domains from .. to - 1, one layer, into out[expert]. */
static void add_up(const struct counts *c, uint32_t from, uint32_t to, uint32_t first,
                   uint32_t last, uint32_t layer, double *out)
{
    const size_t e = c->model.expert_count;
    memset(out, 0, e * sizeof *out);
    for (uint32_t domain = from; domain < to; domain++) {
        for (uint32_t phase = first; phase <= last; phase++) {
            const double *load =
                c->loads + (((size_t) domain * PHASES + phase) * c->model.layer_count + layer) * e;
            for (size_t i = 0; i < e; i++) {
                out[i] += load[i];
            }
        }
    }
}

static void measure_loads(const struct counts *c, struct figures *out)
{
    const size_t e = c->model.expert_count;
    const double layers = c->model.layer_count;
    double *all = room(3 * e, sizeof *all);
    double *decode = all + e;
    double *domain_load = all + 2 * e;
    for (uint32_t layer = 0; layer < c->model.layer_count; layer++) {
        double sum = 0.0;
        double squares = 0.0;
        add_up(c, 0, c->model.domain_count, PREFILL, DECODE, layer, all);
        for (size_t i = 0; i < e; i++) {
            sum += all[i];
            squares += all[i] * all[i];
        }
        const double mean = sum / (double) e;
        out->max_over_mean += max_over_mean(all, e) / layers;
        out->variation += sqrt(squares / (double) e - mean * mean) / mean / layers;
        for (uint32_t d = 0; d < c->model.domain_count; d++) {
            add_up(c, d, d + 1, PREFILL, DECODE, layer, domain_load);
            out->domain_max[d] += max_over_mean(domain_load, e) / layers;
        }
        for (size_t i = 0; i < e && layer + 1 < c->model.layer_count; i++) {
            double *after = domain_load;
            add_up(c, 0, c->model.domain_count, PREFILL, DECODE, layer + 1, after);
            out->affinity +=
                apart(c->next + (layer * e + i) * e, after, e) / (double) e / (layers - 1.0);
        }
        for (size_t i = 0; i < e; i++) {
            out->beside += apart(c->beside + (layer * e + i) * e, all, e) / (double) e / layers;
        }
        out->drift +=
            apart(c->parts + layer * e, c->parts + (PARTS - 1) * cells_of(c) + layer * e, e) /
            layers;
        add_up(c, 0, c->model.domain_count, PREFILL, PREFILL, layer, all);
        add_up(c, 0, c->model.domain_count, DECODE, DECODE, layer, decode);
        out->phase_correlation += correlation(all, decode, e) / layers;
    }
    free(all);
}

/* Mean distance of a request's first 64 prompt rows from its domain's prefill load. */
static void measure_requests(const struct counts *c, struct figures *out)
{
    const size_t e = c->model.expert_count;
    const uint32_t k = c->model.top_k;
    double *own = room(e, sizeof *own);
    double seen = 0.0;
    for (uint64_t r = 0; r < c->request_count; r++) {
        const struct moe_trace_request *request = &c->requests[r];
        out->prompt_tokens += request->prompt_tokens / (double) c->request_count;
        out->output_tokens += request->output_tokens / (double) c->request_count;
        if (request->prompt_tokens < REQUEST_ROWS) {
            continue;
        }
        for (uint32_t layer = 0; layer < c->model.layer_count; layer++) {
            const double *domain =
                c->loads + ((size_t) request->domain * PHASES * c->model.layer_count + layer) * e;
            memset(own, 0, e * sizeof *own);
            for (uint64_t i = 0; i < REQUEST_ROWS; i++) {
                const uint16_t *row =
                    c->rows + ((request->first_row + i) * c->model.layer_count + layer) * k;
                for (uint32_t j = 0; j < k; j++) {
                    own[row[j]] += 1.0;
                }
            }
            out->request_spread += apart(own, domain, e);
            seen += 1.0;
        }
    }
    out->request_spread /= seen > 0.0 ? seen : 1.0;
    free(own);
}

/* mean/max load of 32 GPUs with consecutive experts, over pieces of 1,024 rows. */
static void measure_steps(const struct counts *c, struct figures *out)
{
    const uint32_t k = c->model.top_k;
    double steps = 0.0;
    for (uint64_t first = 0; first + STEP_ROWS <= c->row_count; first += STEP_ROWS) {
        for (uint32_t layer = 0; layer < c->model.layer_count; layer++) {
            double gpu[GPUS] = { 0.0 };
            for (uint64_t i = first; i < first + STEP_ROWS; i++) {
                const uint16_t *row = c->rows + (i * c->model.layer_count + layer) * k;
                for (uint32_t j = 0; j < k; j++) {
                    gpu[(size_t) row[j] * GPUS / c->model.expert_count] += 1.0;
                }
            }
            out->step_balance += 1.0 / max_over_mean(gpu, GPUS);
            steps += 1.0;
        }
    }
    out->step_balance /= steps;
}

/* The smallest correlation of popularity over domains and phases, mean over layers. */
static double popularity_likeness(const struct counts *a, const struct counts *b)
{
    const size_t e = a->model.expert_count;
    double least = 1.0;
    for (size_t mix = 0; mix < (size_t) a->model.domain_count * PHASES; mix++) {
        double mean = 0.0;
        for (uint32_t layer = 0; layer < a->model.layer_count; layer++) {
            const size_t at = (mix * a->model.layer_count + layer) * e;
            mean += correlation(a->loads + at, b->loads + at, e) / a->model.layer_count;
        }
        least = mean < least ? mean : least;
    }
    return least;
}

/* Correlation of how much likelier than on the whole an expert follows one of the layer before. */
static double affinity_likeness(const struct counts *a, const struct counts *b)
{
    const size_t e = a->model.expert_count;
    const struct counts *both[2] = { a, b };
    double *lift[2] = { room(e * e, sizeof(double)), room(e * e, sizeof(double)) };
    double *after = room(e, sizeof *after);
    double mean = 0.0;
    for (uint32_t layer = 0; layer + 1 < a->model.layer_count; layer++) {
        for (int t = 0; t < 2; t++) {
            double total = 0.0;
            add_up(both[t], 0, both[t]->model.domain_count, PREFILL, DECODE, layer + 1, after);
            for (size_t i = 0; i < e; i++) {
                total += after[i];
            }
            for (size_t i = 0; i < e; i++) {
                const double *row = both[t]->next + (layer * e + i) * e;
                double sum = 0.0;
                for (size_t j = 0; j < e; j++) {
                    sum += row[j];
                }
                for (size_t j = 0; j < e; j++) {
                    lift[t][i * e + j] = row[j] / sum / (after[j] / total);
                }
            }
        }
        mean += correlation(lift[0], lift[1], e * e) / (a->model.layer_count - 1);
    }
    free(after);
    free(lift[0]);
    free(lift[1]);
    return mean;
}

static int missed;

/* One line; tolerance 0: shown only. */
static void line(const char *what, double recorded, double generated, double tolerance)
{
    const double off = fabs(generated - recorded);
    const int bad = tolerance > 0.0 && !(off <= tolerance);
    missed += bad;
    (void) printf("| %s | %.4f | %.4f | %.4f | ", what, recorded, generated, off);
    if (tolerance > 0.0) {
        (void) printf("%.3f | %s |\n", tolerance, bad ? "**no**" : "yes");
    } else {
        (void) printf("synthetic | |\n");
    }
}

static void print(const struct counts *c, const struct figures *f)
{
    (void) printf("| of %s, %u x %u top-%u | recorded | generated | apart | tolerance | met |\n"
                  "|---|---|---|---|---|---|\n",
                  c[0].model.name, c[0].model.layer_count, c[0].model.expert_count,
                  c[0].model.top_k);
    line("max/mean load, mean over layers", f[0].max_over_mean, f[1].max_over_mean, 0.05);
    line("variation of load", f[0].variation, f[1].variation, 0.02);
    line("prefill/decode correlation", f[0].phase_correlation, f[1].phase_correlation, 0.03);
    for (uint32_t d = 0; d < c[0].model.domain_count; d++) {
        char what[96];
        (void) snprintf(what, sizeof what, "max/mean load within %s", c[0].model.domains[d]);
        line(what, f[0].domain_max[d], f[1].domain_max[d], 0.25);
    }
    line("popularity by domain and phase: least correlation", 1.0,
         popularity_likeness(&c[0], &c[1]), 0.02);
    line("affinity to the next layer (mean distance from independence)", f[0].affinity,
         f[1].affinity, 0.1);
    line("the same, expert pair by expert pair: correlation", 1.0, affinity_likeness(&c[0], &c[1]),
         0.2);
    line("drift: first eighth to last (distance)", f[0].drift, f[1].drift, 0.02);
    line("a request's 64 prompt rows from its domain (distance)", f[0].request_spread,
         f[1].request_spread, 0.05);
    line("balance of 1,024 rows on 32 GPUs", f[0].step_balance, f[1].step_balance, 0.05);
    line("prompt tokens, mean", f[0].prompt_tokens, f[1].prompt_tokens, 0.03 * f[0].prompt_tokens);
    line("output tokens, mean", f[0].output_tokens, f[1].output_tokens, 0.03 * f[0].output_tokens);
    line("co-activation within a layer (distance)", f[0].beside, f[1].beside, 0.0);
}

int main(int argc, char **argv)
{
    struct counts c[2] = { 0 };
    struct figures f[2] = { 0 };
    struct moe_trace *traces[2] = { NULL };
    struct moe_error err = { 0 };
    if (argc != 3) {
        (void) fputs("usage: study_generator RECORDED.db GENERATED.db\n", stderr);
        return 2;
    }
    for (int i = 0; i < 2; i++) {
        if (moe_trace_open(&traces[i], argv[i + 1], &err) != MOE_OK) {
            fail(&err);
        }
        count_all(&c[i], traces[i]);
        measure_loads(&c[i], &f[i]);
        measure_requests(&c[i], &f[i]);
        measure_steps(&c[i], &f[i]);
    }
    print(c, f);
    for (int i = 0; i < 2; i++) {
        free(c[i].rows);
        free(c[i].loads);
        free(c[i].parts);
        free(c[i].next);
        free(c[i].beside);
        moe_trace_close(traces[i]);
    }
    return missed == 0 ? 0 : 1;
}
