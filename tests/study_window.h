/*
 * Windows of recorded loads for the study of placements: what a policy plans on, or is scored on.
 * Data are folders of recorded files that are not part of the tree. What cannot be read ends the
 * program with a line on stderr.
 */
#ifndef MOE_TESTS_STUDY_WINDOW_H
#define MOE_TESTS_STUDY_WINDOW_H

#include <stdint.h>

#include "policies/policy_view.h"

struct study_window {
    struct moe_placement_shape shape;
    uint32_t batch_count;
    float *batches;                         /* [batch][layer][expert] */
    double *load;                           /* [layer][expert] their sum */
    const struct moe_policy_routes *routes; /* NULL: counts only */
};

/* All loads 0. Drop what was made. */
struct study_window study_window_make(const struct moe_placement_shape *shape,
                                      uint32_t batch_count);
void study_window_drop(struct study_window *window);

/* load from batches. */
void study_window_sum(struct study_window *window);

/* A window of one batch from each of the 8 dumps of SGLang's expert counts of DeepSeek-V3. */
enum { STUDY_DSV3_FILES = 8 };
void study_window_read_dsv3(const char *folder, uint32_t node_count,
                            struct study_window window[STUDY_DSV3_FILES]);

/* Twelve of one batch from Qwen3-30B's activation rates: 6 data sets, each English and Hebrew. */
enum { STUDY_QWEN3_WINDOWS = 12 };
void study_window_read_qwen3(const char *folder, struct study_window window[STUDY_QWEN3_WINDOWS]);

/* Rows "number,dataset,iteration,layer,counts" of 12 layers and four data sets, each cut into
 * windows of five iterations. */
enum { STUDY_SERIES_DATASETS = 4, STUDY_SERIES_SPAN = 5, STUDY_SERIES_WINDOWS = 32 };
struct study_series {
    const char *file;
    const char *title;
    uint32_t experts;
    uint32_t iterations; /* of each data set, at most 40 */
    uint32_t slots;
    uint32_t gpus;
};
void study_window_read_series(const char *folder, const struct study_series *series,
                              struct study_window window[STUDY_SERIES_WINDOWS]);

/* Two iterations of one model, the counts of every source rank a batch. */
struct study_raw {
    const char *model; /* a folder */
    uint32_t layers;
    uint32_t experts;
    uint32_t ranks;
    uint32_t slots; /* on as many GPUs as ranks */
};
void study_window_read_raw(const char *folder, const struct study_raw *raw,
                           struct study_window window[2]);

#endif
