/* What holds of every dispatch policy on every layer: random ones, the smallest failing one
 * shown. */
#include <math.h>
#include <stdio.h>

#include "tests/dispatch_case.h"
#include "tests/property.h"

enum { CASES = 1000, TOKENS = 20000 };

#define NS_OF_TOKEN 15.0 /* at most: draw_case */

struct subject {
    const struct moe_policy *policy;
    void (*rename)(const struct dispatch_case *c, struct draws *draws,
                   struct dispatch_case *renamed, uint32_t *gpu_to);
    double (*minimised)(const struct dispatch_case *c); /* NULL: all loads have to agree */
};

static bool fails(char why[PROPERTY_TEXT_LIMIT], const struct dispatch_case *c,
                  const struct moe_policy *policy, const char *what)
{
    const struct moe_placement_shape *s = &c->layer.shape;
    (void) snprintf(why, PROPERTY_TEXT_LIMIT,
                    "%s: %s; experts %u, slots %u, GPUs %u, nodes %u, copies %u", policy->name,
                    what, s->expert_count, s->slot_count, s->gpu_count, s->node_count,
                    c->layer.copy_count);
    return false;
}

static uint32_t permute(struct draws *draws, uint32_t count, uint32_t *to)
{
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t other = draw_below(draws, i + 1);
        to[i] = i;
        to[i] = to[other];
        to[other] = i;
    }
    return count;
}

/* Copies anywhere, some slots empty; half of the demands 0, the others up to TOKENS, so that equal
 * loads are rare; GPUs of unlike speed. */
static void draw_case(struct dispatch_case *c, struct draws *draws)
{
    struct split_case *layer = &c->layer;
    uint32_t to[CASE_SLOTS];
    memset(c, 0, sizeof *c);
    const uint32_t nodes = 1 + draw_below(draws, 3);
    const uint32_t gpus = nodes * (1 + draw_below(draws, CASE_GPUS / nodes));
    const uint32_t slots = gpus * (1 + draw_below(draws, CASE_SLOTS / CASE_GPUS));
    const uint32_t experts = 1 + draw_below(draws, slots < CASE_EXPERTS ? slots : CASE_EXPERTS);
    layer->shape = (struct moe_placement_shape){ 1, experts, slots, gpus, nodes, 1 };
    (void) permute(draws, slots, to);
    for (uint32_t i = 0; i < slots; i++) {
        const uint32_t drawn = i < experts ? i + 1 : draw_below(draws, experts + 1);
        layer->expert_of_slot[to[i]] = drawn == 0 ? MOE_SLOT_EMPTY : (uint16_t) (drawn - 1);
    }
    split_case_list_copies(layer);
    for (uint32_t i = 0; i < gpus * experts; i++) {
        const bool idle = draw_below(draws, 2) == 0;
        layer->demand[i] = idle ? 0 : 1 + draw_below(draws, TOKENS);
        layer->total[i % experts] += layer->demand[i];
    }
    c->speed_tokens[1] = 500.0;
    c->speed_tokens[2] = 2000.0;
    for (uint32_t gpu = 0; gpu < gpus; gpu++) {
        double *time = c->speed_ns + (size_t) gpu * DISPATCH_POINTS;
        time[0] = draw_below(draws, 1000);
        time[1] = time[0] + 500.0 * (5.0 + 0.01 * draw_below(draws, 1000));
        time[2] = time[1] + 1500.0 * (1.0 + 0.004 * draw_below(draws, 1000));
    }
    c->speed = (struct moe_policy_speed){ DISPATCH_POINTS, c->speed_tokens, c->speed_ns };
    c->topology = (struct moe_policy_topology){ .near_ns = 20.0, .far_ns = 180.0 };
    c->step = 3;
    c->seed = 1;
}

/* Every source's tokens for every expert reach its copies, and nothing else is written. */
static bool sends_all(const struct dispatch_case *c, const struct moe_policy *policy,
                      char why[PROPERTY_TEXT_LIMIT])
{
    const struct split_case *layer = &c->layer;
    const size_t quotas = (size_t) layer->shape.gpu_count * layer->copy_count;
    for (uint32_t i = 0; i < layer->shape.gpu_count * layer->shape.expert_count; i++) {
        const uint32_t source = i / layer->shape.expert_count;
        const uint32_t expert = i % layer->shape.expert_count;
        uint64_t sum = 0;
        for (uint32_t k = layer->first_copy[expert]; k < layer->first_copy[expert + 1]; k++) {
            sum += c->quota[source * layer->copy_count + k];
        }
        if (sum > layer->demand[i] || (sum < layer->demand[i] && !policy->dispatch->may_drop)) {
            return fails(why, c, policy, "quotas do not meet the demand");
        }
    }
    for (size_t i = quotas; i < sizeof c->quota / sizeof c->quota[0]; i++) {
        if (c->quota[i] != 0) {
            return fails(why, c, policy, "it wrote behind the quotas");
        }
    }
    return true;
}

