#include "policies/composition.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "policies/parameter.h"
#include "policies/plan/plan_policy.h"
#include "policies/plugin.h"

/* What decides where nobody is named. */
static const char *const default_name[MOE_POLICY_KIND_COUNT] = {
    [MOE_POLICY_DISPATCH] = "even",
    [MOE_POLICY_GROUP] = "round_robin",
};

static void take_default(struct moe_composition_part *part, enum moe_policy_kind kind)
{
    const enum moe_status status = moe_policy_find(kind, default_name[kind], &part->policy, NULL);
    assert(status == MOE_OK);
    (void) status;
    moe_policy_defaults(part->policy, part->values);
}

static enum moe_status find_kind(const char *name, enum moe_policy_kind *kind,
                                 struct moe_error *err)
{
    for (int i = 0; i < MOE_POLICY_KIND_COUNT; i++) {
        if (strcmp(name, moe_policy_kind_name((enum moe_policy_kind) i)) == 0) {
            *kind = (enum moe_policy_kind) i;
            return MOE_OK;
        }
    }
    return moe_fail(err, MOE_RANGE,
                    "no kind of decision '%.64s'; there are: place dispatch predict group", name);
}

static bool is_plugin(const char *path)
{
    const size_t length = strlen(path);
    return length > 3 && strcmp(path + length - 3, ".so") == 0;
}

static enum moe_status find_policy(enum moe_policy_kind kind, const char *name,
                                   const struct moe_policy **out, struct moe_error *err)
{
    if (strchr(name, '/') == NULL) {
        if (is_plugin(name)) {
            return moe_fail(err, MOE_RANGE, "the path of a plug-in has a '/': ./%.100s", name);
        }
        return moe_policy_find(kind, name, out, err);
    }
    MOE_TRY(is_plugin(name) ? moe_plugin_load(out, name, err)
                            : moe_plan_policy_load(out, name, err));
    return moe_policy_is(*out, kind)
               ? MOE_OK
               : moe_fail(err, MOE_RANGE, "%.160s: policy %s makes no %s decision", name,
                          (*out)->name, moe_policy_kind_name(kind));
}

static enum moe_status refuse_parameter(const struct moe_policy *policy, const char *name,
                                        struct moe_error *err)
{
    char names[240] = " none";
    size_t used = 0;
    for (uint32_t i = 0; i < policy->parameter_count && used < sizeof names - 1; i++) {
        used +=
            (size_t) snprintf(names + used, sizeof names - used, " %s", policy->parameters[i].name);
    }
    return moe_fail(err, MOE_RANGE, "%s has no parameter '%.48s'; it has:%s", policy->name, name,
                    names);
}

/* One "name=value". */
static enum moe_status set_parameter(struct moe_composition_part *part, char *text, bool *given,
                                     struct moe_error *err)
{
    const struct moe_policy *policy = part->policy;
    char *value = strchr(text, '=');
    if (value == NULL) {
        return moe_fail(err, MOE_RANGE, "%s: '%.64s' is no parameter; write :name=value",
                        policy->name, text);
    }
    *value++ = '\0';
    for (uint32_t i = 0; i < policy->parameter_count; i++) {
        if (strcmp(policy->parameters[i].name, text) != 0) {
            continue;
        }
        struct moe_error reason = { 0 };
        if (given[i]) {
            return moe_fail(err, MOE_RANGE, "%s: parameter %s is set twice", policy->name, text);
        }
        given[i] = true;
        const enum moe_status status =
            moe_parameter_parse(&policy->parameters[i], value, &part->values[i], &reason);
        return status == MOE_OK ? MOE_OK
                                : moe_fail(err, status, "%s: %s", policy->name, reason.text);
    }
    return refuse_parameter(policy, text, err);
}

/* "KIND=NAME:p=v" or, as the first term, "NAME:p=v". text is cut up; names[kind] becomes the
 * policy's name as it is written there. */
static enum moe_status parse_term(struct moe_composition *c, char *text, bool first,
                                  const char **names, struct moe_error *err)
{
    enum moe_policy_kind kind = MOE_POLICY_PLACE;
    bool given[MOE_POLICY_PARAMETER_LIMIT] = { false };
    char *more = strchr(text, ':');
    if (more != NULL) {
        *more++ = '\0';
    }
    char *name = strchr(text, '=');
    if (name != NULL) {
        *name++ = '\0';
        MOE_TRY(find_kind(text, &kind, err));
    } else if (first) {
        name = text;
    } else {
        return moe_fail(err, MOE_RANGE,
                        "'%.64s' does not say what it decides; write dispatch=, predict= or "
                        "group= before it",
                        text);
    }
    struct moe_composition_part *part = &c->part[kind];
    if (names[kind] != NULL) {
        return moe_fail(err, MOE_RANGE, "%s is said twice", moe_policy_kind_name(kind));
    }
    names[kind] = name;
    MOE_TRY(find_policy(kind, name, &part->policy, err));
    moe_policy_defaults(part->policy, part->values);
    while (more != NULL) {
        char *next = strchr(more, ':');
        if (next != NULL) {
            *next++ = '\0';
        }
        MOE_TRY(set_parameter(part, more, given, err));
        more = next;
    }
    return MOE_OK;
}

