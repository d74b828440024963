/* Prefill and decode on GPUs of their own: what each pool does, and what the hand-over takes. */
#include "sim/report/figure.h"
#include "sim/report/section.h"
#include "sim/scenario/deployment.h"

#define REAL(value) moe_figure_real(value).text

static const struct moe_run_result *run_of(const struct moe_study *study, uint32_t policy,
                                           uint32_t seed, enum moe_pool pool)
{
    const struct moe_run_result *run = &study->policies[policy].runs[seed];
    return pool == MOE_POOL_PREFILL ? run->prefill : run;
}

/* Mean over the seeds. */
static double mean_of(const struct moe_study *study, uint32_t policy, enum moe_pool pool,
                      enum moe_metric metric)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < study->seed_count; i++) {
        sum += moe_metric_value(metric, run_of(study, policy, i, pool));
    }
    return sum / study->seed_count;
}

/* Share of the time of its scored steps and what is between them. */
static double busy_of(const struct moe_study *study, uint32_t policy, enum moe_pool pool)
{
    double busy = 0.0;
    double all = 0.0;
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const struct moe_token_account *a =
            &run_of(study, policy, i, pool)->account[MOE_PHASE_SCORED];
        busy += (double) a->time_ns;
        all += (double) (a->time_ns + a->quiet_ns);
    }
    return all > 0.0 ? busy / all : 0.0;
}

static void pool_row(struct moe_grid *grid, const struct moe_study *study, uint32_t policy,
                     enum moe_pool pool)
{
    const struct moe_run_result *first = run_of(study, policy, 0, pool);
    char gpus[16];
    (void) snprintf(gpus, sizeof gpus, "%u", first->gpu_count);
    moe_grid_cell(grid, pool == MOE_POOL_PREFILL ? study->policies[policy].composition.label : "");
    moe_grid_cell(grid, moe_pool_name(pool));
    moe_grid_cell(grid, gpus);
    moe_grid_cell(grid, moe_figure_share(busy_of(study, policy, pool)).text);
    moe_grid_cell(grid, REAL(mean_of(study, policy, pool, MOE_METRIC_STEP_MEAN)));
    moe_grid_cell(grid, REAL(mean_of(study, policy, pool, MOE_METRIC_TOKEN_RATE)));
    moe_grid_cell(grid,
                  moe_figure_fixed(mean_of(study, policy, pool, MOE_METRIC_BALANCEDNESS), 3).text);
    moe_grid_cell(grid, moe_figure_share(mean_of(study, policy, pool, MOE_METRIC_IDLE_SHARE)).text);
    moe_grid_cell(grid, moe_figure_count(first->memory.kv_tokens).text);
}

static void say_handover(struct moe_page *page, const struct moe_study *study, uint32_t policy,
                         const char **label)
{
    struct moe_handover_account sum = { 0 };
    for (uint32_t i = 0; i < study->seed_count; i++) {
        const struct moe_handover_account *a = &study->policies[policy].runs[i].handover;
        sum.count += a->count;
        sum.bytes += a->bytes;
        sum.place_ns += a->place_ns;
        sum.queue_ns += a->queue_ns;
        sum.send_ns += a->send_ns;
        sum.beside_ns += a->beside_ns;
        sum.longest_ns = a->longest_ns > sum.longest_ns ? a->longest_ns : sum.longest_ns;
        sum.source = a->source > sum.source ? a->source : sum.source;
    }
    if (sum.count == 0) {
        return;
    }
    const double ms = 1e-6 / (double) sum.count;
    moe_page_field(page, *label,
                   "%s: %s MB each (%s), %s ms on average for a seat, %s for links, %s to send%s%s"
                   "; the longest %s ms in all",
                   study->policies[policy].composition.label,
                   REAL(sum.bytes / (double) sum.count / 1e6), moe_provenance_name(sum.source),
                   REAL((double) sum.place_ns * ms), REAL((double) sum.queue_ns * ms),
                   REAL((double) sum.send_ns * ms),
                   sum.beside_ns > 0 ? " beyond beside the prefill " : "",
                   sum.beside_ns > 0 ? REAL((double) sum.beside_ns * ms) : "",
                   REAL((double) sum.longest_ns * 1e-6));
    *label = "";
}

