/*
 * Reads settings from YAML in two passes over libyaml. The first walks the events, where
 * anchors, aliases, tags and a second document can still be seen, and bounds depth and
 * number; the second takes the document interface, whose nodes carry lines.
 */
#include <assert.h>
#include <string.h>
#include <yaml.h>

#include "sim/settings/plain_text.h"
#include "sim/settings/settings.h"

enum {
    YAML_BYTES_LIMIT = 1 << 20,
    YAML_DEPTH_LIMIT = 8,
    YAML_EVENT_LIMIT = 4000,
    SHOWN_NAME_BYTES = 160,
};

struct reader {
    const struct moe_settings *settings;
    void *object;
    const char *name; /* its last SHOWN_NAME_BYTES: an error's text is bounded */
    yaml_document_t *document;
    unsigned long given_line[MOE_SETTINGS_LIMIT]; /* 0 = not given */
    struct moe_error *err;
};

static unsigned long line_of(const yaml_node_t *node)
{
    return (unsigned long) node->start_mark.line + 1;
}

static const char *shown_name(const char *name)
{
    const size_t length = strlen(name);
    return length > SHOWN_NAME_BYTES ? name + length - SHOWN_NAME_BYTES : name;
}

static enum moe_status refuse_syntax(const yaml_parser_t *parser, const char *name,
                                     struct moe_error *err)
{
    if (parser->error == YAML_MEMORY_ERROR) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", name);
    }
    const yaml_mark_t *mark =
        parser->error == YAML_READER_ERROR ? &parser->mark : &parser->problem_mark;
    return moe_fail(err, MOE_PARSE, "%s:%lu: not valid YAML: %s", name,
                    (unsigned long) mark->line + 1,
                    parser->problem == NULL ? "unknown problem" : parser->problem);
}

static enum moe_status check_scalar(const yaml_event_t *event, const char *name,
                                    struct moe_error *err)
{
    const char *value = (const char *) event->data.scalar.value;
    if (event->data.scalar.anchor != NULL || event->data.scalar.tag != NULL) {
        return moe_fail(err, MOE_PARSE, "%s:%lu: anchors, aliases and tags are not allowed", name,
                        (unsigned long) event->start_mark.line + 1);
    }
    if (!moe_text_is_plain(value, event->data.scalar.length)) {
        return moe_fail(err, MOE_PARSE, "%s:%lu: a text holds line breaks or control characters",
                        name, (unsigned long) event->start_mark.line + 1);
    }
    return MOE_OK;
}

/* One event of the first pass. */
static enum moe_status check_event(const yaml_event_t *event, unsigned *depth, unsigned *documents,
                                   const char *name, struct moe_error *err)
{
    const unsigned long line = (unsigned long) event->start_mark.line + 1;
    bool marked = event->type == YAML_ALIAS_EVENT;
    switch (event->type) {
    case YAML_SCALAR_EVENT:
        return check_scalar(event, name, err);
    case YAML_SEQUENCE_START_EVENT:
        marked =
            event->data.sequence_start.anchor != NULL || event->data.sequence_start.tag != NULL;
        ++*depth;
        break;
    case YAML_MAPPING_START_EVENT:
        marked = event->data.mapping_start.anchor != NULL || event->data.mapping_start.tag != NULL;
        ++*depth;
        break;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        --*depth;
        break;
    case YAML_DOCUMENT_START_EVENT:
        if (++*documents > 1) {
            return moe_fail(err, MOE_PARSE, "%s:%lu: a second document begins; one is allowed",
                            name, line);
        }
        break;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_END_EVENT:
    case YAML_ALIAS_EVENT:
        break;
    }
    if (marked) {
        return moe_fail(err, MOE_PARSE, "%s:%lu: anchors, aliases and tags are not allowed", name,
                        line);
    }
    return *depth <= YAML_DEPTH_LIMIT ? MOE_OK
                                      : moe_fail(err, MOE_PARSE, "%s:%lu: nested deeper than %d",
                                                 name, line, YAML_DEPTH_LIMIT);
}

static void start_parser(yaml_parser_t *parser, const char *text, size_t bytes)
{
    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(parser, (const unsigned char *) text, bytes);
}

