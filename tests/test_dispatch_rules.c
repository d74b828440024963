/* What each dispatch policy does that no other does: hand-made layers and rules over random
 * ones. */
#include "tests/dispatch_case.h"

enum { CASES = 500 };

static struct dispatch_case c;

/* One expert row per GPU list: copies on the GPUs named, in ascending order; demand[gpu]. */
static void lay(uint32_t gpus, uint32_t nodes, uint32_t experts, const uint32_t hosts[][4])
{
    memset(&c, 0, sizeof c);
    c.layer.shape = (struct moe_placement_shape){ .layer_count = 1,
                                                  .expert_count = experts,
                                                  .slot_count = gpus * 4,
                                                  .gpu_count = gpus,
                                                  .node_count = nodes,
                                                  .group_count = 1 };
    for (uint32_t slot = 0; slot < gpus * 4; slot++) {
        c.layer.expert_of_slot[slot] = MOE_SLOT_EMPTY;
    }
    for (uint32_t expert = 0; expert < experts; expert++) {
        for (uint32_t i = 0; i < 4 && hosts[expert][i] < gpus; i++) {
            uint32_t slot = 4 * hosts[expert][i];
            while (c.layer.expert_of_slot[slot] != MOE_SLOT_EMPTY) {
                slot++;
            }
            c.layer.expert_of_slot[slot] = (uint16_t) expert;
        }
    }
    split_case_list_copies(&c.layer);
}

static void ask(uint32_t source, uint32_t expert, uint32_t tokens)
{
    c.layer.demand[source * c.layer.shape.expert_count + expert] += tokens;
    c.layer.total[expert] += tokens;
}

static uint32_t quota(uint32_t source, uint32_t copy)
{
    return c.quota[source * c.layer.copy_count + copy];
}

static uint64_t copy_total(uint32_t copy)
{
    uint64_t sum = 0;
    for (uint32_t source = 0; source < c.layer.shape.gpu_count; source++) {
        sum += quota(source, copy);
    }
    return sum;
}

enum { NO = 99 };

/* 90 tokens of an expert on GPUs 0, 1, 2 that carry 0, 10, 20 already: 40 each. */
Test(dispatch_rules, lp_levels_and_shares)
{
    const uint32_t hosts[][4] = { { 0, 1, 2, NO }, { 1, NO }, { 2, NO } };
    lay(3, 1, 3, hosts);
    for (uint32_t source = 0; source < 3; source++) {
        ask(source, 0, 30);
    }
    ask(0, 1, 10);
    ask(0, 2, 20);
    dispatch_case_run(&c, dispatch_case_find("lp"), NULL, 0);
    cr_assert_eq(copy_total(0), 40);
    cr_assert_eq(copy_total(1), 30);
    cr_assert_eq(copy_total(2), 20);
    for (uint32_t source = 0; source < 3; source++) { /* 30 * 40 / 90, rounded by running sums */
        cr_assert_leq(quota(source, 0), 14);
        cr_assert_geq(quota(source, 0), 13);
    }
    const double near[] = { 1.0 };
    dispatch_case_run(&c, dispatch_case_find("lp"), near, 0);
    for (uint32_t gpu = 0; gpu < 3; gpu++) { /* at home up to the copy's goal */
        cr_assert_eq(quota(gpu, gpu), gpu == 2 ? 20 : 30);
    }
    cr_assert_eq(quota(2, 0), 10);
}

/* Two nodes of two GPUs; expert 0 on GPUs 0 and 2, expert 1 on GPU 3 twice. */
Test(dispatch_rules, local_first_stays_home_then_on_the_node)
{
    const uint32_t hosts[][4] = { { 0, 2, NO }, { 3, 3, NO } };
    lay(4, 2, 2, hosts);
    for (uint32_t source = 0; source < 4; source++) {
        ask(source, 0, 7);
        ask(source, 1, 5);
    }
    dispatch_case_run(&c, dispatch_case_find("local_first"), NULL, 0);
    cr_assert_eq(quota(0, 0), 7);
    cr_assert_eq(quota(1, 0), 7);
    cr_assert_eq(quota(2, 1), 7);
    cr_assert_eq(quota(3, 1), 7);
    cr_assert_eq(quota(3, 2), 5); /* the first of two on one GPU */
    cr_assert_eq(quota(2, 2), 5); /* and on one node */
    cr_assert_eq(quota(0, 2) + quota(1, 2), 5);
    cr_assert_eq(quota(0, 3) + quota(1, 3), 5);
}

