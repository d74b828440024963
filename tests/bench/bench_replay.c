/* Replay speed: expert activations per second and policy, and the memory it takes.
 *
 * Usage: bench_replay TRACE.db MODEL SLOTS PASSES [POLICY ...]
 * 32 simulated GPUs on 4 nodes, 32 running requests per GPU, exact exchange, noise on,
 * attribution off. An activation is one (token, replayed layer, k), counted once, at combine.
 * Per policy: one run on one thread, then two seeds on two threads. */
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "sim/engine/study.h"

struct speed {
    double activations;
    double seconds;
};

static enum moe_status measure(const char *const *base, uint32_t base_count, const char *policy,
                               uint32_t seeds, struct speed *out, struct moe_error *err)
{
    static struct moe_scenario scenario;
    char policies[96];
    char baseline[96];
    char seed_count[32];
    const char *overrides[16];
    memcpy(overrides, base, base_count * sizeof *base);
    (void) snprintf(policies, sizeof policies, "policies=%s", policy);
    (void) snprintf(baseline, sizeof baseline, "baseline=%s", policy);
    (void) snprintf(seed_count, sizeof seed_count, "seeds=%u", seeds);
    overrides[base_count] = policies;
    overrides[base_count + 1] = baseline;
    overrides[base_count + 2] = seed_count;
    MOE_TRY(moe_scenario_load(&scenario, NULL, overrides, base_count + 3, err));
    const struct moe_study_options options = { .threads = seeds };
    struct moe_study *study = NULL;
    MOE_TRY(moe_study_create(&study, &scenario, &options, err));
    *out = (struct speed){ .seconds = study->wall_seconds };
    for (uint32_t i = 0; i < seeds; i++) {
        for (uint32_t phase = 0; phase < MOE_PHASE_COUNT; phase++) {
            out->activations += (double) study->policies[0].runs[i].account[phase].assignments;
        }
    }
    moe_study_destroy(study);
    return MOE_OK;
}

static enum moe_status bench(int argc, char **argv, struct moe_error *err)
{
    static const char *const all[] = { "contiguous", "round_robin", "random",
                                       "lpt",        "eplb",        "hindsight" };
    char trace[4200];
    char model[4200];
    char slots[64];
    char passes[64];
    (void) snprintf(trace, sizeof trace, "trace=%s", argv[1]);
    (void) snprintf(model, sizeof model, "model=%s", argv[2]);
    (void) snprintf(slots, sizeof slots, "slots=%s", argv[3]);
    (void) snprintf(passes, sizeof passes, "serving.passes=%s", argv[4]);
    const char *const base[] = {
        trace,
        model,
        slots,
        "cluster.nodes=4",
        "cluster.gpus_per_node=8",
        "serving.running_per_gpu=32",
        "serving.exchange=exact",
        passes,
        "attribution=false",
        "noise=true",
    };
    const int count = argc > 5 ? argc - 5 : (int) (sizeof all / sizeof all[0]);
    (void) printf("%-12s %14s %16s %16s\n", "policy", "activations", "1 thread M/s",
                  "2 threads M/s");
    for (int i = 0; i < count; i++) {
        const char *policy = argc > 5 ? argv[5 + i] : all[i];
        struct speed one = { 0 };
        struct speed two = { 0 };
        MOE_TRY(measure(base, sizeof base / sizeof base[0], policy, 1, &one, err));
        MOE_TRY(measure(base, sizeof base / sizeof base[0], policy, 2, &two, err));
        (void) printf("%-12s %14.0f %16.1f %16.1f\n", policy, one.activations,
                      one.activations / one.seconds * 1e-6, two.activations / two.seconds * 1e-6);
    }
    struct rusage usage;
    (void) getrusage(RUSAGE_SELF, &usage);
    (void) printf("peak memory %.0f MiB\n", (double) usage.ru_maxrss / 1024.0);
    return MOE_OK;
}

int main(int argc, char **argv)
{
    struct moe_error err = { 0 };
    if (argc < 5) {
        (void) fprintf(stderr, "usage: bench_replay TRACE.db MODEL SLOTS PASSES [POLICY ...]\n");
        return 2;
    }
    if (bench(argc, argv, &err) != MOE_OK) {
        (void) fprintf(stderr, "bench_replay: %s\n", err.text);
        return 1;
    }
    return 0;
}
