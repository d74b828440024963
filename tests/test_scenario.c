#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sim/scenario/scenario.h"

static const char *const base[] = { "trace=t.db", "model=deepseek-v3", "policies=contiguous" };

/* The base with up to one more override. */
static enum moe_status load(struct moe_scenario *scenario, const char *more, struct moe_error *err)
{
    const char *overrides[] = { base[0], base[1], base[2], more };
    return moe_scenario_load(scenario, NULL, overrides, more == NULL ? 3 : 4, err);
}

Test(scenario, overrides_alone_make_a_scenario_and_settle_the_slots)
{
    struct moe_scenario scenario;
    struct moe_error err = { 0 };
    cr_assert_eq(load(&scenario, NULL, &err), MOE_OK, "%s", err.text);
    cr_assert_eq(scenario.slot_count, 288);
    cr_assert_eq(scenario.model.expert_count, 256);
    cr_assert_eq(scenario.seed_count, 5);
    cr_assert_eq(scenario.cluster.reserve_bytes, 8e9);
    cr_assert_eq(load(&scenario, "cluster.nodes=6", &err), MOE_OK, "%s", err.text);
    cr_assert_eq(scenario.slot_count, 336, "288 = 6 x 48 for 256 experts, and 48 more");
    cr_assert_eq(load(&scenario, "cluster.memory_gb=0.5", &err), MOE_RANGE);
    cr_assert_str_eq(err.text, "cluster.memory_gb: 0.5 is neither 0 nor at least 1");
}

Test(scenario, canonical_text_reads_back_to_the_same_scenario)
{
    static const char *const changes[] = {
        NULL,
        "cluster.memory_gb=140.7",
        "cluster.reserve_gb=0.1",
        "serving.plan_share=0.30000000000000004",
        "serving.exchange=padded",
        "serving.shared_expert=serial",
        "name=a \"quoted\" name: \\ # \xc3\xa9",
        "trace=null",
        "trace=/a b/c.db",
        "calibration=x/y.db",
        "noise=false",
        "serving.common_exit=true",
        "first_seed=18446744073709551611",
    };
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        static struct moe_scenario first;
        static struct moe_scenario second;
        char text[65536];
        char again[65536];
        struct moe_error err = { 0 };
        cr_assert_eq(load(&first, changes[i], &err), MOE_OK, "%s", err.text);
        moe_scenario_write(&first, text, sizeof text);
        cr_assert_eq(moe_scenario_parse(&second, text, "run", &err), MOE_OK, "%s", err.text);
        moe_scenario_write(&second, again, sizeof again);
        cr_assert_str_eq(text, again);
        cr_assert_str_eq(first.name, second.name);
        cr_assert_str_eq(first.trace_path, second.trace_path);
        cr_assert_str_eq(first.calibration_path, second.calibration_path);
        cr_assert_eq(first.cluster.memory_bytes, second.cluster.memory_bytes);
        cr_assert_eq(first.cluster.reserve_bytes, second.cluster.reserve_bytes);
        cr_assert_eq(first.serving.plan_share, second.serving.plan_share);
        cr_assert_eq(first.serving.exchange, second.serving.exchange);
        cr_assert_eq(first.serving.shared, second.serving.shared);
        cr_assert_eq(first.serving.common_exit, second.serving.common_exit);
        cr_assert_eq(first.slot_count, second.slot_count);
        cr_assert_eq(first.first_seed, second.first_seed);
        cr_assert_eq(first.noise, second.noise);
    }
}

