"""A small reader of files over plain http, for repositories on this machine. The product has none."""

from __future__ import annotations

import http.client
from urllib.parse import quote, urlsplit

TIMEOUT_S = 10


def fetch(base_url: str, name: str, most: int) -> bytes | None:
    """At most `most` bytes and one more of a file below a URL, or None where there is none.

    Raises:
        OSError, http.client.HTTPException: no connection, or an answer that is neither the file nor "there is none".
    """
    url = urlsplit(base_url)
    if url.scheme != "http" or url.hostname is None:
        raise OSError(f"not a http URL: {base_url}")
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", f"{url.path.rstrip('/')}/{quote(name)}", headers={"Accept-Encoding": "identity"})
        answer = connection.getresponse()
        if answer.status in (403, 404):
            return None
        if answer.status != 200:
            raise http.client.HTTPException(f"{name}: {answer.status} {answer.reason}")
        return answer.read(most + 1)
    finally:
        connection.close()
