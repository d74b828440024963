/*
 * Page: headings, fields, sentences, grids and bars on a stream, in two dresses.
 *
 * The sections of a report say what there is to say once (section.h); a page decides what
 * it looks like: PLAIN for a terminal of 100 columns, MARKDOWN for a pull request. Text is
 * UTF-8. Write errors stay on the stream: ask ferror at the end.
 */
#ifndef MOE_SIM_REPORT_PAGE_H
#define MOE_SIM_REPORT_PAGE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum moe_page_dress { MOE_PAGE_PLAIN, MOE_PAGE_MARKDOWN };

enum {
    MOE_PAGE_COLUMNS = 100, /* of a terminal */
    MOE_GRID_COLUMNS = 12,
    MOE_GRID_ROWS = 64,
    MOE_GRID_CELL_BYTES = 256,
    MOE_GRID_SPAN_BYTES = 384,
};

struct moe_page {
    FILE *out;
    enum moe_page_dress dress;
    bool in_fields; /* the last thing written was a field */
};

/* A column of a grid. head is two lines; an empty upper line of all columns is left out. */
struct moe_grid_column {
    const char *upper;
    const char *head;
    bool left;   /* aligned left; figures stand right */
    bool joined; /* belongs to the column before it: one space apart, one cell in Markdown */
};

struct moe_grid {
    const struct moe_grid_column *columns;
    uint32_t column_count;
    uint32_t row_count;
    uint32_t cell_count; /* of the row being filled */
    char cell[MOE_GRID_ROWS][MOE_GRID_COLUMNS][MOE_GRID_CELL_BYTES];
    char span[MOE_GRID_ROWS][MOE_GRID_SPAN_BYTES]; /* text instead of the cells that remain */
};

/* aside: what the section's figures have in common; "" for none. */
void moe_page_title(struct moe_page *page, const char *title);
void moe_page_heading(struct moe_page *page, const char *title, const char *aside);

/* "label   text", wrapped with a hanging indent. An empty label continues the one before. */
void moe_page_field(struct moe_page *page, const char *label, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* A paragraph, wrapped. */
void moe_page_text(struct moe_page *page, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* An empty line between two blocks of a section. */
void moe_page_gap(struct moe_page *page);

/* A line kept as it is, among others of its kind: label, then marks. begin and end enclose
 * them. */
void moe_page_bars_begin(struct moe_page *page);
void moe_page_bar(struct moe_page *page, const char *label, uint32_t label_width,
                  const char *marks);
void moe_page_bars_end(struct moe_page *page);

/* A grid is filled cell by cell, row by row, and then printed. Rows beyond MOE_GRID_ROWS
 * are asserted; a text too long for its cell is cut. */
void moe_grid_begin(struct moe_grid *grid, const struct moe_grid_column *columns, uint32_t count);
void moe_grid_cell(struct moe_grid *grid, const char *text);
/* Ends the row with one text over all columns that remain. */
void moe_grid_span(struct moe_grid *grid, const char *text);
void moe_grid_print(const struct moe_grid *grid, struct moe_page *page);

#endif
