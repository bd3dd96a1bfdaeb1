"""The proof that a bundle's packages and wheels work on its targets: installed and imported in an empty system.

Owns the proof of a closure, for each target and each of its Pythons. It takes place in an empty tree of the target's
system, without a network. Packages are installed by path and wheels by hash, then all their modules are imported. It
must never let a bundle pass whose closure was not proved.

Rules:
- what is missing is named, wheel by wheel, and nothing is sealed;
- the installation is the host's: `apt-get install` of files without a source, `uv pip sync` without an index;
- a proof is recorded under the digest of all its inputs: the files, the tree, and the programs of the proof. The same
  inputs are not proved again;
- nothing skips the proof: a machine that cannot create or enter a tree is unfit (exit 6), with the remedy.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from appliance.builder.cache.content_store import Cache
from appliance.builder.cache.keyed_record import read_record, write_record
from appliance.builder.chunking.chunker import Source
from appliance.builder.debian.rootfs import TREES, Tree, build
from appliance.builder.proof.sandbox import WORK, run_in
from appliance.builder.recipe.recipe import Recipe
from bundles.medium import Medium
from bundles.progress import OnProgress, Progress, ignore
from signing.digest import Digest, sha256
from signing.errors import ApplianceError, HostUnfitError, UsageError

INSIDE = Path(__file__).with_name("inside")
_PROGRAMS = ("packages.sh", "wheels.sh", "imports.py")
_ANSWER, _MAX_ANSWER_BYTES = "answer.json", 8 << 20
_NO_PYTHON = 80
"""The exit code of `wheels.sh` where the tree has no such Python."""


@dataclass(frozen=True, slots=True)
class TargetClosure:
    """The files that one target with one Python installs.

    Args:
        system: the target's system, such as `debian-12`.
        python: for example `3.11`.
        files: by their path in the work folder: `wheels/…`, `packages/…`, and `tools/…` for uv.
        digests: of the same paths.
    """

    system: str
    python: str
    files: dict[str, Path]
    digests: dict[str, Digest]

    @property
    def label(self) -> str:
        """Its name for people."""
        return f"{self.system}, Python {self.python}"


def prove(recipe: Recipe, sources: Sequence[Source], cache: Cache, on_progress: OnProgress = ignore) -> int:
    """Prove the closure of every target.

    Args:
        recipe: its targets count.
        sources: everything that the bundle will hold, as verified files.
        cache: keeps trees and records of proofs.
        on_progress: called with steps done.

    Returns:
        How many proofs were run; 0 where all were on record.

    Raises:
        UsageError: a target's system has no such Python.
        ApplianceError: something is missing, or does not import: each is named.
        HostUnfitError: this machine cannot create a tree of a target's system, or not enter it.
    """
    proved = 0
    for target in recipe.targets:
        tree = tree_of(target.os, target.arch)
        for python in target.python:
            closure = target_closure(sources, target.os, python)
            key = _key(closure, tree)
            record = cache.folder("proof") / f"{key[:16]}.json"
            if read_record(record, key) is None:
                label = f"proving the closure for {closure.label}"
                on_progress(Progress(label, 0, 1, "steps"))
                count = _prove(closure, build(tree, cache, on_progress), cache)
                write_record(record, key, {"imported": count})
                on_progress(Progress(label, 1, 1, "steps"))
                proved += 1
    return proved


def target_closure(sources: Sequence[Source], system: str, python: str) -> TargetClosure:
    """The files of a bundle that one target with one Python installs, by the paths of FORMAT 3.2."""
    files: dict[str, Path] = {}
    digests: dict[str, Digest] = {}
    own = "cp" + python.replace(".", "")
    for source in sources:
        parts = PurePosixPath(source.path).parts
        if source.kind in ("wheel", "runtime") and parts[1:-1] in ((), (own,)):
            path = f"wheels/{parts[-1]}"
        elif source.kind == "os-package" and parts[1] == system:
            path = f"packages/{parts[-1]}"
        elif source.kind == "tool" and parts[-1].startswith("uv-"):
            path = f"tools/{parts[-1]}"
        else:
            continue
        assert source.file is not None
        files[path] = source.file
        digests[path] = source.sha256 or sha256(source.file.read_bytes())
    return TargetClosure(system, python, files, digests)


def tree_of(system: str, arch: str) -> Tree:
    """The tree of a target's system.

    Raises:
        HostUnfitError: no tree of it can be built or entered on this machine.
    """
    found = TREES.get(system)
    machine = os.uname().machine
    if found is not None and machine == arch:
        return found
    expected = f"one of {', '.join(TREES)}, on {machine}, where this machine can prove that the bundle works"
    raise HostUnfitError(
        "closure.unproven",
        f"target {system} {arch}",
        expected=expected,
        found="a system that no tree can be made of here",
        hint="take it out of `targets`" if found is None else f"build on a machine of {arch}",
    )


def _key(closure: TargetClosure, tree: Tree) -> Digest:
    lines = [tree.key(), closure.system, closure.python]
    lines += [f"{path} {digest}" for path, digest in sorted(closure.digests.items())]
    lines += [sha256((INSIDE / name).read_bytes()) for name in _PROGRAMS]
    return sha256("\n".join(lines).encode())


def _prove(closure: TargetClosure, tree: Path, cache: Cache) -> int:
    with tempfile.TemporaryDirectory(prefix="work-", dir=cache.folder("proof")) as name:
        work = Path(name)
        work.chmod(0o755)
        _fill(work, closure)
        has_packages = any(path.startswith("packages/") for path in closure.files)
        argv = ["sh", f"{WORK}/wheels.sh", closure.python]
        result = run_in(tree, work, argv, many_owners=has_packages)
        if result.code == _NO_PYTHON:
            raise UsageError(
                "closure.no-python",
                f"target {closure.label}",
                expected=f"Python {closure.python} in {closure.system} with its packages",
                found="none",
                hint="name the Python that this system has in `targets`, or a package that brings it in `packages`",
            )
        if result.code:
            raise _incomplete(closure, [" / ".join((result.complaint or result.output).split("\n"))[-1500:]])
        tried, failed = _answer(work)
    if failed:
        raise _incomplete(closure, failed)
    return tried


def _answer(work: Path) -> tuple[int, list[str]]:
    """The number of imported modules, and the imports that failed.

    A module can end the program that imports it, or overwrite its answer: then nothing was proved.
    """
    try:
        answer = json.loads(Medium(work).read(_ANSWER, _MAX_ANSWER_BYTES) or b"")
        failed = [f"{one['wheel']}: import {one['module']}: {one['error']}" for one in answer["failed"]]
        return int(answer["tried"]), failed
    except (ApplianceError, ValueError, LookupError, TypeError, RecursionError):
        return 0, ["a module ended the program that imports all of them, or wrote into its answer"]


def _incomplete(closure: TargetClosure, found: list[str]) -> ApplianceError:
    errors = [
        ApplianceError(
            "closure.incomplete",
            closure.label,
            expected="everything packed to install and import where there is nothing else",
            found=text,
            hint="add what is missing to the packages or the requirements, then: appliance lock RECIPE",
        )
        for text in found
    ]
    errors[0].others = tuple(errors[1:])
    return errors[0]


def _fill(work: Path, closure: TargetClosure) -> None:
    for path, source in closure.files.items():
        (work / path).parent.mkdir(exist_ok=True)
        # Never a hard link: a module under proof could write into the cache's own file.
        shutil.copyfile(source, work / path)
    for name in _PROGRAMS:
        shutil.copyfile(INSIDE / name, work / name)
    (work / "requirements.txt").write_text("".join(_requirements(closure)), "utf-8")
    for path in closure.files:
        if path.startswith("tools/"):
            with zipfile.ZipFile(work / path) as archive:
                member = next(name for name in archive.namelist() if name.endswith(".data/scripts/uv"))
                (work / "uv").write_bytes(archive.read(member))
            (work / "uv").chmod(0o755)


def _requirements(closure: TargetClosure) -> list[str]:
    lines = []
    for path, digest in sorted(closure.digests.items()):
        if path.startswith("wheels/"):
            name, version = PurePosixPath(path).name.split("-")[:2]
            lines.append(f"{name}=={version} --hash=sha256:{digest}\n")
    return lines
