"""What goes wrong on a simulated host or its store. Each step says what it did, None if there was nothing to do."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from flannel_core.lease import FAMILIES
from flannel_core.netconf import NetworkConfig
from flannel_core.objects import Address, FdbEntry, Link, Neighbour, Object, Route

from .hosts import SimulatedHost, foreign_objects, restore_interface, underlay_address
from .kernel import EXTERNAL
from .store import SimulatedStore

OPERATOR = 4
"""rtm_protocol of the routes that an operator puts in our way (RTPROT_STATIC)."""


PHANTOMS = tuple(f"10.5.{number}.0-24&fc00:5:0:{number:x}::-64" for number in range(200, 204))
"""The keys of leases that can be trusted, of hosts that are not here."""


class Scene(Protocol):
    """What a step may look at. ``in_the_way``: the operator's routes on each host that stand where ours should."""

    rng: random.Random
    config: NetworkConfig
    store: SimulatedStore
    in_the_way: dict[str, list[Route]]

    @property
    def hosts(self) -> Sequence[SimulatedHost]: ...


Step = Callable[[Scene, SimulatedHost], str | None]


def _ours(host: SimulatedHost, kind: type[Object]) -> list[Object]:
    """What the agent made, as far as an operator could tell."""
    return [
        item
        for item in host.kernel.objects.values()
        if isinstance(item, kind)
        and (str(item.on_device).startswith("flannel") or (isinstance(item, Route) and item.protocol == 76))
        and item not in foreign_objects()
    ]


def _delete(kind: type[Object]) -> Step:
    def step(scene: Scene, host: SimulatedHost) -> str | None:
        if not (found := _ours(host, kind)):
            return None
        item = scene.rng.choice(found)
        host.kernel.remove(item)
        return f"delete {item.describe()}"

    return step


def _flush(scene: Scene, host: SimulatedHost) -> str:
    kind = scene.rng.choice((Route, Neighbour, FdbEntry, Address))
    for item in _ours(host, kind):
        host.kernel.remove(item)
    return f"flush all of {kind.kind}"


def _alter(scene: Scene, host: SimulatedHost) -> str | None:
    found = [*_ours(host, Route), *_ours(host, Neighbour), *_ours(host, FdbEntry)]
    if not found:
        return None
    item = scene.rng.choice(found)
    changes: dict[type[Object], dict[str, Any]] = {
        Route: {"mtu": 1280},
        Neighbour: {"mac": "02:00:5e:00:53:02"},
        FdbEntry: {"remote": "192.0.2.252"},
    }
    host.kernel.put(msgspec.structs.replace(item, **changes[type(item)]))
    return f"alter {item.describe()}"


def _stray(scene: Scene, host: SimulatedHost) -> str | None:
    """Something on our own device, which nobody wants."""
    devices = _ours(host, Link)
    if not devices:
        return None
    device = str(scene.rng.choice(devices).on_device)
    item = scene.rng.choice(
        [Neighbour(device, "10.5.201.0", "02:00:5e:00:53:03"), FdbEntry(device, "02:00:5e:00:53:03", "192.0.2.251")]
    )
    host.kernel.put(item)
    return f"add {item.describe()}"


def _change_device(scene: Scene, host: SimulatedHost) -> str | None:
    devices = _ours(host, Link)
    if not devices:
        return None
    device = str(scene.rng.choice(devices).on_device)
    changes: tuple[dict[str, object], ...] = ({"up": False}, {"mac": "02:00:5e:00:53:01"}, {"mtu": 1280})
    change = scene.rng.choice(changes)
    host.kernel.change_link(device, **change)
    return f"{device} {change}"


def _block(scene: Scene, host: SimulatedHost) -> str | None:
    """An operator's route takes the place of one of ours; it stays, and has to be left alone."""
    routes = [item for item in _ours(host, Route) if isinstance(item, Route) and ":" not in item.destination]
    if not routes:
        return None
    ours = scene.rng.choice(routes)
    blocking = Route(ours.destination, "docker0", protocol=OPERATOR)
    host.kernel.put(blocking)
    scene.in_the_way[host.name].append(blocking)
    return f"an operator's {blocking.describe()} in place of ours"


