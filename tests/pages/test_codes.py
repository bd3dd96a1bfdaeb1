"""Error codes on the pages of roles are those of the program, and the page of users has every code of the gateway."""

from __future__ import annotations

import re
from functools import cache

import pytest

from tests.pages.blocks import TOP

ROLES = ("auditor", "bare-host", "builder", "courier", "operator", "signer", "user")
_CODE = re.compile(r"`([a-z]+\.[a-z]+(?:-[a-z]+)*)`")
_FILES = (".db", ".json", ".key", ".md", ".pem", ".pub", ".py", ".pyz", ".sh", ".toml", ".txt", ".yaml", ".yml")
_GATEWAY = re.compile(r'(?:\b[45]\d\d[,:]|\brefused_field\()\s*"([a-z]+(?:_[a-z]+)*)"')


@cache
def source() -> str:
    return "".join(
        path.read_text() for name in ("appliance", "bundles", "signing") for path in (TOP / name).rglob("*.py")
    )


@pytest.mark.parametrize("role", ROLES)
def test_every_error_code_on_the_page_of_a_role_is_one_of_the_program(role: str) -> None:
    codes = {code for code in _CODE.findall((TOP / "docs" / f"{role}.md").read_text()) if not code.endswith(_FILES)}
    assert sorted(code for code in codes if f'"{code}"' not in source()) == []


def test_the_users_page_explains_every_error_of_the_gateway() -> None:
    codes = {code for path in (TOP / "appliance/serve").rglob("*.py") for code in _GATEWAY.findall(path.read_text())}
    assert len(codes) > 15
    page = (TOP / "docs/user.md").read_text()
    assert sorted(code for code in codes if f"`{code}`" not in page) == []
