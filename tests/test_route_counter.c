/* The three counting kernels against one loop over tokens, layers and choices. */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <string.h>

#include "sim/base/random.h"
#include "sim/engine/route_counter.h"

enum {
    CASE_COUNT = 300,
    STEPS = 3,
    GPU_LIMIT = 100,
    NODE_LIMIT = 4,
    LAYER_LIMIT = 6,
    TOP_K_LIMIT = 6,
    SLOT_LIMIT = 320,
    EXPERT_LIMIT = 40,
    TOKEN_LIMIT = 60
};

struct draw {
    uint64_t key;
    uint64_t counter;
};

static struct moe_arena arena;

static uint32_t below(struct draw *draw, uint32_t bound)
{
    return (uint32_t) moe_random_below(draw->key, draw->counter++, bound);
}

static void setup(void)
{
    cr_assert_eq(moe_arena_init(&arena, 8 << 20, NULL), MOE_OK);
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(route_counter, .init = setup, .fini = teardown);

/* What is counted, the slow way. */
struct plain {
    struct moe_placement_shape shape;
    const struct moe_placement *placement;
    const struct moe_replay_map *map;
    uint32_t trace_layers;
    uint32_t top_k;
    uint32_t taken[LAYER_LIMIT][EXPERT_LIMIT]; /* tokens of an expert since the beginning */
    uint32_t slot_tokens[LAYER_LIMIT][SLOT_LIMIT];
    uint32_t pair_tokens[LAYER_LIMIT][GPU_LIMIT][GPU_LIMIT];
    uint32_t node_tokens[LAYER_LIMIT][GPU_LIMIT][NODE_LIMIT];
    bool nodes; /* counted too: the hierarchical exchange */
    uint64_t assignments;
    uint64_t unknown;
};

static uint32_t gpus_per_node(const struct plain *plain)
{
    return plain->shape.gpu_count / plain->shape.node_count;
}

/* The slot that takes the next token of an expert: its copies in turn, lowest slot first. */
static uint32_t plain_slot(struct plain *plain, uint32_t layer, uint32_t expert)
{
    const uint16_t *slots = moe_placement_layer(plain->placement, layer);
    uint32_t copies[SLOT_LIMIT];
    uint32_t count = 0;
    for (uint32_t s = 0; s < plain->shape.slot_count; s++) {
        if (slots[s] == expert) {
            copies[count++] = s;
        }
    }
    return copies[plain->taken[layer][expert]++ % count];
}

static void plain_add(struct plain *plain, uint32_t source, const uint16_t *row)
{
    const uint32_t slots_per_gpu = plain->shape.slot_count / plain->shape.gpu_count;
    for (uint32_t layer = 0; layer < plain->shape.layer_count; layer++) {
        bool reached[GPU_LIMIT] = { false };
        bool reached_node[NODE_LIMIT] = { false };
        for (uint32_t k = 0; k < plain->top_k; k++) {
            const uint16_t id = row[layer % plain->trace_layers * plain->top_k + k];
            plain->assignments++;
            if (id == MOE_EXPERT_UNKNOWN) {
                plain->unknown++;
                continue;
            }
            const uint32_t expert =
                plain->map->expert[(size_t) layer * plain->shape.expert_count + id];
            const uint32_t slot = plain_slot(plain, layer, expert);
            plain->slot_tokens[layer][slot]++;
            reached[slot / slots_per_gpu] = true;
            reached_node[slot / slots_per_gpu / gpus_per_node(plain)] = true;
        }
        for (uint32_t g = 0; g < plain->shape.gpu_count; g++) {
            plain->pair_tokens[layer][source][g] += reached[g];
        }
        for (uint32_t n = 0; n < plain->shape.node_count; n++) {
            plain->node_tokens[layer][source][n] += reached_node[n];
        }
    }
}

/* Every expert once, the other slots anything or nothing, all shuffled. */
static void random_placement(struct draw *draw, struct moe_placement *placement,
                             const struct moe_placement_shape *shape)
{
    cr_assert_eq(moe_placement_init(placement, &arena, shape, NULL), MOE_OK);
    for (uint32_t layer = 0; layer < shape->layer_count; layer++) {
        uint16_t *slots = moe_placement_layer(placement, layer);
        for (uint32_t s = 0; s < shape->slot_count; s++) {
            const uint32_t extra = below(draw, shape->expert_count + 2);
            slots[s] = s < shape->expert_count       ? (uint16_t) s
                       : extra < shape->expert_count ? (uint16_t) extra
                                                     : MOE_SLOT_EMPTY;
        }
        for (uint32_t s = shape->slot_count; s-- > 1;) {
            const uint32_t other = below(draw, s + 1);
            const uint16_t kept = slots[s];
            slots[s] = slots[other];
            slots[other] = kept;
        }
    }
}

static void random_case(struct draw *draw, struct plain *plain, struct moe_placement *placement,
                        struct moe_replay_map *map)
{
    static const uint32_t sizes[] = { 1, 2, 3, 8, 16, 22, 25 };
    memset(plain, 0, sizeof *plain);
    const uint32_t groups = 1 + below(draw, 4);
    struct moe_placement_shape shape = {
        .layer_count = 1 + below(draw, LAYER_LIMIT),
        .expert_count = groups * (1 + below(draw, EXPERT_LIMIT / 4)),
        .node_count = 1 + below(draw, NODE_LIMIT),
        .group_count = groups,
    };
    shape.gpu_count = shape.node_count * sizes[below(draw, 7)];
    shape.slot_count =
        shape.gpu_count *
        ((shape.expert_count + shape.gpu_count - 1) / shape.gpu_count + below(draw, 3));
    const struct moe_trace_model trace = {
        .layer_count = 1 + below(draw, 3),
        .expert_count = shape.expert_count,
        .group_count = groups,
        .group_limit = groups,
        .top_k = 1,
    };
    moe_arena_reset(&arena);
    cr_assert_eq(moe_replay_map_init(map, &trace, shape.layer_count, &arena, NULL), MOE_OK);
    random_placement(draw, placement, &shape);
    plain->nodes = below(draw, 2) == 1;
    plain->shape = shape;
    plain->placement = placement;
    plain->map = map;
    plain->trace_layers = trace.layer_count;
    plain->top_k = below(draw, 3) == 0 ? 1 : 1 + below(draw, TOP_K_LIMIT);
}

/* Tokens of every rank; some have none. Ids are of any kind, a choice may come twice. */
static void add_step(struct draw *draw, struct plain *plain, struct moe_route_counter *counter)
{
    static uint16_t rows[TOKEN_LIMIT][3 * TOP_K_LIMIT];
    const uint16_t *pointers[TOKEN_LIMIT];
    memset(plain->slot_tokens, 0, sizeof plain->slot_tokens);
    memset(plain->pair_tokens, 0, sizeof plain->pair_tokens);
    memset(plain->node_tokens, 0, sizeof plain->node_tokens);
    moe_route_counter_begin_step(counter);
    for (uint32_t gpu = 0; gpu < plain->shape.gpu_count; gpu++) {
        const uint32_t tokens = below(draw, 3) * below(draw, TOKEN_LIMIT / 2);
        for (uint32_t t = 0; t < tokens; t++) {
            for (uint32_t i = 0; i < plain->trace_layers * plain->top_k; i++) {
                rows[t][i] = below(draw, 20) == 0
                                 ? MOE_EXPERT_UNKNOWN
                                 : (uint16_t) below(draw, plain->shape.expert_count);
            }
            pointers[t] = rows[t];
            plain_add(plain, gpu, rows[t]);
        }
        const uint32_t first = tokens == 0 ? 0 : below(draw, tokens);
        moe_route_counter_add(counter, gpu, pointers, first);
        moe_route_counter_add(counter, gpu, pointers + first, tokens - first);
    }
}

static struct moe_exchange_work straight(const struct plain *plain, uint32_t layer, uint32_t g)
{
    struct moe_exchange_work w = { 0 };
    for (uint32_t other = 0; other < plain->shape.gpu_count; other++) {
        if (other == g) {
            w.near_own = plain->pair_tokens[layer][g][g];
        } else if (other / gpus_per_node(plain) == g / gpus_per_node(plain)) {
            w.near_out += plain->pair_tokens[layer][g][other];
            w.near_in += plain->pair_tokens[layer][other][g];
        } else {
            w.far_out += plain->pair_tokens[layer][g][other];
            w.far_in += plain->pair_tokens[layer][other][g];
        }
    }
    return w;
}

/* Every journey of a copy, those that touch GPU g summed. */
static struct moe_exchange_work relayed(const struct plain *plain, uint32_t layer, uint32_t g)
{
    const uint32_t size = gpus_per_node(plain);
    struct moe_exchange_work w = { 0 };
    for (uint32_t from = 0; from < plain->shape.gpu_count; from++) {
        for (uint32_t node = 0; node < plain->shape.node_count; node++) {
            const uint32_t relay = node * size + from % size;
            if (relay != from) {
                w.far_out += from == g ? plain->node_tokens[layer][from][node] : 0;
                w.far_in += relay == g ? plain->node_tokens[layer][from][node] : 0;
            }
            for (uint32_t to = node * size; to < (node + 1) * size; to++) {
                w.near_out += relay == g && to != relay ? plain->pair_tokens[layer][from][to] : 0;
                w.near_in += to == g && to != relay ? plain->pair_tokens[layer][from][to] : 0;
                w.near_own += to == g && to == relay ? plain->pair_tokens[layer][from][to] : 0;
            }
        }
    }
    return w;
}

static void check_work(const struct plain *plain, const struct moe_route_counter *counter,
                       uint32_t layer, uint32_t tile, uint64_t seed)
{
    static struct moe_expert_work expert[GPU_LIMIT];
    static struct moe_exchange_work dispatch[GPU_LIMIT];
    const uint32_t gpus = plain->shape.gpu_count;
    const uint32_t slots_per_gpu = plain->shape.slot_count / gpus;
    moe_route_counter_work(counter, layer, tile, expert, dispatch);
    for (uint32_t g = 0; g < gpus; g++) {
        uint32_t tokens = 0;
        uint32_t active = 0;
        uint32_t tiles = 0;
        uint32_t fullest = 0;
        for (uint32_t s = g * slots_per_gpu; s < (g + 1) * slots_per_gpu; s++) {
            const uint32_t n = plain->slot_tokens[layer][s];
            tokens += n;
            active += n > 0;
            tiles += n / tile + (n % tile != 0);
            fullest = n > fullest ? n : fullest;
        }
        cr_assert(expert[g].tokens == tokens && expert[g].active == active &&
                      expert[g].tiles == tiles && expert[g].fullest == fullest,
                  "seed %" PRIu64 ", layer %u, GPU %u", seed, layer, g);
        const struct moe_exchange_work want =
            plain->nodes ? relayed(plain, layer, g) : straight(plain, layer, g);
        cr_assert(dispatch[g].near_out == want.near_out && dispatch[g].near_in == want.near_in &&
                      dispatch[g].far_out == want.far_out && dispatch[g].far_in == want.far_in &&
                      dispatch[g].near_own == want.near_own,
                  "seed %" PRIu64 ", layer %u, GPU %u", seed, layer, g);
    }
}

Test(route_counter, kernels_agree_with_a_loop_over_everything)
{
    static struct plain plain;
    uint32_t top_1 = 0;
    uint32_t many_gpus = 0;
    for (uint64_t seed = 0; seed < CASE_COUNT; seed++) {
        struct draw draw = { moe_random_key(seed, MOE_RANDOM_TEST), 0 };
        struct moe_placement placement;
        struct moe_replay_map map;
        struct moe_route_counter counter;
        random_case(&draw, &plain, &placement, &map);
        top_1 += plain.top_k == 1;
        many_gpus += plain.top_k > 1 && plain.shape.gpu_count > 64;
        cr_assert_eq(moe_route_counter_init(&counter, &map, &placement, plain.top_k, &arena, NULL),
                     MOE_OK);
        if (plain.nodes) {
            cr_assert_eq(moe_route_counter_count_nodes(&counter, &arena, NULL), MOE_OK);
        }
        for (uint32_t step = 0; step < STEPS; step++) {
            add_step(&draw, &plain, &counter);
            for (uint32_t layer = 0; layer < plain.shape.layer_count; layer++) {
                const uint32_t *slots = moe_route_counter_slots(&counter, layer);
                for (uint32_t s = 0; s < plain.shape.slot_count; s++) {
                    cr_assert_eq(slots[s], plain.slot_tokens[layer][s],
                                 "seed %" PRIu64 ", step %u, layer %u, slot %u: %u for %u", seed,
                                 step, layer, s, slots[s], plain.slot_tokens[layer][s]);
                }
                check_work(&plain, &counter, layer, 1 + below(&draw, 5), seed);
            }
            cr_assert_eq(counter.assignments, plain.assignments, "seed %" PRIu64, seed);
            cr_assert_eq(counter.unknown, plain.unknown, "seed %" PRIu64, seed);
        }
    }
    cr_assert(top_1 > 50 && many_gpus > 15, "top-1 %u, many GPUs %u: the cases miss a kernel",
              top_1, many_gpus);
}

/* What a fault in both loops could not hide: nothing is lost between GPUs. */
Test(route_counter, every_copy_sent_is_received)
{
    static struct plain plain;
    static struct moe_expert_work expert[GPU_LIMIT];
    static struct moe_exchange_work dispatch[GPU_LIMIT];
    for (uint64_t seed = 1000; seed < 1050; seed++) {
        struct draw draw = { moe_random_key(seed, MOE_RANDOM_TEST), 0 };
        struct moe_placement placement;
        struct moe_replay_map map;
        struct moe_route_counter counter;
        random_case(&draw, &plain, &placement, &map);
        cr_assert_eq(moe_route_counter_init(&counter, &map, &placement, plain.top_k, &arena, NULL),
                     MOE_OK);
        if (plain.nodes) {
            cr_assert_eq(moe_route_counter_count_nodes(&counter, &arena, NULL), MOE_OK);
        }
        add_step(&draw, &plain, &counter);
        double tokens = 0;
        for (uint32_t layer = 0; layer < plain.shape.layer_count; layer++) {
            double out[2] = { 0 };
            double in[2] = { 0 };
            moe_route_counter_work(&counter, layer, 1, expert, dispatch);
            for (uint32_t g = 0; g < plain.shape.gpu_count; g++) {
                tokens += expert[g].tokens;
                cr_assert_eq(expert[g].tiles, expert[g].tokens);
                out[0] += dispatch[g].near_out;
                out[1] += dispatch[g].far_out;
                in[0] += dispatch[g].near_in;
                in[1] += dispatch[g].far_in;
            }
            cr_assert(out[0] == in[0] && out[1] == in[1], "seed %" PRIu64, seed);
        }
        cr_assert_eq(tokens, (double) (counter.assignments - counter.unknown));
    }
}

/* Copies of an expert differ by one token at most, however the tokens are cut into steps. */
Test(route_counter, the_turn_is_carried_from_step_to_step)
{
    const struct moe_placement_shape shape = { 1, 2, 4, 2, 1, 1 };
    const struct moe_trace_model trace = {
        .layer_count = 1, .expert_count = 2, .top_k = 1, .group_count = 1, .group_limit = 1
    };
    struct moe_placement placement;
    struct moe_replay_map map;
    struct moe_route_counter counter;
    cr_assert_eq(moe_replay_map_init(&map, &trace, 1, &arena, NULL), MOE_OK);
    cr_assert_eq(moe_placement_init(&placement, &arena, &shape, NULL), MOE_OK);
    memcpy(placement.expert_of_slot, (uint16_t[]){ 1, 0, 0, 0 }, 4 * sizeof(uint16_t));
    cr_assert_eq(moe_route_counter_init(&counter, &map, &placement, 1, &arena, NULL), MOE_OK);
    const uint16_t zero = 0;
    const uint16_t *rows[] = { &zero, &zero };
    static const uint32_t want[3][4] = { { 0, 1, 1, 0 }, { 0, 1, 0, 1 }, { 0, 0, 1, 1 } };
    for (uint32_t step = 0; step < 3; step++) {
        moe_route_counter_begin_step(&counter);
        moe_route_counter_add(&counter, step % 2, rows, 2);
        for (uint32_t s = 0; s < 4; s++) {
            cr_assert_eq(moe_route_counter_slots(&counter, 0)[s], want[step][s], "step %u", step);
        }
    }
}