static enum moe_status check_events(const char *text, size_t bytes, const char *name,
                                    struct moe_error *err)
{
    yaml_parser_t parser;
    unsigned depth = 0;
    unsigned documents = 0;
    bool ended = false;
    enum moe_status status = MOE_OK;
    if (yaml_parser_initialize(&parser) == 0) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", name);
    }
    start_parser(&parser, text, bytes);
    for (unsigned events = 0; !ended && status == MOE_OK; events++) {
        yaml_event_t event;
        if (events == YAML_EVENT_LIMIT) {
            status = moe_fail(err, MOE_PARSE, "%s:%lu: more than %d YAML events", name,
                              (unsigned long) parser.mark.line + 1, YAML_EVENT_LIMIT);
            break;
        }
        if (yaml_parser_parse(&parser, &event) == 0) {
            status = refuse_syntax(&parser, name, err);
            break;
        }
        status = check_event(&event, &depth, &documents, name, err);
        ended = event.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return status;
}

static const char *scalar(const yaml_node_t *node)
{
    return (const char *) node->data.scalar.value;
}

/* "file:7: cluster.nodes" */
static void format_where(const struct reader *reader, unsigned long line, const char *path,
                         char *where, size_t where_bytes)
{
    (void) snprintf(where, where_bytes, "%s:%lu: %.60s", reader->name, line, path);
}

/* A scalar that stands for nothing, or whose quotes make it text where none is meant. */
static enum moe_status check_style(const struct moe_setting *setting, const yaml_node_t *node,
                                   const char *where, struct moe_error *err)
{
    static const char *const nulls[] = { "", "~", "null", "Null", "NULL" };
    char allowed[200];
    moe_setting_describe(setting, allowed, sizeof allowed);
    const bool plain = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    for (size_t i = 0; plain && i < sizeof nulls / sizeof nulls[0]; i++) {
        if (strcmp(scalar(node), nulls[i]) == 0) {
            return moe_fail(err, MOE_RANGE, "%s: has no value; needs %s", where, allowed);
        }
    }
    if (!plain && setting->kind != MOE_SETTING_TEXT && setting->kind != MOE_SETTING_LIST) {
        return moe_fail(err, MOE_RANGE, "%s: \"%.100s\" in quotes is text; needs %s", where,
                        scalar(node), allowed);
    }
    return MOE_OK;
}

static enum moe_status read_list(const struct reader *reader, const struct moe_setting *setting,
                                 const yaml_node_t *node, const char *where)
{
    const uint32_t none = 0;
    memcpy((unsigned char *) reader->object + setting->count_offset, &none, sizeof none);
    const yaml_node_item_t *item = node->data.sequence.items.start;
    for (; item < node->data.sequence.items.top; item++) {
        const yaml_node_t *child = yaml_document_get_node(reader->document, *item);
        char item_where[256];
        format_where(reader, line_of(child), setting->path, item_where, sizeof item_where);
        if (child->type != YAML_SCALAR_NODE) {
            return moe_fail(reader->err, MOE_RANGE, "%s: an item is not a text", item_where);
        }
        MOE_TRY(check_style(setting, child, item_where, reader->err));
        MOE_TRY(
            moe_setting_append(setting, reader->object, scalar(child), item_where, reader->err));
    }
    const size_t count = (size_t) (item - node->data.sequence.items.start);
    if (count < (size_t) setting->min) {
        char allowed[200];
        moe_setting_describe(setting, allowed, sizeof allowed);
        return moe_fail(reader->err, MOE_RANGE, "%s: %zu items are not %s", where, count, allowed);
    }
    return MOE_OK;
}

static enum moe_status read_value(struct reader *reader, const struct moe_setting *setting,
                                  const yaml_node_t *node, const char *where)
{
    const bool list = setting->kind == MOE_SETTING_LIST;
    if (node->type != (list ? YAML_SEQUENCE_NODE : YAML_SCALAR_NODE)) {
        static const char *const names[] = { "nothing", "a single value", "a list", "a mapping" };
        char allowed[200];
        moe_setting_describe(setting, allowed, sizeof allowed);
        return moe_fail(reader->err, MOE_RANGE, "%s: needs %s, not %s", where, allowed,
                        names[node->type]);
    }
    if (list) {
        return read_list(reader, setting, node, where);
    }
    MOE_TRY(check_style(setting, node, where, reader->err));
    return moe_setting_store(setting, reader->object, scalar(node), where, reader->err);
}

static bool is_group(const struct moe_settings *settings, const char *key)
{
    const size_t length = strlen(key);
    for (uint32_t i = 0; i < settings->count; i++) {
        if (strncmp(settings->items[i].path, key, length) == 0 &&
            settings->items[i].path[length] == '.') {
            return true;
        }
    }
    return false;
}

