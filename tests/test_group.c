/* Who is seated where: the rule of homes, and each group policy on a room where the right seat is
 * known. Two kinds of requests: one uses experts 0 .. 3, the other 4 .. 7. */
#include <criterion/criterion.h>
#include <string.h>

#include "policies/policy.h"
#include "policies/solve/group_home.h"
#include "sim/base/random.h"

enum { GPUS = 4, LAYERS = 2, EXPERTS = 8, TOKENS = 6, REQUESTS = 12, WAITING = 8, ROOMS = 3000 };

static struct moe_arena arena;
static struct moe_place_view planning;
static struct moe_placement placement;
static uint16_t slots[LAYERS * EXPERTS];
static double values[MOE_POLICY_PARAMETER_LIMIT];

static uint16_t route[REQUESTS * TOKENS][LAYERS];
static uint32_t request_of[REQUESTS * TOKENS];
static uint8_t phase_of[REQUESTS * TOKENS];
static uint32_t first_token[REQUESTS + 1];
static struct moe_policy_routes routes;

static struct moe_waiting_request waiting[WAITING];
static float signature[2][LAYERS * EXPERTS];
static uint32_t free_seats[GPUS];
static uint32_t running[GPUS];
static uint64_t kv_free[GPUS];
static struct moe_group_view view;

/* Expert of a request's token: its kind's four experts by turns, shifted from layer to layer. */
static uint16_t expert_of(uint32_t kind, uint32_t token, uint32_t layer)
{
    return (uint16_t) (4 * kind + (token + layer) % 4);
}

static void setup(void)
{
    cr_assert_eq(moe_arena_init(&arena, 4 << 20, NULL), MOE_OK);
    for (uint32_t i = 0; i < REQUESTS * TOKENS; i++) {
        const uint32_t kind = i / TOKENS % 2; /* by turns */
        request_of[i] = i / TOKENS;
        phase_of[i] = i % TOKENS < TOKENS / 2 ? MOE_ROUTE_PREFILL : MOE_ROUTE_DECODE;
        first_token[i / TOKENS] = i / TOKENS * TOKENS;
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            route[i][layer] = expert_of(kind, i, layer);
        }
    }
    first_token[REQUESTS] = REQUESTS * TOKENS;
    routes = (struct moe_policy_routes){ .token_count = (uint64_t) REQUESTS * TOKENS,
                                         .request_count = REQUESTS,
                                         .planned_requests = REQUESTS,
                                         .top_k = 1,
                                         .expert = &route[0][0],
                                         .request = request_of,
                                         .phase = phase_of,
                                         .first_token = first_token };
    planning = (struct moe_place_view){ .shape = { LAYERS, EXPERTS, EXPERTS, GPUS, 2, 1 },
                                        .parameters = values,
                                        .domain_count = 2,
                                        .routes = &routes,
                                        .seed = 3 };
    placement = (struct moe_placement){ .shape = planning.shape, .expert_of_slot = slots };
    for (uint32_t i = 0; i < LAYERS * EXPERTS; i++) { /* the second kind on the first node */
        slots[i] = (uint16_t) ((i + 4) % EXPERTS);
    }
    for (uint32_t gpu = 0; gpu < GPUS; gpu++) {
        free_seats[gpu] = 8;
        running[gpu] = 0;
        kv_free[gpu] = 1000;
    }
    memset(signature, 0, sizeof signature);
    for (uint32_t i = 0; i < LAYERS * EXPERTS; i++) {
        signature[i % EXPERTS / 4][i] = 2.0f;
    }
    for (uint32_t i = 0; i < WAITING; i++) {
        waiting[i] = (struct moe_waiting_request){ .request = 100 + i,
                                                   .prompt_tokens = 16,
                                                   .domain = i % 2,
                                                   .kv_tokens = 10,
                                                   .signature = signature[i % 2] };
    }
    view = (struct moe_group_view){ .shape = planning.shape,
                                    .waiting_count = WAITING,
                                    .waiting = waiting,
                                    .free_seats = free_seats,
                                    .running = running,
                                    .kv_free_tokens = kv_free,
                                    .parameters = values };
}

static void teardown(void)
{
    moe_arena_finish(&arena);
}

