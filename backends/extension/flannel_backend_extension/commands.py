"""The commands as objects. What one has done cannot be read back."""

from __future__ import annotations

from typing import Any, ClassVar

from flannel_core.objects import Identity, Object

from .words import shown

Variables = tuple[tuple[str, str], ...]


class Startup(Object, frozen=True, tag="startup"):
    """PostStartupCommand, run with these variables; no words: nothing to run. ``seconds`` is how long it may take."""

    kind: ClassVar[str] = "startup command"

    words: tuple[str, ...]
    variables: Variables
    seconds: int

    @property
    def identity(self) -> Identity:
        return (self.kind,)

    @property
    def record(self) -> str:
        return "commands"

    def satisfied_by(self, actual: Object) -> bool:
        return isinstance(actual, Startup) and (self.words, self.variables) == (actual.words, actual.variables)

    def describe(self) -> str:
        return f"PostStartupCommand {shown(self.words)}" if self.words else "no PostStartupCommand"


class PeerCommand(Object, frozen=True, tag="peer"):
    """SubnetAddCommand, run for the peer of ``subnets``, and the SubnetRemoveCommand that undoes it. Both get the same
    ``variables`` and ``data`` on stdin."""

    kind: ClassVar[str] = "peer command"

    subnets: str
    variables: Variables
    data: str
    add: tuple[str, ...]
    remove: tuple[str, ...]
    seconds: int

    @property
    def identity(self) -> Identity:
        return (self.kind, self.subnets)

    def satisfied_by(self, actual: Object) -> bool:
        return isinstance(actual, PeerCommand) and self._effect == actual._effect

    @property
    def _effect(self) -> tuple[Any, ...]:
        """A SubnetRemoveCommand that is another now undoes what the same SubnetAddCommand did."""
        return (self.subnets, self.variables, self.data, self.add)

    def describe(self) -> str:
        return f"SubnetAddCommand {shown(self.add)} for {self.subnets}"
