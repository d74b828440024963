#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "sim/base/random.h"
#include "sim/settings/plain_text.h"
#include "sim/settings/settings.h"

struct sample {
    char text[8];
    uint32_t count;
    uint64_t seed;
    double real;
    double scaled;
    bool flag;
    enum { SAMPLE_ZERO, SAMPLE_ONE } choice;
    uint32_t item_count;
    char items[3][8];
};

static const char *const choices[] = { "zero", "one", NULL };

static const struct moe_setting items[] = {
    { .path = "text",
      .kind = MOE_SETTING_TEXT,
      .offset = offsetof(struct sample, text),
      .text_bytes = 8,
      .min = 1,
      .required = true },
    { .path = "group.count",
      .kind = MOE_SETTING_COUNT,
      .offset = offsetof(struct sample, count),
      .min = 1,
      .max = 512 },
    { .path = "group.seed", .kind = MOE_SETTING_SEED, .offset = offsetof(struct sample, seed) },
    { .path = "real",
      .kind = MOE_SETTING_REAL,
      .offset = offsetof(struct sample, real),
      .min = -1e300,
      .max = 1e300 },
    { .path = "scaled",
      .kind = MOE_SETTING_REAL,
      .offset = offsetof(struct sample, scaled),
      .max = 1e4,
      .scale = 1e9 },
    { .path = "flag", .kind = MOE_SETTING_FLAG, .offset = offsetof(struct sample, flag) },
    { .path = "choice",
      .kind = MOE_SETTING_CHOICE,
      .offset = offsetof(struct sample, choice),
      .choices = choices },
    { .path = "items",
      .kind = MOE_SETTING_LIST,
      .offset = offsetof(struct sample, items),
      .text_bytes = 8,
      .min = 1,
      .max = 3,
      .count_offset = offsetof(struct sample, item_count) },
};
static const struct moe_settings settings = { "sample", items, sizeof items / sizeof items[0] };

static enum moe_status read_text(struct sample *sample, const char *text, struct moe_error *err)
{
    return moe_settings_read(&settings, sample, text, strlen(text), "s.yaml", err);
}

Test(settings, what_is_written_reads_back_to_the_same_bits)
{
    const uint64_t key = moe_random_key(1, MOE_RANDOM_TEST);
    for (uint64_t i = 0; i < 3000; i++) {
        struct sample first = { .text = "a", .item_count = 2, .items = { "null", "b \"c" } };
        struct sample second = { 0 };
        char text[1024];
        char number[64];
        first.count = 1 + (uint32_t) moe_random_below(key, 5 * i, 512);
        first.seed = moe_random_bits(key, 5 * i + 1);
        const int digits = 1 + (int) moe_random_below(key, 5 * i + 2, 17);
        (void) snprintf(number, sizeof number, "%.*g", digits,
                        1e4 * moe_random_uniform(key, 5 * i + 3));
        first.scaled = strtod(number, NULL) * 1e9;
        const uint64_t bits = moe_random_bits(key, 5 * i + 4) & ~(UINT64_C(1) << 62);
        memcpy(&first.real, &bits, sizeof bits);
        first.flag = i % 2 == 0;
        first.choice = i % 3 == 0 ? SAMPLE_ONE : SAMPLE_ZERO;
        (void) moe_settings_write(&settings, &first, text, sizeof text);
        struct moe_error err = { 0 };
        cr_assert_eq(read_text(&second, text, &err), MOE_OK, "%s in\n%s", err.text, text);
        cr_assert_eq(first.real, second.real, "%s", text);
        cr_assert_eq(first.scaled, second.scaled, "%s", text);
        cr_assert_eq(first.seed, second.seed);
        cr_assert_eq(first.count, second.count);
        cr_assert_eq(first.flag, second.flag);
        cr_assert_eq(first.choice, second.choice);
        cr_assert_str_eq(second.items[0], "null");
        cr_assert_str_eq(second.items[1], "b \"c");
    }
}