/* Writes onto the end of out[MOE_COMPOSITION_BYTES]; false when it is full. */
static bool append(char *out, const char *text)
{
    const size_t used = strlen(out);
    const size_t length = strlen(text);
    if (used + length >= MOE_COMPOSITION_BYTES) {
        return false;
    }
    memcpy(out + used, text, length + 1);
    return true;
}

static bool append_parameters(char *out, const struct moe_composition_part *part)
{
    const struct moe_policy *policy = part->policy;
    bool room = true;
    for (uint32_t i = 0; i < policy->parameter_count && room; i++) {
        char value[64];
        if (part->values[i] == policy->parameters[i].standard) {
            continue;
        }
        moe_parameter_print(&policy->parameters[i], part->values[i], value, sizeof value);
        room = append(out, ":") && append(out, policy->parameters[i].name) && append(out, "=") &&
               append(out, value);
    }
    return room;
}

/* names[kind]: how the text named the policy, NULL for one that it left out. */
static enum moe_status write_label(struct moe_composition *c, const char *const *names,
                                   struct moe_error *err)
{
    bool room = true;
    c->label[0] = '\0';
    for (int kind = 0; kind < MOE_POLICY_KIND_COUNT && room; kind++) {
        char term[MOE_COMPOSITION_BYTES] = "";
        if (names[kind] == NULL) {
            continue;
        }
        room = append(term, names[kind]) && append_parameters(term, &c->part[kind]);
        if (default_name[kind] != NULL && strcmp(term, default_name[kind]) == 0) {
            continue;
        }
        if (kind != MOE_POLICY_PLACE) {
            room = room && append(c->label, "+") &&
                   append(c->label, moe_policy_kind_name((enum moe_policy_kind) kind)) &&
                   append(c->label, "=");
        }
        room = room && append(c->label, term);
    }
    return room ? MOE_OK
                : moe_fail(err, MOE_RANGE, "its canonical text has more than %d letters",
                           MOE_COMPOSITION_BYTES - 1);
}

static enum moe_status parse_terms(struct moe_composition *c, char *text, struct moe_error *err)
{
    const char *names[MOE_POLICY_KIND_COUNT] = { NULL };
    bool first = true;
    take_default(&c->part[MOE_POLICY_DISPATCH], MOE_POLICY_DISPATCH);
    take_default(&c->part[MOE_POLICY_GROUP], MOE_POLICY_GROUP);
    for (char *term = text; term != NULL; first = false) {
        char *next = strchr(term, '+');
        if (next != NULL) {
            *next++ = '\0';
        }
        MOE_TRY(parse_term(c, term, first, names, err));
        term = next;
    }
    if (names[MOE_POLICY_PLACE] == NULL) {
        return moe_fail(err, MOE_RANGE, "it names no place policy");
    }
    return write_label(c, names, err);
}

enum moe_status moe_composition_parse(struct moe_composition *out, const char *text,
                                      struct moe_error *err)
{
    char copy[MOE_COMPOSITION_BYTES];
    struct moe_composition read = { 0 };
    struct moe_error reason = { 0 };
    const size_t length = strlen(text);
    if (length >= sizeof copy) {
        return moe_fail(err, MOE_RANGE, "'%.60s...' has %zu letters; at most %zu are read", text,
                        length, sizeof copy - 1);
    }
    memcpy(copy, text, length + 1);
    const enum moe_status status = parse_terms(&read, copy, &reason);
    if (status == MOE_OK) {
        *out = read;
        return MOE_OK;
    }
    /* A lone name is quoted by its own error. */
    return strpbrk(text, "+:=") == NULL ? moe_fail(err, status, "%s", reason.text)
                                        : moe_fail(err, status, "'%.120s': %s", text, reason.text);
}

void moe_composition_of(struct moe_composition *out, const struct moe_policy *policy)
{
    *out = (struct moe_composition){ .part[MOE_POLICY_PLACE].policy = policy };
    (void) snprintf(out->label, sizeof out->label, "%s", policy->name);
    moe_policy_defaults(policy, out->part[MOE_POLICY_PLACE].values);
    take_default(&out->part[MOE_POLICY_DISPATCH], MOE_POLICY_DISPATCH);
    take_default(&out->part[MOE_POLICY_GROUP], MOE_POLICY_GROUP);
}

uint32_t moe_composition_needs(const struct moe_composition *composition)
{
    uint32_t needs = 0;
    for (int kind = 0; kind < MOE_POLICY_KIND_COUNT; kind++) {
        const struct moe_policy *policy = composition->part[kind].policy;
        if (policy != NULL) {
            needs |= policy->needs;
        }
    }
    return needs;
}

enum moe_status moe_composition_resolve(const char *text, const char *folder, char *out,
                                        struct moe_error *err)
{
    bool room = true;
    const char *at = text;
    out[0] = '\0';
    while (*at != '\0' && room) {
        char name[MOE_COMPOSITION_BYTES];
        const size_t length = strcspn(at, "+:=");
        room = length < sizeof name;
        (void) snprintf(name, sizeof name, "%.*s", (int) length, at);
        if (strchr(name, '/') != NULL && name[0] != '/') {
            room = room && append(out, folder);
        }
        const char separator[2] = { at[length], '\0' };
        room = room && append(out, name) && append(out, separator);
        at += length + (at[length] != '\0');
    }
    return room ? MOE_OK
                : moe_fail(err, MOE_RANGE, "'%.60s...' has more than %d letters with its folder",
                           text, MOE_COMPOSITION_BYTES - 1);
}
