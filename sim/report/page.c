#include "sim/report/page.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include "sim/report/figure.h"

enum { LABEL_COLUMNS = 14, TEXT_BYTES = 2048 };

static void repeat(FILE *out, const char *mark, size_t count)
{
    for (; count > 0; count--) {
        (void) fputs(mark, out);
    }
}

static void end_fields(struct moe_page *page)
{
    if (page->in_fields && page->dress == MOE_PAGE_MARKDOWN) {
        (void) fputc('\n', page->out);
    }
    page->in_fields = false;
}

/* Words of text from column `at` on, lines beginning at column `indent`. */
static void wrap(FILE *out, const char *text, size_t indent, size_t at)
{
    while (*text != '\0') {
        char word[TEXT_BYTES];
        const size_t bytes = strcspn(text, " ");
        (void) snprintf(word, sizeof word, "%.*s", (int) bytes, text);
        const size_t width = moe_figure_width(word);
        if (at > indent && at + 1 + width > MOE_PAGE_COLUMNS) {
            (void) fputc('\n', out);
            repeat(out, " ", indent);
            at = indent;
        } else if (at > indent) {
            (void) fputc(' ', out);
            at++;
        }
        (void) fputs(word, out);
        at += width;
        text += bytes;
        text += strspn(text, " ");
    }
    (void) fputc('\n', out);
}

void moe_page_title(struct moe_page *page, const char *title)
{
    (void) fprintf(page->out, page->dress == MOE_PAGE_MARKDOWN ? "# %s\n\n" : "%s\n", title);
}

void moe_page_heading(struct moe_page *page, const char *title, const char *aside)
{
    end_fields(page);
    if (page->dress == MOE_PAGE_MARKDOWN) {
        (void) fprintf(page->out, "## %s\n\n", title);
        if (aside[0] != '\0') {
            (void) fprintf(page->out, "%s\n\n", aside);
        }
        return;
    }
    (void) fprintf(page->out, "\n%s", title);
    const size_t used = moe_figure_width(title) + moe_figure_width(aside);
    if (aside[0] != '\0') {
        repeat(page->out, " ", used + 2 < MOE_PAGE_COLUMNS ? MOE_PAGE_COLUMNS - used : 2);
        (void) fputs(aside, page->out);
    }
    (void) fputc('\n', page->out);
}

void moe_page_field(struct moe_page *page, const char *label, const char *format, ...)
{
    char text[TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void) vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    page->in_fields = true;
    if (page->dress == MOE_PAGE_MARKDOWN) {
        (void) fprintf(page->out, label[0] == '\0' ? "  - %s%s\n" : "- **%s**: %s\n", label, text);
        return;
    }
    const size_t width = moe_figure_width(label);
    (void) fprintf(page->out, "  %s", label);
    repeat(page->out, " ", width < LABEL_COLUMNS ? LABEL_COLUMNS - width : 1);
    wrap(page->out, text, LABEL_COLUMNS + 2, LABEL_COLUMNS + 2);
}

