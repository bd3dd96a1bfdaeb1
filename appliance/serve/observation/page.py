"""The one page: status and a small chat, in one file without any outside reference (threat T34).

Owns the page's bytes and the policy that browsers hold it to. The policy names the page's own script and style by
digest: nothing else runs on it, and it may connect to nothing but the gateway that sent it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

PAGE = Path(__file__).with_name("page.html").read_bytes()


def _sources(tag: bytes) -> str:
    bodies = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), PAGE, re.DOTALL)
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(body).digest()).decode()}'" for body in bodies)


POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src {_sources(b'script')}",
        f"style-src {_sources(b'style')}",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
"""The value of the header `Content-Security-Policy`."""
