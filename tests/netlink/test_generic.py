"""Generic netlink, asked about the one family that every kernel has. Those of FOU and WireGuard: tests/vm."""

from __future__ import annotations

import re
from typing import Any

import pytest

from flannel_core.netlink.generic import (
    CTRL_ATTR_FAMILY_ID,
    CTRL_ATTR_FAMILY_NAME,
    CTRL_CMD_GETFAMILY,
    GenericSocket,
    NoFamily,
)
from flannel_core.netlink.message import attribute_text, text, u16
from flannel_core.netlink.socket import NetlinkError


def families() -> dict[str, int]:
    with GenericSocket("nlctrl", version=2) as control:
        found = control.dump(CTRL_CMD_GETFAMILY)
    return {text(answer[CTRL_ATTR_FAMILY_NAME]): u16(answer[CTRL_ATTR_FAMILY_ID]) for answer in found}


def test_the_families_are_those_that_genl_lists(empty: Any) -> None:
    listed = empty.command("genl ctrl list")
    assert empty.call(families) == {
        name: int(number, 16) for name, number in re.findall(r"Name: (\S+)\s+ID: (0x[0-9a-f]+)", listed)
    }


def test_a_family_that_the_kernel_has_not_is_named_with_its_module() -> None:
    with pytest.raises(NoFamily, match="this kernel has no flannel-test: `modprobe flannel-test`"):
        GenericSocket("flannel-test")


def test_what_the_kernel_refuses_raises_its_errno() -> None:
    with GenericSocket("nlctrl") as control, pytest.raises(NetlinkError) as raised:
        control.request(CTRL_CMD_GETFAMILY, attribute_text(CTRL_ATTR_FAMILY_NAME, "flannel-test"))
    assert raised.value.number == 2