Test(settings, yaml_is_refused_with_file_line_key_and_what_is_allowed)
{
    static const struct {
        const char *text;
        enum moe_status status;
        const char *message;
    } cases[] = {
        { "", MOE_PARSE, "s.yaml: holds no YAML document" },
        { "- a\n", MOE_PARSE, "s.yaml:1: a sample is keys and values" },
        { "text: a\n\ntext: b\n", MOE_PARSE, "s.yaml:3: text: given twice, first in line 1" },
        { "group: {count: 1}\ngroup: {count: 1}\n", MOE_PARSE,
          "s.yaml:2: group: given twice, first in line 1" },
        { "text: &x a\n", MOE_PARSE, "s.yaml:1: anchors, aliases and tags are not allowed" },
        { "text: a\nitems: [*x]\n", MOE_PARSE,
          "s.yaml:2: anchors, aliases and tags are not allowed" },
        { "text: !!str a\n", MOE_PARSE, "s.yaml:1: anchors, aliases and tags are not allowed" },
        { "text: a\n---\ntext: b\n", MOE_PARSE,
          "s.yaml:2: a second document begins; one is allowed" },
        { "text: [\n", MOE_PARSE, "s.yaml:2: not valid YAML: did not find expected node content" },
        { "text: \xff\n", MOE_PARSE, "s.yaml:1: not valid YAML: invalid leading UTF-8 octet" },
        { "text: [[[[[[[[[]]]]]]]]]\n", MOE_PARSE, "s.yaml:1: nested deeper than 8" },
        { "text: \"a\\x1b\"\n", MOE_PARSE,
          "s.yaml:1: a text holds line breaks or control characters" },
        { "txet: a\n", MOE_RANGE,
          "s.yaml:1: txet: no such key (did you mean text?); allowed here: text group real scaled "
          "flag choice items" },
        { "text: a\ngroup:\n  cuont: 1\n", MOE_RANGE,
          "s.yaml:3: group.cuont: no such key (did you mean group.count?); allowed in group: count "
          "seed" },
        { "count: 1\n", MOE_RANGE,
          "s.yaml:1: count: no such key (did you mean group.count?); allowed here: text group real "
          "scaled flag choice items" },
        { "group.count: 1\n", MOE_RANGE,
          "s.yaml:1: group.count: no such key; allowed here: text group real scaled flag choice "
          "items" },
        { "group: 1\n", MOE_RANGE, "s.yaml:1: group: needs keys below it, not a value" },
        { "real: 1\n", MOE_RANGE,
          "s.yaml: key text is missing from this sample; it needs text of 1 to 7 printable bytes" },
        { "text: 12345678\n", MOE_RANGE,
          "s.yaml:1: text: '12345678' is not text of 1 to 7 printable bytes" },
        { "text:\n", MOE_RANGE,
          "s.yaml:1: text: has no value; needs text of 1 to 7 printable bytes" },
        { "group: {count: 513}\n", MOE_RANGE,
          "s.yaml:1: group.count: '513' is not a whole number from 1 to 512" },
        { "group: {count: 010}\n", MOE_RANGE,
          "s.yaml:1: group.count: '010' is not a whole number from 1 to 512" },
        { "group: {count: \"4\"}\n", MOE_RANGE,
          "s.yaml:1: group.count: \"4\" in quotes is text; needs a whole number from 1 to 512" },
        { "group: {count: [4]}\n", MOE_RANGE,
          "s.yaml:1: group.count: needs a whole number from 1 to 512, not a list" },
        { "group: {seed: 18446744073709551616}\n", MOE_RANGE,
          "s.yaml:1: group.seed: '18446744073709551616' is not a whole number from 0 to "
          "18446744073709551615" },
        { "scaled: -0.1\n", MOE_RANGE, "s.yaml:1: scaled: '-0.1' is not a number from 0 to 10000" },
        { "real: .nan\n", MOE_RANGE,
          "s.yaml:1: real: '.nan' is not a number from -1e+300 to 1e+300" },
        { "real: 0x10\n", MOE_RANGE,
          "s.yaml:1: real: '0x10' is not a number from -1e+300 to 1e+300" },
        { "flag: yes\n", MOE_RANGE, "s.yaml:1: flag: 'yes' is not true or false" },
        { "choice: two\n", MOE_RANGE, "s.yaml:1: choice: 'two' is not one of zero, one" },
        { "items: a\n", MOE_RANGE,
          "s.yaml:1: items: needs a list of 1 to 3 names of 1 to 7 bytes, not a single value" },
        { "items: []\n", MOE_RANGE,
          "s.yaml:1: items: 0 items are not a list of 1 to 3 names of 1 to 7 bytes" },
        { "items:\n- a\n- b\n- c\n- d\n", MOE_RANGE,
          "s.yaml:5: items: 'd' is not a list of 1 to 3 names of 1 to 7 bytes" },
        { "items: [[a]]\n", MOE_RANGE, "s.yaml:1: items: an item is not a text" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sample sample = { 0 };
        struct moe_error err = { 0 };
        cr_expect_eq(read_text(&sample, cases[i].text, &err), cases[i].status, "%s", cases[i].text);
        cr_expect_str_eq(err.text, cases[i].message, "%s gave\n%s", cases[i].text, err.text);
    }
}

Test(settings, overrides_are_applied_or_leave_everything_as_it_was)
{
    struct sample sample = { .text = "old", .count = 7, .item_count = 1, .items = { "x" } };
    char before[256];
    char after[256];
    struct moe_error err = { 0 };
    cr_assert_eq(moe_settings_override(&settings, &sample, "group.count=512", &err), MOE_OK);
    cr_assert_eq(moe_settings_override(&settings, &sample, "items=a,bb,ccc", &err), MOE_OK);
    cr_assert_eq(moe_settings_override(&settings, &sample, "text=a=b", &err), MOE_OK);
    cr_assert_eq(sample.count, 512);
    cr_assert_eq(sample.item_count, 3);
    cr_assert_str_eq(sample.items[2], "ccc");
    cr_assert_eq(moe_settings_override(&settings, &sample, "items=[ a b,  c ]", &err), MOE_OK);
    cr_assert_eq(sample.item_count, 2);
    cr_assert_str_eq(sample.items[0], "a b");
    cr_assert_str_eq(sample.items[1], "c");
    cr_assert_eq(moe_settings_override(&settings, &sample, "items=a,bb,ccc", &err), MOE_OK);
    cr_assert_str_eq(sample.text, "a=b");
    (void) moe_settings_write(&settings, &sample, before, sizeof before);
    static const char *const refused[][2] = {
        { "items=a,b,c,d", "items: 'a,b,c,d' is not a list of 1 to 3 names of 1 to 7 bytes" },
        { "items=a,,b", "items: 'a,,b' is not a list of 1 to 3 names of 1 to 7 bytes" },
        { "items=[]", "items: '' is not a list of 1 to 3 names of 1 to 7 bytes" },
        { "items=[a,,b]", "items: 'a,,b' is not a list of 1 to 3 names of 1 to 7 bytes" },
        { "items=", "items: '' is not a list of 1 to 3 names of 1 to 7 bytes" },
        { "group.count=0", "group.count: '0' is not a whole number from 1 to 512" },
        { "text=", "text: '' is not text of 1 to 7 printable bytes" },
        { "text=\xc3", "text: '\xc3' is not text of 1 to 7 printable bytes" },
        { "group.count", "setting 'group.count' is not KEY=VALUE" },
        { "group=1", "setting group: no such key; allowed here: text group real scaled flag choice "
                     "items" },
        { "group.conut=1", "setting group.conut: no such key (did you mean group.count?); allowed "
                           "in group: count seed" },
        { "gruop.count=1", "setting gruop.count: no such key (did you mean group.count?); allowed "
                           "in gruop: none" },
    };
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        cr_expect_eq(moe_settings_override(&settings, &sample, refused[i][0], &err), MOE_RANGE);
        cr_expect_str_eq(err.text, refused[i][1], "%s", err.text);
        (void) moe_settings_write(&settings, &sample, after, sizeof after);
        cr_expect_str_eq(before, after);
    }
}