TestSuite(group, .init = setup, .fini = teardown);

static const struct moe_policy *policy;
static void *state;
static uint32_t lookahead;

static void start(const char *name)
{
    struct moe_error err = { 0 };
    cr_assert_eq(moe_policy_find(MOE_POLICY_GROUP, name, &policy, NULL), MOE_OK, "%s", name);
    moe_policy_defaults(policy, values);
    state = NULL;
    lookahead = 1;
    if (policy->group->init != NULL) {
        cr_assert_eq(policy->group->init(&planning, &placement, &arena, &state, &lookahead, &err),
                     MOE_OK, "%s", err.text);
    }
    view.waiting_count = lookahead < WAITING ? lookahead : WAITING;
}

static struct moe_group_choice choose(void)
{
    struct moe_group_choice choice = { UINT32_MAX, UINT32_MAX };
    cr_assert_eq(policy->group->choose(state, &view, &choice, NULL), MOE_OK);
    cr_assert_leq(choice.gpu, GPUS);
    cr_assert_lt(choice.waiting, view.waiting_count);
    return choice;
}

static void set(const char *name, double value)
{
    uint32_t i = 0;
    while (strcmp(policy->parameters[i].name, name) != 0) {
        i++;
        cr_assert_lt(i, policy->parameter_count, "%s has no %s", policy->name, name);
    }
    values[i] = value;
}

Test(group, home_comes_first_then_patience_then_spilling)
{
    const struct moe_group_home home[] = { { 0, 2 }, { 2, 4 } };
    view.waiting_count = 2;
    running[0] = 3;
    running[1] = 2;
    struct moe_group_choice choice = moe_group_home_choose(&view, home, 5, true);
    cr_assert(choice.waiting == 0 && choice.gpu == 1);
    free_seats[0] = 0;
    kv_free[1] = 9; /* one token short */
    choice = moe_group_home_choose(&view, home, 5, true);
    cr_assert(choice.waiting == 1 && choice.gpu == 2);
    waiting[0].passed_over = 5;
    choice = moe_group_home_choose(&view, home, 5, false);
    cr_assert(choice.waiting == 0 && choice.gpu == 2);
    waiting[0].passed_over = 4;
    view.waiting_count = 1;
    choice = moe_group_home_choose(&view, home, 5, false);
    cr_assert_eq(choice.gpu, GPUS);
    choice = moe_group_home_choose(&view, home, 5, true);
    cr_assert(choice.waiting == 0 && choice.gpu == 2);
    running[0] = running[1] = 0; /* nobody runs: somebody must be seated */
    choice = moe_group_home_choose(&view, home, 5, false);
    cr_assert(choice.waiting == 0 && choice.gpu == 2);
}

Test(group, least_loaded_counts_requests_or_tokens)
{
    start("least_loaded");
    running[0] = 2;
    running[1] = 1;
    running[2] = 1;
    running[3] = 2;
    kv_free[3] = 2000;
    cr_assert_eq(choose().gpu, 1);
    free_seats[1] = 0;
    cr_assert_eq(choose().gpu, 2);
    set("by", 1.0);
    cr_assert_eq(choose().gpu, 3);
    waiting[0].kv_tokens = 5000; /* the next would fit, but nobody overtakes */
    cr_assert_eq(choose().gpu, GPUS);
}

Test(group, domain_keeps_domains_apart)
{
    start("domain");
    struct moe_group_choice choice = choose();
    cr_assert(choice.waiting == 0 && choice.gpu == 0);
    free_seats[0] = free_seats[1] = 0; /* the home of domain 0 */
    choice = choose();
    cr_assert(choice.waiting == 1 && choice.gpu == 2);
    /* Three domains on four GPUs: 0 and 1, 2, 3; five domains: by remainder. */
    const uint32_t domains[] = { 3, 5 };
    const uint32_t seats[2][5] = { { 0, 2, 3, 0, 2 }, { 0, 1, 2, 3, 0 } };
    free_seats[0] = free_seats[1] = 8;
    for (int i = 0; i < 2; i++) {
        planning.domain_count = domains[i];
        start("domain");
        view.waiting_count = 1;
        for (uint32_t domain = 0; domain < 5; domain++) {
            waiting[0].domain = domain;
            cr_assert_eq(choose().gpu, seats[i][domain], "%u of %u", domain, domains[i]);
        }
    }
}

