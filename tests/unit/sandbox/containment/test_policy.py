"""What a kernel may touch, as a table."""

from __future__ import annotations

from pathlib import Path

import pytest

from s1vl_sandbox.containment.policy import Access, Grants, Isolation, Protection, isolation, rules

FILES, TCP, SIGNALS, SYSCALLS, SEPARATE = (
    Protection.FILES,
    Protection.TCP,
    Protection.SIGNALS,
    Protection.SYSCALLS,
    Protection.SEPARATE_SERVER,
)


@pytest.mark.parametrize(
    ("abi", "syscall_filter", "held"),
    [
        (0, False, set()),
        (0, True, {TCP, SYSCALLS}),
        (1, False, set()),
        (2, True, {TCP, SYSCALLS}),
        (3, True, {FILES, TCP, SYSCALLS}),
        (3, False, {FILES}),
        (4, False, {FILES, TCP}),
        (5, True, {FILES, TCP, SYSCALLS}),
        (6, True, {FILES, TCP, SIGNALS, SYSCALLS}),
        (7, False, {FILES, TCP, SIGNALS}),
        (99, True, {FILES, TCP, SIGNALS, SYSCALLS}),
    ],
)
def test_what_holds(abi: int, syscall_filter: bool, held: set[Protection]) -> None:
    assert isolation(abi, syscall_filter) == Isolation(abi, frozenset(held))


def test_what_is_missing() -> None:
    found = isolation(3, True)
    assert found.missing(separate=True) == {SIGNALS}
    assert found.missing(separate=False) == {SIGNALS, SEPARATE}
    assert isolation(7, True).missing(separate=True) == frozenset()


def test_the_names_are_those_of_the_api() -> None:
    assert [str(p) for p in Protection] == ["files", "tcp", "signals", "syscalls", "separate_server"]


def test_grants_come_beside_the_base() -> None:
    made = rules(Grants((Path("/w/in.png"),), (Path("/w/out"), Path("/s/1"))), [Path("/opt/py"), Path("/opt/py")])
    granted = {(rule.path, rule.access) for rule in made if rule.granted}
    base = {rule.path: rule.access for rule in made if not rule.granted}
    assert granted == {
        (Path("/w/in.png"), Access.READ),
        (Path("/w/out"), Access.WRITE),
        (Path("/s/1"), Access.WRITE),
    }
    assert base[Path("/opt/py")] is Access.LIBRARY
    assert base[Path("/usr")] is Access.LIBRARY
    assert base[Path("/dev/null")] is Access.DEVICE
    assert [rule.path for rule in made].count(Path("/opt/py")) == 1
    assert Access.WRITE not in base.values()


@pytest.mark.parametrize(
    "path", ["/", "/etc", "/etc/shadow", "/etc/hosts", "/etc/resolv.conf", "/root", "/home", "/tmp"]
)
def test_the_base_opens_none_of_these(path: str) -> None:
    opened = {rule.path for rule in rules(Grants((), ()), [])}
    assert not opened & {Path(path), *Path(path).parents}


@pytest.mark.parametrize("tree", ["/proc", "/run", "/var", "/dev/shm", "/dev/pts", "/sys/fs", "/boot"])
def test_the_base_opens_nothing_below_these(tree: str) -> None:
    opened = [rule.path for rule in rules(Grants((), ()), [])]
    assert [path for path in opened if path.is_relative_to(tree) or Path(tree).is_relative_to(path)] == []


@pytest.mark.parametrize("path", ["/", "relative", "", "/a/../b", "/.."])
@pytest.mark.parametrize("writable", [False, True])
def test_grants_must_be_resolved_paths(path: str, writable: bool) -> None:
    grant = (Path(path),)
    with pytest.raises(ValueError, match="absolute, resolved path"):
        rules(Grants((), grant) if writable else Grants(grant, ()), [])
