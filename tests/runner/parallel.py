"""How the tests are shared out when several processes run them (`-n N`): a pytest plugin.

Rules:

- The tests of one file stay together, so that what its fixtures prepare is prepared once.
- All journeys stay together: they share one finished demo, which takes longer than any file of tests.
- They come first, because everything else can be done beside them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import Scheduling

JOURNEYS = "tests/journeys/"


def group_of(nodeid: str) -> str:
    """What must run in the same process as this test."""
    return JOURNEYS if nodeid.startswith(JOURNEYS) else nodeid.partition("::")[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the journeys first; all else keeps its order."""
    items.sort(key=lambda item: group_of(item.nodeid) != JOURNEYS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    """Deal out groups, in the order of the tests."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group_of(nodeid)

    # Else the group with the most tests would come first, and not the one that takes longest.
    config.option.loadscopereorder = False
    return ByGroup(config, log)
