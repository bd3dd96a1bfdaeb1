"""The command line of an engine: `llama-server`, its arguments, and its whole environment.

Owns the command line.

Rules:
- it is started in the runtime's folder, since llama.cpp searches the working directory for libraries;
- its environment is complete: no setting, proxy or path of the caller reaches it;
- every feature that reads files, runs tools, fetches or shows a page is off; `--alias` names the model that it serves;
- its memory is fixed at the start: `context` tokens for each of `slots` conversations, and no cache that grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from appliance.host.models.served_file import ServedFile
from bundles.contents.contents import File

PROGRAM = "llama-server"


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """The model of one engine, and the settings that it runs with.

    Args:
        name: the model's name, for users and for the name of the socket.
        file: the model's file, as the signed contents list it.
        store: the path of that file on this host.
        runtime: the folder with `llama-server` and its libraries, verified by the caller.
        context: tokens of one conversation.
        slots: conversations at the same time.
        threads: for computing.
        is_embedding: whether the model makes embeddings, and nothing else.
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
    """The command line of an engine and its whole environment.

    Args:
        spec: the model and the settings; the caller starts the command in `spec.runtime`.
        served: the model, verified and open; the engine must inherit its descriptor.
        path: of the socket to listen on, in a folder that the engine may write to.

    Returns:
        The command, and the environment by name.
    """
    environment = {"HOME": "/nonexistent", "LLAMA_CACHE": str(path.parent), "LC_ALL": "C.UTF-8"}
    # An engine that aborts would start the host's debugger, which prints the texts of users.
    environment["GGML_NO_BACKTRACE"] = "1"
    command = [
        *(str(spec.runtime / PROGRAM), "--model", served.path_for_child, "--alias", spec.name),
        *("--host", str(path), "--offline", "--no-ui", "--no-slots", "--no-agent", "--metrics"),
        # The context is divided among the slots: one that they share could be filled by a single conversation.
        *("--ctx-size", str(spec.context * spec.slots), "--parallel", str(spec.slots), "--no-kv-unified"),
        # The model is in memory already, so a warm-up would only cost a slow machine one more evaluation.
        *("--cache-ram", "0", "--no-cache-idle-slots", "--fit", "off", "--no-warmup"),
        # Idle threads sleep instead of polling, which would take the processor from threads with work.
        *("--threads", str(spec.threads), "--poll", "0", "--threads-http", str(spec.slots + 4), "--timeout", "600"),
        *("--jinja", "--no-context-shift", "--cors-origins", "localhost", "--no-cors-credentials"),
        *(["--embeddings"] if spec.is_embedding else []),
        *("--log-colors", "off", "--log-verbosity", "2", "--log-timestamps", "--log-prefix"),
    ]
    return command, environment