static bool split_is_sound(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    static struct dispatch_case c;
    static uint32_t first[sizeof c.quota / sizeof c.quota[0]];
    const struct moe_policy *policy = ((const struct subject *) context)->policy;
    draw_case(&c, draws);
    dispatch_case_run(&c, dispatch_case_find("lp"), NULL, 0);
    const uint64_t least = dispatch_case_loads(&c, NULL);
    dispatch_case_run(&c, policy, NULL, 0x00);
    if (!sends_all(&c, policy, why)) {
        return false;
    }
    if (!policy->dispatch->may_drop && dispatch_case_loads(&c, NULL) < least) {
        return fails(why, &c, policy, "its fullest GPU is below the optimum");
    }
    memcpy(first, c.quota, sizeof first);
    dispatch_case_run(&c, policy, NULL, 0xff);
    return memcmp(first, c.quota, sizeof first) == 0
               ? true
               : fails(why, &c, policy, "equal views, different quotas");
}

/* Loads of the GPUs under both names differ by what whole tokens force at most: one for a source
 * and copy. */
static bool loads_agree(const struct dispatch_case *c, const struct dispatch_case *renamed,
                        const uint32_t *to)
{
    const struct moe_placement_shape *shape = &c->layer.shape;
    const uint64_t rounding = (uint64_t) shape->gpu_count * c->layer.copy_count;
    uint64_t load[CASE_GPUS];
    uint64_t other[CASE_GPUS];
    (void) dispatch_case_loads(c, load);
    (void) dispatch_case_loads(renamed, other);
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        const uint64_t there = other[to[gpu]];
        if ((load[gpu] > there ? load[gpu] - there : there - load[gpu]) > rounding) {
            return false;
        }
    }
    return true;
}

/* Other numbers of the nodes and of the GPUs within them. */
static void rename_gpus(const struct dispatch_case *c, struct draws *draws,
                        struct dispatch_case *renamed, uint32_t *to)
{
    const struct moe_placement_shape *shape = &c->layer.shape;
    const uint32_t capacity = shape->slot_count / shape->gpu_count;
    const uint32_t inner = shape->gpu_count / shape->node_count;
    uint32_t node_to[CASE_GPUS];
    uint32_t inner_to[CASE_GPUS];
    (void) permute(draws, shape->node_count, node_to);
    (void) permute(draws, inner, inner_to);
    *renamed = *c;
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        to[gpu] = node_to[gpu / inner] * inner + inner_to[gpu % inner];
        memcpy(renamed->layer.expert_of_slot + (size_t) to[gpu] * capacity,
               c->layer.expert_of_slot + (size_t) gpu * capacity, capacity * sizeof(uint16_t));
        memcpy(renamed->layer.demand + (size_t) to[gpu] * shape->expert_count,
               c->layer.demand + (size_t) gpu * shape->expert_count,
               shape->expert_count * sizeof(uint32_t));
        memcpy(renamed->speed_ns + (size_t) to[gpu] * DISPATCH_POINTS,
               c->speed_ns + (size_t) gpu * DISPATCH_POINTS, DISPATCH_POINTS * sizeof(double));
    }
}

/* Other numbers of the experts; the GPUs keep theirs. */
static void rename_experts(const struct dispatch_case *c, struct draws *draws,
                           struct dispatch_case *renamed, uint32_t *gpu_to)
{
    const struct moe_placement_shape *shape = &c->layer.shape;
    uint32_t to[CASE_EXPERTS];
    (void) permute(draws, shape->expert_count, to);
    *renamed = *c;
    for (uint32_t slot = 0; slot < shape->slot_count; slot++) {
        const uint16_t expert = c->layer.expert_of_slot[slot];
        renamed->layer.expert_of_slot[slot] =
            expert == MOE_SLOT_EMPTY ? MOE_SLOT_EMPTY : (uint16_t) to[expert];
    }
    for (uint32_t i = 0; i < shape->gpu_count * shape->expert_count; i++) {
        const uint32_t expert = i % shape->expert_count;
        renamed->layer.demand[i - expert + to[expert]] = c->layer.demand[i];
        renamed->layer.total[to[expert]] = c->layer.total[expert];
    }
    for (uint32_t gpu = 0; gpu < shape->gpu_count; gpu++) {
        gpu_to[gpu] = gpu;
    }
}

