#include "sim/settings/settings.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/options.h"
#include "sim/settings/plain_text.h"

static unsigned char *field(void *object, size_t offset)
{
    return (unsigned char *) object + offset;
}

static const unsigned char *const_field(const void *object, size_t offset)
{
    return (const unsigned char *) object + offset;
}

static double scale_of(const struct moe_setting *setting)
{
    return setting->scale > 0.0 ? setting->scale : 1.0;
}

const struct moe_setting *moe_settings_find(const struct moe_settings *settings, const char *path)
{
    for (uint32_t i = 0; i < settings->count; i++) {
        if (strcmp(settings->items[i].path, path) == 0) {
            return &settings->items[i];
        }
    }
    return NULL;
}

void moe_setting_describe(const struct moe_setting *setting, char *text, size_t text_bytes)
{
    switch (setting->kind) {
    case MOE_SETTING_TEXT:
        (void) snprintf(text, text_bytes, "text of %.0f to %zu printable bytes", setting->min,
                        setting->text_bytes - 1);
        break;
    case MOE_SETTING_COUNT:
        (void) snprintf(text, text_bytes, "a whole number from %.0f to %.0f", setting->min,
                        setting->max);
        break;
    case MOE_SETTING_SEED:
        (void) snprintf(text, text_bytes, "a whole number from 0 to %llu",
                        (unsigned long long) UINT64_MAX);
        break;
    case MOE_SETTING_REAL:
        (void) snprintf(text, text_bytes, "a number from %g to %g", setting->min, setting->max);
        break;
    case MOE_SETTING_FLAG:
        (void) snprintf(text, text_bytes, "true or false");
        break;
    case MOE_SETTING_CHOICE: {
        size_t used = (size_t) snprintf(text, text_bytes, "one of");
        for (const char *const *name = setting->choices; *name != NULL && used < text_bytes;
             name++) {
            used += (size_t) snprintf(text + used, text_bytes - used, "%s %s",
                                      name == setting->choices ? "" : ",", *name);
        }
        break;
    }
    case MOE_SETTING_LIST:
        (void) snprintf(text, text_bytes, "a list of %.0f to %.0f names of 1 to %zu bytes",
                        setting->min, setting->max, setting->text_bytes - 1);
        break;
    }
}

static enum moe_status refuse(const struct moe_setting *setting, const char *text,
                              const char *where, struct moe_error *err)
{
    char allowed[200];
    moe_setting_describe(setting, allowed, sizeof allowed);
    return moe_fail(err, MOE_RANGE, "%s: '%.100s' is not %s", where, text, allowed);
}

/* Decimal digits only; "010" would be eight to some YAML readers. */
static bool parse_count(const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
    return (text[0] != '0' || text[1] == '\0') && text[strspn(text, "0123456789")] == '\0' &&
           moe_parse_count(text, "", min, max, out, NULL) == MOE_OK;
}

