"""What a file is that was given in place of a GGUF, by its first bytes.

Owns the names of such files, for error messages. It decides nothing: whatever is not named here is refused, too.

Source: the magic numbers of each format; git-lfs, "Specification" for pointers.
"""

from __future__ import annotations

import struct

FIRST_BYTES = 512
"""How much of a file `name_foreign` looks at."""
PLAIN_TEXT = ("text", "name the GGUF file itself")
_OTHER = ("other first bytes", "name the GGUF file itself")
_MAGIC = (
    (b"\x1f\x8b", "a gzip file", "unpack it first"),
    (b"BZh", "a bzip2 file", "unpack it first"),
    (b"\xfd7zXZ\x00", "an xz file", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", "unpack it first"),
    (b"PK\x03\x04", "a ZIP file, such as a wheel or a checkpoint of PyTorch", "name the GGUF file inside, or another"),
    (b"\x80\x02", "a pickle of Python, which is a program", "take a GGUF or safetensors of this model"),
    (b"lmgg", "a GGML file, older than GGUF", "take a GGUF of this model"),
    (b"fmgg", "a GGMF file, older than GGUF", "take a GGUF of this model"),
    (b"tjgg", "a GGJT file, older than GGUF", "take a GGUF of this model"),
    (b"algg", "an old adapter (GGLA)", "an adapter is no model: merge it into its base model first"),
)
_PAGE = (b"<!doctype html", b"<html", b"<head", b"<?xml")


def name_foreign(start: bytes) -> tuple[str, str]:
    """What a file is that is no GGUF of version 2 or 3, and what to do about it.

    Args:
        start: the first bytes of the file, up to `FIRST_BYTES`; all of a shorter file.

    Returns:
        What was found, and a hint, both for people; general words for a file that is not known here.
    """
    if not start:
        return "an empty file", "fetch it again: the download or the copy did not finish"
    if start[:4] == b"GGUF":
        return _name_version(start[4:8])
    if start.startswith(b"version https://git-lfs.github.com/"):
        return "a pointer of Git LFS, which stands for the file", "fetch the file itself: git lfs pull"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_PAGE):
        return "a web page (HTML)", "open the address in a browser: it may ask for a login, or be the wrong one"
    for magic, what, hint in _MAGIC:
        if start.startswith(magic):
            return what, hint
    if _is_safetensors(start):
        return "a safetensors file", "convert it: `convert:` in the recipe"
    return PLAIN_TEXT if _is_text(start) else _OTHER


def _name_version(data: bytes) -> tuple[str, str]:
    if len(data) < 4:
        return "a GGUF that ends after its first bytes", "fetch it again: the download or the copy did not finish"
    version, swapped = struct.unpack("<I", data)[0], struct.unpack(">I", data)[0]
    if 0 < swapped < 1 << 16 <= version:
        hint = "take the little-endian file of this model, or convert it: gguf_convert_endian.py of llama.cpp"
        return f"a big-endian GGUF of version {swapped}", hint
    return f"version {version}", "take a GGUF that llama.cpp wrote after August 2023"


def _is_safetensors(start: bytes) -> bool:
    # Eight bytes with the length of a JSON object, then the object.
    return len(start) > 9 and start[8:9] == b"{" and 2 <= struct.unpack("<Q", start[:8])[0] < 1 << 30


def _is_text(start: bytes) -> bool:
    # The last character may be cut in two.
    text = start[:-3].decode("utf-8", "replace") if len(start) == FIRST_BYTES else start.decode("utf-8", "replace")
    return all((letter.isprintable() or letter in "\r\n\t") and letter != "\ufffd" for letter in text)
