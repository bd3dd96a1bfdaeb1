"""What was not tested, counted by its reason at the end of every run: a pytest plugin.

Rule: in the CI tier (`TIER=ci`) only what `EXPECTED` names may be skipped. Any other skip fails, and says what it left
out: something was not installed or not built.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator

import pytest

from tests.bed.abilities import LACKS

EXPECTED = (
    LACKS,
    "needs root, to become another user",
    "this machine allows no mount in a user namespace",
    "this machine has no user namespaces",
    "this machine lets nobody mount a small disk",
    "test vectors of other projects are not beside this checkout",
    "all-minilm-l6-v2.F16.gguf is not in the cache, and making it takes torch",
)
"""How reasons begin that no command of this project can remove without what is too big for every machine."""


def reason_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why a test was skipped, in one line."""
    text = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    return text.removeprefix("Skipped: ").partition("\n")[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn an unexpected skip into a failure."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("TIER") == "ci":
        reason = reason_of(report)
        if not reason.startswith(EXPECTED):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, and the CI tier must run everything: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count what was skipped, by reason."""
    reasons = Counter(map(reason_of, terminalreporter.stats.get("skipped", ())))
    if not reasons:
        return
    terminalreporter.write_sep("=", f"{reasons.total()} not tested")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:5} × {reason}")