Test(scenario, what_cannot_be_is_refused_before_any_trace_is_opened)
{
    static const char *const cases[][2] = {
        { "slots=287", "slots: 287 slots do not divide over 32 GPUs; 256 or 288 would" },
        { "slots=224", "slots: 224 slots cannot hold 256 experts; at least 256 are needed" },
        { "slots=65535", "slots: '65535' is not a whole number from 0 to 65534" },
        { "cluster.nodes=513", "cluster.nodes: '513' is not a whole number from 1 to 512" },
        { "cluster.nodes=0", "cluster.nodes: '0' is not a whole number from 1 to 512" },
        { "cluster.gpus_per_node=73",
          "cluster.gpus_per_node: '73' is not a whole number from 1 to 72" },
        { "serving.plan_share=0.009",
          "serving.plan_share: '0.009' is not a number from 0.01 to 0.9" },
        { "serving.plan_share=0.91",
          "serving.plan_share: '0.91' is not a number from 0.01 to 0.9" },
        { "serving.passes=10001", "serving.passes: '10001' is not a whole number from 1 to 10000" },
        { "serving.running_per_gpu=65537",
          "serving.running_per_gpu: '65537' is not a whole number from 1 to 65536" },
        { "seeds=101", "seeds: '101' is not a whole number from 1 to 100" },
        { "seeds=0", "seeds: '0' is not a whole number from 1 to 100" },
        { "first_seed=18446744073709551612",
          "first_seed: 18446744073709551612 and the 5 seeds pass 2^64" },
        { "policies=contiguous,contiguous", "policies: 'contiguous' is named twice" },
        { "baseline=eplb", "baseline: 'eplb' is not among the policies; name one of them" },
        { "cluster.memory_gb=8", "cluster.reserve_gb: 8 must be less than cluster.memory_gb, 8" },
        { "trace=", "trace: none is named; it must be the path of a trace store" },
        { "model=", "model: none is named; `moesim models` lists the cards" },
        { "attribution=1", "attribution: '1' is not true or false" },
        { "serving.exchange=exactly", "serving.exchange: 'exactly' is not one of exact, padded, "
                                      "hierarchical, low_latency, all_gather" },
        { "gpus=32", "setting gpus: no such key (did you mean cluster.gpu?); allowed here: name "
                     "trace model calibration cluster slots replicas serving arrivals slo hardware "
                     "online pools fetch policies "
                     "baseline seeds first_seed attribution noise counted_layers" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct moe_scenario scenario = { .slot_count = 77 };
        struct moe_error err = { 0 };
        cr_expect_eq(load(&scenario, cases[i][0], &err), MOE_RANGE, "%s", cases[i][0]);
        cr_expect_str_eq(err.text, cases[i][1], "%s", err.text);
        cr_expect_eq(scenario.slot_count, 77, "written on error");
    }
}

Test(scenario, limits_that_no_single_key_shows)
{
    struct moe_scenario scenario;
    struct moe_error err = { 0 };
    const char *many[] = { base[0], base[1], base[2], "cluster.nodes=57",
                           "cluster.gpus_per_node=72" };
    cr_assert_eq(moe_scenario_load(&scenario, NULL, many, 5, &err), MOE_RANGE);
    cr_assert_str_eq(err.text, "cluster.nodes 57 x cluster.gpus_per_node 72 make 4104 GPUs; at "
                               "most 4096 are allowed");
    many[3] = "cluster.nodes=64";
    many[4] = "cluster.gpus_per_node=64";
    cr_assert_eq(moe_scenario_load(&scenario, NULL, many, 5, &err), MOE_OK, "%s", err.text);
    const char *seven[] = {
        base[0], base[1], base[2], "cluster.nodes=1", "cluster.gpus_per_node=7", "slots=288"
    };
    cr_assert_eq(moe_scenario_load(&scenario, NULL, seven, 6, &err), MOE_RANGE);
    cr_assert_str_eq(err.text, "slots: 288 slots do not divide over 7 GPUs; 287 or 294 would");
    const char *unknown[] = { base[0], base[1], "policies=nonesuch", "baseline=nonesuch" };
    cr_assert_eq(moe_scenario_load(&scenario, NULL, unknown, 4, &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "policies: no policy 'nonesuch'; there are: contiguous"));
}

Test(scenario, a_trace_must_have_the_models_experts_and_top_k)
{
    struct moe_scenario scenario;
    struct moe_error err = { 0 };
    cr_assert_eq(load(&scenario, NULL, &err), MOE_OK);
    cr_assert_eq(moe_scenario_check_trace(&scenario, 256, 8, &err), MOE_OK);
    cr_assert_eq(moe_scenario_check_trace(&scenario, 256, 6, &err), MOE_RANGE);
    cr_assert_str_eq(err.text,
                     "trace t.db has 256 experts and top-6, model deepseek-v3 has 256 and "
                     "top-8: both must be equal to replay one with the sizes of the "
                     "other");
    cr_assert_eq(moe_scenario_check_trace(&scenario, 128, 8, &err), MOE_RANGE);
}

/* A file in a folder of its own. */
static char folder[64];

static void write_file(const char *name, const char *text)
{
    char path[128];
    (void) snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    (void) fputs(text, file);
    cr_assert_eq(fclose(file), 0);
}

static void make_folder(void)
{
    (void) snprintf(folder, sizeof folder, "/tmp/moesim-scenario-XXXXXX");
    cr_assert_not_null(mkdtemp(folder));
}

static void remove_folder(void)
{
    static const char *const names[] = { "s.yaml", "card.json" };
    for (size_t i = 0; i < 2; i++) {
        char path[128];
        (void) snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        (void) unlink(path);
    }
    (void) rmdir(folder);
}

Test(scenario, files_name_paths_relative_to_themselves, .init = make_folder, .fini = remove_folder)
{
    struct moe_scenario scenario;
    struct moe_error err = { 0 };
    char path[128];
    char expected[256];
    (void) snprintf(path, sizeof path, "%s/s.yaml", folder);
    write_file("s.yaml", "trace: sub/t.db\nmodel: deepseek-v3\ncalibration: /abs/c.db\n"
                         "policies: [contiguous]\nseeds: 3\n");
    const char *overrides[] = { "seeds=2", "seeds=4" };
    cr_assert_eq(moe_scenario_load(&scenario, path, overrides, 2, &err), MOE_OK, "%s", err.text);
    (void) snprintf(expected, sizeof expected, "%s/sub/t.db", folder);
    cr_assert_str_eq(scenario.trace_path, expected);
    cr_assert_str_eq(scenario.calibration_path, "/abs/c.db");
    cr_assert_str_eq(scenario.model_ref, "deepseek-v3", "a card is no path");
    cr_assert_eq(scenario.seed_count, 4, "the last override counts");
    const char *elsewhere[] = { "trace=other.db" };
    cr_assert_eq(moe_scenario_load(&scenario, path, elsewhere, 1, &err), MOE_OK);
    cr_assert_str_eq(scenario.trace_path, "other.db");

    write_file("s.yaml", "trace: t.db\nmodel: card.json\npolicies: [contiguous]\n");
    write_file("card.json",
               "{\"model_type\": \"mixtral\", \"num_hidden_layers\": 2, \"hidden_size\": 64, "
               "\"vocab_size\": 10, \"torch_dtype\": \"bfloat16\", \"num_local_experts\": 8, "
               "\"num_experts_per_tok\": 2, \"intermediate_size\": 32, "
               "\"num_attention_heads\": 4, \"num_key_value_heads\": 2}");
    cr_assert_eq(moe_scenario_load(&scenario, path, NULL, 0, &err), MOE_OK, "%s", err.text);
    cr_assert_str_eq(scenario.model.name, "card");
    cr_assert_eq(scenario.slot_count, 64);

    write_file("s.yaml", "trace: t.db\nmodel: deepseek-v3\npolicies: [contiguous]\n"
                         "cluster:\n  gpu_per_node: 8\n");
    cr_assert_eq(moe_scenario_load(&scenario, path, NULL, 0, &err), MOE_RANGE);
    (void) snprintf(expected, sizeof expected, "%s:5: cluster.gpu_per_node: no such key", path);
    cr_assert_eq(strncmp(err.text, expected, strlen(expected)), 0, "%s", err.text);
    cr_assert_not_null(strstr(err.text, "(did you mean cluster.gpus_per_node?)"));
    write_file("s.yaml", "trace: t.db\nmodel: deepseek-v3\npolicies: [contiguous]\nslots: 300\n");
    cr_assert_eq(moe_scenario_load(&scenario, path, NULL, 0, &err), MOE_RANGE);
    (void) snprintf(expected, sizeof expected,
                    "%s: slots: 300 slots do not divide over 32 GPUs; 288 or 320 would", path);
    cr_assert_str_eq(err.text, expected);
    cr_assert_eq(moe_scenario_load(&scenario, folder, NULL, 0, &err), MOE_IO, "a folder");
    cr_assert_eq(moe_scenario_load(&scenario, "/no/such.yaml", NULL, 0, &err), MOE_IO);
}

/* The bundled study must always be readable, whatever policies this build has. */
Test(scenario, the_bundled_study_is_understood)
{
    struct moe_scenario scenario;
    struct moe_error err = { 0 };
    const char *overrides[] = { "policies=contiguous" };
    cr_assert_eq(moe_scenario_load(&scenario, MOE_SOURCE_ROOT "/results/quickstart/scenario.yaml",
                                   overrides, 1, &err),
                 MOE_OK, "%s", err.text);
    cr_assert_eq(scenario.slot_count, 288);
    cr_assert_eq(moe_cluster_gpu_count(&scenario.cluster), 32);
    cr_assert_eq(moe_scenario_check_trace(&scenario, 256, 8, &err), MOE_OK);
}