def _unblock(scene: Scene, host: SimulatedHost) -> str | None:
    if not (blocking := scene.in_the_way[host.name]):
        return None
    item = blocking.pop()
    host.kernel.remove(item)
    return f"the operator takes {item.describe()} away"


def _interface_down(scene: Scene, host: SimulatedHost) -> str:
    host.kernel.change_link(EXTERNAL, up=False)
    return "eth0 down"


def _interface_back(scene: Scene, host: SimulatedHost) -> str:
    restore_interface(host)
    return "eth0 as it was"


def _interface_mtu(scene: Scene, host: SimulatedHost) -> str:
    host.kernel.change_link(EXTERNAL, mtu=1400)
    return "eth0 mtu 1400"


def _address_away(scene: Scene, host: SimulatedHost) -> str | None:
    found = [*host.kernel.addresses(EXTERNAL, 4), *host.kernel.addresses(EXTERNAL, 6)]
    if not found:
        return None
    item = scene.rng.choice(found)
    host.kernel.remove(item)
    return f"delete {item.describe()}"


def _other_address(scene: Scene, host: SimulatedHost) -> str:
    family = scene.rng.choice(FAMILIES)
    for item in host.kernel.addresses(EXTERNAL, family):
        host.kernel.remove(item)
    new = Address(EXTERNAL, underlay_address(family, 100 + host.number))
    host.kernel.put(new)
    return f"eth0 has {new.address} instead"


def _overrun(scene: Scene, host: SimulatedHost) -> str:
    host.kernel.overrun()
    return "notifications lost"


def _refuse(scene: Scene, host: SimulatedHost) -> str:
    host.kernel.refuse = scene.rng.randint(1, 6)
    return f"the next {host.kernel.refuse} writes fail"


def _watch_dies(scene: Scene, host: SimulatedHost) -> str:
    host.kernel.end_watches()
    return "the watch of the kernel dies"


def _mute(scene: Scene, host: SimulatedHost) -> str:
    host.kernel.mute = not host.kernel.mute
    return "the kernel does not answer" if host.kernel.mute else "the kernel answers again"


def _rules_flushed(scene: Scene, host: SimulatedHost) -> str:
    host.kernel.rules.clear()
    return "traffic rules flushed"


def _rules_cut(scene: Scene, host: SimulatedHost) -> str | None:
    if not host.kernel.rules:
        return None
    identity = scene.rng.choice(list(host.kernel.rules))
    item: Any = host.kernel.rules[identity]
    field = next(name for name in ("rules", "postrtg") if hasattr(item, name))
    host.kernel.rules[identity] = msgspec.structs.replace(item, **{field: getattr(item, field)[1:]})
    return f"one rule fewer in {item.describe()}"


def _kill(scene: Scene, host: SimulatedHost) -> str | None:
    if host.agent is None:
        return None
    host.agent.cancel()
    return "agent killed"


def _start(scene: Scene, host: SimulatedHost) -> str | None:
    if host.agent is not None:
        return None
    host.start()
    return "agent started"


def _store_away(scene: Scene, host: SimulatedHost) -> str:
    scene.store.away.add(host.name)
    return "the store does not answer"


def _store_back(scene: Scene, host: SimulatedHost) -> str | None:
    if host.name not in scene.store.away:
        return None
    scene.store.return_to(host.name)
    return "the store answers again"


def _backup(scene: Scene, host: SimulatedHost) -> str:
    scene.store.back_up()
    return "the store is backed up"


def _restore(scene: Scene, host: SimulatedHost) -> str | None:
    return "the store is restored" if scene.store.restore() else None


def _compact(scene: Scene, host: SimulatedHost) -> str:
    scene.store.compact()
    return "the store is compacted"


