#include "sim/report/json_difference.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 256, VALUE_BYTES = 80 };

struct search {
    char path[PATH_BYTES];
    char *text;
    size_t text_bytes;
};

static void show(const json_t *value, char *out)
{
    char *dumped = value == NULL ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    (void) snprintf(out, VALUE_BYTES, "%s",
                    value == NULL    ? "nothing"
                    : dumped == NULL ? "?"
                                     : dumped);
    free(dumped);
}

static bool differ(const struct search *search, const json_t *before, const json_t *now)
{
    char old[VALUE_BYTES];
    char new[VALUE_BYTES];
    show(before, old);
    show(now, new);
    (void) snprintf(search->text, search->text_bytes, "%s: %s before, %s now",
                    search->path[0] == '\0' ? "document" : search->path, old, new);
    return true;
}

static bool find(struct search *search, const json_t *before, const json_t *now);

/* Goes on below path, which is put back afterwards. */
static bool find_below(struct search *search, const char *step, const json_t *before,
                       const json_t *now)
{
    const size_t length = strlen(search->path);
    (void) snprintf(search->path + length, sizeof search->path - length, "%s", step);
    const bool found = find(search, before, now);
    search->path[length] = '\0';
    return found;
}

static bool find_in_object(struct search *search, const json_t *before, const json_t *now)
{
    const char *key = NULL;
    json_t *value = NULL;
    char step[PATH_BYTES];
    json_object_foreach((json_t *) (size_t) before, key, value)
    {
        (void) snprintf(step, sizeof step, "%s%s", search->path[0] == '\0' ? "" : ".", key);
        if (find_below(search, step, value, json_object_get(now, key))) {
            return true;
        }
    }
    json_object_foreach((json_t *) (size_t) now, key, value)
    {
        (void) snprintf(step, sizeof step, "%s%s", search->path[0] == '\0' ? "" : ".", key);
        if (json_object_get(before, key) == NULL && find_below(search, step, NULL, value)) {
            return true;
        }
    }
    return false;
}

static bool find_in_array(struct search *search, const json_t *before, const json_t *now)
{
    const size_t old = json_array_size(before);
    const size_t new = json_array_size(now);
    for (size_t i = 0; i < old || i < new; i++) {
        char step[32];
        (void) snprintf(step, sizeof step, "[%zu]", i);
        if (find_below(search, step, json_array_get(before, i), json_array_get(now, i))) {
            return true;
        }
    }
    return false;
}

static bool find(struct search *search, const json_t *before, const json_t *now)
{
    if (before == NULL || now == NULL || json_typeof(before) != json_typeof(now)) {
        return differ(search, before, now);
    }
    if (json_is_object(before)) {
        return find_in_object(search, before, now);
    }
    if (json_is_array(before)) {
        return find_in_array(search, before, now);
    }
    return json_equal(before, now) ? false : differ(search, before, now);
}

void moe_json_difference(const char *before, const char *now, char *text, size_t text_bytes)
{
    struct search search = { .text = text, .text_bytes = text_bytes };
    json_error_t reason;
    json_t *old = json_loads(before, 0, &reason);
    text[0] = '\0';
    if (old == NULL) {
        (void) snprintf(text, text_bytes, "the document before is no JSON: %s", reason.text);
        return;
    }
    json_t *new = json_loads(now, 0, &reason);
    if (new == NULL) {
        (void) snprintf(text, text_bytes, "the document now is no JSON: %s", reason.text);
    } else {
        (void) find(&search, old, new);
    }
    json_decref(new);
    json_decref(old);
}
