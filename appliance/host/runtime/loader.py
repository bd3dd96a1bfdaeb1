"""The loading of the runtime's Python binding with exactly one CPU library (docs/architecture.md, The runtime).

Owns the order in which the libraries of llama.cpp are loaded into a process. Where a runtime has several CPU libraries,
the original binding loads none of them. llama.cpp itself would search for them, in the working directory too; here
nothing is searched for.

Rules:
- standard library only; for child processes, since llama.cpp aborts the process on many errors;
- every library is loaded by its absolute path in one folder, which the caller has verified;
- one CPU library is loaded, before the binding; afterwards it is checked that the process has no other;
- of the package only the module that declares the C interface is imported: the rest needs numpy, and is not used here.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
import typing
from pathlib import Path
from types import ModuleType

from signing.errors import ApplianceError, HostUnfitError

PACKAGE = "llama_cpp"
LIBRARY = "libggml.so"
CPU_LIBRARY = "libggml-cpu-{}.so"
"""The file of a CPU variant, by its name."""

_CPU_MARK = "libggml-cpu"


def load_binding(folder: Path, variant: str, package: Path | None = None) -> ModuleType:
    """Load one CPU library, and then the binding.

    Args:
        folder: absolute; verified by the caller. Holds llama.cpp's libraries and at least this variant.
        variant: for example `haswell`.
        package: the folder that holds the package `llama_cpp`; None takes the one of this environment.

    Returns:
        The module `llama_cpp.llama_cpp`: the C interface.

    Raises:
        HostUnfitError: the library cannot be loaded here.
        ApplianceError: another CPU library or another binding is in this process.
    """
    library = folder / CPU_LIBRARY.format(variant)
    if PACKAGE in sys.modules or cpu_libraries():
        raise _not_alone(library, "a binding that was loaded before")
    try:
        ggml = ctypes.CDLL(str(folder / LIBRARY), ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise _unloadable(folder / LIBRARY, str(error)) from None
    ggml.ggml_backend_load.argtypes = [ctypes.c_char_p]
    ggml.ggml_backend_load.restype = ctypes.c_void_p
    if not library.is_file() or not ggml.ggml_backend_load(os.fsencode(library)):
        raise _unloadable(library, "llama.cpp refused it" if library.is_file() else "no such file")
    # The binding reads this once, when it is imported; its default is the folder beside its own code.
    os.environ["LLAMA_CPP_LIB_PATH"] = str(folder)
    binding = _import(package)
    found = cpu_libraries()
    if found != (os.path.realpath(library),):
        raise _not_alone(library, ", ".join(found) or "none")
    return binding


def cpu_libraries(process: int | str = "self", proc: Path = Path("/proc")) -> tuple[str, ...]:
    """The CPU libraries of llama.cpp that a process has mapped, as absolute paths in order, each once.

    Args:
        process: its id.
        proc: where processes are shown.
    """
    text = (proc / str(process) / "maps").read_text("utf-8", "replace")
    paths = {line.split(maxsplit=5)[5] for line in text.splitlines() if len(line.split(maxsplit=5)) == 6}
    return tuple(sorted(path for path in paths if os.path.basename(path).startswith(_CPU_MARK)))


def _import(package: Path | None) -> ModuleType:
    holder = ModuleType(PACKAGE)
    if package is not None:
        holder.__path__ = [str(package / PACKAGE)]
    else:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise ApplianceError(
                "runtime.no-binding", PACKAGE, expected="the Python binding in this environment", found="none"
            )
        holder.__path__ = list(spec.submodule_search_locations)
    sys.modules[PACKAGE] = holder
    if importlib.util.find_spec("typing_extensions") is None:
        # What the binding imports from it is in the standard library since Python 3.10.
        sys.modules["typing_extensions"] = typing
    return importlib.import_module(f"{PACKAGE}.{PACKAGE}")


def _unloadable(path: Path, reason: str) -> HostUnfitError:
    return HostUnfitError("runtime.not-loaded", str(path), expected="a library that this machine loads", found=reason)


def _not_alone(library: Path, found: str) -> ApplianceError:
    return ApplianceError(
        "runtime.other-library", str(library), expected="this library and no other of its kind", found=found
    )