def _keys(scene: Scene) -> tuple[list[str], list[str]]:
    """Of the leases that nobody here holds: those that can be trusted, and the others."""
    own = {host.lease.key for host in scene.hosts if host.lease}
    others = [key for key in scene.store.entries if key not in own]
    return [key for key in others if key in PHANTOMS], [key for key in others if key not in PHANTOMS]


def _lease_deleted(scene: Scene, host: SimulatedHost) -> str | None:
    """Of a host that can take it again at once. What claims the same would be the older one then, and be believed."""
    if host.lease is None or host.agent is None or _keys(scene)[1]:
        return None
    scene.store.delete(host.lease.key)
    return f"its lease {host.lease.key} is deleted"


def _value(scene: Scene, number: int, **more: object) -> bytes:
    def data(offset: int) -> dict[str, object]:
        return {"VNI": 1, "VtepMAC": f"02:00:00:00:{scene.rng.randrange(4) + offset:02x}:{number:02x}"}

    value: dict[str, object] = {
        "PublicIP": f"192.0.2.{number}",
        "PublicIPv6": f"2001:db8::{number:x}",
        "BackendType": scene.config.backend_type,
    }
    if scene.config.backend_type == "vxlan":
        value |= {"BackendData": data(0), "BackendV6Data": data(16)}
    return json.dumps(value | more).encode()


def _phantom(scene: Scene, host: SimulatedHost) -> str:
    """Another host joins, or is another by now: address and MAC."""
    key = scene.rng.choice(PHANTOMS)
    address = scene.rng.randint(200, 209)
    scene.store.put(key, _value(scene, address))
    return f"a lease {key} at 192.0.2.{address} (of nobody here)"


def _phantom_gone(scene: Scene, host: SimulatedHost) -> str | None:
    return _one_gone(scene, _keys(scene)[0])


def _bad(scene: Scene, host: SimulatedHost) -> str | None:
    """Made while all of ours are there, which are the older ones then."""
    if host.lease is None or not all(other.lease and other.lease.key in scene.store.entries for other in scene.hosts):
        return None
    mac = next((link.mac for link in _ours(host, Link) if isinstance(link, Link)), "02:00:00:00:00:00")
    wider = host.lease.subnets[0].supernet(new_prefix=22)
    key, value = scene.rng.choice(
        [
            ("10.5.0.0-16", _value(scene, 210)),
            ("10.77.1.0-24", _value(scene, 210)),
            (str(wider).replace("/", "-"), _value(scene, 211)),
            ("10.5.250.0-24", _value(scene, 212, PublicIP=underlay_address(4, host.number).partition("/")[0])),
            ("10.5.251.0-24", _value(scene, 213, BackendData={"VNI": 1, "VtepMAC": mac})),
            ("10.5.252.0-24", b"[" * 5000),
            ("nonsense", _value(scene, 214)),
        ]
    )
    scene.store.put(key, value)
    return f"a lease that cannot be trusted: {key}"


def _bad_gone(scene: Scene, host: SimulatedHost) -> str | None:
    return _one_gone(scene, _keys(scene)[1])


def _one_gone(scene: Scene, keys: Sequence[str]) -> str | None:
    if not keys:
        return None
    key = scene.rng.choice(keys)
    scene.store.delete(key)
    return f"{key} goes"


STEPS_OF_A_HOST: tuple[Step, ...] = (
    *(_delete(kind) for kind in (Route, Neighbour, FdbEntry, Address, Link)),
    _flush, _alter, _stray, _change_device, _change_device, _block, _unblock,
    _interface_down, _interface_back, _interface_back, _interface_mtu, _address_away, _other_address,
    _overrun, _refuse, _watch_dies, _mute, _rules_flushed, _rules_cut,
    _kill, _start, _start, _store_away, _store_back, _store_back, _backup, _restore, _compact, _lease_deleted,
    _phantom, _phantom, _phantom_gone, _bad, _bad_gone,
)  # fmt: skip


REPAIRED_AT_ONCE: tuple[Step, ...] = (
    *(_delete(kind) for kind in (Route, Neighbour, FdbEntry, Address, Link)),
    _flush,
    _alter,
    _stray,
    _change_device,
    _interface_down,
)
