"""Files of a web server.

Owns where an `https:` source is. Its digest is known only from the lock, never from the server.
"""

from __future__ import annotations

from appliance.builder.sources import HttpsSource
from appliance.builder.sources.download import Remote


def locate(source: HttpsSource, size: int | None = None) -> Remote:
    """Where the file is.

    Args:
        source: the parsed source.
        size: in bytes, from the lock; None while the lock is made.
    """
    return Remote(url=source.text, subject=source.file, size=size)
