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
        { "deepseek-ai--DeepSeek-V3.2", "deepseek-v3.2" },
        { "deepseek-ai--DeepSeek-V4-Flash", "deepseek-v4-flash" },
        { "deepseek-ai--DeepSeek-V4-Pro", "deepseek-v4-pro" },
        { "zai-org--GLM-5.2", "glm-5.2" },
        { "MiniMaxAI--MiniMax-M3", "minimax-m3" },
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

/* Every file of the folder, by name: all are read, so that none is left out in silence. */
Test(huggingface, all_configs_of_the_folder_are_read)
{
    DIR *handle = opendir(folder);
    uint32_t read = 0;
    if (handle == NULL) {
        cr_skip_test("no configs beside this checkout");
    }
    for (const struct dirent *entry = readdir(handle); entry != NULL; entry = readdir(handle)) {
        char path[1024];
        struct moe_model model;
        struct moe_error err = { 0 };
        if (strstr(entry->d_name, "_config.json") != NULL) {
            (void) snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
            cr_expect_eq(moe_model_load(&model, path, &err), MOE_OK, "%s", err.text);
            read++;
        }
    }
    (void) closedir(handle);
    cr_expect_eq(read, 20);
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

#define V32(more)                                                                             \
    "{\"model_type\": \"deepseek_v32\", \"num_hidden_layers\": 4, \"hidden_size\": 64,"       \
    "\"vocab_size\": 100, \"n_routed_experts\": 16, \"num_experts_per_tok\": 4,"              \
    "\"moe_intermediate_size\": 32, \"num_attention_heads\": 4, \"qk_nope_head_dim\": 16,"    \
    "\"qk_rope_head_dim\": 8, \"v_head_dim\": 16, \"q_lora_rank\": 24, \"kv_lora_rank\": 32," \
    "\"dtype\": \"bfloat16\", \"index_topk\": 20, \"index_n_heads\": 2, \"index_head_dim\": " \
    "10" more "}"

#define V4(heads, ratios, more)                                                         \
    "{\"model_type\": \"deepseek_v4\", \"num_hidden_layers\": 4, \"hidden_size\": 64,"  \
    "\"vocab_size\": 100, \"n_routed_experts\": 16, \"num_experts_per_tok\": 4,"        \
    "\"moe_intermediate_size\": 32, \"num_attention_heads\": 4, \"head_dim\": 10,"      \
    "\"q_lora_rank\": 24, \"o_lora_rank\": 12, \"o_groups\": 2, \"sliding_window\": 6," \
    "\"hc_mult\": 4, \"num_key_value_heads\": " heads                                   \
    ", \"dtype\": \"bfloat16\", \"index_topk\": 20, \"index_n_heads\": 2,"              \
    "\"index_head_dim\": 8, \"quantization_config\": {\"quant_method\": \"fp8\"},"      \
    "\"num_nextn_predict_layers\": 1, \"compress_ratios\": " ratios more "}"

#define M3(config)                                                                                \
    "{\"model_type\": \"minimax_m3\", \"num_hidden_layers\": 2, \"hidden_size\": 64,"             \
    "\"vocab_size\": 100, \"num_local_experts\": 16, \"num_experts_per_tok\": 4,"                 \
    "\"moe_intermediate_size\": 32, \"dense_intermediate_size\": 48, \"moe_layer_freq\": [0, 1]," \
    "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"dtype\": \"bfloat16\","            \
    "\"sparse_attention_config\": {\"use_sparse_attention\": true, \"sparse_init_block\": 0,"     \
    "\"sparse_block_size\": 8, \"sparse_topk_blocks\": 3, \"sparse_num_index_heads\": 2,"         \
    "\"sparse_index_dim\": 10" config "}}"

/* Weights and bytes of small configs, counted by hand. */
Test(huggingface, sparse_attention_is_read_as_weights_entries_and_keys)
{
    struct moe_model model;
    struct moe_error err = { 0 };
    cr_assert_eq(read_text(&model, V32(""), &err), MOE_OK, "%s", err.text);
    cr_expect_eq(model.sparse_layer_count, 4);
    cr_expect_eq(model.index_layer_count, 4);
    cr_expect_eq(moe_model_sparse_tokens(&model), 20);
    cr_expect_eq(moe_model_index_weights(&model), 4.0 * (24 * 20 + 64 * 10 + 64 * 2));
    cr_expect_eq(moe_model_kv_bytes_per_token(&model), 4 * (40 * 2 + 10 * 1.03125));
    cr_assert_eq(read_text(&model,
                           V32(", \"index_topk_freq\": 2, \"indexer_types\": [\"full\", "
                               "\"shared\", \"full\", \"shared\"]"),
                           &err),
                 MOE_OK, "%s", err.text);
    cr_expect_eq(model.sparse_layer_count, 4);
    cr_expect_eq(model.index_layer_count, 2);

    cr_assert_eq(
        read_text(&model, V4("1", "[0, 4, 128, 4, 0]", ", \"expert_dtype\": \"fp4\""), &err),
        MOE_OK, "%s", err.text);
    cr_expect_eq(model.window_layer_count, 1);
    cr_expect_eq(model.sparse_layer_count, 2);
    cr_expect_eq(model.pooled_layer_count, 1);
    cr_expect_eq(model.residual_streams, 4);
    cr_expect_eq(model.expert_bytes_per_weight, 0.53125);
    cr_expect_eq(moe_model_sparse_tokens(&model), 80);
    cr_expect_eq(moe_model_attention_weights(&model),
                 64.0 * 24 + 24 * 40 + 64 * 10 + 40 * 12 + 24 * 64);
    cr_expect_eq(moe_model_index_weights(&model),
                 2.0 * (24 * 16 + 64 * 2 + 4 * 64 * 8) + 2.0 * 4 * 64 * 10 + 2 * 64 * 10);
    cr_expect_eq(moe_model_kv_bytes_per_token(&model),
                 20 * (2 / 4.0 + 1 / 128.0) + 2 * 8 * 2 / 4.0);
    cr_expect_eq(moe_model_window_bytes(&model), 4 * 6 * 20);

    cr_assert_eq(read_text(&model,
                           M3(", \"sparse_score_type\": \"max\", \"sparse_attention_freq\": "
                              "[0, 1], \"sparse_disable_index_value\": [0, 1]"),
                           &err),
                 MOE_OK, "%s", err.text);
    cr_expect_eq(model.sparse_layer_count, 1);
    cr_expect_eq(moe_model_sparse_tokens(&model), 24);
    cr_expect_eq(moe_model_kv_bytes_per_token(&model), 2 * (2 * 2 * 16 * 2) + 10 * 2);
}

/* What a config says of sparse attention that is not modelled, or makes no sense. */
Test(huggingface, sparse_attention_beyond_the_model_is_refused_by_its_key)
{
    static const struct {
        const char *text;
        enum moe_status status;
        const char *words;
    } cases[] = {
        { DEEPSEEK(", \"dtype\": \"bfloat16\", \"index_topk\": 2048"), MOE_UNSUPPORTED,
          "key index_topk is 2048, but this model_type" },
        { V32(", \"compress_ratios\": [4]"), MOE_UNSUPPORTED, "key compress_ratios is [4]" },
        { V32(", \"index_topk_freq\": 4"), MOE_UNSUPPORTED,
          "key index_topk_freq is 4, but without indexer_types only 1" },
        { V32(", \"index_topk_pattern\": \"FSSS\""), MOE_UNSUPPORTED, "key index_topk_pattern" },
        { V32(", \"indexer_types\": [\"shared\", \"full\", \"full\", \"full\"]"), MOE_RANGE,
          "the first entry must be \"full\"" },
        { V32(", \"indexer_types\": [\"full\", \"full\", \"full\", \"half\"]"), MOE_UNSUPPORTED,
          "key indexer_types: entry 3 is neither" },
        { V32(", \"indexer_types\": [\"full\"]"), MOE_RANGE, "one entry per hidden layer" },
        { V32(", \"mlp_layer_types\": [\"dense\", \"sparse\", \"sparse\", \"sparse\"]"), MOE_RANGE,
          "key mlp_layer_types" },
        { V4("1", "[0, 4, 128, 8, 0]", ""), MOE_UNSUPPORTED,
          "key compress_ratios: entry 3 is none of 0, 4 and 128" },
        { V4("1", "[0, 4, 128]", ""), MOE_RANGE, "key compress_ratios is [0,4,128]" },
        { V4("2", "[0, 4, 128, 4]", ""), MOE_UNSUPPORTED,
          "key num_key_value_heads is 2, but only 1" },
        { V4("1", "[0, 4, 128, 4]", ", \"expert_dtype\": \"int3\""), MOE_UNSUPPORTED,
          "key expert_dtype is \"int3\"" },
        { M3(", \"sparse_score_type\": \"sum\""), MOE_UNSUPPORTED, "sparse_score_type is 'sum'" },
        { M3(", \"sparse_score_type\": \"max\", \"sparse_attention_freq\": [0, 1], "
             "\"sparse_disable_index_value\": [0, 0]"),
          MOE_UNSUPPORTED, "sparse_disable_index_value: entry 1 is not 1" },
        { M3(", \"sparse_score_type\": \"max\", \"sparse_attention_freq\": [0, 2], "
             "\"sparse_disable_index_value\": [0, 0]"),
          MOE_RANGE, "sparse_attention_freq: entry 1 is neither 0 nor 1" },
        { M3(", \"sparse_score_type\": \"max\", \"sparse_attention_freq\": [1]"), MOE_RANGE,
          "lists of one entry per hidden layer" },
        { "{\"model_type\": \"deepseek_v32\", \"num_hidden_layers\": 0, \"hidden_size\": 1, "
          "\"vocab_size\": 1, \"indexer_types\": []}",
          MOE_RANGE, "is missing" },
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
