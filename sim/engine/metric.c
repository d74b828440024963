#include <assert.h>

#include "sim/engine/study.h"

static const struct {
    const char *name;
    const char *unit;
    bool higher_is_better;
    const char *title;
} metrics[MOE_METRIC_COUNT] = {
#define MOE_METRIC(id, name, unit, higher_is_better, title) { name, unit, higher_is_better, title },
#include "sim/engine/metric.def"
#undef MOE_METRIC
#define MOE_SERVICE_METRIC(id, name, unit, higher_is_better, title, value) \
    { name, unit, higher_is_better, title },
#include "sim/engine/service_metric.def"
#undef MOE_SERVICE_METRIC
};

const char *moe_metric_name(enum moe_metric metric)
{
    return metrics[metric].name;
}

const char *moe_metric_unit(enum moe_metric metric)
{
    return metrics[metric].unit;
}

const char *moe_metric_title(enum moe_metric metric)
{
    return metrics[metric].title;
}

bool moe_metric_higher_is_better(enum moe_metric metric)
{
    return metrics[metric].higher_is_better;
}

static double ms(double ns)
{
    return ns * 1e-6;
}

static double per(double amount, double whole)
{
    return whole > 0.0 ? amount / whole : 0.0;
}

static double regret(const struct moe_run_result *r, double bound)
{
    return bound > 0.0 ? r->bound.own / bound - 1.0 : 0.0;
}

/* Figures of requests that arrive over time, and what they say better than steps do: exact
 * quantiles after a cut of their own, and rates that count the time between steps. */
static bool service_value(enum moe_metric metric, const struct moe_run_result *r, double *value)
{
    const struct moe_service *s = &r->service;
    switch ((int) metric) { /* int: not all of them */
    case MOE_METRIC_OUTPUT_RATE:
        *value = s->output_rate;
        return true;
    case MOE_METRIC_REQUEST_RATE:
        *value = s->served_rate;
        return true;
    case MOE_METRIC_TTFT_P50:
        *value = ms(s->ttft.p50);
        return true;
    case MOE_METRIC_TTFT_P99:
        *value = ms(s->ttft.p99);
        return true;
    case MOE_METRIC_TPOT_P50:
        *value = ms(s->tpot.p50);
        return true;
    case MOE_METRIC_TPOT_P99:
        *value = ms(s->tpot.p99);
        return true;
    case MOE_METRIC_E2E_P99:
        *value = ms(s->e2e.p99);
        return true;
#define MOE_SERVICE_METRIC(id, name, unit, higher_is_better, title, formula) \
    case MOE_METRIC_##id:                                                    \
        *value = (formula);                                                  \
        return true;
#include "sim/engine/service_metric.def"
#undef MOE_SERVICE_METRIC
    default:
        return false;
    }
}

double moe_score_value(enum moe_score score, const struct moe_run_result *r)
{
    const struct moe_token_account *a = &r->account[MOE_PHASE_SCORED];
    switch (score) {
    case MOE_SCORE_OUTPUT_RATE:
        return r->service.known
                   ? r->service.output_rate
                   : (double) a->output_tokens / (double) (a->time_ns + r->online.scored_stall_ns);
    case MOE_SCORE_GOODPUT:
        return r->service.goodput;
    case MOE_SCORE_SPEED:
        return 1.0 / r->service.e2e.mean;
    }
    assert(0);
    return 0.0;
}

double moe_metric_value(enum moe_metric metric, const struct moe_run_result *r)
{
    double value = 0.0;
    if ((r->service.known || metric >= MOE_METRIC_EVERY_COUNT) &&
        service_value(metric, r, &value)) {
        return value;
    }
    const struct moe_token_account *a = &r->account[MOE_PHASE_SCORED];
    const double seconds = (double) (a->time_ns + a->quiet_ns + r->online.scored_stall_ns) * 1e-9;
    const double layer_steps = (double) r->layer_steps;
    const double copy_bytes = r->dispatch_bytes + r->combine_bytes;
    switch ((int) metric) { /* int: those of the service are known */
    case MOE_METRIC_OUTPUT_RATE:
        return per((double) a->output_tokens, seconds);
    case MOE_METRIC_TOKEN_RATE:
        return per((double) a->tokens, seconds);
    case MOE_METRIC_REQUEST_RATE:
        return per((double) a->requests, seconds);
    case MOE_METRIC_STEP_MEAN:
        return ms(moe_latency_mean(&r->step));
    case MOE_METRIC_STEP_P99:
        return ms(moe_latency_quantile(&r->step, 0.99));
    case MOE_METRIC_ITL_P50:
        return ms(moe_latency_quantile(&r->itl, 0.5));
    case MOE_METRIC_ITL_P99:
        return ms(moe_latency_quantile(&r->itl, 0.99));
    case MOE_METRIC_TTFT_P50:
        return ms(moe_latency_quantile(&r->ttft, 0.5));
    case MOE_METRIC_TTFT_P99:
        return ms(moe_latency_quantile(&r->ttft, 0.99));
    case MOE_METRIC_TPOT_P50:
        return ms(moe_latency_quantile(&r->tpot, 0.5));
    case MOE_METRIC_TPOT_P99:
        return ms(moe_latency_quantile(&r->tpot, 0.99));
    case MOE_METRIC_E2E_P99:
        return ms(moe_latency_quantile(&r->e2e, 0.99));
    case MOE_METRIC_BALANCEDNESS:
        return per(r->balancedness_sum, layer_steps);
    case MOE_METRIC_BALANCEDNESS_VLLM:
        return per(r->mean_load_sum, r->max_load_sum);
    case MOE_METRIC_IMBALANCE_TRTLLM:
        return per(r->imbalance_sum, layer_steps);
    case MOE_METRIC_IDLE_SHARE:
        return per((double) r->idle_ns, (double) a->time_ns * r->gpu_count);
    case MOE_METRIC_EXCESS:
        return ms(per((double) r->idle_ns, (double) a->steps * r->gpu_count));
    case MOE_METRIC_REGRET_PERFECT:
        return regret(r, r->bound.perfect);
    case MOE_METRIC_REGRET_SPLIT:
        return regret(r, r->bound.split);
    case MOE_METRIC_REGRET_NO_COPY:
        return regret(r, r->bound.no_copy);
    case MOE_METRIC_REGRET_HINDSIGHT:
        return regret(r, r->bound.hindsight);
    case MOE_METRIC_NEAR_BYTES:
        return per(r->near_copies * copy_bytes, (double) a->tokens);
    case MOE_METRIC_FAR_BYTES:
        return per(r->far_copies * copy_bytes, (double) a->tokens);
    default:
        break;
    }
    assert(0);
    return 0.0;
}
