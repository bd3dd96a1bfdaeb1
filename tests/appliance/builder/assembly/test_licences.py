"""Everything that is packed has a licence text, under a path that a bundle can hold."""

from __future__ import annotations

from pathlib import Path

from appliance.builder.assembly.licences import licence_files
from appliance.builder.cache.content_store import Cache
from appliance.builder.lock.lockfile import Lock, Locked, LockedMember
from appliance.builder.wheels.appliance_wheel import own_licence
from bundles.contents.paths import check_path, check_unique
from signing.digest import sha256
from tests.appliance.web import wheel


def _put(cache: Cache, kind: str, name: str, data: bytes, licence: str, member: LockedMember | None = None) -> Locked:
    with cache.claim(sha256(data)) as partial:
        partial.write_bytes(data)
        cache.adopt(partial, sha256(data))
    source = f"pypi:{name}==1.0#x.gguf" if kind == "model" else None
    return Locked(kind, name, "1.0", f"{name}.whl", len(data), sha256(data), licence, source=source, member=member)


def test_each_package_and_model_has_a_text_or_what_its_author_declared(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    many = {f"alpha-1.0.dist-info/licenses/{name}": name.encode() for name in ("a/COPYING", "A/copying", "Été (1).txt")}
    member = LockedMember("x.gguf", 4, sha256(b"GGUF"))
    entries = (
        _put(cache, "model", "free", b"GGUF", "Apache-2.0"),
        _put(cache, "model", "own", wheel("own", files={"x.gguf": b"GGUF"}), "LicenseRef-own", member),
        _put(cache, "tool", "uv", wheel("uv"), "MIT"),
        _put(cache, "wheel", "alpha", wheel("alpha", files=many), "MIT"),
        _put(cache, "wheel", "bare", wheel("bare", has_text=False), "ISC"),
    )
    runtime = tmp_path / "runtime.whl"
    runtime.write_bytes(wheel("llama-cpp-python"))
    found = dict(licence_files(Lock(0, (), entries), cache, runtime))
    assert {path: data for path, data in found.items() if path.startswith("alpha/")} == {
        "alpha/A-copying": b"A/copying",
        "alpha/2-a-COPYING": b"a/COPYING",
        "alpha/_t__(1).txt".replace("(", "_").replace(")", "_"): "Été (1).txt".encode(),
        "alpha/LICENSE": b"the licence of alpha\n",
    }
    assert found["airgap-appliance/LICENSE"] == found["model-free/LICENSE"] == own_licence()
    assert found["model-own/LICENSE"] == b"the licence of own\n"
    assert found["llama-cpp-python/LICENSE"] == b"the licence of llama-cpp-python\n"
    assert b"under the licence: ISC" in found["bare/DECLARED.txt"]
    check_unique([check_path(f"licences/{path}") for path in found], "licences")
