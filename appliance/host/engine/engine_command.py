"""The command line of an engine on a host: the program of its release, a verified model, and the site's settings.

Owns which of the host's files the engine gets; `appliance.engine_program` has the options.

Rule: it is started in the runtime's folder, since llama.cpp searches the working directory for libraries.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from appliance.engine_program import PROGRAM, EngineSettings, engine_arguments, engine_environment
from appliance.host.models.served_file import ServedFile
from bundles.contents.contents import File


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
        is_ranking: whether the model sorts documents, and nothing else.
        min_level: the weakest level at which it may be served, as the site has decided; empty for any.
    """

    name: str
    file: File
    store: Path
    runtime: Path
    context: int
    slots: int
    threads: int
    is_embedding: bool = False
    is_ranking: bool = False
    min_level: str = ""


def engine_command(spec: EngineSpec, served: ServedFile, path: Path) -> tuple[list[str], dict[str, str]]:
    """The command line of an engine and its whole environment.

    Args:
        spec: the model and the settings; the caller starts the command in `spec.runtime`.
        served: the model, verified and open; the engine must inherit its descriptor.
        path: of the socket to listen on, in a folder that the engine may write to.

    Returns:
        The command, and the environment by name.
    """
    settings = EngineSettings(
        model=served.path_for_child,
        alias=spec.name,
        socket=str(path),
        context=spec.context,
        slots=spec.slots,
        threads=spec.threads,
        is_embedding=spec.is_embedding,
        is_ranking=spec.is_ranking,
    )
    return [str(spec.runtime / PROGRAM), *engine_arguments(settings)], engine_environment(str(path.parent))
