/* Decode attention by its series: against values worked out by hand, against trying all splits,
 * and what a step of decoding, prompts and drafts takes of it. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sim/base/random.h"
#include "sim/base/split_plan.h"
#include "sim/cost/calibration.h"
#include "sim/cost/calibration_hash.h"
#include "sim/cost/cost.h"
#include "sim/cost/cost_source.h"
#include "sim/cost/decode.h"

static const char tiny_path[] = MOE_SOURCE_ROOT "/tests/data/tiny-calibration.csv";

/* 2 kv heads of 32 + 32 values: 256 bytes a token, of which each of 2 blocks reads half: 2048
 * bytes a tile of 16 tokens. 1 byte a ns; p = 1, so a tile takes 50 ns and those of all blocks. A
 * sequence's 4 q heads: 512 bytes of q and output; of a split 272 a head, written and read. */
#define HEAD                                                                                      \
    "table,decode,series,gpu_kind,kind,q_heads,kv_heads,head_size,value_size,tile_tokens,blocks," \
    "slots,t0_ns,round_ns,tile_ns,bandwidth_bytes_s,p,join_ns,split_ns,row_ns,provenance,source\n"
#define POINT_HEAD "table,decode_point,series,sequences,context,median_ns,provenance,source\n"
static const char rows[] = HEAD "decode,core,toy,gqa,4,2,32,32,16,2,10,1000,100,50,1e9,1,300,7,2,";

static struct moe_arena arena;
static const struct moe_calibration *calibration;
static struct moe_error err;
static const struct moe_decode_key key = { "toy", MOE_DECODE_GQA, 4, 2, 32, 32 };

