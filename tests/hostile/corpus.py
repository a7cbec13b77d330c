"""All hostile cells."""

from __future__ import annotations

from tests.hostile.case import Case, Session
from tests.hostile.cases import files, network, processes, protocol, resources

CASES: tuple[Case, ...] = (*processes.CASES, *files.CASES, *network.CASES, *protocol.CASES, *resources.CASES)

TRIALS: tuple[tuple[Case, Session], ...] = tuple((case, session) for case in CASES for session in case.sessions)
"""Every case from every kind of session it names."""


def trial_id(trial: tuple[Case, Session]) -> str:
    """For pytest."""
    case, session = trial
    return f"{case.name} ({session.value})"
