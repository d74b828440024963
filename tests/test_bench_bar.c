/* Bars on made-up results, each on both sides of its edge. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calibrate/bench/bench_bar.h"
#include "calibrate/bench/bench_plan.h"
#include "calibrate/bench/bench_record.h"

enum {
    BAR_CEILING,
    BAR_BEHIND,
    BAR_AHEAD,
    BAR_HOT,
    BAR_SMALL_CEILING,
    BAR_SMALL_AHEAD,
    BAR_FP8,
    BAR_FP8_CEILING,
    BAR_COPY,
    BAR_PERMUTE,
    BAR_COMBINE
};

static struct moe_bench_moves moves;
static struct moe_bench_row rows[4];
static struct moe_bench_bar bars[MOE_BENCH_BAR_COUNT];

static void judge(size_t row_count)
{
    const struct moe_bench_run run = { .rows = rows,
                                       .row_count = row_count,
                                       .moves = &moves,
                                       .ceilings = { .read_bytes_per_s = 4e12,
                                                     .copy_bytes_per_s = 4e12 },
                                       .sm_count = 132,
                                       .fallback_mhz = 1500.0 };
    moe_bench_bars_judge(&run, bars);
}

static struct moe_bench_cell cell(const char *backend, bool library, double us)
{
    return (struct moe_bench_cell){
        .backend = backend,
        .is_library = library,
        .measured = true,
        .timing = { .count = 20, .median_us = us, .low_us = us * 0.999, .high_us = us * 1.001 },
        .mhz = 1500.0
    };
}

/* A point of the large shape with ours and one of the library's. */
static struct moe_bench_row point(enum moe_row_histogram histogram, int32_t tokens, double own_us,
                                  double library_us)
{
    int32_t row_offset[33];
    struct moe_bench_row row = { .shape = { .hidden = 7168,
                                            .inter = 2048,
                                            .expert_count = 32,
                                            .dtype = MOE_EXPERT_BF16,
                                            .activation = MOE_EXPERT_SWIGLU },
                                 .histogram = histogram,
                                 .rows_per_expert = tokens,
                                 .cell_count = 2 };
    moe_row_histogram_make(histogram, 32, tokens, row_offset);
    row.load = moe_row_load_read(row_offset, 32);
    row.work = moe_expert_work_count(&row.shape, &row.load);
    row.cells[0] = cell("own", false, own_us);
    row.cells[1] = cell("lt-expert", true, library_us);
    return row;
}

Test(bench_bar, share_of_the_read_ceiling)
{
    /* 32 experts of 88080384 bytes and 32 rows of 28672: 2819489792 bytes, 704.87 us at 4e12. */
    rows[0] = point(MOE_ROW_UNIFORM, 1, 704.872 / 0.951, 1000.0);
    judge(1);
    cr_assert_eq(bars[BAR_CEILING].verdict, MOE_BENCH_PASS, "%s", bars[BAR_CEILING].worst);
    rows[0] = point(MOE_ROW_UNIFORM, 1, 704.872 / 0.949, 1000.0);
    judge(1);
    cr_assert_eq(bars[BAR_CEILING].verdict, MOE_BENCH_MISS);
    cr_assert_not_null(strstr(bars[BAR_CEILING].worst, "94.9 %"), "%s", bars[BAR_CEILING].worst);
    cr_assert_eq(bars[BAR_SMALL_CEILING].verdict, MOE_BENCH_UNMEASURED);
    cr_assert_eq(bars[BAR_FP8].verdict, MOE_BENCH_UNMEASURED);
}

Test(bench_bar, behind_and_ahead_of_the_library)
{
    rows[0] = point(MOE_ROW_UNIFORM, 64, 1009.0, 1000.0); /* behind, but within 1 % */
    judge(1);
    cr_assert_eq(bars[BAR_BEHIND].verdict, MOE_BENCH_PASS);
    cr_assert_eq(bars[BAR_AHEAD].verdict, MOE_BENCH_MISS);
    rows[0] = point(MOE_ROW_UNIFORM, 64, 1015.0, 1000.0);
    rows[1] = point(MOE_ROW_UNIFORM, 256, 990.0, 1000.0);
    judge(2);
    cr_assert_eq(bars[BAR_BEHIND].verdict, MOE_BENCH_MISS);
    cr_assert_eq(bars[BAR_BEHIND].met, 1);
    cr_assert_eq(bars[BAR_BEHIND].count, 2);
    cr_assert_not_null(strstr(bars[BAR_BEHIND].worst, "64 rows"));
    rows[0] = point(MOE_ROW_UNIFORM, 64, 999.0, 1000.0); /* the intervals overlap */
    judge(1);
    cr_assert_eq(bars[BAR_AHEAD].verdict, MOE_BENCH_MISS);
    rows[0] = point(MOE_ROW_UNIFORM, 64, 997.0, 1000.0);
    judge(1);
    cr_assert_eq(bars[BAR_AHEAD].verdict, MOE_BENCH_PASS);
}

