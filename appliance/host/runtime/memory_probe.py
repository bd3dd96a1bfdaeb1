"""The memory probe: llama.cpp reports how much memory it would allocate for a model, before it allocates any.

Owns the child process that opens a model without its weights, makes the context as an engine would, and reports the
sizes; and the parent's part. The child gets a file with the header of the model and a hole in place of the weights. It
cannot read the weights, so this works also for a model that is in parts on a stick.

Rules:
- `bundles.gguf.header` has checked the header before llama.cpp reads it. llama.cpp reads it in an isolated child with
  limits on memory and time;
- the settings are those of `appliance.host.engine.engine_command`; with others the sizes would not be those of an
  engine.

Command line: `python -m appliance.host.runtime.memory_probe RUNTIME VARIANT PACKAGE MODEL CONTEXT SLOTS KV_TYPE`, where
PACKAGE is the folder that holds the binding, or `-` for that of the environment.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.entry_points import MEMORY_PROBE
from appliance.host.process.child import describe_exit, spawn
from appliance.host.runtime.loader import load_binding
from bundles.gguf.memory import BATCH_TOKENS, KV_TYPES, Workload
from signing.errors import ApplianceError

TIMEOUT_S = 120.0
MEMORY_BYTES = 4 << 30
_MAX_ANSWER_BYTES = 64 << 10
_MIB = 1 << 20
_SIZE = re.compile(
    r"(kv_cache\w*|memory_recurrent): size = +([0-9.]+) MiB|(compute|output) buffer size = +([0-9.]+) MiB"
)


@dataclass(frozen=True, slots=True)
class Runtime:
    """An unpacked runtime with one CPU variant.

    Args:
        folder: its programs and libraries, verified by the caller.
        variant: a CPU variant in that folder; it must run here.
        python: an interpreter with this program; for a release, that of its environment.
        package: the folder that holds the binding; None where `python` has it in its environment.
    """

    folder: Path
    variant: str
    python: Path
    package: Path | None = None


@dataclass(frozen=True, slots=True)
class ProbedMemory:
    """The memory that llama.cpp would allocate beside the weights, in bytes.

    Args:
        kv: the KV cache.
        compute: the buffers for computing and for the output.
    """

    kv: int
    compute: int


def probe_memory(runtime: Runtime, header: bytes, file_size: int, load: Workload) -> ProbedMemory:
    """Have llama.cpp report how much memory a model would take.

    Args:
        runtime: llama.cpp, with its binding.
        header: everything before the weights, checked by `bundles.gguf.header`.
        file_size: of the whole file, in bytes.
        load: context and slots that the model is to serve.

    Returns:
        The sizes that llama.cpp reports.

    Raises:
        ApplianceError: llama.cpp refuses the model, or was ended by it; only the child is affected.
    """
    with tempfile.TemporaryDirectory(prefix="appliance-plan-") as name:
        scratch = Path(name)
        model, log = scratch / "model.gguf", scratch / "log"
        with model.open("wb") as file:
            file.write(header)
            file.truncate(file_size)
        command: list[str | Path] = [runtime.python, "-I", "-B", "-m", MEMORY_PROBE]
        command += [runtime.folder, runtime.variant, runtime.package or "-", model]
        command += [str(load.context), str(load.slots), load.kv_type]
        environment = {"HOME": name, "TMPDIR": name, "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        child = spawn(command, cwd=scratch, env=environment, log=log, stdout=subprocess.PIPE)
        try:
            code = child.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = 128 + 9
        finally:
            child.kill()
        assert child.stdout is not None  # it is a pipe, as requested above
        with child.stdout as stream:
            answer = stream.read(_MAX_ANSWER_BYTES)
        if code != 0:
            raise _failed(f"{_last_log_line(log)} ({describe_exit(code)})")
    return _read(answer)


def measure(binding: Any, model_path: Path, load: Workload) -> dict[str, int]:
    """Open the model without weights, make the context, and collect the sizes that llama.cpp logs; in the child.

    Args:
        binding: from `load_binding`.
        model_path: a GGUF; its weights are not read.
        load: context and slots that the model is to serve.

    Returns:
        The bytes of `kv` and of `compute`; see `ProbedMemory`.

    Raises:
        ApplianceError: llama.cpp refuses the model.
    """
    log: list[str] = []
    on_log = binding.llama_log_callback(lambda _level, text, _data: log.append(text.decode("utf-8", "replace")))
    binding.llama_log_set(on_log, None)
    binding.llama_backend_init()
    params = binding.llama_model_default_params()
    params.no_alloc, params.load_mode = True, binding.LLAMA_LOAD_MODE_NONE
    model = binding.llama_model_load_from_file(os.fsencode(model_path), params)
    context = binding.llama_init_from_model(model, _context_params(binding, load)) if model else None
    if not context:
        raise _failed(" / ".join(line.strip() for line in log[-3:]))
    sizes = {"kv": 0.0, "compute": 0.0}
    for match in _SIZE.finditer("".join(log)):
        sizes["kv" if match.group(1) else "compute"] += float(match.group(2) or match.group(4))
    return {name: round(size * _MIB) for name, size in sizes.items()}


def main(arguments: list[str]) -> int:
    """Run the child, with the arguments of the module's docstring; prints one line of JSON."""
    runtime, variant, package, model, context, slots, kv_type = arguments
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    binding = load_binding(Path(runtime), variant, None if package == "-" else Path(package))
    sizes = measure(binding, Path(model), Workload(int(context), int(slots), kv_type))
    sys.stdout.write(json.dumps(sizes) + "\n")
    sys.stdout.flush()
    # llama.cpp need not free a model that has no weights.
    os._exit(0)


def _context_params(binding: Any, load: Workload) -> Any:
    params = binding.llama_context_default_params()
    params.n_ctx, params.n_seq_max, params.n_ubatch = load.context * load.slots, load.slots, BATCH_TOKENS
    params.n_outputs_max, params.n_outputs_max_per_seq = load.slots, 1
    params.type_k = params.type_v = KV_TYPES[load.kv_type]
    params.kv_unified = params.swa_full = False
    return params


def _read(answer: bytes) -> ProbedMemory:
    try:
        value = json.loads(answer)
        return ProbedMemory(int(value["kv"]), int(value["compute"]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise _failed("an answer of another form") from None


def _last_log_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "an empty log"


def _failed(found: str) -> ApplianceError:
    return ApplianceError(
        "plan.rehearsal",
        "llama.cpp",
        expected="a model that it accepts",
        found=found[:400],
        hint="this runtime cannot serve this model; the numbers from the header stand alone",
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