/* Prompts that are read wait ever longer for the decode pool. */
static void say_behind(struct moe_page *page, const struct moe_study *study, uint32_t policy,
                       const char **label)
{
    const struct moe_run_result *runs = study->policies[policy].runs;
    uint32_t seeds = 0;
    for (uint32_t i = 0; i < study->seed_count; i++) {
        seeds += runs[i].handover.waiting.is_saturated;
    }
    if (seeds == 0) {
        return;
    }
    const struct moe_service *s = &runs[0].handover.waiting;
    moe_page_field(page, *label,
                   "the decode pool of %s does not keep up (%u of %u seeds): %s requests/s are "
                   "read, %s end. Fewer pools.prefill_gpus, more GPUs, a higher "
                   "pools.decode_running or a lower arrivals.rate would let it",
                   study->policies[policy].composition.label, seeds, study->seed_count,
                   REAL(s->offered_rate), REAL(s->served_rate));
    *label = "";
}

void moe_section_pools(struct moe_page *page, const struct moe_study *study)
{
    static const struct moe_grid_column columns[] = {
        { "", "policy", true, false },
        { "", "pool", true, false },
        { "", "GPUs", false, false },
        { "", "busy", false, false },
        { "step", "ms", false, false },
        { "", "tokens/s", false, false },
        { "", "balance", false, false },
        { "GPU time", "waited", false, false },
        { "a GPU's", "KV tokens", false, false },
    };
    const char *handover = "hand-over";
    const char *behind = "saturated";
    struct moe_grid grid;
    if (!moe_deployment_has_pools(study->scenario)) {
        return;
    }
    moe_page_heading(page, "Pools", "scored steps of each; all other tables: the decode pool");
    moe_grid_begin(&grid, columns, sizeof columns / sizeof columns[0]);
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            pool_row(&grid, study, i, MOE_POOL_PREFILL);
            pool_row(&grid, study, i, MOE_POOL_DECODE);
        }
    }
    moe_grid_print(&grid, page);
    moe_page_gap(page);
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            say_handover(page, study, i, &handover);
        }
    }
    for (uint32_t i = 0; i < study->policy_count; i++) {
        if (study->policies[i].fits) {
            say_behind(page, study, i, &behind);
        }
    }
}

/* The slots and budgets of one pool, in words. */
static void say_pool(struct moe_page *page, const struct moe_scenario *scenario, enum moe_pool pool,
                     const char *label)
{
    struct moe_scenario part;
    moe_deployment_pool(scenario, pool, &part);
    const uint32_t gpus = moe_cluster_gpu_count(&part.cluster);
    moe_page_field(page, label,
                   "%s on %u GPUs, from GPU %u on: %u slots per layer, %u on each; at most %s "
                   "requests and %s tokens a step on each",
                   moe_pool_name(pool), gpus, part.cluster.first_gpu, part.slot_count,
                   part.slot_count / gpus, moe_figure_count(part.serving.running_per_gpu).text,
                   moe_figure_count(part.serving.step_tokens).text);
}

void moe_section_pools_asked(struct moe_page *page, const struct moe_scenario *scenario)
{
    if (!moe_deployment_has_pools(scenario)) {
        return;
    }
    say_pool(page, scenario, MOE_POOL_PREFILL, "pools");
    say_pool(page, scenario, MOE_POOL_DECODE, "");
    moe_page_field(
        page, "", "a prompt's KV cache goes over the links %s; the first token is sent %s",
        scenario->pools.transfer == MOE_POOL_TRANSFER_LAYERED
            ? "layer by layer while later layers run"
            : "once it was read",
        scenario->pools.first_token == MOE_POOL_FIRST_DECODE ? "when it is there"
                                                             : "by the prefill pool, before that");
}