Test(bench_bar, ours_unmeasured_is_a_miss_and_a_refusing_library_is_none)
{
    rows[0] = point(MOE_ROW_UNIFORM, 64, 1.0, 1000.0);
    rows[0].cells[0].measured = false;
    judge(1);
    cr_assert_eq(bars[BAR_BEHIND].verdict, MOE_BENCH_MISS);
    rows[0] = point(MOE_ROW_UNIFORM, 64, 1000.0, 1.0);
    rows[0].cells[1].measured = false;
    judge(1);
    cr_assert_eq(bars[BAR_BEHIND].verdict, MOE_BENCH_PASS);
}

Test(bench_bar, hot_expert_is_predicted_by_its_tiles)
{
    /* 1024 rows each, 8 tiles of 128. One hot: 840 for 31 experts (7 tiles) and 6722 (53 tiles):
     * 270 tiles against 256. */
    rows[0] = point(MOE_ROW_UNIFORM, 1024, 4000.0, 5000.0);
    rows[1] = point(MOE_ROW_HOT8X, 1024, 4000.0 * 270.0 / 256.0 * 1.04, 5000.0);
    cr_assert_eq(rows[1].load.tiles128, 270);
    judge(2);
    cr_assert_eq(bars[BAR_HOT].verdict, MOE_BENCH_PASS, "%s", bars[BAR_HOT].worst);
    rows[1] = point(MOE_ROW_HOT8X, 1024, 4000.0 * 270.0 / 256.0 * 1.06, 5000.0);
    judge(2);
    cr_assert_eq(bars[BAR_HOT].verdict, MOE_BENCH_MISS);
}

static void add_move(const char *family, const char *size, bool library, int32_t tokens, double us)
{
    struct moe_bench_move *move = &moves.items[moves.count++];
    *move = (struct moe_bench_move){ .is_library = library,
                                     .measured = true,
                                     .bytes = 4e9,
                                     .tokens = tokens,
                                     .timing = { .median_us = us, .low_us = us, .high_us = us } };
    (void) snprintf(move->family, sizeof move->family, "%s", family);
    (void) snprintf(move->size, sizeof move->size, "%s", size);
}

Test(bench_bar, copies_and_permutes_count_by_their_fastest_version)
{
    add_move("copy", "x", true, 0, 1000.0);
    add_move("copy", "x", false, 0, 1200.0);
    add_move("copy", "x", false, 0, 1000.0);
    add_move("permute bf16", "a", false, 4096, 2000.0);
    add_move("permute bf16", "a", false, 4096, 1000.0 / 0.86);
    add_move("permute bf16", "b", false, 256, 9000.0); /* too few tokens for the bar */
    add_move("combine", "a", false, 4096, 1000.0 / 0.84);
    judge(0);
    cr_assert_eq(bars[BAR_COPY].verdict, MOE_BENCH_PASS);
    cr_assert_eq(bars[BAR_PERMUTE].verdict, MOE_BENCH_PASS);
    cr_assert_eq(bars[BAR_PERMUTE].count, 1);
    cr_assert_eq(bars[BAR_COMBINE].verdict, MOE_BENCH_MISS);
}

static size_t count_fields(const char *line)
{
    size_t count = 1;
    bool quoted = false;
    for (; *line != '\0'; line++) {
        quoted = *line == '"' ? !quoted : quoted;
        count += !quoted && *line == ',';
    }
    return count;
}

Test(bench_record, csv_lines_all_have_the_columns_of_the_head)
{
    char line[2048];
    size_t fields = 0;
    uint32_t lines = 0;
    const struct moe_bench_ceilings ceilings = { .read_bytes_per_s = 4e12 };
    const struct moe_bench_gpu gpu = { .name = "x",
                                       .uuid = "u",
                                       .driver = "d",
                                       .cuda = "c",
                                       .cublas = "b",
                                       .sm_count = 132,
                                       .fallback_mhz = 1500.0 };
    rows[0] = point(MOE_ROW_UNIFORM, 64, 1000.0, 1000.0);
    rows[0].cells[1].measured = false;
    (void) snprintf(rows[0].cells[1].refusal, 40, "says \"no\", and why");
    const struct moe_bench_record record = { .gpu = &gpu,
                                             .ceilings = &ceilings,
                                             .rows = rows,
                                             .row_count = 1,
                                             .moves = &moves,
                                             .bars = bars,
                                             .failure = "" };
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    moe_bench_write_csv(file, &record);
    rewind(file);
    while (fgets(line, sizeof line, file) != NULL) {
        fields = lines++ == 0 ? count_fields(line) : fields;
        cr_assert_eq(count_fields(line), fields, "%s", line);
    }
    cr_assert_eq(lines, 3);
    (void) fclose(file);
}
