"""The regular expressions of schemas: the part of them that llama.cpp's grammars have.

An engine takes a pattern that it cannot write as a grammar for any text, and prints it. What a pattern admits, it
writes into a JSON string unescaped. So what passes here is exactly what it can write, and the rest is refused.

Source: llama.cpp, common/json-schema-to-grammar.cpp, `_pattern_to_rule`.
"""

from __future__ import annotations

import re

MAX_PATTERN_CHARS = 200
MAX_PATTERN_REPEATS = 2000
"""Of all items of one pattern together: the limit of llama.cpp's grammars."""

_SETS = {"d": "0-9", "w": "A-Za-z0-9_", "s": " "}
_ANY = '[^"\\x5C\\x00-\\x1F]'
"""What may stand in a JSON string as itself."""
_ITEM = re.compile(
    r"""(?P<set>\\[dws])
    |(?P<escaped>\\[\^$.\[\](){}|*+?/-])
    |(?P<class>\[(?P<not>\^?)(?P<members>(?:\\.|[^\]\\])+)\])
    |(?P<literal>[^\\\[\](){}*+?^$|."\x00-\x1F])
    |(?P<dot>\.)""",
    re.VERBOSE | re.DOTALL,
)
_COUNT = re.compile(r"[*+?]|\{(\d{1,4})(?:(,)(\d{1,4})?)?\}")
_MEMBER = re.compile(r"\\[dws]|(?:\\[^\w\s]|[^\\])-(?:\\[^\w\s]|[^\\])|\\[^\w\s]|[^\\]", re.DOTALL)


def write_pattern(pattern: object) -> tuple[str, int] | None:
    r"""Write a pattern with nothing but what llama.cpp can make a grammar of.

    Args:
        pattern: untrusted.

    Returns:
        The pattern, with `\d`, `\w` and `\s` written out, and the rules that it makes; None where it has groups, does
        not begin with `^` and end with `$`, is too long, or has another part that a grammar lacks.
    """
    if not isinstance(pattern, str) or not 2 <= len(pattern) <= MAX_PATTERN_CHARS:
        return None
    # An escaped dollar is one that the text has.
    if pattern[0] != "^" or not re.search(r"(?<!\\)(?:\\\\)*\$\Z", pattern):
        return None
    written, rules, at, end = "^", 1, 1, len(pattern) - 1
    while at < end:
        if pattern[at] == "|":
            written, at = f"{written}|", at + 1
            continue
        found = _ITEM.match(pattern, at, end)
        item = _write_item(found) if found is not None else None
        if found is None or item is None:
            return None
        at, rules = found.end(), rules + 1
        count = _COUNT.match(pattern, at, end)
        if count is not None:
            # llama.cpp repeats the last byte of a letter beyond ASCII alone, unless a class holds it.
            item = item if item.isascii() or item.startswith("[") else f"[{item}]"
            item, at = item + count[0], count.end()
            least, most = int(count[1] or 1), int(count[3] or count[1] or 1)
            if least > most:
                return None
            rules += most
        written += item
    return (f"{written}$", rules) if rules <= MAX_PATTERN_REPEATS else None


def _write_item(found: re.Match[str]) -> str | None:
    text = found[0]
    if found["set"]:
        return f"[{_SETS[text[1]]}]"
    if found["dot"]:
        return _ANY
    if found["class"]:
        return _write_class(found["members"], is_negated=bool(found["not"]))
    return text[1] if found["escaped"] and text[1] in "/-" else text


def _write_class(members: str, *, is_negated: bool) -> str | None:
    """A class as a grammar has it; None where a member has no place in a JSON string, or no meaning."""
    written, at = "", 0
    while at < len(members):
        found = _MEMBER.match(members, at)
        if found is None:
            return None
        text, at = found[0], found.end()
        if text[0] == "\\" and text[1] in _SETS:
            written += _SETS[text[1]]
            continue
        ends = re.findall(r"\\?(.)", text, re.DOTALL)
        low, high = ends[0], ends[-1]
        is_closed = not is_negated and any(low <= char <= high for char in ('"', "\\"))
        if low > high or low < " " or is_closed:
            return None
        written += _write_char(low) if low == high else f"{_write_char(low)}-{_write_char(high)}"
    return f'[^{written}"\\x5C\\x00-\\x1F]' if is_negated else f"[{written}]"


def _write_char(char: str) -> str:
    return f"\\x{ord(char):02X}" if char in '[]^-\\"' else char