/* Against the definition, over every code point: encoded by hand, then with one byte bad. */
Test(settings, plain_text_is_printable_utf8)
{
    for (uint32_t point = 0; point <= 0x110000; point++) {
        char bytes[4];
        size_t length = 0;
        if (point < 0x80) {
            bytes[length++] = (char) point;
        } else if (point < 0x800) {
            bytes[length++] = (char) (0xc0 | point >> 6);
        } else if (point < 0x10000) {
            bytes[length++] = (char) (0xe0 | point >> 12);
            bytes[length++] = (char) (0x80 | (point >> 6 & 0x3f));
        } else {
            bytes[length++] = (char) (0xf0 | point >> 18);
            bytes[length++] = (char) (0x80 | (point >> 12 & 0x3f));
            bytes[length++] = (char) (0x80 | (point >> 6 & 0x3f));
        }
        if (point >= 0x80) {
            bytes[length++] = (char) (0x80 | (point & 0x3f));
        }
        const bool refused = point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x2028 ||
                             point == 0x2029 || point == 0xfeff || point == 0xfffe ||
                             point == 0xffff || (point >= 0xd800 && point <= 0xdfff) ||
                             point > 0x10ffff;
        cr_assert_eq(moe_text_is_plain(bytes, length), !refused, "%x", point);
        cr_assert(point < 0x80 || !moe_text_is_plain(bytes, length - 1));
    }
    cr_assert_not(moe_text_is_plain("\xc0\xaf", 2), "overlong");
    cr_assert_not(moe_text_is_plain("\xe0\x80\xaf", 3), "overlong");
    cr_assert_eq(moe_text_distance("kitten", "sitting"), 3);
    cr_assert_eq(moe_text_distance("", "abc"), 3);
}
