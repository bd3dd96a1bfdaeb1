"""The trial passes over CPU variants that crash, hang, give no measurement or compute wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from appliance.host.layout.install_lock import hold
from appliance.host.layout.places import place
from appliance.host.layout.prefix import Prefix
from appliance.host.machine.card import Variant
from appliance.host.process.programs import Programs
from appliance.host.release.release_check import check_runtime
from appliance.host.runtime import variant_choice
from appliance.host.runtime.extraction import prepare_runtime
from appliance.host.runtime.logits import TOLERANCE
from appliance.host.runtime.unpacked import of_wheel
from appliance.host.runtime.variant_choice import Bench, Choice, choose_variant, fastest, read_choice, write_choice
from appliance.host.runtime.variant_verdicts import _judge_all
from bundles.progress import ignore
from signing.errors import DamagedError, HostUnfitError
from tests.appliance.shipped import shipped_runtime
from tests.appliance.sim_host import BENCH, SimHost, new_host
from tests.sim.odd_models import REFUSED


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    prefix = Prefix.at(tmp_path / "host")
    prefix.create()
    with hold(prefix) as lock:
        yield Programs(prefix.scratch, lock)


def folder_with(tmp_path: Path, variant: str, bench: str = BENCH) -> Path:
    folder = tmp_path / variant
    folder.mkdir(exist_ok=True)
    (folder / f"libggml-cpu-{variant}.so").touch()
    (folder / "llama-bench").write_text(bench)
    (folder / "llama-bench").chmod(0o755)
    return folder


def choose(
    tmp_path: Path, programs: Programs, *variants: str, bench: str = BENCH, logits: Mapping[str, str] | None = None
) -> Choice:
    """Choose among stand-ins.

    Args:
        bench: the script in place of `llama-bench`.
        logits: Python lines that the child which evaluates the prompt runs, by variant.
    """
    model = tmp_path / "model"
    model.touch()
    python = write_python(tmp_path, logits or {})
    return choose_variant(
        variants, Bench(lambda name: folder_with(tmp_path, name, bench), python, model, 1, programs), ignore
    )


def write_python(tmp_path: Path, logits: Mapping[str, str]) -> Path:
    """The Python of an environment whose child for logits runs the mapped lines; every other variant is right."""
    path = tmp_path / "python"
    lines = [
        f"#!{sys.executable} -I",
        "import array, os, pathlib, sys, time",
        "variant, result = sys.argv[6], sys.argv[10]",
    ]
    lines += ["values = [1.0, 2.0, 3.0, 4.0, 2.0, 2.0]"]
    for variant, text in logits.items():
        lines.append(f"if variant == {variant!r}: {text}")
    lines.append("pathlib.Path(result).write_bytes(array.array('f', values).tobytes())")
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(("speed", "runs"), [("1.9 1.4", 1), ("27.2 14.1", 2)])
def test_slow_machine_is_measured_by_its_sketch_alone(
    tmp_path: Path, programs: Programs, speed: str, runs: int
) -> None:
    counted = BENCH.replace("echo loading", f'echo "$@" >>{tmp_path}/runs').replace("27.2 14.1", speed)
    counted = counted.replace("set -- $speed", "").replace('echo "["', 'set -- $speed; echo "["')
    choose(tmp_path, programs, "x64", bench=counted)
    lines = (tmp_path / "runs").read_text().splitlines()
    assert len(lines) == runs
    assert "-p 4 -n 2 -r 1 --no-warmup" in lines[0]


def counted_runs(tmp_path: Path, programs: Programs, speeds: Mapping[str, int], *variants: str) -> list[str]:
    """Choose among variants with the given rates; returns each run of `llama-bench` as its variant and its options."""
    cases = "".join(f'*-{name}.*) speed="{rate} {rate}" ;;\n' for name, rate in speeds.items())
    bench = BENCH.replace('case "$(ls)" in\n', f'echo $(ls libggml-*) "$@" >>{tmp_path}/runs\ncase "$(ls)" in\n{cases}')
    choose(tmp_path, programs, *variants, bench=bench)
    lines = (tmp_path / "runs").read_text().splitlines()
    return [f"{line.split('.so')[0].rpartition('-')[2]} {'sketch' if '-p 4' in line else 'measure'}" for line in lines]


def test_variant_far_slower_than_a_newer_one_ends_the_search(tmp_path: Path, programs: Programs) -> None:
    runs = counted_runs(
        tmp_path, programs, {"haswell": 100, "ivybridge": 60, "sse42": 99}, "haswell", "ivybridge", "sse42"
    )
    assert runs == ["haswell sketch", *["haswell measure", "ivybridge measure"] * 2]


def test_variants_of_about_one_speed_are_all_measured(tmp_path: Path, programs: Programs) -> None:
    runs = counted_runs(
        tmp_path, programs, {"haswell": 100, "ivybridge": 80, "sse42": 99}, "haswell", "ivybridge", "sse42"
    )
    assert runs == ["haswell sketch", *["haswell measure", "ivybridge measure", "sse42 measure"] * 2]


def test_slow_machine_gives_each_variant_its_sketch_and_no_more(tmp_path: Path, programs: Programs) -> None:
    runs = counted_runs(tmp_path, programs, {"haswell": 3, "ivybridge": 3, "sse42": 2}, "haswell", "ivybridge", "sse42")
    assert runs == ["haswell sketch", "ivybridge sketch", "sse42 sketch"]


def test_best_of_several_rounds_counts(tmp_path: Path, programs: Programs) -> None:
    """The faster variant is disturbed in its first round only, and the other never."""
    disturbed = BENCH.replace(
        "set -- $speed",
        'case "$speed$*" in 320*"-p 16"*) [ -e once ] || speed="9.0 9.0"; touch once ;; esac; set -- $speed',
    )
    assert choose(tmp_path, programs, "haswell", "x64", bench=disturbed) == Choice("haswell", 320, 92)


def test_variant_that_crashes_in_a_later_round_is_passed_over(tmp_path: Path, programs: Programs) -> None:
    dying = BENCH.replace(
        "set -- $speed",
        'case "$speed$*" in 320*"-p 16"*) [ ! -e once ] || kill -ILL $$; touch once ;; esac; set -- $speed',
    )
    choice = choose(tmp_path, programs, "haswell", "x64", bench=dying)
    assert choice.variant == "x64"
    assert "SIGILL" in choice.passed_over[0]


def test_after_a_variant_with_an_illegal_instruction_the_next_is_tried(tmp_path: Path, programs: Programs) -> None:
    assert choose(tmp_path, programs, "sapphirerapids", "haswell", "x64") == Choice("haswell", 320, 92)


def test_after_a_variant_that_hangs_the_next_is_tried(
    tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(variant_choice, "BASE_TIMEOUT_S", 0.5)
    assert choose(tmp_path, programs, "zen4", "x64").variant == "x64"


def test_host_on_which_no_variant_runs_is_unfit_with_each_reason(tmp_path: Path, programs: Programs) -> None:
    with pytest.raises(HostUnfitError) as caught:
        choose(tmp_path, programs, "sapphirerapids")
    assert caught.value.exit_code == 6
    assert "sapphirerapids" in caught.value.found
    assert "SIGILL" in caught.value.found


REFUSING = """#!/bin/sh
echo "llama_model_load: error loading model: unknown model architecture: 'madeup9'"
echo "llama_model_load_from_file_impl: failed to load model"
echo "llama_bench: error: failed to load model"
exit 1
"""


def test_processor_is_too_old_only_where_the_plain_variant_lacks_an_instruction(
    tmp_path: Path, programs: Programs
) -> None:
    with pytest.raises(HostUnfitError) as caught:
        choose(tmp_path, programs, "haswell", "x64", bench="#!/bin/sh\nkill -ILL $$\n")
    assert (caught.value.code, caught.value.subject) == ("trial.none-runs", "CPU")
    assert "too old" in caught.value.hint


def test_model_that_the_runtime_refuses_is_named_with_its_reason_and_not_the_processor(
    tmp_path: Path, programs: Programs
) -> None:
    with pytest.raises(HostUnfitError) as caught:
        choose(tmp_path, programs, "haswell", "x64", bench=REFUSING)
    assert (caught.value.code, caught.value.subject) == ("trial.model-not-loaded", "model")
    assert caught.value.found == "unknown model architecture: 'madeup9'"
    assert "too old" not in f"{caught.value}{caught.value.hint}"


def test_survey_of_variants_does_not_blame_the_processor_for_a_model_that_is_refused(
    tmp_path: Path, programs: Programs
) -> None:
    python = write_python(tmp_path, {"x64": "sys.exit('the model was not loaded')"})
    model = tmp_path / "model"
    model.touch()
    bench = Bench(lambda name: folder_with(tmp_path, name, REFUSING), python, model, 1, programs)
    with pytest.raises(HostUnfitError, match="madeup9") as caught:
        _judge_all([Variant("x64", True, "", ""), Variant("haswell", True, "", "")], bench, ignore)
    assert caught.value.code == "trial.model-not-loaded"


@pytest.mark.ci
def test_real_runtime_gives_its_own_reason_for_a_model_that_it_refuses(tmp_path: Path, programs: Programs) -> None:
    unpacked = of_wheel(shipped_runtime().path, tmp_path)
    model = tmp_path / "odd.gguf"
    for name, reason in (("an unknown architecture", "madeup9"), ("a token twice", "GGML_ASSERT(id_to_token.size()")):
        model.write_bytes(REFUSED[name][0])
        bench = Bench(unpacked.folder_with, Path(sys.executable), model, 1, programs, unpacked.package)
        with pytest.raises(HostUnfitError) as caught:
            choose_variant(("x64",), bench, ignore)
        assert (caught.value.code, caught.value.subject) == ("trial.model-not-loaded", "odd.gguf")
        assert reason in caught.value.found


@pytest.mark.parametrize("bench", ["#!/bin/sh\nexit 127\n", "#!/bin/sh\nkill -KILL $$\n", "#!/bin/sh\necho nothing\n"])
def test_what_is_neither_the_processor_nor_the_model_blames_none_of_them(
    tmp_path: Path, programs: Programs, bench: str
) -> None:
    with pytest.raises(HostUnfitError) as caught:
        choose(tmp_path, programs, "x64", bench=bench)
    assert caught.value.code == "trial.no-result"
    assert "too old" not in f"{caught.value}{caught.value.hint}"


def test_trial_starts_no_debugger_where_llama_cpp_aborts(tmp_path: Path, programs: Programs) -> None:
    bench = BENCH.replace("#!/bin/sh\n", f"#!/bin/sh\nenv >{tmp_path}/env\n")
    choose(tmp_path, programs, "x64", bench=bench)
    assert "GGML_NO_BACKTRACE=1" in (tmp_path / "env").read_text().splitlines()


ENDLESS = '{"n_prompt": 1, "n_gen": 1, "samples_ts": [1e999]}'


@pytest.mark.parametrize(
    "bench",
    [
        "#!/bin/sh\nexit 1\n",
        "#!/bin/sh\necho '[\n]'\n",
        "#!/bin/sh\necho nothing\n",
        f"#!/bin/sh\necho '[\n{ENDLESS}]'\n",
        f"#!/bin/sh\necho '[\n{'[' * 10_000}'\n",
        "#!/bin/sh\nlog=$(readlink /proc/self/fd/2)\nrm $log\nmkfifo $log\n",
    ],
)
def test_variant_without_a_measurement_does_not_count(tmp_path: Path, programs: Programs, bench: str) -> None:
    with pytest.raises(HostUnfitError):
        choose(tmp_path, programs, "x64", bench=bench)


@pytest.mark.parametrize(
    ("logits", "reason"),
    [
        ("values = [4.0, 2.0, 3.0, 1.0, 2.0, 2.0]", "wrong results, "),
        pytest.param("values = [1.0, 2.0, 3.0, 4.0, 2.0, 3.5]", "wrong results, 0.0778", marks=pytest.mark.ci),
        ("values = [float('nan')] * 6", "no numbers"),
        pytest.param("values = [0.0] * 6", "no numbers", marks=pytest.mark.ci),
        pytest.param("values = values * 2", "wrong results, inf", marks=pytest.mark.ci),
        pytest.param("values = []", "no numbers", marks=pytest.mark.ci),
        ("os.kill(os.getpid(), 4)", "SIGILL"),
        pytest.param("sys.exit('out of memory')", "out of memory", marks=pytest.mark.ci),
        pytest.param("time.sleep(60)", "SIGKILL", marks=pytest.mark.ci),
        ("os.mkfifo(result); os._exit(0)", "no numbers"),
        pytest.param("os.symlink('/dev/zero', result); os._exit(0)", "no numbers", marks=pytest.mark.ci),
    ],
)
def test_after_a_faster_variant_that_computes_wrong_the_next_is_tried(
    tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch, logits: str, reason: str
) -> None:
    monkeypatch.setattr(variant_choice, "BASE_TIMEOUT_S", 1.5 if "sleep" in logits else 60)
    choice = choose(tmp_path, programs, "haswell", "x64", logits={"haswell": logits})
    assert choice.variant == "x64"
    (passed_over,) = choice.passed_over
    assert passed_over.startswith("haswell: ")
    assert reason in passed_over


def test_right_variant_may_round_in_its_own_order(tmp_path: Path, programs: Programs) -> None:
    choice = choose(tmp_path, programs, "haswell", "x64", logits={"haswell": "values[5] += 0.2"})
    assert choice.variant == "haswell"
    assert 0 < choice.divergence < TOLERANCE


@pytest.mark.ci
def test_after_wrong_variants_the_older_ones_are_tried(tmp_path: Path, programs: Programs) -> None:
    wrong = dict.fromkeys(("icelake", "cascadelake", "skylakex"), "values[0] = 9.0")
    quick = BENCH.replace("*haswell*) speed", "*icelake* | *cascadelake* | *skylakex*) speed")
    quick = quick.replace("echo loading", f'case "$OLD" in *"-p 16"*) ls *.so >>{tmp_path}/runs ;; esac')
    quick = quick.replace("#!/bin/sh\n", '#!/bin/sh\nOLD="$*"\n')
    choice = choose(tmp_path, programs, *wrong, "ivybridge", "x64", bench=quick, logits=wrong)
    assert choice.variant in ("ivybridge", "x64")
    assert len(choice.passed_over) == 3
    # Each is measured as often as the rule demands, although others turned out to be wrong in the meantime.
    runs = (tmp_path / "runs").read_text().split()
    assert {runs.count(name) for name in runs} == {variant_choice.ROUNDS}
    assert len(set(runs)) == 5


def test_without_a_result_of_the_reference_no_other_variant_is_right(tmp_path: Path, programs: Programs) -> None:
    with pytest.raises(HostUnfitError, match="cannot be compared, x64 ended with no reason of its own"):
        choose(tmp_path, programs, "haswell", logits={"x64": "sys.exit('no reason of its own')"})


def test_reference_that_is_fastest_is_not_compared(tmp_path: Path, programs: Programs) -> None:
    assert choose(tmp_path, programs, "x64", logits={"x64": "sys.exit(1)"}).variant == "x64"


def test_fastest_at_generating_wins_and_near_it_the_fastest_at_reading() -> None:
    slow, quick = Choice("slow", 900, 50), Choice("quick", 100, 100)
    assert fastest([slow, quick]) == quick
    assert fastest([quick, Choice("close", 300, 98), Choice("far", 900, 96)]).variant == "close"


def test_choice_is_read_for_the_same_runtime_and_processor_only(tmp_path: Path) -> None:
    path = tmp_path / "trials.json"
    assert read_choice(path, "key") is None
    write_choice(path, "key", Choice("x64", 2, 1))
    assert read_choice(path, "key") == Choice("x64", 2, 1)
    assert read_choice(path, "other") is None
    for garbage in ("garbage", "[" * 100_000):
        path.write_text(garbage)
        assert read_choice(path, "key") is None
        write_choice(path, "key", Choice("x64", 2, 1))
        assert read_choice(path, "key") == Choice("x64", 2, 1)


def test_choice_without_a_comparison_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "trials.json"
    write_choice(path, "key", Choice("haswell", 2, 1, 0.01, ("zen4: wrong",)))
    found = read_choice(path, "key")
    assert found is not None
    assert (found.divergence, found.passed_over) == (0.01, ("zen4: wrong",))
    known = json.loads(path.read_text())
    for value in known.values():
        del value["divergence"]
    path.write_text(json.dumps(known))
    assert read_choice(path, "key") is None


def test_runtime_holds_exactly_one_variant_and_is_left_alone_when_right(tmp_path: Path) -> None:
    host = new_host(tmp_path)
    release = host.install()
    assert sorted(path.name for path in release.runtime.iterdir()) == [
        "libggml-cpu-haswell.so",
        "libggml.so",
        "llama-bench",
        "llama-server",
    ]
    before = (release.runtime / "libggml.so").stat()
    with hold(host.prefix) as lock:
        programs = Programs(host.prefix.scratch, lock)
        # The recorded choice is taken: the variant that is offered would not run here.
        prepare_runtime(host.prefix, release.path, release.contents, ("sapphirerapids",), programs, ignore)
        after = (release.runtime / "libggml.so").stat()
        assert (before.st_ino, before.st_nlink) == (after.st_ino, 1)
        (release.runtime / "libggml.so").write_bytes(b"a libRary")
        assert check_runtime(release.runtime, release.contents, "haswell")
        prepare_runtime(host.prefix, release.path, release.contents, ("haswell",), programs, ignore)
    assert check_runtime(release.runtime, release.contents, "haswell") == []


def test_member_that_differs_from_its_signed_digest_is_damaged_and_the_wheel_is_named(tmp_path: Path) -> None:
    host: SimHost = new_host(tmp_path)
    release = host.install()
    file = release.contents.of_kind("runtime")[0]
    wheel = place(host.prefix, release.path, file)
    wheel.write_bytes(wheel.read_bytes().replace(b"a library", b"a libRary"))
    (release.runtime / "libggml.so").unlink()
    with hold(host.prefix) as lock, pytest.raises(DamagedError) as caught:
        programs = Programs(host.prefix.scratch, lock)
        prepare_runtime(host.prefix, release.path, release.contents, ("haswell",), programs, ignore)
    assert caught.value.subject == file.path