static bool parse_choice(const struct moe_setting *setting, const char *text, unsigned *out)
{
    for (unsigned i = 0; setting->choices[i] != NULL; i++) {
        if (strcmp(setting->choices[i], text) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

enum moe_status moe_setting_append(const struct moe_setting *setting, void *object,
                                   const char *text, const char *where, struct moe_error *err)
{
    uint32_t count = 0;
    memcpy(&count, field(object, setting->count_offset), sizeof count);
    const size_t length = strlen(text);
    if (count >= (uint32_t) setting->max || length == 0 || length >= setting->text_bytes ||
        !moe_text_is_plain(text, length)) {
        return refuse(setting, text, where, err);
    }
    memcpy(field(object, setting->offset + count * setting->text_bytes), text, length + 1);
    count++;
    memcpy(field(object, setting->count_offset), &count, sizeof count);
    return MOE_OK;
}

/* "[a, b]", as YAML writes a list on one line, into "a,b"; false when it does not fit. */
static bool unwrap_list(const char *text, char *out, size_t bytes)
{
    const size_t length = strlen(text);
    size_t used = 0;
    for (size_t i = 1; i + 1 < length; i++) {
        const bool at_edge = used == 0 || out[used - 1] == ',';
        const size_t rest = i + strspn(text + i, " ");
        const bool before_edge = text[rest] == ',' || rest + 1 == length;
        if (text[i] == ' ' && (at_edge || before_edge)) {
            continue;
        }
        if (used + 1 >= bytes) {
            return false;
        }
        out[used++] = text[i];
    }
    out[used] = '\0';
    return true;
}

/* "a,b": first checked as a whole, so that a refused list leaves the old one. */
static enum moe_status store_list(const struct moe_setting *setting, void *object, const char *text,
                                  const char *where, struct moe_error *err)
{
    char inner[4096];
    const size_t whole = strlen(text);
    if (whole >= 2 && text[0] == '[' && text[whole - 1] == ']') {
        if (!unwrap_list(text, inner, sizeof inner)) {
            return refuse(setting, text, where, err);
        }
        text = inner;
    }
    uint32_t count = 0;
    const char *item = text;
    for (bool more = *text != '\0'; more; count++) {
        const size_t length = strcspn(item, ",");
        if (length == 0 || length >= setting->text_bytes || !moe_text_is_plain(item, length)) {
            return refuse(setting, text, where, err);
        }
        more = item[length] == ',';
        item += length + 1;
    }
    if (count < (uint32_t) setting->min || count > (uint32_t) setting->max) {
        return refuse(setting, text, where, err);
    }
    item = text;
    for (uint32_t i = 0; i < count; i++) {
        char *target = (char *) field(object, setting->offset + i * setting->text_bytes);
        const size_t length = strcspn(item, ",");
        memcpy(target, item, length);
        target[length] = '\0';
        item += length + 1;
    }
    memcpy(field(object, setting->count_offset), &count, sizeof count);
    return MOE_OK;
}

enum moe_status moe_setting_store(const struct moe_setting *setting, void *object, const char *text,
                                  const char *where, struct moe_error *err)
{
    unsigned char *target = field(object, setting->offset);
    uint64_t count = 0;
    double real = 0.0;
    unsigned choice = 0;
    bool flag = false;
    const size_t length = strlen(text);
    switch (setting->kind) {
    case MOE_SETTING_TEXT:
        if (length < (size_t) setting->min || length >= setting->text_bytes ||
            !moe_text_is_plain(text, length)) {
            return refuse(setting, text, where, err);
        }
        memcpy(target, text, length + 1);
        return MOE_OK;
    case MOE_SETTING_COUNT: {
        if (!parse_count(text, (uint64_t) setting->min, (uint64_t) setting->max, &count)) {
            return refuse(setting, text, where, err);
        }
        const uint32_t narrow = (uint32_t) count;
        memcpy(target, &narrow, sizeof narrow);
        return MOE_OK;
    }
    case MOE_SETTING_SEED:
        if (!parse_count(text, 0, UINT64_MAX, &count)) {
            return refuse(setting, text, where, err);
        }
        memcpy(target, &count, sizeof count);
        return MOE_OK;
    case MOE_SETTING_REAL:
        if (text[strspn(text, "0123456789+-.eE")] != '\0' ||
            moe_parse_real(text, "", setting->min, setting->max, &real, NULL) != MOE_OK) {
            return refuse(setting, text, where, err);
        }
        real *= scale_of(setting);
        memcpy(target, &real, sizeof real);
        return MOE_OK;
    case MOE_SETTING_FLAG:
        flag = strcmp(text, "true") == 0;
        if (!flag && strcmp(text, "false") != 0) {
            return refuse(setting, text, where, err);
        }
        memcpy(target, &flag, sizeof flag);
        return MOE_OK;
    case MOE_SETTING_CHOICE:
        if (!parse_choice(setting, text, &choice)) {
            return refuse(setting, text, where, err);
        }
        memcpy(target, &choice, sizeof choice);
        return MOE_OK;
    case MOE_SETTING_LIST:
        return store_list(setting, object, text, where, err);
    }
    assert(0);
    return MOE_OK;
}

/* The fewest digits whose value times scale is stored again. stored / scale may be off
 * by one unit in the last place, hence the neighbours. */
static void show_real(double stored, double scale, char *text, size_t text_bytes)
{
    const double value = stored / scale;
    if (floor(value) == value && fabs(value) < 1e15 && value * scale == stored) {
        (void) snprintf(text, text_bytes, "%.0f", value);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        (void) snprintf(text, text_bytes, "%.*g", digits, stored / scale);
        const double back = strtod(text, NULL) * scale;
        if (back == stored) {
            return;
        }
    }
    const double towards[] = { -1e308, 1e308 };
    for (int i = 0; i < 2; i++) {
        const double shifted = nextafter(stored / scale, towards[i]);
        const double back = shifted * scale;
        if (back == stored) {
            (void) snprintf(text, text_bytes, "%.17g", shifted);
            return;
        }
    }
}

void moe_setting_show(const struct moe_setting *setting, const void *object, char *text,
                      size_t text_bytes)
{
    const unsigned char *source = const_field(object, setting->offset);
    uint32_t count = 0;
    uint64_t seed = 0;
    double real = 0.0;
    unsigned choice = 0;
    bool flag = false;
    switch (setting->kind) {
    case MOE_SETTING_TEXT:
        (void) moe_text_quote((const char *) source, text, text_bytes);
        break;
    case MOE_SETTING_COUNT:
        memcpy(&count, source, sizeof count);
        (void) snprintf(text, text_bytes, "%u", count);
        break;
    case MOE_SETTING_SEED:
        memcpy(&seed, source, sizeof seed);
        (void) snprintf(text, text_bytes, "%llu", (unsigned long long) seed);
        break;
    case MOE_SETTING_REAL:
        memcpy(&real, source, sizeof real);
        show_real(real, scale_of(setting), text, text_bytes);
        break;
    case MOE_SETTING_FLAG:
        memcpy(&flag, source, sizeof flag);
        (void) snprintf(text, text_bytes, "%s", flag ? "true" : "false");
        break;
    case MOE_SETTING_CHOICE:
        memcpy(&choice, source, sizeof choice);
        (void) snprintf(text, text_bytes, "%s", setting->choices[choice]);
        break;
    case MOE_SETTING_LIST: {
        memcpy(&count, const_field(object, setting->count_offset), sizeof count);
        size_t used = (size_t) snprintf(text, text_bytes, "[");
        for (uint32_t i = 0; i < count && used + 4 < text_bytes; i++) {
            used += (size_t) snprintf(text + used, text_bytes - used, "%s", i == 0 ? "" : ", ");
            used += moe_text_quote((const char *) source + i * setting->text_bytes, text + used,
                                   text_bytes - used);
        }
        (void) snprintf(text + used, text_bytes - used, "]");
        break;
    }
    }
}

enum moe_status moe_settings_check(const struct moe_settings *settings, const void *object,
                                   const char *where, struct moe_error *err)
{
    for (uint32_t i = 0; i < settings->count; i++) {
        const struct moe_setting *setting = &settings->items[i];
        uint32_t count = 0;
        double value = setting->min;
        if (setting->kind == MOE_SETTING_COUNT) {
            memcpy(&count, const_field(object, setting->offset), sizeof count);
            value = count;
        } else if (setting->kind == MOE_SETTING_REAL) {
            memcpy(&value, const_field(object, setting->offset), sizeof value);
            value /= scale_of(setting);
        }
        if (!(value >= setting->min && value <= setting->max) &&
            (setting->kind == MOE_SETTING_COUNT || setting->kind == MOE_SETTING_REAL)) {
            char allowed[200];
            moe_setting_describe(setting, allowed, sizeof allowed);
            return moe_fail(err, MOE_RANGE, "%s: %s: %.17g is not %s", where, setting->path, value,
                            allowed);
        }
    }
    return MOE_OK;
}

enum moe_status moe_settings_override(const struct moe_settings *settings, void *object,
                                      const char *assignment, struct moe_error *err)
{
    char path[64];
    const size_t length = strcspn(assignment, "=");
    if (assignment[length] != '=' || length == 0) {
        return moe_fail(err, MOE_RANGE, "setting '%.100s' is not KEY=VALUE", assignment);
    }
    (void) snprintf(path, sizeof path, "%.*s", (int) (length < sizeof path ? length : sizeof path),
                    assignment);
    const struct moe_setting *setting = moe_settings_find(settings, path);
    if (setting == NULL) {
        char group[64] = "";
        const char *dot = strchr(path, '.');
        if (dot != NULL) {
            (void) snprintf(group, sizeof group, "%.*s", (int) (dot - path), path);
        }
        char where[80];
        (void) snprintf(where, sizeof where, "setting %s", path);
        return moe_settings_refuse_unknown(settings, group, dot == NULL ? path : dot + 1, where,
                                           err);
    }
    return moe_setting_store(setting, object, assignment + length + 1, path, err);
}

size_t moe_settings_write(const struct moe_settings *settings, const void *object, char *text,
                          size_t text_bytes)
{
    const char *group = "";
    size_t group_length = 0;
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < settings->count; i++) {
        const struct moe_setting *setting = &settings->items[i];
        const char *dot = strchr(setting->path, '.');
        const char *key = dot == NULL ? setting->path : dot + 1;
        const size_t length = dot == NULL ? 0 : (size_t) (dot - setting->path);
        if (length != 0 && (length != group_length || strncmp(group, setting->path, length) != 0)) {
            used += (size_t) snprintf(text + used, text_bytes - used, "%.*s:\n", (int) length,
                                      setting->path);
            assert(used < text_bytes);
        }
        group = setting->path;
        group_length = length;
        used += (size_t) snprintf(text + used, text_bytes - used, "%s%s: ", length == 0 ? "" : "  ",
                                  key);
        assert(used < text_bytes);
        moe_setting_show(setting, object, text + used, text_bytes - used);
        used += strlen(text + used);
        assert(used + 1 < text_bytes);
        text[used++] = '\n';
        text[used] = '\0';
    }
    return used;
}

void moe_settings_print(FILE *out, const struct moe_settings *settings, const void *object)
{
    for (uint32_t i = 0; i < settings->count; i++) {
        char allowed[200];
        char value[1200];
        moe_setting_describe(&settings->items[i], allowed, sizeof allowed);
        moe_setting_show(&settings->items[i], object, value, sizeof value);
        (void) fprintf(out, "  %-26s %s: %s (default %s)\n", settings->items[i].path,
                       settings->items[i].help, allowed, value);
    }
}

/* The key of a path when the path lies in group; empty otherwise. */
static const char *key_in_group(const char *path, const char *group)
{
    const size_t length = strlen(group);
    if (length == 0) {
        return path;
    }
    return strncmp(path, group, length) == 0 && path[length] == '.' ? path + length + 1 : "";
}

/* The path whose last part is nearest to key: at most two edits, or a third of the key's
 * length; ties go to the first in the table. NULL when none is near. */
static const char *nearest_path(const struct moe_settings *settings, const char *key)
{
    const char *nearest = NULL;
    unsigned best = 3;
    if (strlen(key) / 3 + 1 > best) {
        best = (unsigned) (strlen(key) / 3) + 1;
    }
    for (uint32_t i = 0; i < settings->count; i++) {
        const char *path = settings->items[i].path;
        const char *dot = strchr(path, '.');
        const unsigned distance = moe_text_distance(key, dot == NULL ? path : dot + 1);
        if (distance < best) {
            best = distance;
            nearest = path;
        }
    }
    return nearest;
}

enum moe_status moe_settings_refuse_unknown(const struct moe_settings *settings, const char *group,
                                            const char *key, const char *where,
                                            struct moe_error *err)
{
    char allowed[260] = "";
    size_t used = 0;
    const char *last = "";
    for (uint32_t i = 0; i < settings->count && used < sizeof allowed; i++) {
        const char *name = key_in_group(settings->items[i].path, group);
        const size_t length = strcspn(name, ".");
        /* Fields of a group stand together, so a group is named once. */
        if (length == 0 || (strncmp(name, last, length) == 0 && last[length] == '.')) {
            continue;
        }
        used +=
            (size_t) snprintf(allowed + used, sizeof allowed - used, " %.*s", (int) length, name);
        last = name;
    }
    const char *nearest = nearest_path(settings, key);
    return moe_fail(err, MOE_RANGE, "%s: no such key%s%s%s; allowed%s%s:%s", where,
                    nearest == NULL ? "" : " (did you mean ", nearest == NULL ? "" : nearest,
                    nearest == NULL ? "" : "?)", group[0] == '\0' ? " here" : " in ", group,
                    used == 0 ? " none" : allowed);
}
