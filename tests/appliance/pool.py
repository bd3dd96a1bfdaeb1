"""A small release of Debian packages on this disk, signed with a key of its own."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

import pytest

from appliance.builder.debian.apt import Mirror


def require_tools() -> None:
    """Skip where the programs that make and sign packages are missing."""
    missing = [name for name in ("apt-get", "dpkg-deb", "gpg") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"needs {' '.join(missing)}: run `.ci/system bed`")


@dataclass
class Pool:
    """The packages of one suite, `bookworm`; `publish` signs what `add` has put there."""

    folder: Path
    key: str = "pool"
    stanzas: dict[str, str] = field(default_factory=dict)
    homes: dict[str, Path] = field(default_factory=dict)

    def add(
        self,
        name: str,
        version: str = "1.0",
        depends: str = "",
        files: dict[str, str] | None = None,
        *,
        postinst: str = "",
    ) -> Path:
        """Make a package; one of the same name is replaced, as a release does. `postinst` runs when it is installed."""
        tree = self.folder / "making" / name
        shutil.rmtree(tree, ignore_errors=True)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: t <t@example.invalid>\n"
        control += f"Depends: {depends}\n" if depends else ""
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(f"{control}Description: a package for tests\n")
        if postinst:
            (tree / "DEBIAN/postinst").write_text(postinst)
            (tree / "DEBIAN/postinst").chmod(0o755)
        for path, text in (files or {f"usr/share/{name}": version}).items():
            (tree / path).parent.mkdir(parents=True, exist_ok=True)
            (tree / path).write_text(text)
        plain = version.partition(":")[2] or version
        made = self.folder / "pool" / f"{name}_{plain}_amd64.deb"
        made.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, made], check=True, capture_output=True)
        data = made.read_bytes()
        place = f"Filename: pool/{made.name}\nSize: {len(data)}\nSHA256: {hashlib.sha256(data).hexdigest()}\n"
        self.stanzas[name] = f"{control}{place}Description: a package for tests\n"
        return made

    def publish(self) -> None:
        """Write and sign the index."""
        index = self.folder / "dists/bookworm/main/binary-amd64/Packages"
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_text("\n".join(self.stanzas.values()))
        data = index.read_bytes()
        release = self.folder / "dists/bookworm/Release"
        release.write_text(
            f"Origin: Test\nLabel: Test\nSuite: bookworm\nCodename: bookworm\nDate: {formatdate(usegmt=True)}\n"
            "Architectures: amd64\nComponents: main\nSHA256:\n"
            f" {hashlib.sha256(data).hexdigest()} {len(data)} main/binary-amd64/Packages\n"
        )
        signed = ["--armor", "--output", str(release.with_name("InRelease")), "--clearsign", str(release)]
        _gpg(self._home(self.key), "--local-user", self.key, *signed)

    def mirror(self, key: str = "pool") -> Mirror:
        """How apt finds it.

        Args:
            key: whose signature is asked for.
        """
        ring = self.folder / f"{key}.gpg"
        _gpg(self._home(key), "--output", str(ring), "--export", key)
        return Mirror((f"deb [signed-by={ring}] file:{self.folder} bookworm main",))

    def close(self) -> None:
        """End gpg's agents and forget their keys."""
        for home in self.homes.values():
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, capture_output=True)
            # An agent that is ending takes its sockets away itself, at the same time.
            until = time.monotonic() + 10
            while home.exists() and time.monotonic() < until:
                shutil.rmtree(home, ignore_errors=True)

    def _home(self, key: str) -> Path:
        if key not in self.homes:
            # gpg's socket lies there, and its path holds 107 bytes at most.
            home = self.homes[key] = Path(tempfile.mkdtemp(prefix="pool-", dir="/tmp"))
            _gpg(home, "--passphrase", "", "--quick-generate-key", key, "ed25519", "sign", "never")
        return self.homes[key]


def _gpg(home: Path, *words: str) -> None:
    settings = ["--homedir", str(home), "--batch", "--yes", "--quiet", "--pinentry-mode", "loopback"]
    subprocess.run(["gpg", *settings, *words], check=True, capture_output=True)
