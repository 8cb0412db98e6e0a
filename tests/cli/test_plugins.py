"""Plugins are found by name through their distribution's entry points; each kind of broken one says what to do."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest

from flannel_core.backend import Backend
from flannel_core.plugins import PluginBroken, PluginInfo, PluginMissing, list_plugins, load_backend, load_store
from flannel_core.store import SubnetStore

GOOD_BACKEND = """
    from flannel_core.backend import Announcement, Backend
    from flannel_core.hookspecs import hookimpl

    class Good(Backend):
        async def prepare(self, host, previous, *, dry_run):
            return Announcement(mtu=1400)
        def local(self, node):
            return ()
        def peer(self, node, lease):
            return ()

    @hookimpl
    def flannel_backend():
        return Good
    """


def hook(body: str) -> str:
    return f"""
    from flannel_core.hookspecs import hookimpl

    @hookimpl
    def flannel_backend(contract):
        {body}
    """


def broken(name: str) -> str:
    with pytest.raises(PluginBroken) as raised:
        load_backend(name)
    text = str(raised.value)
    assert "\n" not in text
    assert raised.value.exit_code == 1
    return text


def test_one_plugin_is_loaded_and_no_other_is_imported(distribution: Any) -> None:
    distribution(
        "flannel-backend-good",
        "[flannel.backends]\ngood = good_backend\nother = other_backend\n",
        {"good_backend": GOOD_BACKEND, "other_backend": "raise AssertionError('not asked for')"},
    )
    found = load_backend("good")
    assert issubclass(found, Backend)
    assert found.__module__ == "good_backend"
    assert "other_backend" not in sys.modules


def test_a_store_is_loaded_by_its_name(filestore: None) -> None:
    assert issubclass(load_store("filed"), SubnetStore)


def test_a_backend_and_a_store_may_have_one_name(distribution: Any, filestore: None) -> None:
    distribution("flannel-backend-filed", "[flannel.backends]\nfiled = good_backend\n", {"good_backend": GOOD_BACKEND})
    assert issubclass(load_backend("filed"), Backend)
    assert issubclass(load_store("filed"), SubnetStore)


def test_an_absent_plugin_names_its_extra_and_what_is_installed(distribution: Any) -> None:
    info = distribution("flannel-core", "", version="9.9")
    with (info / "METADATA").open("a") as metadata:
        metadata.write("Requires-Dist: flannel-backend-wormhole>=0.1; extra == 'wormhole'\n")
        metadata.write("Requires-Dist: pyroute2>=0.9; extra == 'lab'\n")
    distribution("flannel-backend-good", "[flannel.backends]\ngood = good_backend\n")
    with pytest.raises(PluginMissing) as raised:
        load_backend("wormhole")
    assert "pip install 'flannel-core[wormhole]'" in str(raised.value)
    assert "good" in str(raised.value)
    assert raised.value.extra == "wormhole"
    with pytest.raises(PluginMissing) as raised:
        load_backend("lab")
    assert "pip install" not in str(raised.value)


def test_a_misspelt_plugin_is_met_with_the_right_name(distribution: Any) -> None:
    distribution("flannel-backend-teleport", "[flannel.backends]\nteleport = good_backend\n")
    with pytest.raises(PluginMissing, match=r"'teelport' is not installed; did you mean teleport\?"):
        load_backend("teelport")


def test_a_name_from_a_store_cannot_reach_the_terminal_as_it_is() -> None:
    with pytest.raises(PluginMissing) as raised:
        load_backend("\x1b[31m" + "x" * 1000)
    assert "\x1b" not in str(raised.value)
    assert len(str(raised.value)) < 400


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("import no_such_sdk", "importing it fails with ModuleNotFoundError: No module named 'no_such_sdk'"),
        ("def (", "importing it fails with SyntaxError"),
        ("raise SystemExit(7)", "importing it fails with SystemExit: 7"),
        ("answer = 42", "it has no function flannel_backend() marked with flannel_core.hookspecs.hookimpl"),
        (hook("return 42"), "flannel_backend() returned 42, which is no subclass of Backend"),
        (hook("return str"), "flannel_backend() returned <class 'str'>, which is no subclass of Backend"),
        (hook("return None"), "flannel_backend() has nothing for version 1 of the contract"),
        (hook("raise RuntimeError('contract 1 is too old')"), "fails with RuntimeError: contract 1 is too old"),
        (
            hook("return None").replace("(contract)", "(contract, invented_later)"),
            "its hook does not fit version 1 of the contract, a newer flannel-core may be needed",
        ),
        (
            hook("from flannel_core.backend import Backend; return type('Half', (Backend,), {})"),
            "its class Half lacks local, peer, prepare",
        ),
    ],
    ids=["sdk-missing", "syntax", "exits", "no-hook", "no-class", "wrong-class", "declines", "raises", "newer", "half"],
)
def test_a_broken_plugin_says_who_brings_it_and_why(distribution: Any, module: str, reason: str) -> None:
    distribution("Flannel_Backend.Bad", "[flannel.backends]\nbad = bad_backend\n", {"bad_backend": module})
    text = broken("bad")
    assert "flannel-backend-bad 1.2.3" in text
    assert "flannel.backends: bad = bad_backend" in text
    assert reason in text


def test_a_module_that_is_not_there_is_a_broken_plugin(distribution: Any) -> None:
    distribution("flannel-backend-bad", "[flannel.backends]\nbad = nowhere_at_all\n")
    assert "No module named 'nowhere_at_all'" in broken("bad")


def test_the_cause_of_a_broken_plugin_is_in_the_debug_log(distribution: Any, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "flannel_core.plugins")
    distribution("flannel-backend-bad", "[flannel.backends]\nbad = bad_backend\n", {"bad_backend": "import no_such"})
    broken("bad")
    assert "Traceback" in caplog.text


def test_two_distributions_with_one_name_are_both_named(distribution: Any) -> None:
    distribution("flannel-backend-good", "[flannel.backends]\ngood = good_backend\n", {"good_backend": GOOD_BACKEND})
    distribution("acme-tunnels", "[flannel.backends]\ngood = acme_tunnels\n", {"acme_tunnels": GOOD_BACKEND})
    assert "of acme-tunnels and flannel-backend-good; uninstall all but one" in broken("good")


def test_one_distribution_that_stands_on_the_path_twice_is_one(distribution: Any, monkeypatch: Any) -> None:
    info = distribution(
        "flannel-backend-good", "[flannel.backends]\ngood = good_backend\n", {"good_backend": GOOD_BACKEND}
    )
    monkeypatch.syspath_prepend(f"{info.parent}/.")
    assert load_backend("good").__name__ == "Good"


@pytest.mark.parametrize("damage", [b"[flannel.backends]\nno equals sign", b"\xff\xfe[flannel.backends]"])
def test_a_damaged_distribution_harms_no_other(distribution: Any, damage: bytes) -> None:
    distribution("flannel-backend-good", "[flannel.backends]\ngood = good_backend\n", {"good_backend": GOOD_BACKEND})
    (distribution("damaged", "") / "entry_points.txt").write_bytes(damage)
    assert load_backend("good").__name__ == "Good"


def test_the_list_holds_every_plugin_and_what_is_wrong_with_each(distribution: Any, filestore: None) -> None:
    distribution("flannel-backend-good", "[flannel.backends]\ngood = good_backend\n", {"good_backend": GOOD_BACKEND})
    distribution("flannel-backend-bad", "[flannel.backends]\nbad = bad_backend\n", {"bad_backend": "import no_such"})
    distribution("acme-one", "[flannel.stores]\ntwin = one\n")
    distribution("acme-two", "[flannel.stores]\ntwin = two\n", version="2")
    ours = [i for i in list_plugins() if i.name in ("good", "bad", "filed", "twin")]
    assert [(i.kind, i.name, i.version, i.distribution) for i in ours] == [
        ("backend", "bad", "1.2.3", "flannel-backend-bad"),
        ("backend", "good", "1.2.3", "flannel-backend-good"),
        ("store", "filed", "1.2.3", "flannel-store-filed"),
        ("store", "twin", "1.2.3", "acme-one"),
        ("store", "twin", "2", "acme-two"),
    ]
    assert [i.error is None for i in ours] == [False, True, True, False, False]
    assert ours[1] == PluginInfo("backend", "good", "1.2.3", "flannel-backend-good")
