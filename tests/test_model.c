#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "sim/model/model_reader.h"

static struct moe_model load(const char *name)
{
    struct moe_model model = { 0 };
    struct moe_error err = { 0 };
    cr_assert_eq(moe_model_load(&model, name, &err), MOE_OK, "%s", err.text);
    return model;
}

/* Published totals, in 10^9, and how near the sizes must come. The model's own reports:
 * arXiv 2412.19437 (671), 2507.20534 (1.04e3: 1026 of it in the config's shapes), Qwen3's
 * 2505.09388 (235), Llama-4 (400), 2401.04088 (46.7), gpt-oss model card (116.83),
 * DeepSeek-V2 2405.04434 (15.7), Switch 2101.03961 table 9 (7.4, 14.7). */
Test(model, weights_of_the_cards_are_those_published)
{
    static const struct {
        const char *name;
        double published;
        double tolerance;
    } cases[] = {
        { "deepseek-v3", 671, 0.005 },      { "kimi-k2", 1030, 0.01 },
        { "qwen3-235b-a22b", 235, 0.005 },  { "llama-4-maverick", 400, 0.005 },
        { "mixtral-8x7b", 46.7, 0.005 },    { "gpt-oss-120b", 116.83, 0.005 },
        { "deepseek-v2-lite", 15.7, 0.01 }, { "switch-base-128", 7.4, 0.01 },
        { "switch-base-256", 14.7, 0.01 },  { "qwen3-30b-a3b", 30.5, 0.005 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct moe_model model = load(cases[i].name);
        const double total = moe_model_total_weights(&model) / 1e9;
        cr_expect_lt(fabs(total / cases[i].published - 1.0), cases[i].tolerance, "%s: %g",
                     cases[i].name, total);
    }
}

/* 88,080,384 bytes in bf16: the constant of the published simulators. */
Test(model, bytes_of_an_expert_and_of_a_tokens_kv)
{
    struct moe_model model = load("deepseek-v3");
    cr_assert_eq(moe_model_expert_bytes(&model), 44040192.0);
    cr_assert_eq(moe_model_kv_bytes_per_token(&model), 70272.0);
    model.expert_bytes_per_weight = 2;
    cr_assert_eq(moe_model_expert_bytes(&model), 88080384.0);
    /* gpt-oss: 3 x 2880 x 2880 weights at 4.25 bits. */
    model = load("gpt-oss-120b");
    cr_assert_eq(moe_model_expert_bytes(&model), 3.0 * 2880 * 2880 * 4.25 / 8.0);
    /* Two matrices of 768 x 3072 in bf16. */
    model = load("switch-base-128");
    cr_assert_eq(moe_model_expert_bytes(&model), 9437184.0);
    /* The latent halves Kimi-K3's experts. */
    model = load("kimi-k3");
    cr_assert_eq(moe_model_expert_weights(&model), 3.0 * 3584 * 3072);
    cr_assert_eq(moe_model_linear_layers(&model), 69);
    cr_assert_eq(moe_model_kv_bytes_per_token(&model), (512.0 + 64) * 2 * 24);
}

Test(model, windowed_layers_keep_no_more_than_their_window)
{
    const struct moe_model model = load("gpt-oss-120b");
    const double layer = 2.0 * 8 * 64 * 2;
    cr_assert_eq(moe_model_kv_bytes_per_token(&model), layer * 36);
    cr_assert_eq(moe_model_kv_bytes(&model, 100), layer * 36 * 100);
    cr_assert_eq(moe_model_kv_bytes(&model, 1000), layer * 18 * (1000 + 128));
}

/* Attention counted matrix by matrix, as a check of the closed form. */
Test(model, attention_weights_are_the_sum_of_the_matrices)
{
    const struct moe_model mla = load("deepseek-v3");
    const double matrices[] = { 7168.0 * 1536,     1536.0 * 128 * 192, 7168.0 * 576,
                                512.0 * 128 * 128, 512.0 * 128 * 128,  128.0 * 128 * 7168 };
    double sum = 0;
    for (size_t i = 0; i < sizeof matrices / sizeof matrices[0]; i++) {
        sum += matrices[i];
    }
    cr_assert_eq(moe_model_attention_weights(&mla), sum);
    const struct moe_model gqa = load("qwen3-235b-a22b");
    cr_assert_eq(moe_model_attention_weights(&gqa), 4096.0 * (2 * 64 + 2 * 4) * 128);
    const struct moe_model straight = load("deepseek-v2-lite");
    cr_assert_eq(moe_model_attention_weights(&straight),
                 2048.0 * 16 * 192 + 2048.0 * 576 + 512.0 * 16 * 256 + 16.0 * 128 * 2048);
}

/* 1 byte per weight, but 2 for routers and vocabulary tables. */
Test(model, nonexpert_bytes_keep_routers_and_tables_unquantised)
{
    const struct moe_model model = load("deepseek-v3");
    const double plain = 7168.0 * (2 * 129280.0 + 58 * 256.0);
    cr_assert_eq(moe_model_nonexpert_bytes(&model), moe_model_nonexpert_weights(&model) + plain);
}

Test(model, cards_are_listed_in_order_and_unknown_ones_refused_with_the_list)
{
    uint32_t count = 0;
    const char *const *names = moe_model_card_names(&count);
    struct moe_model model;
    struct moe_error err = { 0 };
    cr_assert_eq(count, 19);
    for (uint32_t i = 0; i < count; i++) {
        const struct moe_model card = load(names[i]);
        cr_expect_str_eq(card.name, names[i]);
        cr_expect(i == 0 || strcmp(names[i - 1], names[i]) < 0);
    }
    cr_assert_eq(moe_model_load(&model, "deepseek-v33", &err), MOE_RANGE);
    cr_assert_not_null(
        strstr(err.text, "no model card 'deepseek-v33'; there are: deepseek-v2-lite"));
    cr_assert_eq(moe_model_load(&model, "no/such.yaml", &err), MOE_IO);
    cr_assert_eq(moe_model_load(&model, "no/ending", &err), MOE_RANGE);
}

/* Parameters in 10^9 as published without multi-token prediction, and GiB of KV cache at 1,048,576
 * tokens with index keys in bf16 as vLLM's announcement of DeepSeek-V4 counts them. */
Test(model, sparse_attention_comes_to_the_published_sizes)
{
    static const struct {
        const char *name;
        double weights;
        double tolerance;
        double cache_gib; /* 0: none published */
    } cases[] = {
        { "deepseek-v3.2", 671, 0.002, 83.88 },  { "deepseek-v4-flash", 284, 0.002, 6.72 },
        { "deepseek-v4-pro", 1600, 0.02, 9.62 }, { "glm-5.2", 744, 0.001, 0 },
        { "minimax-m3", 428, 0.005, 0 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct moe_model model = load(cases[i].name);
        const double weights = moe_model_total_weights(&model) / 1e9;
        model.index_bytes_per_value = 2;
        const double gib = moe_model_kv_bytes_per_token(&model) * 1048576 / (1 << 30);
        cr_expect_lt(fabs(weights / cases[i].weights - 1), cases[i].tolerance, "%s: %g",
                     cases[i].name, weights);
        cr_expect(cases[i].cache_gib == 0 || fabs(gib - cases[i].cache_gib) < 0.006, "%s: %g",
                  cases[i].name, gib);
    }
}

/* FLOPs of one token after 1,048,576 others, with so many active weights: what a query scores, and
 * what it reads. */
static double token_flops(const struct moe_model *m, double active_weights)
{
    const double context = 1048576;
    const bool mla = m->attention == MOE_ATTENTION_MLA;
    const double pair = mla ? 2.0 * m->head_count * (2.0 * m->kv_lora_rank + m->rope_head_size)
                            : 4.0 * m->head_count * m->head_size;
    const double window = moe_model_compresses(m) ? m->window_size : 0;
    double flops = 2 * active_weights;
    flops += m->index_layer_count * context / m->sparse_ratio * 2 * m->index_head_count *
             m->index_head_size;
    flops += m->sparse_layer_count * (m->sparse_entries + window) * pair;
    if (m->pooled_layer_count > 0) {
        flops += m->pooled_layer_count * (context / m->pooled_ratio + window) * pair;
    }
    return flops;
}

/* DeepSeek-V4's report: Pro takes 27 % of V3.2's FLOPs of a token after a million others. */
Test(model, a_token_of_a_long_context_takes_the_published_share_of_work)
{
    const struct moe_model before = load("deepseek-v3.2");
    const struct moe_model pro = load("deepseek-v4-pro");
    const double share = token_flops(&pro, 49e9) / token_flops(&before, 37e9);
    cr_expect_float_eq(share, 0.27, 0.01, "%g", share);
}

/* Each change alone makes a good model bad, and the sentence names the field. */
Test(model, check_names_what_does_not_fit)
{
    const struct moe_model good = load("deepseek-v3");
    struct moe_error err = { 0 };
    struct moe_model bad = good;
#define REFUSED(change, word)                             \
    bad = good;                                           \
    bad.change;                                           \
    err.text[0] = '\0';                                   \
    cr_expect_eq(moe_model_check(&bad, &err), MOE_RANGE); \
    cr_expect_not_null(strstr(err.text, word), "%s", err.text)
    REFUSED(moe_layer_count = 62, "moe_layers");
    REFUSED(moe_layer_count = 61, "dense.size");
    REFUSED(top_k = 257, "experts.top_k");
    REFUSED(top_k = 65, "experts.top_k");
    REFUSED(group_count = 7, "experts.groups");
    REFUSED(group_limit = 9, "experts.group_limit");
    REFUSED(kv_head_count = 64, "attention.kv_heads");
    REFUSED(kv_lora_rank = 0, "attention.kv_lora_rank");
    REFUSED(value_head_size = 0, "attention.value_head_size");
    REFUSED(window_layer_count = 1, "attention.window_layers");
    REFUSED(window_size = 1, "attention.window_size");
    REFUSED(attention = MOE_ATTENTION_MHA, "attention");
    REFUSED(expert_bytes_per_weight = 0, "experts.bytes_per_weight");
    REFUSED(kv_bytes_per_value = NAN, "attention.kv_bytes_per_value");
    REFUSED(hidden_size = 0, "hidden");
    const struct moe_model latent = load("deepseek-v3.2");
#define SPARSE(change, word)                              \
    bad = latent;                                         \
    bad.change;                                           \
    err.text[0] = '\0';                                   \
    cr_expect_eq(moe_model_check(&bad, &err), MOE_RANGE); \
    cr_expect_not_null(strstr(err.text, word), "%s", err.text)
    SPARSE(sparse_entries = 0, "attention.sparse_entries");
    SPARSE(sparse_layer_count = 62, "attention.sparse_layers");
    SPARSE(sparse_layer_count = 0, "attention.sparse_entries");
    SPARSE(index_layer_count = 62, "attention.index_layers");
    SPARSE(index_block = 3, "attention.index_block");
    SPARSE(index_bytes_per_value = 0, "attention.index_bytes_per_value");
    SPARSE(sparse_ratio = 4, "kind shared only");
    SPARSE(window_size = 8, "attention.window_size");
    SPARSE(output_rank = 8, "attention.output_rank");
    SPARSE(pooled_ratio = 8, "attention.pooled_ratio");
#undef SPARSE
#undef REFUSED
    /* 8 of 4 groups of 1 expert each do not exist. */
    bad = good;
    bad.group_count = 256;
    cr_expect_eq(moe_model_check(&bad, &err), MOE_RANGE);
    cr_expect_not_null(strstr(err.text, "must fit into experts.group_limit groups"));
}

Test(model, card_errors_name_file_line_and_key)
{
    static const char text[] = "name: x\nsource: y\nlayers: 2\nexperts:\n  cuont: 3\n";
    struct moe_model model = { .layer_count = 77 };
    struct moe_error err = { 0 };
    cr_assert_eq(moe_model_read_card(&model, text, sizeof text - 1, "my.yaml", &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "my.yaml:5: experts.cuont: no such key (did you mean "
                                        "experts.count?); allowed in experts: count top_k"),
                       "%s", err.text);
    cr_assert_eq(moe_model_read_card(&model, text, 28, "my.yaml", &err), MOE_RANGE);
    cr_assert_not_null(strstr(err.text, "key moe_layers is missing from this model card"), "%s",
                       err.text);
    cr_assert_eq(model.layer_count, 77, "written on error");
}
