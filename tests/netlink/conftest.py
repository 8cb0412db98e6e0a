"""Network namespaces to run code in: the same library calls as on a host, without touching the machine's own tables."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

CLONE_NEWNET = 0x40000000  # linux/sched.h
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count()


class Namespace:
    """A network namespace with one thread that lives in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        subprocess.run(["ip", "netns", "add", name], check=True)
        self._thread = ThreadPoolExecutor(max_workers=1, initializer=self._enter)
        self.ip("link set lo up")

    def _enter(self) -> None:
        with Path(f"/run/netns/{self.name}").open() as file:
            if _libc.setns(file.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """The result of a plain function that ran in the namespace."""
        return self._thread.submit(function, *arguments).result()

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """The result of a coroutine that ran in the namespace, in an event loop of its own."""
        return self._thread.submit(asyncio.run, coroutine).result()

    def ip(self, arguments: str) -> str:
        """What ``ip ARGUMENTS`` prints in the namespace."""
        return self.command("ip " + arguments)

    def command(self, line: str, input: str | None = None) -> str:
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *line.split()], capture_output=True, text=True, input=input
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"
        return done.stdout

    def close(self) -> None:
        self._thread.shutdown()
        subprocess.run(["ip", "netns", "del", self.name], check=True)


@pytest.fixture
def new_namespace() -> Iterator[Callable[[], Namespace]]:
    """Makes namespaces that are empty but for ``lo``, and deletes them."""
    made: list[Namespace] = []

    def make() -> Namespace:
        made.append(Namespace(f"fpnl-{os.getpid()}-{next(_numbers)}"))
        return made[-1]

    yield make
    for namespace in made:
        namespace.close()


@pytest.fixture
def empty(new_namespace: Callable[[], Namespace]) -> Namespace:
    return new_namespace()


@pytest.fixture
def host(new_namespace: Callable[[], Namespace]) -> Namespace:
    """A host: eth0 (MTU 1500) with 192.0.2.1/24 and 2001:db8::1/64, its cable plugged into nothing that answers."""
    made = new_namespace()
    made.ip("link add eth0 type veth peer name cable")
    made.ip("link set cable up")
    made.ip("link set eth0 up")
    made.ip("address add 192.0.2.1/24 dev eth0")
    made.ip("address add 2001:db8::1/64 dev eth0 nodad")
    return made