void moe_page_text(struct moe_page *page, const char *format, ...)
{
    char text[TEXT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    (void) vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    end_fields(page);
    if (page->dress == MOE_PAGE_MARKDOWN) {
        (void) fprintf(page->out, "%s\n\n", text);
        return;
    }
    (void) fputs("  ", page->out);
    wrap(page->out, text, 2, 2);
}

void moe_page_gap(struct moe_page *page)
{
    end_fields(page);
    if (page->dress == MOE_PAGE_PLAIN) {
        (void) fputc('\n', page->out);
    }
}

void moe_page_bars_begin(struct moe_page *page)
{
    end_fields(page);
    if (page->dress == MOE_PAGE_MARKDOWN) {
        (void) fputs("```\n", page->out);
    }
}

void moe_page_bar(struct moe_page *page, const char *label, uint32_t label_width, const char *marks)
{
    const size_t width = moe_figure_width(label);
    (void) fprintf(page->out, "  %s", label);
    repeat(page->out, " ", width < label_width ? label_width - width : 0);
    (void) fprintf(page->out, "  %s\n", marks);
}

void moe_page_bars_end(struct moe_page *page)
{
    if (page->dress == MOE_PAGE_MARKDOWN) {
        (void) fputs("```\n\n", page->out);
    }
}

void moe_grid_begin(struct moe_grid *grid, const struct moe_grid_column *columns, uint32_t count)
{
    assert(count <= MOE_GRID_COLUMNS);
    *grid = (struct moe_grid){ .columns = columns, .column_count = count };
}

static void end_row(struct moe_grid *grid)
{
    grid->row_count++;
    grid->cell_count = 0;
}

void moe_grid_cell(struct moe_grid *grid, const char *text)
{
    assert(grid->row_count < MOE_GRID_ROWS);
    (void) snprintf(grid->cell[grid->row_count][grid->cell_count++], MOE_GRID_CELL_BYTES, "%s",
                    text);
    if (grid->cell_count == grid->column_count) {
        end_row(grid);
    }
}

void moe_grid_span(struct moe_grid *grid, const char *text)
{
    assert(grid->row_count < MOE_GRID_ROWS);
    assert(grid->cell_count > 0);
    (void) snprintf(grid->span[grid->row_count], MOE_GRID_SPAN_BYTES, "%s", text);
    end_row(grid);
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t column_width(const struct moe_grid *grid, uint32_t column)
{
    size_t width = larger(moe_figure_width(grid->columns[column].upper),
                          moe_figure_width(grid->columns[column].head));
    for (uint32_t row = 0; row < grid->row_count; row++) {
        width = larger(width, moe_figure_width(grid->cell[row][column]));
    }
    return width;
}

static size_t gap_before(const struct moe_grid *grid, uint32_t column)
{
    return column == 0 ? 2 : grid->columns[column].joined ? 1 : 2;
}

/* One cell of a plain grid. Blanks at the end of a line are owed, not written. */
static void put_cell(const struct moe_grid *grid, FILE *out, uint32_t column, const char *text,
                     size_t *owed)
{
    const size_t pad = column_width(grid, column) - moe_figure_width(text);
    const bool left = grid->columns[column].left;
    *owed += gap_before(grid, column) + (left ? 0 : pad);
    if (text[0] != '\0') {
        repeat(out, " ", *owed);
        *owed = 0;
        (void) fputs(text, out);
    }
    *owed += left ? pad : 0;
}

static void print_plain(const struct moe_grid *grid, FILE *out)
{
    bool upper = false;
    size_t total = 0;
    for (uint32_t column = 0; column < grid->column_count; column++) {
        upper = upper || grid->columns[column].upper[0] != '\0';
        total += column_width(grid, column) + (column == 0 ? 0 : gap_before(grid, column));
    }
    for (int line = upper ? 0 : 1; line < 2; line++) {
        size_t owed = 0;
        for (uint32_t column = 0; column < grid->column_count; column++) {
            const struct moe_grid_column *c = &grid->columns[column];
            put_cell(grid, out, column, line == 0 ? c->upper : c->head, &owed);
        }
        (void) fputc('\n', out);
    }
    (void) fputs("  ", out);
    repeat(out, "─", total);
    (void) fputc('\n', out);
    for (uint32_t row = 0; row < grid->row_count; row++) {
        size_t owed = 0;
        for (uint32_t column = 0; column < grid->column_count; column++) {
            const bool spans = grid->span[row][0] != '\0' && grid->cell[row][column][0] == '\0';
            if (spans) {
                repeat(out, " ", owed + gap_before(grid, column));
                (void) fputs(grid->span[row], out);
                break;
            }
            put_cell(grid, out, column, grid->cell[row][column], &owed);
        }
        (void) fputc('\n', out);
    }
}

/* "|" ends a Markdown cell. */
static void put_escaped(FILE *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '|') {
            (void) fputc('\\', out);
        }
        (void) fputc(*text, out);
    }
}

static void print_markdown_row(const struct moe_grid *grid, FILE *out, uint32_t row)
{
    bool spanned = false;
    for (uint32_t column = 0; column < grid->column_count; column++) {
        const char *text = grid->cell[row][column];
        if (!spanned && text[0] == '\0' && grid->span[row][0] != '\0') {
            text = grid->span[row];
            spanned = true;
        }
        if (!grid->columns[column].joined) {
            (void) fputs(column == 0 ? "| " : " | ", out);
        } else if (text[0] != '\0') {
            (void) fputs(grid->columns[column].head[0] != '\0' ? " / " : " ", out);
        }
        put_escaped(out, text);
    }
    (void) fputs(" |\n", out);
}

static void print_markdown(const struct moe_grid *grid, FILE *out)
{
    for (uint32_t column = 0; column < grid->column_count; column++) {
        const struct moe_grid_column *c = &grid->columns[column];
        if (!c->joined) {
            (void) fputs(column == 0 ? "| " : " | ", out);
            put_escaped(out, c->upper);
            (void) fputs(c->upper[0] != '\0' && c->head[0] != '\0' ? " " : "", out);
        } else if (c->head[0] != '\0') {
            (void) fputs(" / ", out);
        }
        put_escaped(out, c->head);
    }
    (void) fputs(" |\n", out);
    for (uint32_t column = 0; column < grid->column_count; column++) {
        if (!grid->columns[column].joined) {
            (void) fputs(grid->columns[column].left ? "|---" : "|---:", out);
        }
    }
    (void) fputs("|\n", out);
    for (uint32_t row = 0; row < grid->row_count; row++) {
        print_markdown_row(grid, out, row);
    }
    (void) fputc('\n', out);
}

void moe_grid_print(const struct moe_grid *grid, struct moe_page *page)
{
    end_fields(page);
    if (page->dress == MOE_PAGE_MARKDOWN) {
        print_markdown(grid, page->out);
    } else {
        print_plain(grid, page->out);
    }
}
