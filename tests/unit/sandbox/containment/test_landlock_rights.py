"""Which rights are asked for, by ABI and kind of file."""

from __future__ import annotations

import pytest

from s1vl_sandbox.containment.landlock import Right, handled_rights, rights_of
from s1vl_sandbox.containment.policy import Access

ALL_OF_ABI_5 = 0xFFFF
"""LANDLOCK_ACCESS_FS_EXECUTE to LANDLOCK_ACCESS_FS_IOCTL_DEV are bits 0 to 15."""


@pytest.mark.parametrize(
    ("abi", "handled"),
    [(1, 0x1FFF), (2, 0x3FFF), (3, 0x7FFF), (4, 0x7FFF), (5, 0xFFFF), (6, 0xFFFF), (7, 0xFFFF), (99, 0xFFFF)],
)
def test_only_what_the_kernel_knows_is_handled(abi: int, handled: int) -> None:
    assert int(handled_rights(abi)) == handled


@pytest.mark.parametrize("access", list(Access))
@pytest.mark.parametrize("abi", range(1, 8))
@pytest.mark.parametrize("is_folder", [True, False])
def test_no_rule_speaks_of_what_is_not_handled(access: Access, abi: int, is_folder: bool) -> None:
    rights = rights_of(access, abi, is_folder)
    assert rights
    assert rights & handled_rights(abi) == rights
    assert not rights & (Right.MAKE_CHAR | Right.MAKE_BLOCK | Right.IOCTL_DEV)
    if not is_folder:
        assert not rights & ~(Right.EXECUTE | Right.WRITE_FILE | Right.READ_FILE | Right.TRUNCATE)


def test_only_libraries_are_executed_and_only_write_grants_changed() -> None:
    changing = Right.TRUNCATE | Right.REFER | Right.REMOVE_FILE | Right.REMOVE_DIR | Right.MAKE_REG | Right.MAKE_SYM
    for access in Access:
        rights = rights_of(access, 7, is_folder=True)
        assert bool(rights & Right.EXECUTE) is (access is Access.LIBRARY)
        assert bool(rights & changing) is (access is Access.WRITE)
        assert bool(rights & Right.WRITE_FILE) is (access in (Access.WRITE, Access.DEVICE))