static bool renaming_renames(struct draws *draws, void *context, char why[PROPERTY_TEXT_LIMIT])
{
    static struct dispatch_case c;
    static struct dispatch_case renamed;
    const struct subject *subject = context;
    uint32_t gpu_to[CASE_GPUS];
    draw_case(&c, draws);
    subject->rename(&c, draws, &renamed, gpu_to);
    renamed.speed.tokens = renamed.speed_tokens;
    renamed.speed.time_ns = renamed.speed_ns;
    split_case_list_copies(&renamed.layer);
    dispatch_case_run(&c, subject->policy, NULL, 0);
    dispatch_case_run(&renamed, subject->policy, NULL, 0);
    if (subject->minimised == NULL) {
        return loads_agree(&c, &renamed, gpu_to) ||
               fails(why, &c, subject->policy, "with other numbers, other loads");
    }
    const double rounding = (double) c.layer.shape.gpu_count * c.layer.copy_count;
    const double before = subject->minimised(&c);
    const double after = subject->minimised(&renamed);
    return fabs(before - after) <= NS_OF_TOKEN * rounding ||
           fails(why, &c, subject->policy, "with other numbers, another optimum");
}

/* The time of the GPU that finishes last, or its tokens. */
static double latest_ns(const struct dispatch_case *c)
{
    uint64_t load[CASE_GPUS];
    double latest = 0.0;
    (void) dispatch_case_loads(c, load);
    for (uint32_t gpu = 0; gpu < c->layer.shape.gpu_count; gpu++) {
        latest = fmax(latest, moe_policy_speed_ns(&c->speed, gpu, (double) load[gpu]));
    }
    return latest;
}

static double fullest(const struct dispatch_case *c)
{
    return (double) dispatch_case_loads(c, NULL);
}

struct exception {
    const char *name;
    const char *why; /* as its header says */
};

/* Every dispatch policy that splits but the excepted ones, each of which must break the property:
 * an exception that is none any more is to go. */
static void for_policies(property *holds, struct subject subject,
                         const struct exception *exceptions, size_t exception_count)
{
    size_t count = 0;
    size_t asked = 0;
    size_t left_out = 0;
    const struct moe_policy *const *policies = moe_policy_list(&count);
    for (size_t i = 0; i < count; i++) {
        const char *excepted = NULL;
        if (policies[i]->dispatch == NULL || policies[i]->dispatch->in_turn) {
            continue;
        }
        for (size_t j = 0; j < exception_count; j++) {
            if (strcmp(exceptions[j].name, policies[i]->name) == 0) {
                excepted = exceptions[j].why;
            }
        }
        subject.policy = policies[i];
        const char *text = property_fails(holds, &subject, 1, CASES);
        if (excepted == NULL) {
            cr_expect_null(text, "%s", text);
        } else {
            cr_expect_not_null(text, "%s keeps it after all: %s", policies[i]->name, excepted);
        }
        left_out += excepted != NULL;
        asked++;
    }
    cr_assert_geq(asked, 11);
    cr_assert_eq(left_out, exception_count);
}

Test(dispatch_properties, splits_are_sound)
{
    for_policies(split_is_sound, (struct subject){ 0 }, NULL, 0);
}

static const struct exception gpu_exceptions[] = {
    { "random", "draws by the numbers of source and copy" },
    { "local_first", "deals far sources to copies by lot, in the order of their numbers" },
    { "metro", "compares small counts of active experts, which tie" },
    { "ultraep", "the master of an expert is the copy in its lowest slot" },
    { "llep", "the home of an expert is the copy in its lowest slot" },
    { "harmoeny", "the home of an expert is the copy in its lowest slot" },
    { "lp", "only the fullest GPU is determined; below it, experts are levelled in turn" },
    { "speed_weighted", "only the last GPU's finish is determined, as for lp" },
};

Test(dispatch_properties, renaming_gpus_renames_the_loads)
{
    for_policies(renaming_renames, (struct subject){ .rename = rename_gpus }, gpu_exceptions,
                 sizeof gpu_exceptions / sizeof gpu_exceptions[0]);
}

static const struct exception expert_exceptions[] = {
    { "random", "draws by the number of the expert" },
    { "local_first", "deals far sources to copies by lot, expert by expert" },
    { "metro", "takes experts in ascending order" },
    { "lp", "only the fullest GPU is determined; below it, experts are levelled in turn" },
    { "speed_weighted", "only the last GPU's finish is determined, as for lp" },
};

Test(dispatch_properties, renaming_experts_changes_no_load)
{
    for_policies(renaming_renames, (struct subject){ .rename = rename_experts }, expert_exceptions,
                 sizeof expert_exceptions / sizeof expert_exceptions[0]);
}

/* Those that minimise one number reach the same one, whatever the names. */
Test(dispatch_properties, renaming_changes_no_optimum)
{
    struct subject subjects[] = {
        { dispatch_case_find("lp"), rename_gpus, fullest },
        { dispatch_case_find("lp"), rename_experts, fullest },
        { dispatch_case_find("speed_weighted"), rename_gpus, latest_ns },
        { dispatch_case_find("speed_weighted"), rename_experts, latest_ns },
    };
    for (size_t i = 0; i < sizeof subjects / sizeof subjects[0]; i++) {
        const char *text = property_fails(renaming_renames, &subjects[i], 1, CASES);
        cr_expect_null(text, "%s", text);
    }
}