static void setup(void)
{
    cr_assert_eq(moe_arena_init(&arena, 8 << 20, NULL), MOE_OK);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(decode, .init = setup, .fini = teardown);

/* The tiny table with more text. */
static enum moe_status parse(const char *more)
{
    static char text[1 << 16];
    FILE *file = fopen(tiny_path, "rb");
    cr_assert_not_null(file);
    const size_t bytes = fread(text, 1, sizeof text / 2, file);
    (void) fclose(file);
    (void) snprintf(text + bytes, sizeof text - bytes, "\n%s", more);
    moe_arena_reset(&arena);
    return moe_calibration_parse(&calibration, text, strlen(text), "t.csv", MOE_CALIBRATION_FITTED,
                                 &arena, &err);
}

static struct moe_decode made(const char *provenance, const char *points)
{
    char more[2000];
    struct moe_decode decode;
    (void) snprintf(more, sizeof more, "%s%s,round numbers\n%s", rows, provenance, points);
    cr_assert_eq(parse(more), MOE_OK, "%s", err.text);
    cr_assert_eq(moe_decode_init(&decode, calibration, &key, &arena, &err), MOE_OK);
    cr_assert_not_null(decode.series);
    return decode;
}

static void expect(const struct moe_decode *decode, double sequences, double context, double ns,
                   enum moe_provenance provenance)
{
    enum moe_provenance got = MOE_PROVENANCE_COUNT;
    const double price = moe_decode_ns(decode, sequences, context, 1.0, 1.0, &got);
    cr_expect(fabs(price - ns) <= 1e-9 * ns, "%g x %g: %.17g ns, not %.17g", sequences, context,
              price, ns);
    cr_expect_eq(got, provenance, "%g x %g: %s, not %s", sequences, context,
                 moe_provenance_name(got), moe_provenance_name(provenance));
}

Test(decode, agrees_with_values_by_hand)
{
    const struct moe_decode decode = made("measured", "");
    enum moe_provenance provenance;
    /* 6 blocks of 3 tiles: one round, not full. */
    expect(&decode, 3, 40, 1000 + 1536 + 100 + 3 * (50 + 6 * 2048), MOE_PROVENANCE_EXTRAPOLATED);
    /* 14 blocks: a full round of 10 and one of 4. Parts count as whole ones. */
    const double two = 1000 + 3584 + 100 + 3 * (50 + 10 * 2048) + 100 + 3 * (50 + 4 * 2048);
    expect(&decode, 7, 33, two, MOE_PROVENANCE_EXTRAPOLATED);
    expect(&decode, 6.25, 47.5, two, MOE_PROVENANCE_EXTRAPOLATED);
    /* 10 tiles over 5 splits: 10 blocks of 2, joined by 4 heads. */
    expect(&decode, 1, 160, 1000 + 512 + 4 * 5 * 272 + 100 + 2 * (50 + 10 * 2048) + 300 + 5 * 7 + 8,
           MOE_PROVENANCE_EXTRAPOLATED);
    cr_expect_float_eq(moe_decode_ns(&decode, 3, 40, 2.0, 3.0, &provenance),
                       1000 + 2 * 1536 + 100 + 3 * (3 * 50 + 2 * 6 * 2048), 1e-6);
}

Test(decode, points_are_met_and_borders_held)
{
    const struct moe_decode decode =
        made("measured", POINT_HEAD "decode_point,core,3,40,79300,measured,x\n"
                                    "decode_point,core,3,160,300000,published,x\n"
                                    "decode_point,core,7,33,91100,measured,x\n");
    const double base = 39650; /* by hand above: 79300 is twice as long, 91100 exactly it */
    struct moe_decode_plan plan;
    expect(&decode, 3, 40, 79300, MOE_PROVENANCE_MEASURED);
    expect(&decode, 3, 160, 300000, MOE_PROVENANCE_PUBLISHED);
    expect(&decode, 7, 33, 91100, MOE_PROVENANCE_MEASURED);
    expect(&decode, 3, 33, 2 * base, MOE_PROVENANCE_EXTRAPOLATED); /* below the row's first */
    moe_decode_plan_make(&plan, &decode.fit, 2, 40);
    expect(&decode, 2, 40, 2 * moe_decode_fitted_ns(&decode.fit, &plan, 1.0, 1.0),
           MOE_PROVENANCE_EXTRAPOLATED);
    /* At sqrt(21) sequences, in the middle of the logs, the ratio is 1.5. */
    moe_decode_plan_make(&plan, &decode.fit, sqrt(21.0), 40);
    expect(&decode, sqrt(21.0), 40, 1.5 * moe_decode_fitted_ns(&decode.fit, &plan, 1.0, 1.0),
           MOE_PROVENANCE_EXTRAPOLATED); /* 40 lies beyond the one point of 7 sequences */
    /* What missed its gate says so between its points. */
    const struct moe_decode missed =
        made("extrapolated", POINT_HEAD "decode_point,core,3,40,79300,measured,x\n"
                                        "decode_point,core,12,40,79300,measured,x\n");
    expect(&missed, 3, 40, 79300, MOE_PROVENANCE_MEASURED);
    enum moe_provenance between = MOE_PROVENANCE_COUNT;
    (void) moe_decode_ns(&missed, 5, 40, 1.0, 1.0, &between);
    cr_expect_eq(between, MOE_PROVENANCE_EXTRAPOLATED);
}

Test(decode, no_split_is_better_than_the_planned_one)
{
    const uint64_t random = moe_random_key(5, MOE_RANDOM_TEST);
    for (uint64_t i = 0; i < 20000; i++) {
        static const int64_t sizes[] = { 1, 7, 108, 132, 264, 528 };
        const int64_t blocks = 1 + (int64_t) moe_random_below(random, 4 * i, i % 2 ? 4096 : 64);
        const int64_t tiles = 1 + (int64_t) moe_random_below(random, 4 * i + 1, i % 3 ? 64 : 2048);
        const int64_t slots = sizes[moe_random_below(random, 4 * i + 2, 6)];
        int64_t least = INT64_MAX;
        int32_t best = 0;
        for (int32_t s = 1; s <= (tiles < MOE_SPLIT_LIMIT ? tiles : MOE_SPLIT_LIMIT); s++) {
            const int64_t rounds = (blocks * s + slots - 1) / slots;
            const int64_t cost = rounds * ((tiles + s - 1) / s + 2);
            best = cost < least ? s : best;
            least = cost < least ? cost : least;
        }
        cr_assert_eq(moe_split_count(blocks, tiles, slots), best, "%lld blocks, %lld tiles, %lld",
                     (long long) blocks, (long long) tiles, (long long) slots);
    }
}

/* A layer's attention of the toy model. */
static struct moe_duration price(const struct moe_token_work *work, struct moe_model *model)
{
    static const struct moe_gpu_factor one = { 1.0, 1.0, 1.0 };
    const struct moe_cluster cluster = { .node_count = 2, .gpus_per_node = 4, .gpu = "toy" };
    struct moe_cost *cost = NULL;
    cr_assert_eq(moe_cost_init(&cost, calibration, model, &cluster, &arena, &err), MOE_OK, "%s",
                 err.text);
    return moe_cost_attention(cost, work, &one);
}

static struct moe_model toy(void)
{
    return (struct moe_model){ .name = "toy",
                               .layer_count = 2,
                               .moe_layer_count = 1,
                               .hidden_size = 100,
                               .vocabulary_size = 1000,
                               .expert_count = 8,
                               .top_k = 2,
                               .group_count = 1,
                               .group_limit = 1,
                               .expert_size = 50,
                               .dense_size = 200,
                               .gated = true,
                               .attention = MOE_ATTENTION_GQA,
                               .head_count = 4,
                               .kv_head_count = 2,
                               .head_size = 32,
                               .kv_layer_count = 2,
                               .expert_bytes_per_weight = 1,
                               .dense_bytes_per_weight = 1,
                               .kv_bytes_per_value = 2 };
}

/* What the series makes of a step, more than the rates of the kind do: 256 ns a token that is
 * read, 4 * 4 * 32 FLOP / 10 a ns a pair. */
static double change(const struct moe_token_work *work, struct moe_model *model)
{
    (void) made("measured", "");
    const double with = price(work, model).ns;
    cr_assert_eq(parse(""), MOE_OK);
    return with - price(work, model).ns;
}

Test(decode, a_step_prices_decoding_apart_from_prompts_and_drafts)
{
    struct moe_model model = toy();
    const double three = 39650; /* 3 sequences of 40 */
    const double pair = 51.2;
    struct moe_token_work work = {
        .tokens = 3, .kv_read = 120, .score_pairs = 120, .decode_read = 120, .decode_sequences = 3
    };
    cr_expect_float_eq(change(&work, &model), three - 120 * (256 + pair), 1e-6);
    /* A prompt of 10 besides goes by the rates, in a kernel of its own with the series' t0. */
    work.tokens = 13;
    work.kv_read = 130;
    work.score_pairs = 175;
    cr_expect_float_eq(change(&work, &model), three + 1000 - 120 * (256 + pair), 1e-6);
    /* Drafts: pairs without reads of their own. */
    work = (struct moe_token_work){
        .tokens = 6, .kv_read = 120, .score_pairs = 237, .decode_read = 120, .decode_sequences = 3
    };
    cr_expect_float_eq(change(&work, &model), three - 120 * (256 + pair), 1e-6);
    /* Half of the layers see 16 tokens: there 3 sequences are 6 blocks of one tile. */
    model.window_layer_count = 1;
    model.kv_layer_count = 1;
    model.window_size = 16;
    work = (struct moe_token_work){ .tokens = 3,
                                    .kv_read = 120,
                                    .score_pairs = 120,
                                    .decode_read = 120,
                                    .decode_sequences = 3,
                                    .window_read = 48,
                                    .window_pairs = 48 };
    const double tile = 1000 + 1536 + 100 + 50 + 6 * 2048;
    cr_expect_float_eq(change(&work, &model),
                       (three - 120 * (256 + pair) + tile - 48 * (256 + pair)) / 2, 1e-6);
    /* Whoever does not say how many sequences decode, or has another KV, gets the rates. */
    work.decode_sequences = 0;
    cr_expect_eq(change(&work, &model), 0.0);
    work.decode_sequences = 3;
    model.kv_bytes_per_value = 1;
    cr_expect_eq(change(&work, &model), 0.0);
}

Test(decode, a_step_says_where_its_price_is_from)
{
    struct moe_model model = toy();
    struct moe_arena more;
    const struct moe_cluster cluster = { .node_count = 2, .gpus_per_node = 4, .gpu = "toy" };
    const struct moe_cost_source *sources = NULL;
    struct moe_cost *cost = NULL;
    uint32_t count = 0;
    bool found = false;
    cr_assert_eq(moe_arena_init(&more, 1 << 20, NULL), MOE_OK);
    (void) made("extrapolated", "");
    cr_assert_eq(moe_cost_init(&cost, calibration, &model, &cluster, &arena, &err), MOE_OK);
    cr_assert_eq(moe_cost_sources(&sources, &count, cost, calibration, &more, &err), MOE_OK);
    for (uint32_t i = 0; i < count; i++) {
        found = found ||
                (strcmp(sources[i].table, "core") == 0 && sources[i].part == MOE_COST_ATTENTION &&
                 sources[i].provenance == MOE_PROVENANCE_EXTRAPOLATED);
    }
    cr_expect(found);
    moe_arena_finish(&more);
}

static void refuse(const char *more, const char *message)
{
    char text[2000];
    (void) snprintf(text, sizeof text, "%s", more);
    cr_expect_eq(parse(text), MOE_RANGE, "not refused: %s", message);
    cr_expect_not_null(strstr(err.text, message), "'%s' instead of '%s'", err.text, message);
}

Test(decode, refuses_what_no_kernel_and_no_hardware_can)
{
    const char *good = "gqa,4,2,32,32,16,2,10,1000,100,50,1e9,1,300,7,2,measured,x\n";
    char text[2000];
    cr_assert_eq(parse(""), MOE_OK);
    const uint64_t before = moe_calibration_hash(calibration);
    (void) snprintf(text, sizeof text, HEAD "decode,core,toy,%s", good);
    cr_assert_eq(parse(text), MOE_OK, "%s", err.text);
    cr_expect_neq(moe_calibration_hash(calibration), before);
    refuse(HEAD "decode,core,toy,gqa,4,3,32,32,16,2,10,1,1,1,1e9,1,1,1,1,measured,x\n",
           "gqa has a multiple of kv_heads");
    refuse(HEAD "decode,core,toy,mla,4,2,48,32,16,2,10,1,1,1,1e9,1,1,1,1,measured,x\n",
           "mla one of them");
    refuse(HEAD "decode,core,toy,mla,4,1,32,33,16,2,10,1,1,1,1e9,1,1,1,1,measured,x\n",
           "value_size 33");
    refuse(HEAD "decode,core,no,gqa,4,2,32,32,16,2,10,1,1,1,1e9,1,1,1,1,measured,x\n",
           "gpu_kind is 'no'");
    refuse(HEAD "decode,core,toy,gqa,4,2,32,32,16,2,10,1,1,1,2.05e12,1,1,1,1,measured,x\n",
           "bandwidth_bytes_s is 2.05e+12");
    refuse(HEAD "decode,core,toy,gqa,4,2,32,32,16,2,0,1,1,1,1e9,1,1,1,1,measured,x\n", "slots");
    (void) snprintf(text, sizeof text,
                    HEAD "decode,core,toy,%s" POINT_HEAD "decode_point,other,1,16,1e5,measured,x\n",
                    good);
    refuse(text, "series is 'other', which table decode does not have");
    (void) snprintf(text, sizeof text,
                    HEAD "decode,core,toy,%s" POINT_HEAD
                         "decode_point,core,1000,100000,12500000,measured,x\n",
                    good);
    refuse(text, "median_ns is 1.25e+07; a toy needs 1.2549e+07"); /* 25.6 GB at 2.04e12 B/s */
}
