#include "tests/queue_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/cost/calibration.h"
#include "sim/engine/goodput.h"
#include "traces/trace_writer.h"

enum { REQUESTS = 2000, PLANNED = REQUESTS / 100, STEP_NS = 1000000 };

/* Everything free but dense matrices (one server) or the host (several). */
static const char calibration_form[] =
    "table,gpu_kind,name,memory_bytes,sm_count,boost_hz,read_bytes_s,bf16_flop_s,fp8_flop_s,"
    "provenance,source\n"
    "gpu_kind,toy,1e12,10,1e9,1e15,1e18,1e18,assumed,made up\n"
    "table,series,name,gpu_kind,op,hidden,expert_size,gated,dtype,backend,tile_tokens,permutation,"
    "provenance,source\n"
    "series,expert,toy,expert,0,0,yes,bf16,toy,1,inside,assumed,made up\n"
    "series,gemm,toy,gemm,0,0,no,bf16,toy,1,inside,assumed,made up\n"
    "table,fit,series,t0_ns,bandwidth_bytes_s,peak_flop_s,p,provenance,source\n"
    "fit,expert,0,1e15,1e18,1,assumed,made up\n"
    "fit,gemm,0,1e15,%g,1,assumed,made up\n"
    "table,segment,gpu_kind,op,link,ranks,from_bytes,to_bytes,alpha_ns,bandwidth_bytes_s,"
    "provenance,source\n"
    "segment,toy,all_to_all,near,2,0,1000000,0,1e15,assumed,made up\n"
    "table,parameter,gpu_kind,name,value,provenance,source\n"
    "parameter,toy,launch.graph_ns,0,assumed,made up\n"
    "parameter,toy,host.step_ns,%g,assumed,made up\n"
    "parameter,toy,copy.bytes_s,1e15,assumed,made up\n"
    "parameter,toy,attention.bytes_s,1e15,assumed,made up\n"
    "parameter,toy,attention.flop_s,1e18,assumed,made up\n"
    "parameter,toy,attention.p,1,assumed,made up\n"
    "parameter,toy,attention.launches,0,assumed,made up\n"
    "parameter,toy,gate.launches,0,assumed,made up\n"
    "parameter,toy,head.launches,0,assumed,made up\n"
    "parameter,toy,norm.bytes_per_value,16,assumed,made up\n"
    "parameter,toy,dispatch.bf16_bytes_per_value,2,assumed,made up\n"
    "parameter,toy,dispatch.fp8_bytes_per_value,1,assumed,made up\n"
    "parameter,toy,dispatch.fp4_bytes_per_value,2,assumed,made up\n"
    "parameter,toy,combine.bytes_per_value,2,assumed,made up\n"
    "parameter,toy,exchange.header_bytes,4,assumed,made up\n"
    "table,factor,gpu_kind,class,sd,tail_share,tail_min,tail_max,provenance,source\n"
    "factor,toy,compute,0,0,1,1,assumed,made up\n"
    "factor,toy,memory,0,0,1,1,assumed,made up\n"
    "factor,toy,comm,0,0,1,1,assumed,made up\n"
    "table,jitter,gpu_kind,class,min,p5,p25,p50,p75,p95,p99,provenance,source\n"
    "jitter,toy,compute,1,1,1,1,1,1,1,assumed,made up\n"
    "jitter,toy,expert,1,1,1,1,1,1,1,assumed,made up\n"
    "jitter,toy,comm,1,1,1,1,1,1,1,assumed,made up\n"
    "table,drift,gpu_kind,phi,sigma,provenance,source\n"
    "drift,toy,0.9,0,assumed,made up\n";

static void stop_unless(enum moe_status status, const struct moe_error *err)
{
    if (status != MOE_OK) {
        (void) fprintf(stderr, "queue case: %s\n", err->text);
        exit(1);
    }
}

/* Request i of REQUESTS has the law's quantile at (i + 1/2) / REQUESTS, a whole number. */
static uint32_t tokens_of(const struct queue_case *c, uint32_t i)
{
    const double u = (i + 0.5) / REQUESTS;
    double tokens = c->tokens;
    if (c->law == QUEUE_EXPONENTIAL) {
        tokens *= -log(1.0 - u);
    } else if (c->law == QUEUE_LOGNORMAL) {
        /* The normal quantile by bisection of its distribution. */
        double low = -9.0;
        double high = 9.0;
        for (int k = 0; k < 60; k++) {
            const double z = 0.5 * (low + high);
            if (0.5 * erfc(-z / sqrt(2.0)) < u) {
                low = z;
            } else {
                high = z;
            }
        }
        const double variance = log(1.0 + 4.0);
        tokens *= exp(low * sqrt(variance) - 0.5 * variance);
    }
    return tokens < 0.5 ? 1 : (uint32_t) (tokens + 0.5);
}

