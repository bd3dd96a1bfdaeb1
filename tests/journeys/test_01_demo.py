"""Somebody clones the project and runs the demo: everything that it prints is true."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.journeys.conftest import RECIPE, Demo, appliance, snapshot
from tests.pages.blocks import read_commands

DIGEST = re.compile(r"[0-9a-f]{16,}")

pytestmark = pytest.mark.ci


def sha256sum(path: Path) -> str:
    """The digest as a program that is not ours computes it."""
    return subprocess.run(["sha256sum", "-b", path], capture_output=True, text=True, check=True).stdout.split()[0]


def test_each_of_six_steps_names_what_it_proved(demo: Demo) -> None:
    assert len(demo.answer["steps"]) == 6
    assert all(step["proved"] for step in demo.answer["steps"])


def plain(command: str, folder: Path) -> str:
    """A command of the demo without what differs from run to run: folders and digests."""
    return DIGEST.sub("DIGEST", command.replace(str(folder), ".demo").replace(f"{RECIPE.parents[2]}/", ""))


def is_shown_as(ran: str, shown: str) -> bool:
    """Whether a page shows a command that ran; a line that ends with `…` is cut there."""
    return ran.startswith(shown[:-1]) if shown.endswith("…") else ran == shown


def test_transcript_and_the_tour_of_the_readme_show_the_commands_that_the_demo_runs(demo: Demo) -> None:
    ran = [plain(command, demo.folder) for command in re.findall(r"^ *\$ (appliance .+)$", demo.shown, re.MULTILINE)]
    transcript = [plain(command, demo.folder) for command in read_commands("docs/transcript.md")]
    assert len(transcript) == len(ran)
    assert [shown for one, shown in zip(ran, transcript, strict=True) if not is_shown_as(one, shown)] == []
    tour = [plain(command, demo.folder) for command in read_commands("README.md", "A tour")]
    assert [shown for shown in tour if not any(is_shown_as(one, shown) for one in ran)] == []


def test_printed_digests_are_those_of_the_files(demo: Demo) -> None:
    printed = {entry["name"]: entry for entry in demo.answer["digests"]}
    assert set(printed) == {"release", "model", "template", "engine", "policy"}
    for entry in printed.values():
        assert entry["file"] is None or sha256sum(Path(entry["file"])) == entry["sha256"]
    assert printed["model"]["file"] == str(next((demo.host / "var/lib/appliance/models").glob("*/*.gguf")))
    assert all(Path(printed[name]["file"]).is_relative_to(demo.release) for name in ("release", "engine", "policy"))


def test_every_answer_carries_the_digests_of_what_made_it(demo: Demo) -> None:
    printed = {entry["name"]: entry["sha256"] for entry in demo.answer["digests"]}
    assert printed["release"] == demo.answer["manifest"].removeprefix("sha256:")
    for answer in demo.answer["answers"]:
        assert {name: answer["appliance"][name] for name in printed} == printed


def test_template_digest_is_that_of_the_models_own_template(demo: Demo, tmp_path: Path) -> None:
    [model] = (demo.host / "var/lib/appliance/models").glob("*/*.gguf")
    data = model.read_bytes()[: 4 << 20]
    key = b"tokenizer.chat_template"
    at = data.index(key) + len(key) + 4
    size = int.from_bytes(data[at : at + 8], "little")
    (tmp_path / "template").write_bytes(data[at + 8 : at + 8 + size])
    assert sha256sum(tmp_path / "template") == demo.answer["answers"][0]["appliance"]["template"]


def test_two_questions_get_two_answers(demo: Demo) -> None:
    first, second = demo.answer["answers"]
    assert first["question"] != second["question"]
    assert first["text"] != second["text"]
    assert min(first["completion_tokens"], second["completion_tokens"]) > 0
    assert "Paris" in first["text"]


def test_changed_bytes_were_refused_as_damaged_and_named(demo: Demo) -> None:
    said = {refusal["command"].split()[1]: refusal for refusal in demo.answer["refusals"]}
    assert set(said) == {"verify", "serve"}
    assert len(demo.answer["refusals"]) == 3
    for refusal in demo.answer["refusals"]:
        assert refusal["exit_code"] == 3
        assert "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf" in refusal["said"]


def test_every_installed_byte_is_signed(demo: Demo) -> None:
    done = appliance("verify", "--prefix", demo.host, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["manifest"] == demo.answer["manifest"].removeprefix("sha256:")


def test_openssl_accepts_the_signature_of_targets(demo: Demo, tmp_path: Path) -> None:
    newest = max((demo.bundle / "metadata").glob("*.targets.json"))
    targets = json.loads(newest.read_bytes())
    root = json.loads((demo.bundle / "metadata/1.root.json").read_bytes())["signed"]
    [signature] = targets["signatures"]
    (tmp_path / "key.pem").write_text(root["keys"][signature["keyid"]]["keyval"]["public"])
    (tmp_path / "signature").write_bytes(bytes.fromhex(signature["sig"]))
    # Nothing in targets needs an escape, so its canonical form is the text of `signed` in the file.
    body = newest.read_bytes().split(b'"signed":', 1)[1][:-1]
    (tmp_path / "signed").write_bytes(body)
    command = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "signature", "signed"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Verified OK", done


@pytest.mark.timeout(600)
def test_second_run_changes_nothing_that_is_right(demo: Demo) -> None:
    folders = ("workspace", "stick", "host/opt", "host/var/lib/appliance/models", "host/var/lib/appliance/trust")
    before = {name: snapshot(demo.folder / name) for name in folders}
    done = appliance("demo", "--folder", demo.folder, "--json", timeout_s=500)
    assert done.code == 0, done.err[-4000:]
    assert json.loads(done.out)["digests"] == demo.answer["digests"]
    assert before == {name: snapshot(demo.folder / name) for name in folders}
