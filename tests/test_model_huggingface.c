#include <criterion/criterion.h>
#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/model/model_reader.h"

static enum moe_status read_text(struct moe_model *model, const char *text, struct moe_error *err)
{
    return moe_model_read_huggingface(model, text, strlen(text), "in/config.json", err);
}

static const char *const folder = MOE_SOURCE_ROOT "/../shared/data/model_configs";

static bool have_configs(void)
{
    DIR *handle = opendir(folder);
    if (handle != NULL) {
        (void) closedir(handle);
    }
    return handle != NULL;
}

static enum moe_status load(struct moe_model *model, const char *file, struct moe_error *err)
{
    char path[1024];
    (void) snprintf(path, sizeof path, "%s/%s_config.json", folder, file);
    return moe_model_load(model, path, err);
}

/* Every field but name and source. */
Test(huggingface, a_config_and_the_card_of_its_model_agree_field_by_field)
{
    static const char *const pairs[][2] = {
        { "deepseek-ai--DeepSeek-V3", "deepseek-v3" },
        { "deepseek-ai--DeepSeek-R1", "deepseek-v3" },
        { "moonshotai--Kimi-K2-Instruct", "kimi-k2" },
        { "moonshotai--Kimi-K3", "kimi-k3" },
        { "Qwen--Qwen3-235B-A22B", "qwen3-235b-a22b" },
        { "meta-llama--Llama-4-Maverick-17B-128E-Instruct", "llama-4-maverick" },
        { "mistralai--Mixtral-8x7B-v0.1", "mixtral-8x7b" },
        { "openai--gpt-oss-120b", "gpt-oss-120b" },
    };
    if (!have_configs()) {
        cr_skip_test("no configs beside this checkout");
    }
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct moe_model config;
        struct moe_model card;
        struct moe_error err = { 0 };
        cr_assert_eq(load(&config, pairs[i][0], &err), MOE_OK, "%s", err.text);
        cr_assert_eq(moe_model_load(&card, pairs[i][1], &err), MOE_OK, "%s", err.text);
        cr_expect_str_eq(config.name, pairs[i][0]);
        for (uint32_t k = 2; k < moe_model_settings.count; k++) {
            char a[64];
            char b[64];
            moe_setting_show(&moe_model_settings.items[k], &config, a, sizeof a);
            moe_setting_show(&moe_model_settings.items[k], &card, b, sizeof b);
            cr_expect_str_eq(a, b, "%s %s: config %s, card %s", pairs[i][1],
                             moe_model_settings.items[k].path, a, b);
        }
    }
}

/* Totals, in 10^9, as the models' names and reports give them. */
Test(huggingface, other_configs_come_to_the_published_weights)
{
    static const struct {
        const char *file;
        double published;
        double tolerance;
    } cases[] = {
        { "Qwen--Qwen3-30B-A3B", 30.5, 0.005 },
        { "Qwen--Qwen3.5-35B-A3B", 35, 0.015 },
        { "Qwen--Qwen3.5-397B-A17B", 397, 0.005 },
        { "meta-llama--Llama-4-Scout-17B-16E-Instruct", 109, 0.015 },
        { "mistralai--Mixtral-8x22B-v0.1", 140.6, 0.005 },
        { "moonshotai--Kimi-K2.5", 1030, 0.01 },
        { "openai--gpt-oss-20b", 20.91, 0.005 },
    };
    if (!have_configs()) {
        cr_skip_test("no configs beside this checkout");
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct moe_model model;
        struct moe_error err = { 0 };
        cr_assert_eq(load(&model, cases[i].file, &err), MOE_OK, "%s", err.text);
        const double total = moe_model_total_weights(&model) / 1e9;
        cr_expect_lt(fabs(total / cases[i].published - 1.0), cases[i].tolerance, "%s: %g",
                     cases[i].file, total);
    }
}

Test(huggingface, configs_with_sparse_attention_are_refused_by_their_key)
{
    static const char *const cases[][2] = {
        { "deepseek-ai--DeepSeek-V3.2", "key index_topk is 2048" },
        { "deepseek-ai--DeepSeek-V4-Pro", "key index_topk is 1024" },
        { "zai-org--GLM-5.2", "key index_topk is 2048" },
        { "MiniMaxAI--MiniMax-M3", "key sparse_attention_config is {" },
    };
    if (!have_configs()) {
        cr_skip_test("no configs beside this checkout");
    }
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct moe_model model;
        struct moe_error err = { 0 };
        cr_expect_eq(load(&model, cases[i][0], &err), MOE_UNSUPPORTED);
        cr_expect_not_null(strstr(err.text, cases[i][1]), "%s", err.text);
    }
}

