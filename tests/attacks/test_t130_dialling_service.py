"""T130: a service of the appliance tries to reach another machine, where nothing answers and so nobody notices."""

from __future__ import annotations

from appliance.host.maintenance.egress import EgressCount, attempt_problems
from tests.attacks.harness import guard_off, refused, row

ROW = row(130)
SINCE = "2026-01-01T00:00:00Z"


def judge(services: int, others: int = 0) -> None:
    from appliance.host.maintenance import egress

    for problem in egress.attempt_problems(EgressCount(services, others, SINCE)):
        raise problem


def test_unattacked_services_without_an_attempt_pass_whatever_other_programs_do() -> None:
    judge(0)
    judge(0, others=12)


def test_attacked_by_one_packet_of_a_service() -> None:
    error = refused(ROW, lambda: judge(1), "egress.attempts", "appliance-egress.service")
    assert error.found == f"1 since {SINCE}"


def test_unguarded_the_packet_passes_in_silence() -> None:
    assert list(attempt_problems(EgressCount(1, 0, SINCE)))
    with guard_off(ROW.guard, lambda _count: []):
        judge(1)
