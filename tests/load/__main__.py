"""The command line: `python -m tests.load SECONDS`. Exits with 1 where something did not hold."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from tests.load.mixed import run_load
from tests.load.site import loaded_site


def main(arguments: Sequence[str]) -> int:
    """Run a load and print what it has shown."""
    if len(arguments) != 1 or not arguments[0].isdigit() or int(arguments[0]) < 10:
        print("usage: python -m tests.load SECONDS (at least 10)", file=sys.stderr)
        return 2
    seconds = float(arguments[0])
    with loaded_site() as site:
        load = run_load(site, seconds, lambda line: print(f"load: {line}", flush=True))
    found = load.judge(seconds)
    for (kind, model, outcome), count in sorted(load.seen.outcomes.items()):
        print(f"load: {count:6d}  {kind}{f' of {model}' if model else ''}: {outcome}")
    away = ", ".join(f"{one:.1f} s" for one in load.kills)
    print(
        f"load: {sum(load.seen.outcomes.values())} requests, memory {load.growth(seconds):+.1%} to "
        f"{load.bytes[-1][1] / 1e6:.1f} MB, {len(load.kills)} kills (away for {away or '-'})"
    )
    for fault in found:
        print(f"load: FAULT: {fault}")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