#define DEEPSEEK(more)                                                                    \
    "{\"model_type\": \"deepseek_v3\", \"num_hidden_layers\": 4, \"hidden_size\": 64,"    \
    "\"vocab_size\": 100, \"n_routed_experts\": 16, \"num_experts_per_tok\": 4,"          \
    "\"moe_intermediate_size\": 32, \"intermediate_size\": 128, \"n_shared_experts\": 2," \
    "\"num_attention_heads\": 4, \"qk_nope_head_dim\": 16, \"qk_rope_head_dim\": 8,"      \
    "\"v_head_dim\": 16, \"q_lora_rank\": null, \"kv_lora_rank\": 32" more "}"

Test(huggingface, reads_what_a_config_leaves_out_as_its_class_does)
{
    struct moe_model model;
    struct moe_error err = { 0 };
    cr_assert_eq(read_text(&model, DEEPSEEK(", \"dtype\": \"float32\""), &err), MOE_OK, "%s",
                 err.text);
    cr_assert_str_eq(model.name, "in");
    cr_assert_eq(model.moe_layer_count, 4);
    cr_assert_eq(model.dense_size, 0);
    cr_assert_eq(model.shared_size, 64);
    cr_assert_eq(model.group_count, 1);
    cr_assert_eq(model.expert_bytes_per_weight, 4.0);
    /* MoE layers 2 and 4 of 0..5 when the first two are dense and every second counts. */
    cr_assert_eq(read_text(&model,
                           DEEPSEEK(", \"dtype\": \"float16\", \"first_k_dense_replace\": 1,"
                                    "\"moe_layer_freq\": 2"),
                           &err),
                 MOE_OK, "%s", err.text);
    cr_assert_eq(model.moe_layer_count, 1, "only layer 2 of 0 .. 3");
    cr_assert_eq(model.dense_size, 128);
}

Test(huggingface, refuses_with_the_key_the_value_and_what_is_allowed)
{
    static const struct {
        const char *text;
        enum moe_status status;
        const char *words;
    } cases[] = {
        { "{", MOE_PARSE, "in/config.json:1: not valid JSON" },
        { "[]", MOE_PARSE, "is a JSON object" },
        { "{\"hidden_size\": 1, \"hidden_size\": 2}", MOE_PARSE, "duplicate" },
        { "{}", MOE_RANGE, "key num_hidden_layers is missing" },
        { DEEPSEEK(", \"dtype\": \"int8\""), MOE_RANGE, "key dtype is \"int8\", but it must be" },
        { DEEPSEEK(""), MOE_RANGE, "key dtype is missing" },
        { DEEPSEEK(", \"dtype\": \"bfloat16\", \"quantization_config\": {\"quant_method\": "
                   "\"awq\"}"),
          MOE_UNSUPPORTED, "key quantization_config is {\"quant_method\":\"awq\"}, but only" },
        { DEEPSEEK(", \"dtype\": \"bfloat16\", \"moe_layer_freq\": [0, 1, 1, 1]"), MOE_RANGE,
          "key moe_layer_freq is [0,1,1,1], but it must be a whole number" },
        { DEEPSEEK(", \"dtype\": \"bfloat16\", \"n_group\": 3"), MOE_RANGE,
          "experts.groups is 3, but must divide" },
        { "{\"model_type\": \"gpt2\", \"num_hidden_layers\": 1, \"hidden_size\": 1, "
          "\"vocab_size\": 1}",
          MOE_UNSUPPORTED, "key model_type is \"gpt2\", but these are understood: deepseek_v2" },
        { "{\"num_hidden_layers\": 1, \"hidden_size\": 1, \"vocab_size\": 1}", MOE_UNSUPPORTED,
          "key model_type is missing" },
        { "{\"num_hidden_layers\": 4294967296}", MOE_RANGE, "key num_hidden_layers is 4294967296" },
        { "{\"num_hidden_layers\": -1}", MOE_RANGE, "key num_hidden_layers is -1" },
        { "{\"num_hidden_layers\": 1.5}", MOE_RANGE, "key num_hidden_layers is 1.5" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct moe_model model = { .layer_count = 77 };
        struct moe_error err = { 0 };
        cr_expect_eq(read_text(&model, cases[i].text, &err), cases[i].status, "%zu: %s", i,
                     err.text);
        cr_expect_not_null(strstr(err.text, cases[i].words), "%zu: %s", i, err.text);
        cr_expect_eq(model.layer_count, 77, "%zu: written on error", i);
    }
}
