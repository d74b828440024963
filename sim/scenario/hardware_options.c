#include "sim/scenario/hardware_options.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "sim/base/options.h"

/* Seconds, factors and numbers that an event's words give; < 0: not given. */
struct words {
    double gpu;
    double by;
    double at;
    double lasts;
};

static enum moe_status refuse(const char *event, const char *what, struct moe_error *err)
{
    return moe_fail(err, MOE_RANGE,
                    "hardware.events: '%s': %s; an event is 'slow gpu=N by=FACTOR', 'clock gpu=N "
                    "by=FACTOR', 'link gpu=N by=FACTOR' or 'dead gpu=N', with at=SECONDS and "
                    "for=SECONDS if wanted",
                    event, what);
}

static enum moe_status read_word(const char *event, const char *word, size_t length,
                                 struct words *words, struct moe_error *err)
{
    static const struct {
        const char *name;
        double min;
        double max;
    } known[] = {
        { "gpu=", 0, 4095 }, { "by=", 1e-2, 1e3 }, { "at=", 0, 1e8 }, { "for=", 1e-9, 1e8 }
    };
    double *const target[] = { &words->gpu, &words->by, &words->at, &words->lasts };
    for (unsigned i = 0; i < 4; i++) {
        const size_t name = strlen(known[i].name);
        char value[32];
        if (length <= name || length - name >= sizeof value ||
            strncmp(word, known[i].name, name) != 0) {
            continue;
        }
        (void) snprintf(value, sizeof value, "%.*s", (int) (length - name), word + name);
        if (*target[i] >= 0.0) {
            return refuse(event, "a word stands twice", err);
        }
        return moe_parse_real(value, "hardware.events", known[i].min, known[i].max, target[i], err);
    }
    return refuse(event, "has a word that is none of gpu=, by=, at=, for=", err);
}

static enum moe_status read_event(const char *event, uint32_t gpu_count,
                                  struct moe_hardware_event *out, struct moe_error *err)
{
    static const char *const kinds[] = { [MOE_HARDWARE_SLOW] = "slow",
                                         [MOE_HARDWARE_LINK] = "link",
                                         [MOE_HARDWARE_DEAD] = "dead",
                                         [MOE_HARDWARE_CLOCK] = "clock" };
    const uint32_t count = sizeof kinds / sizeof kinds[0];
    struct words words = { -1.0, -1.0, -1.0, -1.0 };
    uint32_t kind = 0;
    const char *at = event;
    const size_t first = strcspn(at, " ");
    while (kind < count && (first != strlen(kinds[kind]) || strncmp(at, kinds[kind], first) != 0)) {
        kind++;
    }
    if (kind == count) {
        return refuse(event, "its first word is none of slow, clock, link, dead", err);
    }
    for (at += first; *at == ' ';) {
        at++;
        const size_t length = strcspn(at, " ");
        MOE_TRY(read_word(event, at, length, &words, err));
        at += length;
    }
    const bool dies = kind == MOE_HARDWARE_DEAD;
    if (words.gpu < 0.0 || words.gpu >= gpu_count || words.gpu > (uint32_t) words.gpu) {
        char which[80];
        (void) snprintf(which, sizeof which, "names no GPU of the cluster, which are 0 to %u",
                        gpu_count - 1);
        return refuse(event, which, err);
    }
    if (dies != (words.by < 0.0) || (dies && words.lasts >= 0.0)) {
        return refuse(event, dies ? "a dead GPU has neither by= nor for=" : "has no by=", err);
    }
    const moe_time_ns begin = moe_time_from_seconds(words.at > 0.0 ? words.at : 0.0);
    *out = (struct moe_hardware_event){
        .kind = (enum moe_hardware_event_kind) kind,
        .gpu = (uint32_t) words.gpu,
        .factor = dies ? 1.0 : words.by,
        .begin_ns = begin,
        .end_ns = words.lasts > 0.0 ? begin + moe_time_from_seconds(words.lasts) : INT64_MAX,
    };
    return MOE_OK;
}

enum moe_status moe_hardware_options_settle(struct moe_hardware_options *options,
                                            uint32_t gpu_count, struct moe_error *err)
{
    for (uint32_t i = 0; i < options->event_count; i++) {
        MOE_TRY(read_event(options->events[i], gpu_count, &options->event[i], err));
    }
    return MOE_OK;
}