static enum moe_status refuse_repeated(const struct reader *reader, const yaml_node_t *mapping,
                                       const yaml_node_pair_t *pair, const char *where)
{
    const char *key = scalar(yaml_document_get_node(reader->document, pair->key));
    const yaml_node_pair_t *before = mapping->data.mapping.pairs.start;
    for (; before < pair; before++) {
        const yaml_node_t *node = yaml_document_get_node(reader->document, before->key);
        if (strcmp(scalar(node), key) == 0) {
            return moe_fail(reader->err, MOE_PARSE, "%s: given twice, first in line %lu", where,
                            line_of(node));
        }
    }
    return MOE_OK;
}

/* A mapping of keys; group is "" at the top. Groups do not nest, so this calls itself
 * once at most. */
static enum moe_status read_mapping(struct reader *reader, const yaml_node_t *mapping,
                                    const char *group)
{
    const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start;
    for (; pair < mapping->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(reader->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(reader->document, pair->value);
        char path[128] = "";
        char where[256];
        if (key->type != YAML_SCALAR_NODE) {
            return moe_fail(reader->err, MOE_RANGE, "%s:%lu: a key is not a text", reader->name,
                            line_of(key));
        }
        (void) snprintf(path, sizeof path, "%s%s%.60s", group, group[0] == '\0' ? "" : ".",
                        scalar(key));
        format_where(reader, line_of(key), path, where, sizeof where);
        const bool dotted = strchr(scalar(key), '.') != NULL;
        const struct moe_setting *setting =
            dotted ? NULL : moe_settings_find(reader->settings, path);
        const bool opens = group[0] == '\0' && !dotted && is_group(reader->settings, scalar(key));
        if (setting == NULL && !opens) {
            return moe_settings_refuse_unknown(reader->settings, group, scalar(key), where,
                                               reader->err);
        }
        MOE_TRY(refuse_repeated(reader, mapping, pair, where));
        if (setting != NULL) {
            MOE_TRY(read_value(reader, setting, value, where));
            reader->given_line[setting - reader->settings->items] = line_of(key);
        } else if (value->type != YAML_MAPPING_NODE) {
            return moe_fail(reader->err, MOE_RANGE, "%s: needs keys below it, not a value", where);
        } else {
            MOE_TRY(read_mapping(reader, value, scalar(key)));
        }
    }
    return MOE_OK;
}

static enum moe_status check_required(const struct reader *reader)
{
    for (uint32_t i = 0; i < reader->settings->count; i++) {
        const struct moe_setting *setting = &reader->settings->items[i];
        if (setting->required && reader->given_line[i] == 0) {
            char allowed[200];
            moe_setting_describe(setting, allowed, sizeof allowed);
            return moe_fail(reader->err, MOE_RANGE,
                            "%s: key %s is missing from this %s; it needs %s", reader->name,
                            setting->path, reader->settings->noun, allowed);
        }
    }
    return MOE_OK;
}

enum moe_status moe_settings_read(const struct moe_settings *settings, void *object,
                                  const char *text, size_t bytes, const char *name,
                                  struct moe_error *err)
{
    yaml_parser_t parser;
    yaml_document_t document;
    struct reader reader = {
        .settings = settings, .object = object, .name = shown_name(name), .err = err
    };
    assert(settings->count <= MOE_SETTINGS_LIMIT);
    if (bytes > YAML_BYTES_LIMIT) {
        return moe_fail(err, MOE_PARSE, "%s: %zu bytes, at most %d are read", reader.name, bytes,
                        YAML_BYTES_LIMIT);
    }
    MOE_TRY(check_events(text, bytes, reader.name, err));
    if (yaml_parser_initialize(&parser) == 0) {
        return moe_fail(err, MOE_LIMIT, "%s: no memory to read it", reader.name);
    }
    start_parser(&parser, text, bytes);
    enum moe_status status = MOE_OK;
    if (yaml_parser_load(&parser, &document) == 0) {
        status = refuse_syntax(&parser, reader.name, err);
        yaml_parser_delete(&parser);
        return status;
    }
    const yaml_node_t *root = yaml_document_get_root_node(&document);
    reader.document = &document;
    if (root == NULL) {
        status = moe_fail(err, MOE_PARSE, "%s: holds no YAML document", reader.name);
    } else if (root->type != YAML_MAPPING_NODE) {
        status = moe_fail(err, MOE_PARSE, "%s:%lu: a %s is keys and values", reader.name,
                          line_of(root), settings->noun);
    } else {
        status = read_mapping(&reader, root, "");
    }
    if (status == MOE_OK) {
        status = check_required(&reader);
    }
    yaml_document_delete(&document);
    yaml_parser_delete(&parser);
    return status;
}
