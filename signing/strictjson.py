"""JSON without ambiguity: one text, one value.

Owns how the project reads and writes JSON that somebody signs. It must never guess.

Rules (threat T15):
- UTF-8 without a byte order mark, one value, nothing after it;
- no floats, no NaN or Infinity, integers below 2^63 in size, no duplicate keys, no lone surrogates, depth at most 32;
- at most one value for every 8 bytes, after the first 4 096: parsed, many tiny values need 50 times their size (T6);
- our own files have one form, `to_file`; `load_canonical` refuses any other;
- `to_signing` is the canonical form that TUF signatures and key ids are made over (OLPC canonical JSON).
"""

from __future__ import annotations

import json
import re
from typing import Any

from signing.errors import NotTrustedError

Json = Any
"""A parsed JSON value: dict, list, str, int, bool or None. Never a float."""

MAX_DEPTH = 32
MAX_VALUES, BYTES_A_VALUE = 4096, 8
MAX_INT = (1 << 63) - 1
_SURROGATE = re.compile("[\ud800-\udfff]")
# Looked through block by block: many quotes at once would need memory (T6).
_BLOCK_BYTES = 1 << 12
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def load(data: bytes, subject: str, max_bytes: int = 1 << 20) -> Json:
    """Parse one JSON value from untrusted bytes.

    Args:
        data: the whole file.
        subject: its name, for the error.
        max_bytes: refuse a longer text before looking at it.

    Raises:
        NotTrustedError: the text breaks a rule of this module.
    """
    if len(data) > max_bytes:
        raise _refuse(subject, f"at most {max_bytes} bytes", f"{len(data)} bytes")
    _check_size(data, subject)
    try:
        text = data.decode("utf-8", "strict")
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_float=_no_number,
            parse_constant=_no_number,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        raise _refuse(subject, "strict JSON", f"no JSON at character {error.pos}") from None
    except UnicodeDecodeError as error:
        raise _refuse(subject, "UTF-8 text", f"the byte 0x{data[error.start]:02x} at {error.start}") from None
    except (ValueError, RecursionError) as error:
        raise _refuse(subject, "strict JSON", str(error)[:200]) from None
    # UTF-8 itself has no lone surrogates: only escapes make them.
    if b"\\u" in data and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise _refuse(subject, "Unicode text", "a lone surrogate")
    return value


def load_canonical(data: bytes, subject: str, max_bytes: int = 1 << 20) -> Json:
    """Parse bytes that must be exactly what `to_file` writes.

    Raises:
        NotTrustedError: not strict JSON, or another form of the same value.
    """
    value = load(data, subject, max_bytes)
    if to_file(value) != data:
        raise _refuse(subject, "canonical form (sorted keys, no spaces)", "another form of the same value")
    return value


def to_file(value: Json) -> bytes:
    """Serialize a value as our files do: RFC 8785 (sorted keys, no spaces, UTF-8), integers only."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def to_signing(value: Json) -> bytes:
    """Serialize a value as TUF signs it: OLPC canonical JSON, where only `"` and backslash are escaped in strings.

    Source: TUF specification, section 4.2.1 (canonical JSON).
    """
    if isinstance(value, str):
        return ('"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"').encode()
    if value is None or isinstance(value, bool):
        return {None: b"null", True: b"true", False: b"false"}[value]
    if isinstance(value, int):
        return str(value).encode()
    if isinstance(value, (list, tuple)):
        return b"[" + b",".join(to_signing(item) for item in value) + b"]"
    if isinstance(value, dict):
        pairs = (to_signing(key) + b":" + to_signing(value[key]) for key in sorted(value))
        return b"{" + b",".join(pairs) + b"}"
    raise TypeError(f"no canonical form for {type(value).__name__}")


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found


def _no_number(text: str) -> Json:
    raise ValueError(f"a number that is not an integer: {text[:40]}")


def _integer(text: str) -> int:
    if len(text) > 20 or abs(int(text)) > MAX_INT or text == "-0":
        raise ValueError(f"an integer out of range: {text[:40]}")
    return int(text)


def _check_size(data: bytes, subject: str) -> None:
    # Counted before parsing, so that no parser recurses on hostile nesting; what stands inside strings does not count.
    depth, values, is_in_text = 0, 1, 0
    most = MAX_VALUES + len(data) // BYTES_A_VALUE
    # Without escaped backslashes and quotes, every quote begins or ends a string.
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    for at in range(0, len(plain), _BLOCK_BYTES):
        texts = plain[at : at + _BLOCK_BYTES].split(b'"')
        outside = b"".join(texts[is_in_text::2])
        is_in_text = (is_in_text + len(texts) - 1) % 2
        values += sum(map(outside.count, (b"[", b"{", b",", b":")))  # a value or a key comes next
        for bracket in outside.translate(None, _NO_BRACKETS):
            depth += 1 if bracket in b"[{" else -1
            if depth > MAX_DEPTH:
                raise _refuse(subject, f"at most {MAX_DEPTH} levels", "deeper nesting")
        if values > most:
            raise _refuse(subject, f"at most {most} values in {len(data)} bytes", "more")


def _refuse(subject: str, expected: str, found: str) -> NotTrustedError:
    return NotTrustedError("json.refused", subject, expected=expected, found=found)