static void write_trace(const char *path, const struct queue_case *c)
{
    const struct moe_trace_model model = {
        .name = "queue",
        .layer_count = 1,
        .expert_count = 2,
        .top_k = 1,
        .group_count = 1,
        .group_limit = 1,
        .domain_count = 1,
        .domains = { "all" },
    };
    const struct moe_trace_history history = { 0 };
    static const uint16_t rows[1 << 14];
    struct moe_trace_writer *writer = NULL;
    struct moe_error err = { 0 };
    uint64_t hash = 0;
    stop_unless(moe_trace_writer_open(&writer, path, false, &model, &history, &err), &err);
    for (uint32_t i = 0; i < REQUESTS; i++) {
        const uint32_t tokens = tokens_of(c, i);
        const struct moe_trace_request request = {
            .arrival_ns = -1,
            .prompt_tokens = c->servers == 1 ? tokens : 1,
            .output_tokens = c->servers == 1 ? 1 : tokens,
        };
        stop_unless(moe_trace_writer_requests(writer, &request, 1, &err), &err);
        stop_unless(moe_trace_writer_rows(writer, rows, tokens, &err), &err);
    }
    stop_unless(moe_trace_writer_finish(writer, &hash, &err), &err);
    (void) moe_trace_writer_close(writer, MOE_OK);
}

static void write_calibration(const char *csv, const char *db, const struct queue_case *c)
{
    struct moe_error err = { 0 };
    FILE *file = fopen(csv, "w");
    if (file == NULL) {
        exit(1);
    }
    (void) fprintf(file, calibration_form, c->servers == 1 ? 1e9 : 1e18,
                   c->servers == 1 ? 0.0 : (double) STEP_NS);
    (void) fclose(file);
    stop_unless(moe_calibration_import(csv, db, false, &err), &err);
    (void) unlink(csv);
}

static void make_scenario(const struct queue_case *c, const char *trace, const char *calibration,
                          struct moe_scenario *s)
{
    moe_scenario_defaults(s);
    (void) snprintf(s->trace_path, sizeof s->trace_path, "%s", trace);
    (void) snprintf(s->calibration_path, sizeof s->calibration_path, "%s", calibration);
    s->model = (struct moe_model){
        .name = "queue",
        .layer_count = 1,
        .moe_layer_count = 1,
        .hidden_size = 64,
        .vocabulary_size = 2,
        .expert_count = 2,
        .top_k = 1,
        .group_count = 1,
        .group_limit = 1,
        .expert_size = 2,
        .gated = true,
        .attention = MOE_ATTENTION_MHA,
        .head_count = 4,
        .kv_head_count = 4,
        .head_size = 16,
        .kv_layer_count = 1,
        .expert_bytes_per_weight = 2,
        .dense_bytes_per_weight = 2,
        .kv_bytes_per_value = 2,
    };
    s->cluster = (struct moe_cluster){ .node_count = 1, .gpus_per_node = 1, .gpu = "toy" };
    s->slot_count = 2;
    s->serving.running_per_gpu = c->servers;
    s->serving.step_tokens = 1 << 14;
    s->serving.plan_share = 0.01;
    s->policy_count = 1;
    s->attribution = false;
    s->noise = false;
    s->arrivals.kind = MOE_ARRIVAL_POISSON;
    s->arrivals.requests = c->arrivals;
    (void) snprintf(s->arrivals.drift[0], sizeof s->arrivals.drift[0], "0 all=1");
    s->arrivals.drift_count = 1;
}

static struct moe_study *run_study(struct moe_scenario *s, double rate, uint32_t seeds)
{
    const struct moe_study_options options = { 0 };
    struct moe_study *study = NULL;
    struct moe_error err = { 0 };
    s->arrivals.rate = rate;
    s->seed_count = seeds;
    stop_unless(moe_study_create(&study, s, &options, &err), &err);
    return study;
}

double queue_theory_single(double rate, double service_s, double service_cv)
{
    const double rho = rate * service_s;
    return rho * service_s * (1.0 + service_cv * service_cv) / (2.0 * (1.0 - rho));
}

double queue_theory_several(double rate, double service_s, uint32_t servers)
{
    const double load = rate * service_s;
    double blocked = 1.0; /* Erlang's B by its recursion */
    for (uint32_t i = 1; i <= servers; i++) {
        blocked = load * blocked / (i + load * blocked);
    }
    const double waits = blocked / (1.0 - load / servers * (1.0 - blocked));
    return waits * service_s / (servers - load);
}

/* Who finds a free server while others are busy begins when the step in progress ends, half a
 * step later on average: Erlang's probabilities of 1 .. servers-1. */
static double start_delay(double load, uint32_t servers)
{
    double term = 1.0;
    double sum = 1.0;
    double some = 0.0;
    for (uint32_t i = 1; i < servers; i++) {
        term *= load / i;
        sum += term;
        some += term;
    }
    term *= load / servers;
    sum += term / (1.0 - load / servers);
    return some / sum * 0.5 * STEP_NS * 1e-9;
}

