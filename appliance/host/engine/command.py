"""What an engine is started as: `llama-server`, its arguments, and its whole environment.

Owns the command line. Rules:
- started in the runtime's folder, so that the program finds no library but those beside it (it also searches there);
- an environment of its own: no setting, proxy or path of the caller reaches it;
- every feature that reads files, runs tools, fetches or shows a page is left off; what it serves is named by `--alias`;
- memory is fixed at the start: `context` tokens for each of `slots` conversations, and no cache that grows beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from appliance.host.models.served_file import ServedFile
from bundles.contents.model import File

PROGRAM = "llama-server"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What one engine is to run.

    Args:
        name: the model's name, for users and for the socket's file.
        file: the model's file, believed.
        store: where it lies on this host.
        runtime: the folder with `llama-server` and its libraries, verified by the caller.
        context: tokens of one conversation.
        slots: conversations at the same time.
        threads: for computing.
        is_embedding: whether it makes embeddings, and nothing else.
    """

    name: str
    file: File
    store: Path
    runtime: Path
    context: int
    slots: int
    threads: int
    is_embedding: bool = False


def engine_command(spec: EngineSpec, served: ServedFile, path: Path) -> tuple[list[str], dict[str, str]]:
    """The command line of an engine and its whole environment; it is to be started in `spec.runtime`.

    Args:
        spec: what it runs.
        served: the model, verified and open; the engine must inherit its descriptor.
        path: where it listens, in a folder that it may write to.
    """
    environment = {"HOME": "/nonexistent", "LLAMA_CACHE": str(path.parent), "LC_ALL": "C.UTF-8"}
    command = [
        *(str(spec.runtime / PROGRAM), "--model", served.path_for_child, "--alias", spec.name),
        *("--host", str(path), "--offline", "--no-ui", "--no-slots", "--no-agent", "--metrics"),
        # The whole context is divided among the slots; a unified one would let one conversation starve the others.
        *("--ctx-size", str(spec.context * spec.slots), "--parallel", str(spec.slots), "--no-kv-unified"),
        # A warm-up reads what lies in memory already, and makes slow machines wait for one more evaluation.
        *("--cache-ram", "0", "--no-cache-idle-slots", "--fit", "off", "--no-warmup"),
        # Threads without work sleep: spinning, they take the processor from those that have some.
        *("--threads", str(spec.threads), "--poll", "0", "--threads-http", str(spec.slots + 4), "--timeout", "600"),
        *("--jinja", "--no-context-shift", "--cors-origins", "localhost", "--no-cors-credentials"),
        *(["--embeddings"] if spec.is_embedding else []),
        *("--log-colors", "off", "--log-verbosity", "2", "--log-timestamps", "--log-prefix"),
    ]
    return command, environment
