from __future__ import annotations

import pickle

import msgspec
import pytest

from flannel_core.objects import Object
from flannel_core.secret import Secret


class Peer(Object, frozen=True):
    key: Secret


def test_a_secret_shows_nowhere() -> None:
    secret = Secret(b"swordfish")
    assert f"{secret} {secret!r} {[secret]} {Peer(secret)} {Peer(secret).describe()}".count("swordfish") == 0
    assert str(secret) == "***"


def test_a_secret_is_compared_by_what_it_is() -> None:
    assert Secret(b"a") == Secret(b"a")
    assert Secret(b"a") != Secret(b"b")
    assert Secret(b"a") != b"a"
    assert len({Secret(b"a"), Secret(b"a")}) == 1
    assert Secret(b"a").reveal() == b"a"


def test_a_secret_is_written_nowhere() -> None:
    with pytest.raises(TypeError):
        msgspec.json.encode(Peer(Secret(b"a")))
    with pytest.raises(TypeError):
        pickle.dumps(Secret(b"a"))
