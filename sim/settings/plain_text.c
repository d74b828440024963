#include "sim/settings/plain_text.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Code points outside ASCII that YAML 1.1 calls printable, less its line breaks (85,
 * 2028, 2029) and the byte-order mark. */
static bool is_printable(uint32_t point)
{
    if (point < 0x80) {
        return point >= 0x20 && point != 0x7f;
    }
    return point >= 0xa0 && point != 0x2028 && point != 0x2029 && point != 0xfeff &&
           !(point >= 0xd800 && point < 0xe000) && point != 0xfffe && point != 0xffff &&
           point <= 0x10ffff;
}

bool moe_text_is_plain(const char *text, size_t length)
{
    static const uint32_t smallest[] = { 0, 0x80, 0x800, 0x10000 };
    for (size_t i = 0; i < length;) {
        const unsigned char lead = (unsigned char) text[i];
        const unsigned more = lead < 0x80 ? 0u : lead < 0xe0 ? 1u : lead < 0xf0 ? 2u : 3u;
        if ((lead >= 0x80 && lead < 0xc2) || lead > 0xf4 || more >= length - i) {
            return false;
        }
        uint32_t point = more == 0 ? lead : lead & (0x3fu >> more);
        for (unsigned k = 1; k <= more; k++) {
            const unsigned char next = (unsigned char) text[i + k];
            if ((next & 0xc0u) != 0x80u) {
                return false;
            }
            point = (point << 6) | (next & 0x3fu);
        }
        if (point < smallest[more] || !is_printable(point)) {
            return false;
        }
        i += more + 1;
    }
    return true;
}

/* Letters first, then only what no YAML reader takes for syntax; and no word that YAML
 * takes for a value of another kind. */
static bool needs_quotes(const char *text)
{
    static const char *const words[] = { "null", "Null", "NULL", "true", "false", "yes", "no",
                                         "on",   "off",  "y",    "n",    "Y",     "N" };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(text, words[i]) == 0) {
            return true;
        }
    }
    const bool letter = (text[0] >= 'a' && text[0] <= 'z') || (text[0] >= 'A' && text[0] <= 'Z');
    return !letter || text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                        "0123456789_./+-")] != '\0';
}

size_t moe_text_quote(const char *text, char *out, size_t out_bytes)
{
    if (out_bytes == 0) {
        return 0;
    }
    const bool quoted = needs_quotes(text);
    size_t used = 0;
    if (quoted && used + 1 < out_bytes) {
        out[used++] = '"';
    }
    for (; *text != '\0' && used + 1 < out_bytes; text++) {
        if (quoted && (*text == '"' || *text == '\\')) {
            out[used++] = '\\';
        }
        if (used + 1 < out_bytes) {
            out[used++] = *text;
        }
    }
    if (quoted && used + 1 < out_bytes) {
        out[used++] = '"';
    }
    out[used] = '\0';
    return used;
}

unsigned moe_text_distance(const char *a, const char *b)
{
    enum { LIMIT = 64 };
    unsigned row[LIMIT + 1];
    const size_t a_length = strlen(a);
    const size_t b_length = strlen(b);
    if (a_length >= LIMIT || b_length >= LIMIT) {
        return LIMIT;
    }
    for (size_t j = 0; j <= b_length; j++) {
        row[j] = (unsigned) j;
    }
    for (size_t i = 1; i <= a_length; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned) i;
        for (size_t j = 1; j <= b_length; j++) {
            const unsigned replaced = diagonal + (a[i - 1] != b[j - 1]);
            const unsigned shorter = row[j] < row[j - 1] ? row[j] : row[j - 1];
            diagonal = row[j];
            row[j] = replaced < shorter + 1 ? replaced : shorter + 1;
        }
    }
    return row[b_length];
}