/* Requests of the second kind belong on the first node, whose slots hold experts 4 .. 7. */
Test(group, cluster_and_coverage_find_the_node_that_has_the_experts)
{
    const char *const names[] = { "cluster", "coverage" };
    for (int i = 0; i < 2; i++) {
        start(names[i]);
        view.waiting_count = 1;
        for (uint32_t kind = 0; kind < 2; kind++) {
            waiting[0].request = 7 + kind;
            waiting[0].signature = signature[kind];
            running[0] = running[2] = 1;
            cr_assert_eq(choose().gpu, kind == 0 ? 3 : 1, "%s, kind %u", names[i], kind);
        }
    }
    /* A node that is busier by more than the slack is passed by. */
    start("coverage");
    set("slack", 2.0);
    waiting[0].signature = signature[1];
    running[0] = running[1] = 3;
    running[2] = running[3] = 1;
    cr_assert_eq(choose().gpu, 0);
    running[0] = running[1] = 4;
    cr_assert_eq(choose().gpu, 2);
}

/* With a device per GPU the two clusters of a kind get the two GPUs of its node. */
Test(group, cluster_seats_by_gpu_when_asked)
{
    policy = NULL;
    cr_assert_eq(moe_policy_find(MOE_POLICY_GROUP, "cluster", &policy, NULL), MOE_OK);
    start("cluster");
    set("devices", 2.0);
    cr_assert_eq(policy->group->init(&planning, &placement, &arena, &state, &lookahead, NULL),
                 MOE_OK);
    view.waiting_count = 1;
    for (uint32_t kind = 0; kind < 2; kind++) {
        waiting[0].request = 20 + kind;
        waiting[0].signature = signature[kind];
        cr_assert_eq(choose().gpu / 2, 1 - kind);
    }
}

/* Over random rooms: who is chosen fits, and somebody is when nobody runs. */
Test(group, every_choice_fits)
{
    size_t count = 0;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    const uint64_t key = moe_random_key(1, MOE_RANDOM_TEST);
    uint32_t seen = 0;
    for (size_t i = 0; i < count; i++) {
        if (policies[i]->group == NULL || policies[i]->group->in_turn ||
            (policies[i]->needs & MOE_POLICY_NEEDS_LOAD) != 0) {
            continue;
        }
        start(policies[i]->name);
        seen++;
        for (uint32_t room = 0; room < ROOMS; room++) {
            const uint64_t n = (uint64_t) room * 64;
            uint32_t busy = 0;
            for (uint32_t gpu = 0; gpu < GPUS; gpu++) {
                running[gpu] = (uint32_t) moe_random_below(key, n + gpu, 3);
                free_seats[gpu] = (uint32_t) moe_random_below(key, n + 8 + gpu, 3);
                kv_free[gpu] = moe_random_below(key, n + 16 + gpu, 30);
                busy += running[gpu];
            }
            for (uint32_t gpu = 0; room % 8 == 0 && gpu < GPUS; gpu++) {
                running[gpu] = 0;
                free_seats[gpu] = 1;
                kv_free[gpu] = 1000;
                busy = 0;
            }
            for (uint32_t w = 0; w < WAITING; w++) {
                waiting[w].request = room * WAITING + w;
                waiting[w].kv_tokens = moe_random_below(key, n + 24 + w, 40);
                waiting[w].domain = (uint32_t) moe_random_below(key, n + 32 + w, 2);
                waiting[w].signature = signature[waiting[w].domain];
                waiting[w].passed_over = (uint32_t) moe_random_below(key, n + 40 + w, 80);
            }
            const struct moe_group_choice choice = choose();
            cr_assert(choice.gpu < GPUS || busy > 0 || room % 8 != 0, "%s", policies[i]->name);
            cr_assert(choice.gpu == GPUS ||
                          (free_seats[choice.gpu] > 0 &&
                           kv_free[choice.gpu] >= waiting[choice.waiting].kv_tokens),
                      "%s, room %u", policies[i]->name, room);
        }
    }
    cr_assert_geq(seen, 4);
}