/* Without the node rule: one copy for each source, own GPU first, the far ones dealt fairly. */
Test(dispatch_rules, local_first_deals_fairly)
{
    const struct moe_policy *policy = dispatch_case_find("local_first");
    const double values[] = { 0.0 };
    uint32_t moved = 0;
    for (uint64_t index = 0; index < CASES; index++) {
        dispatch_case_draw(&c, index, CASE_GPUS);
        const struct split_case *layer = &c.layer;
        for (uint32_t i = 0; i < layer->shape.gpu_count * layer->shape.expert_count; i++) {
            c.layer.demand[i] = 1;
        }
        dispatch_case_run(&c, policy, values, 0);
        for (uint32_t expert = 0; expert < layer->shape.expert_count; expert++) {
            uint32_t least = UINT32_MAX;
            uint32_t most = 0;
            for (uint32_t i = layer->first_copy[expert]; i < layer->first_copy[expert + 1]; i++) {
                const uint32_t own = quota(layer->gpu_of_copy[i], i);
                const uint32_t far = (uint32_t) copy_total(i) - own;
                const bool twice = i > layer->first_copy[expert] &&
                                   layer->gpu_of_copy[i] == layer->gpu_of_copy[i - 1];
                cr_assert_eq(own, !twice);
                least = far < least ? far : least;
                most = far > most ? far : most;
                moved += far;
            }
            cr_assert_leq(most - least, 1);
        }
    }
    cr_assert_gt(moved, CASES);
}

Test(dispatch_rules, random_is_fair_and_changes_with_the_step)
{
    const uint32_t hosts[][4] = { { 0, 1, 2, 3 }, { 0, 2, 3, NO } };
    const struct moe_policy *policy = dispatch_case_find("random");
    lay(4, 1, 2, hosts);
    ask(1, 0, 100000);
    ask(1, 1, 90001);
    dispatch_case_run(&c, policy, NULL, 0);
    const uint32_t before = quota(1, 0);
    for (uint32_t copy = 0; copy < 4; copy++) { /* standard deviation 137 */
        cr_assert_float_eq(quota(1, copy), 25000.0, 5 * 137.0, "%u", quota(1, copy));
    }
    for (uint32_t copy = 4; copy < 7; copy++) { /* 141 */
        cr_assert_float_eq(quota(1, copy), 30000.3, 5 * 141.0, "%u", quota(1, copy));
    }
    c.step++;
    dispatch_case_run(&c, policy, NULL, 0);
    cr_assert_neq(quota(1, 0), before);
    /* A single token is heads half of the time. */
    uint32_t heads = 0;
    const uint32_t two[][4] = { { 0, 1, NO } };
    lay(2, 1, 1, two);
    ask(0, 0, 1);
    for (c.step = 0; c.step < 1000; c.step++) {
        dispatch_case_run(&c, policy, NULL, 0);
        heads += quota(0, 0);
    }
    cr_assert_float_eq(heads, 500.0, 5 * 16.0, "%u", heads);
}

Test(dispatch_rules, round_robin_differs_by_one_per_source)
{
    const uint32_t hosts[][4] = { { 0, 1, 2, NO } };
    lay(3, 1, 1, hosts);
    for (uint32_t source = 0; source < 3; source++) {
        ask(source, 0, 10);
    }
    dispatch_case_run(&c, dispatch_case_find("round_robin"), NULL, 0);
    for (uint32_t source = 0; source < 3; source++) {
        for (uint32_t copy = 0; copy < 3; copy++) {
            cr_assert_eq(quota(source, copy), copy == source ? 4 : 3);
        }
    }
    const double first[] = { 1.0 };
    dispatch_case_run(&c, dispatch_case_find("round_robin"), first, 0);
    cr_assert_eq(copy_total(0), 12);
}

/* Expert 0 must run on GPU 0. Greedy gives 1 to GPU 1, then 2 to GPU 0 and 3 to GPU 1. */
Test(dispatch_rules, metro_uses_one_copy_of_each)
{
    const uint32_t hosts[][4] = { { 0, NO }, { 0, 1, NO }, { 0, 1, NO }, { 0, 1, NO } };
    lay(2, 1, 4, hosts);
    ask(0, 0, 1);
    ask(0, 1, 50);
    ask(1, 1, 50);
    ask(0, 2, 3);
    ask(0, 3, 2);
    dispatch_case_run(&c, dispatch_case_find("metro"), NULL, 0);
    const uint64_t wanted[] = { 1, 0, 100, 3, 0, 0, 2 };
    for (uint32_t copy = 0; copy < 7; copy++) {
        cr_assert_eq(copy_total(copy), wanted[copy], "copy %u", copy);
    }
}

/* Mean 100, first try at 101. GPU 0 holds 250: expert 0 with 200 (copies on 1 and 2), expert 1
 * with 50. GPU 1 has 40, GPU 2 has 10. 149 have to go, 2 hosts are open, so pieces are at least
 * 75: 91 to GPU 2, which has the most slack, then 58 to GPU 1, where one host is left open. */
