#include "tests/study_window.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "traces/load_matrix.h"

enum { LINE_BYTES = 16384, PATH_BYTES = 1024 };

static _Noreturn void give_up(const char *path, const char *why)
{
    (void) fprintf(stderr, "%s: %s\n", path, why);
    exit(EXIT_FAILURE);
}

struct study_window study_window_make(const struct moe_placement_shape *shape, uint32_t batch_count)
{
    const size_t cells = (size_t) shape->layer_count * shape->expert_count;
    struct study_window window = { .shape = *shape,
                                   .batch_count = batch_count,
                                   .batches = calloc(batch_count * cells, sizeof(float)),
                                   .load = calloc(cells, sizeof(double)) };
    if (window.batches == NULL || window.load == NULL) {
        give_up("study", "no memory for a window");
    }
    return window;
}

void study_window_drop(struct study_window *window)
{
    free(window->batches);
    free(window->load);
}

void study_window_sum(struct study_window *window)
{
    const size_t cells = (size_t) window->shape.layer_count * window->shape.expert_count;
    memset(window->load, 0, cells * sizeof *window->load);
    for (size_t i = 0; i < window->batch_count * cells; i++) {
        window->load[i % cells] += (double) window->batches[i];
    }
}

static FILE *open_file(const char *path)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        give_up(path, "cannot be opened");
    }
    return file;
}

/* count numbers from text on, each behind one separating character. */
static void read_numbers(const char *text, uint32_t count, double factor, float *numbers)
{
    for (uint32_t i = 0; i < count; i++) {
        char *end = NULL;
        numbers[i] = (float) (strtod(text, &end) * factor);
        text = *end == '\0' ? end : end + 1;
    }
}

/* The first three of a file's 61 layers are dense and have no load. */
void study_window_read_dsv3(const char *folder, uint32_t node_count,
                            struct study_window window[STUDY_DSV3_FILES])
{
    static const char *const files[STUDY_DSV3_FILES] = {
        "decode_in1000out1000", "decode_in2000out100",  "prefill_in1000out1000",
        "prefill_in1024",       "prefill_in1800out100", "prefill_in2048",
        "prefill_in4096",       "prefill_in500out1500",
    };
    enum { LAYERS = 58, EXPERTS = 256, DENSE = 3 };
    const struct moe_placement_shape shape = { LAYERS, EXPERTS, 288, 32, node_count, 8 };
    for (uint32_t i = 0; i < STUDY_DSV3_FILES; i++) {
        char path[PATH_BYTES];
        struct moe_load_matrix matrix = { 0 };
        struct moe_error err = { 0 };
        (void) snprintf(path, sizeof path, "%s/dsv3_expert_loads/%s.json", folder, files[i]);
        if (moe_load_matrix_read_sglang(&matrix, path, &err) != MOE_OK) {
            give_up(path, err.text);
        }
        window[i] = study_window_make(&shape, 1);
        for (size_t cell = 0; cell < (size_t) LAYERS * EXPERTS; cell++) {
            window[i].batches[cell] = (float) matrix.load[(size_t) DENSE * EXPERTS + cell];
        }
        study_window_sum(&window[i]);
        moe_load_matrix_finish(&matrix);
    }
}

/* Rates become tokens of 10,000; 48 layers, one row each and language. */
void study_window_read_qwen3(const char *folder, struct study_window window[STUDY_QWEN3_WINDOWS])
{
    static const char *const files[] = {
        "arc_en_he_500_20250921_090254", "copa_en_he_500_20250921_125427",
        "gsm_en_he_500_20250921_115824", "mmlu_en_he_500_20250921_123201",
        "nli_en_he_460_20250925_154220", "ted_he_en_chunks_20250925_161115",
    };
    enum { LAYERS = 48, EXPERTS = 128 };
    const struct moe_placement_shape shape = { LAYERS, EXPERTS, 144, 16, 1, 1 };
    char line[LINE_BYTES];
    for (uint32_t i = 0; i < STUDY_QWEN3_WINDOWS; i += 2) {
        char path[PATH_BYTES];
        (void) snprintf(path, sizeof path,
                        "%s/qwen3_30b_activation_en_he/moe_all_layers_analysis_%s_avg_activation"
                        ".csv",
                        folder, files[i / 2]);
        FILE *file = open_file(path);
        window[i] = study_window_make(&shape, 1);
        window[i + 1] = study_window_make(&shape, 1);
        if (fgets(line, sizeof line, file) == NULL) {
            give_up(path, "is empty");
        }
        for (uint32_t row = 0; row < 2 * LAYERS; row++) {
            char *end = NULL;
            if (fgets(line, sizeof line, file) == NULL) {
                give_up(path, "has fewer rows than expected");
            }
            const uint32_t layer = (uint32_t) strtoul(line, &end, 10);
            const uint32_t hebrew = strncmp(end, ",Hebrew,", 8) == 0 ? 1 : 0;
            if (layer >= LAYERS || (hebrew == 0 && strncmp(end, ",English,", 9) != 0)) {
                give_up(path, "has a row that is not expected");
            }
            read_numbers(strchr(end + 1, ',') + 1, EXPERTS, 10000.0,
                         window[i + hebrew].batches + (size_t) layer * EXPERTS);
        }
        (void) fclose(file);
        study_window_sum(&window[i]);
        study_window_sum(&window[i + 1]);
    }
}

