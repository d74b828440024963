#!/usr/bin/env python3
"""Turns files into one C source that holds them: embed.py OUTPUT.c SYMBOL FILE...

The output defines `const struct moe_embedded_file SYMBOL[]`, `const unsigned SYMBOL_count`
and `const char *const SYMBOL_stems[]` (sim/base/embedded.h), sorted by stem (bytewise). A
name is the file's last path component, a stem is a name without its last extension; two
files of one stem are refused. Used by Meson's custom_target; needs
nothing outside Python's own library.
"""
import os
import sys


def literal(data):
    """C string literals, one per line of the file. Octal escapes have three digits, so
    that a digit after one is not taken into it; '?' is escaped because of trigraphs."""
    special = {ord("\n"): "\\n", ord("\t"): "\\t", ord("?"): "\\?",
               ord('"'): '\\"', ord("\\"): "\\\\"}
    lines = data.splitlines(keepends=True) or [b""]
    out = []
    for line in lines:
        text = "".join(special.get(b) or (chr(b) if 32 <= b < 127 else "\\%03o" % b) for b in line)
        out.append('    "%s"' % text)
    return "\n".join(out)


def main(argv):
    if len(argv) < 4:
        sys.exit("usage: embed.py OUTPUT.c SYMBOL FILE...")
    output, symbol, paths = argv[1], argv[2], argv[3:]
    files = sorted((os.path.splitext(os.path.basename(path))[0].encode(), path) for path in paths)
    for (stem, path), (next_stem, next_path) in zip(files, files[1:]):
        if stem == next_stem:
            sys.exit("embed.py: %s and %s have one stem" % (path, next_path))
    parts = ['#include "sim/base/embedded.h"\n']
    rows = []
    stems = []
    for i, (stem, path) in enumerate(files):
        with open(path, "rb") as handle:
            data = handle.read()
        parts.append("static const char file_%d[] =\n%s;\n" % (i, literal(data)))
        rows.append('    { "%s", file_%d, %d },' % (os.path.basename(path), i, len(data)))
        stems.append('    "%s",' % stem.decode())
    parts.append("extern const struct moe_embedded_file %s[];" % symbol)
    parts.append("extern const char *const %s_stems[];" % symbol)
    parts.append("extern const unsigned %s_count;\n" % symbol)
    parts.append("const struct moe_embedded_file %s[] = {\n%s\n};" % (symbol, "\n".join(rows)))
    parts.append("const char *const %s_stems[] = {\n%s\n};" % (symbol, "\n".join(stems)))
    parts.append("const unsigned %s_count = %d;\n" % (symbol, len(files)))
    with open(output, "w", encoding="ascii", newline="\n") as handle:
        handle.write("\n".join(parts))


if __name__ == "__main__":
    main(sys.argv)