Test(dispatch_rules, ultraep_exports_to_the_slackest_host)
{
    const uint32_t hosts[][4] = { { 0, 1, 2, NO }, { 0, NO }, { 1, NO }, { 2, NO } };
    lay(3, 1, 4, hosts);
    ask(0, 0, 80);
    ask(1, 0, 20);
    ask(2, 0, 100);
    ask(0, 1, 50);
    ask(0, 2, 40);
    ask(0, 3, 10);
    dispatch_case_run(&c, dispatch_case_find("ultraep"), NULL, 0);
    cr_assert_eq(copy_total(0), 51);
    cr_assert_eq(copy_total(1), 58);
    cr_assert_eq(copy_total(2), 91);
    cr_assert_eq(quota(0, 0), 51); /* own tokens at home, as far as the goals allow */
    cr_assert_eq(quota(1, 1), 20);
    cr_assert_eq(quota(2, 2), 91);
    cr_assert_eq(quota(0, 1), 29);
    cr_assert_eq(quota(2, 1), 9);
}

/* No GPU ends above the heaviest that the masters alone would make. */
Test(dispatch_rules, ultraep_never_makes_the_heaviest_heavier)
{
    const struct moe_policy *policy = dispatch_case_find("ultraep");
    const double search[] = { 0.0, 1.0, 0.01, 1.0, 1.0 };
    uint32_t better = 0;
    for (uint64_t index = 0; index < CASES; index++) {
        uint64_t master[CASE_GPUS] = { 0 };
        uint64_t most = 0;
        dispatch_case_draw(&c, index, CASE_GPUS);
        for (uint32_t expert = 0; expert < c.layer.shape.expert_count; expert++) {
            const uint32_t gpu = c.layer.gpu_of_copy[c.layer.first_copy[expert]];
            master[gpu] += c.layer.total[expert];
            most = master[gpu] > most ? master[gpu] : most;
        }
        dispatch_case_run(&c, policy, NULL, 0);
        cr_assert_leq(dispatch_case_loads(&c, NULL), most);
        dispatch_case_run(&c, policy, search, 0);
        cr_assert_leq(dispatch_case_loads(&c, NULL), most);
        better += dispatch_case_loads(&c, NULL) < most;
    }
    cr_assert_gt(better, CASES / 4);
}

/* Cap 1.1 * 100. Expert 0 (240, home GPU 0, which has 30 more) keeps 80, spills to GPU 2 (10)
 * its 100 and to GPU 1 (20) the 60 that are left. */
Test(dispatch_rules, llep_keeps_what_fits_and_spills_chunks)
{
    const uint32_t hosts[][4] = { { 0, 1, 2, NO }, { 0, NO }, { 1, NO }, { 2, NO } };
    const struct moe_policy *policy = dispatch_case_find("llep");
    lay(3, 1, 4, hosts);
    ask(0, 0, 240);
    ask(0, 1, 30);
    ask(0, 2, 20);
    ask(0, 3, 10);
    const double small[] = { 1.3, 1.1, 16.0 };
    dispatch_case_run(&c, policy, small, 0);
    cr_assert_eq(copy_total(0), 80);
    cr_assert_eq(copy_total(1), 60);
    cr_assert_eq(copy_total(2), 100);
    const double patient[] = { 2.8, 1.1, 16.0 }; /* 270 is below 2.8 means */
    dispatch_case_run(&c, policy, patient, 0);
    cr_assert_eq(copy_total(0), 240);
    dispatch_case_run(&c, policy, NULL, 0); /* 1024 tokens are not worth a chunk */
    cr_assert_eq(copy_total(0), 240);
}

/* Mean 100: GPU 0 (200) gives GPU 2 (30) its largest bucket, 70 of source 1's 90, and GPU 1 (70)
 * 30 of what is then the largest, source 0's 80. */
Test(dispatch_rules, harmoeny_moves_the_largest_buckets)
{
    const uint32_t hosts[][4] = { { 0, 1, 2, NO }, { 1, NO }, { 2, NO } };
    const struct moe_policy *policy = dispatch_case_find("harmoeny");
    lay(3, 1, 3, hosts);
    ask(0, 0, 80);
    ask(1, 0, 90);
    ask(2, 0, 30);
    ask(0, 1, 70);
    ask(0, 2, 30);
    const double small[] = { 10.0 };
    dispatch_case_run(&c, policy, small, 0);
    cr_assert_eq(quota(1, 2), 70);
    cr_assert_eq(quota(0, 1), 30);
    cr_assert_eq(copy_total(0), 100);
    const double large[] = { 91.0 };
    dispatch_case_run(&c, policy, large, 0);
    cr_assert_eq(copy_total(0), 200);
}