void study_window_read_series(const char *folder, const struct study_series *series,
                              struct study_window window[STUDY_SERIES_WINDOWS])
{
    enum { LAYERS = 12 };
    const struct moe_placement_shape shape = {
        LAYERS, series->experts, series->slots, series->gpus, 1, 1
    };
    const uint32_t spans = series->iterations / STUDY_SERIES_SPAN;
    char path[PATH_BYTES];
    char line[LINE_BYTES];
    (void) snprintf(path, sizeof path, "%s/harmoeny_expert_freq/%s", folder, series->file);
    FILE *file = open_file(path);
    if (fgets(line, sizeof line, file) == NULL) {
        give_up(path, "is empty");
    }
    for (uint32_t i = 0; i < STUDY_SERIES_DATASETS * spans; i++) {
        window[i] = study_window_make(&shape, STUDY_SERIES_SPAN);
    }
    for (uint32_t row = 0; row < STUDY_SERIES_DATASETS * series->iterations * LAYERS; row++) {
        if (fgets(line, sizeof line, file) == NULL) {
            give_up(path, "has fewer rows than expected");
        }
        const char *text = strchr(strchr(line, ',') + 1, ',') + 1; /* behind the data set */
        char *end = NULL;
        const uint32_t iteration = (uint32_t) strtoul(text, &end, 10);
        const uint32_t layer = (uint32_t) strtoul(end + 1, &end, 10);
        const uint32_t at = row / (LAYERS * series->iterations) * series->iterations + iteration;
        if (iteration >= series->iterations || layer >= LAYERS) {
            give_up(path, "has a row that is not expected");
        }
        struct study_window *mine = &window[at / STUDY_SERIES_SPAN];
        const size_t cell = ((size_t) (at % STUDY_SERIES_SPAN) * LAYERS + layer) * series->experts;
        read_numbers(end + 1, series->experts, 1.0, mine->batches + cell);
    }
    (void) fclose(file);
    for (uint32_t i = 0; i < STUDY_SERIES_DATASETS * spans; i++) {
        study_window_sum(&window[i]);
    }
}

void study_window_read_raw(const char *folder, const struct study_raw *raw,
                           struct study_window window[2])
{
    const struct moe_placement_shape shape = { raw->layers, raw->experts,
                                               raw->slots,  raw->ranks,
                                               1,           1 };
    char line[LINE_BYTES];
    window[0] = study_window_make(&shape, raw->ranks);
    window[1] = study_window_make(&shape, raw->ranks);
    for (uint32_t rank = 0; rank < raw->ranks; rank++) {
        for (uint32_t layer = 0; layer < raw->layers; layer++) {
            char path[PATH_BYTES];
            (void) snprintf(path, sizeof path, "%s/harmoeny_raw_trace/%s/%u/moe_layer-%u.csv",
                            folder, raw->model, rank, layer);
            FILE *file = open_file(path);
            if (fgets(line, sizeof line, file) == NULL) { /* the names of the columns */
                give_up(path, "is empty");
            }
            for (uint32_t i = 0; i < 2; i++) {
                const char *list =
                    fgets(line, sizeof line, file) == NULL ? NULL : strchr(line, '[');
                if (list == NULL) {
                    give_up(path, "has no list of counts");
                }
                const size_t cell = ((size_t) rank * raw->layers + layer) * raw->experts;
                read_numbers(list + 1, raw->experts, 1.0, window[i].batches + cell);
            }
            (void) fclose(file);
        }
    }
    study_window_sum(&window[0]);
    study_window_sum(&window[1]);
}
