"""Reading core metadata: the METADATA of a wheel, the PKG-INFO of a source archive.

Owns how the fields become values, and which field states the licence. It must never judge a licence.

Rules:
- others wrote the fields: bytes that are no UTF-8 are replaced, and a field that stands twice but may not is left out;
- the description below the fields is never read: it may be long, and nothing here needs it.

Source: PyPA, core metadata specifications.
"""

from __future__ import annotations

from packaging.metadata import RawMetadata, parse_email

_SETUPTOOLS_EMPTY = "UNKNOWN"
"""What setuptools writes where an author wrote nothing."""


def parse_core_metadata(data: bytes) -> RawMetadata:
    """Parse the fields.

    Args:
        data: the whole file; untrusted.

    Raises:
        ValueError: it is made of parts within parts, as no metadata is.
    """
    fields = data.decode("utf-8", "replace").replace("\r\n", "\n").partition("\n\n")[0]
    try:
        return parse_email(fields)[0]
    except RecursionError:
        raise ValueError("parts within parts") from None


def declared_licence(metadata: RawMetadata) -> str:
    """The licence that the author declares.

    Returns:
        The SPDX expression, else a License field of one line, else the licence classifiers joined by `; `, else empty.
    """
    single = metadata.get("license", "").strip()
    one_line = "" if "\n" in single or single == _SETUPTOOLS_EMPTY else single
    classifiers = [text for text in metadata.get("classifiers", []) if text.startswith("License ::")]
    last_parts = "; ".join(text.split(" :: ")[-1] for text in classifiers)
    return metadata.get("license_expression", "").strip() or one_line or last_parts