/* GPU 1 is twice as fast from the first token on: it takes twice as many. */
Test(dispatch_rules, speed_weighted_gives_the_faster_more)
{
    const uint32_t hosts[][4] = { { 0, 1, NO } };
    lay(2, 1, 1, hosts);
    ask(0, 0, 300);
    const double tokens[] = { 0.0, 100.0 };
    const double time_ns[] = { 0.0, 200.0, 0.0, 100.0 };
    c.speed = (struct moe_policy_speed){ .point_count = 2, .tokens = tokens, .time_ns = time_ns };
    dispatch_case_run(&c, dispatch_case_find("speed_weighted"), NULL, 0);
    cr_assert_eq(copy_total(0), 100);
    cr_assert_eq(copy_total(1), 200);
}

/* Never farther than the nearest copy; far copies by the reciprocal of their GPUs' loads. */
Test(dispatch_rules, domain_aware_goes_no_farther_than_needed)
{
    const struct moe_policy *policy = dispatch_case_find("domain_aware");
    for (uint64_t index = 0; index < CASES; index++) {
        dispatch_case_draw(&c, index, CASE_GPUS);
        dispatch_case_run(&c, policy, NULL, 0);
        const struct split_case *layer = &c.layer;
        const uint32_t node_gpus = layer->shape.gpu_count / layer->shape.node_count;
        for (uint32_t source = 0; source < layer->shape.gpu_count; source++) {
            for (uint32_t expert = 0; expert < layer->shape.expert_count; expert++) {
                uint32_t sent[3] = { 0 };
                uint32_t there[3] = { 0 };
                for (uint32_t i = layer->first_copy[expert]; i < layer->first_copy[expert + 1];
                     i++) {
                    const uint32_t gpu = layer->gpu_of_copy[i];
                    const uint32_t far = gpu == source                           ? 0
                                         : gpu / node_gpus == source / node_gpus ? 1
                                                                                 : 2;
                    sent[far] += quota(source, i);
                    there[far]++;
                }
                cr_assert(there[0] == 0 || sent[1] + sent[2] == 0);
                cr_assert(there[0] + there[1] == 0 || sent[2] == 0);
            }
        }
    }
    /* Source 0 on node 0; copies on GPUs 2 and 3 of node 1, whose other loads are 29 and 89;
     * with 5 of expert 0 each: weights 1/35 and 1/95, so 10 tokens go 7.3 : 2.7. */
    const uint32_t hosts[][4] = { { 2, 3, NO }, { 2, NO }, { 3, NO } };
    lay(4, 2, 3, hosts);
    ask(0, 0, 10);
    ask(0, 1, 29);
    ask(0, 2, 89);
    dispatch_case_run(&c, policy, NULL, 0);
    cr_assert_eq(quota(0, 0), 7);
    cr_assert_eq(quota(0, 1), 3);
    const double even[] = { 2.0 };
    dispatch_case_run(&c, policy, even, 0);
    cr_assert_eq(quota(0, 0), 5);
}

Test(dispatch_rules, capacity_drops_what_exceeds_it_and_no_more)
{
    const struct moe_policy *policy = dispatch_case_find("capacity");
    uint32_t dropping = 0;
    for (uint64_t index = 0; index < CASES; index++) {
        uint64_t load[CASE_GPUS] = { 0 };
        uint64_t sum = 0;
        dispatch_case_draw(&c, index, CASE_GPUS);
        const struct split_case *layer = &c.layer;
        for (uint32_t expert = 0; expert < layer->shape.expert_count; expert++) {
            sum += layer->total[expert];
        }
        const double by_expert[] = { 1.5, 0.0 };
        const uint64_t cap = (uint64_t) ceil(1.5 * (double) sum / layer->shape.expert_count);
        dispatch_case_run(&c, policy, by_expert, 0);
        for (uint32_t expert = 0; expert < layer->shape.expert_count; expert++) {
            uint64_t kept = 0;
            for (uint32_t i = layer->first_copy[expert]; i < layer->first_copy[expert + 1]; i++) {
                kept += copy_total(i);
            }
            cr_assert_eq(kept, layer->total[expert] < cap ? layer->total[expert] : cap);
            dropping += kept < layer->total[expert];
        }
        const double by_gpu[] = { 1.25, 1.0 };
        const uint64_t gpu_cap = (uint64_t) ceil(1.25 * (double) sum / layer->shape.gpu_count);
        dispatch_case_run(&c, dispatch_case_find("lp"), NULL, 0);
        uint64_t level[CASE_GPUS] = { 0 };
        (void) dispatch_case_loads(&c, level);
        dispatch_case_run(&c, policy, by_gpu, 0);
        (void) dispatch_case_loads(&c, load);
        for (uint32_t gpu = 0; gpu < layer->shape.gpu_count; gpu++) {
            cr_assert_eq(load[gpu], level[gpu] < gpu_cap ? level[gpu] : gpu_cap);
        }
    }
    cr_assert_gt(dropping, CASES);
}
