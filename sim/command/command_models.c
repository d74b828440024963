/* moesim models [NAME|PATH]: the cards, or every field of one model and what follows. */
#include <assert.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/options.h"
#include "sim/command/command.h"
#include "sim/model/model_reader.h"

/* A derived size: name in JSON and in the table, value, unit. */
struct derived {
    const char *name;
    const char *unit;
    double value;
};

enum { DERIVED_COUNT = 10 };

static void derive(const struct moe_model *model, struct derived *out)
{
    const double experts = (double) model->moe_layer_count * model->expert_count;
    const double expert_bytes = moe_model_expert_bytes(model);
    const struct derived all[DERIVED_COUNT] = {
        { "total_weights", "weights", moe_model_total_weights(model) },
        { "nonexpert_weights", "weights", moe_model_nonexpert_weights(model) },
        { "expert_weights", "weights of one expert", moe_model_expert_weights(model) },
        { "expert_bytes", "bytes of one expert", expert_bytes },
        { "all_expert_bytes", "bytes of all experts, without copies", experts * expert_bytes },
        { "nonexpert_bytes", "bytes of all else", moe_model_nonexpert_bytes(model) },
        { "attention_weights", "weights of one layer with KV", moe_model_attention_weights(model) },
        { "index_weights", "weights that sparse attention adds, all layers",
          moe_model_index_weights(model) },
        { "kv_bytes_per_token", "bytes, all layers that keep KV, index keys included",
          moe_model_kv_bytes_per_token(model) },
        { "window_bytes", "bytes of a request's windows beside that",
          moe_model_window_bytes(model) },
    };
    memcpy(out, all, sizeof all);
}

/* One field as the JSON value that its YAML stands for. */
static json_t *field_json(const struct moe_setting *setting, const struct moe_model *model)
{
    char text[256];
    const unsigned char *base = (const unsigned char *) model + setting->offset;
    if (setting->kind == MOE_SETTING_TEXT) {
        return json_string((const char *) base);
    }
    moe_setting_show(setting, model, text, sizeof text);
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    return value != NULL ? value : json_string(text);
}

/* {"name": ..., "experts": {"count": ...}, ..., "derived": {...}} */
static json_t *model_json(const struct moe_model *model)
{
    struct derived all[DERIVED_COUNT];
    json_t *root = json_object();
    json_t *sizes = json_object();
    for (uint32_t i = 0; i < moe_model_settings.count; i++) {
        const struct moe_setting *setting = &moe_model_settings.items[i];
        const char *dot = strchr(setting->path, '.');
        json_t *parent = root;
        if (dot != NULL) {
            char group[32];
            (void) snprintf(group, sizeof group, "%.*s", (int) (dot - setting->path),
                            setting->path);
            parent = json_object_get(root, group);
            if (parent == NULL) {
                parent = json_object();
                (void) json_object_set_new(root, group, parent);
            }
        }
        (void) json_object_set_new(parent, dot == NULL ? setting->path : dot + 1,
                                   field_json(setting, model));
    }
    derive(model, all);
    for (size_t i = 0; i < DERIVED_COUNT; i++) {
        (void) json_object_set_new(sizes, all[i].name, json_integer((json_int_t) all[i].value));
    }
    (void) json_object_set_new(root, "derived", sizes);
    return root;
}

static enum moe_status print_json(json_t *models, struct moe_error *err)
{
    json_t *root = json_pack("{s:s, s:o}", "schema", "moesim-models/1", "models", models);
    char *text = root == NULL ? NULL : json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    if (text == NULL) {
        return moe_fail(err, MOE_LIMIT, "no memory for the JSON of the models");
    }
    (void) puts(text);
    free(text);
    return MOE_OK;
}

static enum moe_status print_model(const char *name, bool json, struct moe_error *err)
{
    struct moe_model model;
    struct derived all[DERIVED_COUNT];
    char text[8192];
    MOE_TRY(moe_model_load(&model, name, err));
    if (json) {
        json_t *models = json_array();
        (void) json_array_append_new(models, model_json(&model));
        return print_json(models, err);
    }
    (void) moe_settings_write(&moe_model_settings, &model, text, sizeof text);
    derive(&model, all);
    (void) fputs(text, stdout);
    (void) puts("derived:");
    for (size_t i = 0; i < DERIVED_COUNT; i++) {
        (void) printf("  %s: %.0f  # %s\n", all[i].name, all[i].value, all[i].unit);
    }
    return MOE_OK;
}

static enum moe_status print_cards(bool json, struct moe_error *err)
{
    uint32_t count = 0;
    const char *const *names = moe_model_card_names(&count);
    json_t *models = json_array();
    if (!json) {
        (void) printf("%-18s %6s %6s %7s %5s %9s %10s %9s %9s\n", "card", "layers", "moe",
                      "experts", "top-k", "weights_B", "expert_MB", "weight_GB", "KV_B/tok");
    }
    for (uint32_t i = 0; i < count; i++) {
        struct moe_model m;
        const enum moe_status status = moe_model_load(&m, names[i], err);
        if (status != MOE_OK) {
            json_decref(models);
            return status;
        }
        if (json) {
            (void) json_array_append_new(models, model_json(&m));
            continue;
        }
        const double expert_bytes =
            (double) m.moe_layer_count * m.expert_count * moe_model_expert_bytes(&m);
        (void) printf("%-18s %6u %6u %7u %5u %9.3f %10.3f %9.2f %9.0f\n", m.name, m.layer_count,
                      m.moe_layer_count, m.expert_count, m.top_k, moe_model_total_weights(&m) / 1e9,
                      moe_model_expert_bytes(&m) / 1e6,
                      (expert_bytes + moe_model_nonexpert_bytes(&m)) / 1e9,
                      moe_model_kv_bytes_per_token(&m));
    }
    if (json) {
        return print_json(models, err);
    }
    json_decref(models);
    return MOE_OK;
}

static enum moe_status run(int argc, char **argv, struct moe_error *err)
{
    const char *format = "table";
    const char *name = NULL;
    const struct moe_option options[] = {
        { .name = "format",
          .kind = MOE_OPTION_TEXT,
          .target = &format,
          .value = "table|json",
          .help = "form of the output" },
    };
    struct moe_positionals positionals = { .items = &name, .min = 0, .max = 1 };
    if (moe_command_wants_help(argc, argv)) {
        (void) puts("usage: moesim models [CARD | CARD.yaml | CONFIG.json] [--format table|json]");
        moe_options_print(stdout, options, 1);
        return MOE_OK;
    }
    MOE_TRY(moe_options_parse(options, 1, &positionals, argc, argv, err));
    const bool json = strcmp(format, "json") == 0;
    if (!json && strcmp(format, "table") != 0) {
        return moe_fail(err, MOE_RANGE, "--format: '%s' is neither table nor json", format);
    }
    return positionals.count == 0 ? print_cards(json, err) : print_model(name, json, err);
}

const struct moe_command moe_command_models = {
    .name = "models",
    .summary = "list the model cards, or print one model's sizes",
    .run = run,
};
