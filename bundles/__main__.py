"""`verify.pyz`: checks a bundle or stick on a host that has python3 and nothing else.

Owns the start alone (docs/architecture.md, The bare host): the command line is `bundles.bare_host.command_line`.

Rules:
- the syntax and the calls of this module are those of every Python since 2.7, and its text is ASCII;
- so an older Python reports in one line what it lacks, and does not end with a traceback;
- nothing else is imported before the version was compared.
"""

import sys

if sys.version_info < (3, 9):  # noqa: UP036 - it is what an older Python reads
    found = ".".join(map(str, sys.version_info[:3]))
    sys.stderr.write(
        "error: verify.pyz needs Python 3.9 or newer, this is " + found + "\n"
        "  next: check the stick on another machine, with Debian 12 or 13 for example;\n"
        "  where such a machine has no python3, the second part of the sheet installs it\n"
    )
    sys.exit(6)

if __name__ == "__main__":
    from bundles.bare_host.command_line import run

    sys.exit(run())