/* A service is in proportion to its request's tokens; the longest one says how much. The first
 * hundredth of the requests is planned on and never comes. */
static void measure_service(const struct queue_case *c, double longest_s,
                            struct queue_answer *answer)
{
    const double second_s = longest_s / tokens_of(c, REQUESTS - 1);
    double sum = 0.0;
    double squares = 0.0;
    for (uint32_t i = PLANNED; i < REQUESTS; i++) {
        const double s = second_s * tokens_of(c, i);
        sum += s / (REQUESTS - PLANNED);
        squares += s * s / (REQUESTS - PLANNED);
    }
    answer->service_s = sum;
    answer->service_cv = sqrt(fmax(squares / (sum * sum) - 1.0, 0.0));
}

/* The stores of one case. */
struct stores {
    char folder[32];
    char trace[64];
    char calibration[64];
};

static void make_stores(const struct queue_case *c, struct stores *s)
{
    char csv[64];
    (void) snprintf(s->folder, sizeof s->folder, "/tmp/queue_case_XXXXXX");
    if (mkdtemp(s->folder) == NULL) {
        exit(1);
    }
    (void) snprintf(s->trace, sizeof s->trace, "%s/trace.db", s->folder);
    (void) snprintf(csv, sizeof csv, "%s/cal.csv", s->folder);
    (void) snprintf(s->calibration, sizeof s->calibration, "%s/cal.db", s->folder);
    write_trace(s->trace, c);
    write_calibration(csv, s->calibration, c);
}

static void remove_stores(const struct stores *s)
{
    (void) unlink(s->trace);
    (void) unlink(s->calibration);
    (void) rmdir(s->folder);
}

/* The service alone: every request once, far apart. */
static void probe_service(const struct queue_case *c, struct moe_scenario *s,
                          struct queue_answer *answer)
{
    s->arrivals.drift_count = 0;
    s->arrivals.requests = 4 * REQUESTS;
    struct moe_study *study = run_study(s, 1e-2, 1);
    measure_service(c, study->policies[0].runs[0].service.inside_max * 1e-9, answer);
    moe_study_destroy(study);
    s->arrivals.drift_count = 1;
    s->arrivals.requests = c->arrivals;
}

struct queue_answer queue_case_run(const struct queue_case *c)
{
    static struct moe_scenario scenario;
    struct stores stores;
    double waits[QUEUE_SEED_LIMIT];
    double ratios[QUEUE_SEED_LIMIT];
    struct queue_answer answer = { 0 };
    make_stores(c, &stores);
    make_scenario(c, stores.trace, stores.calibration, &scenario);
    probe_service(c, &scenario, &answer);
    const double rate = c->rho * c->servers / answer.service_s;
    struct moe_study *study = run_study(&scenario, rate, c->seeds);
    for (uint32_t i = 0; i < c->seeds; i++) {
        const struct moe_service *s = &study->policies[0].runs[i].service;
        waits[i] = s->queue.mean * 1e-9;
        ratios[i] = (s->waiting_mean + s->running_mean) / (s->offered_rate * s->e2e.mean * 1e-9);
        answer.saturated += s->is_saturated;
    }
    answer.wait_s = moe_estimate_of(waits, c->seeds);
    answer.little = moe_estimate_of(ratios, c->seeds);
    answer.theory_s = c->servers == 1
                          ? queue_theory_single(rate, answer.service_s, answer.service_cv)
                          : queue_theory_several(rate, answer.service_s, c->servers) +
                                start_delay(rate * answer.service_s, c->servers);
    moe_study_destroy(study);
    remove_stores(&stores);
    return answer;
}

struct moe_estimate queue_case_goodput(const struct queue_case *c, double limit_services,
                                       double *theory_rate)
{
    static struct moe_scenario scenario;
    struct stores stores;
    struct moe_goodput_study *goodput = NULL;
    struct queue_answer answer = { 0 };
    struct moe_error err = { 0 };
    make_stores(c, &stores);
    make_scenario(c, stores.trace, stores.calibration, &scenario);
    probe_service(c, &scenario, &answer);
    const double limit_s = limit_services * answer.service_s;
    *theory_rate = 1.0 / answer.service_s - log(100.0) / limit_s;
    scenario.slo = (struct moe_slo){ .ttft_ms = limit_s * 1e3, .share = 0.99 };
    scenario.arrivals.rate = 0.2 / answer.service_s;
    scenario.seed_count = c->seeds;
    stop_unless(moe_goodput_create(&goodput, &scenario, 0.002, 0, false, &err), &err);
    const struct moe_estimate rate = goodput->summaries[0].rate;
    if (goodput->summaries[0].end != MOE_GOODPUT_FOUND) {
        (void) fprintf(stderr, "queue case: no goodput was found\n");
        exit(1);
    }
    moe_goodput_destroy(goodput);
    remove_stores(&stores);
    return rate;
}
