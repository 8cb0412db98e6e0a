"""A list of nodes is taken in as it arrives, however it is cut, and nothing of it is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flannel_core.lab.kubernetes import node
from flannel_core.lease import Malformed
from flannel_store_kubernetes.node_list import MOST_AT_ONCE, ListMeta, NodeListReader
from flannel_store_kubernetes.nodes import Dialect

DIALECT = Dialect("flannel.alpha.coreos.com")
# What stands between two nodes also stands inside this one.
TRAP = {"metadata": {"name": "trap"}, "status": {"owned": [{"a": 1}, {"metadata": {"name": "inner"}}, {"b": "},{"}]}}


def listed(nodes: Sequence[Any], **more: Any) -> bytes:
    """As an API server writes it."""
    whole = {"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "9", **more}, "items": nodes}
    return msgspec.json.encode(whole) + b"\n"


def read(chunks: Sequence[bytes]) -> tuple[list[str], ListMeta]:
    reader = NodeListReader(DIALECT)
    found = [each for chunk in chunks for each in reader.feed(chunk)]
    rest, metadata = reader.end()
    return [each.key if isinstance(each, Malformed) else each.name for each in (*found, *rest)], metadata


@given(st.data())
def test_a_list_says_the_same_however_it_is_cut(data: st.DataObject) -> None:
    nodes = [data.draw(st.sampled_from((node(f"n{number}", ["10.5.1.0/24"]), TRAP))) for number in range(5)]
    text = listed(nodes, **{"continue": "more"})
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=9)))
    chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    names, metadata = read(chunks)
    assert names == [each["metadata"]["name"] for each in nodes]
    assert metadata == ListMeta("9", "more")


def test_nodes_are_told_before_the_list_is_whole_and_no_text_is_kept() -> None:
    reader = NodeListReader(DIALECT)
    text = listed([node(f"n{number}", [f"10.5.{number}.0/24"], size=5000) for number in range(1000)])
    told, kept = [], 0
    for start in range(0, len(text), 16384):
        told.append(len(reader.feed(text[start : start + 16384])))
        kept = max(kept, len(reader._buffer))
    assert told[0] > 0, "the first ones at once"
    assert sum(told) > 900
    assert kept < MOST_AT_ONCE + 16384 + 6000


@pytest.mark.parametrize("items", [[], None])
def test_a_list_may_be_empty(items: Any) -> None:
    assert read([listed(items)]) == ([], ListMeta("9"))


def test_a_list_that_is_written_otherwise_is_read_when_it_is_whole() -> None:
    nodes = [node("a", ["10.5.1.0/24"]), node("b", ["10.5.2.0/24"])]
    whole = {"items": nodes, "metadata": {"resourceVersion": "9"}, "kind": "NodeList"}
    for text in (json.dumps(whole, indent=2), json.dumps(whole, separators=(",", ":"))):
        assert read([text[:300].encode(), text[300:].encode()]) == (["a", "b"], ListMeta("9"))


@pytest.mark.parametrize(
    "text",
    [b"", b"<html>Sign in</html>", b'{"kind":"Status","code":500}', b'{"kind":"PodList","items":[]}', b"[]", b"null"],
)
def test_what_is_no_list_of_nodes_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        read([text])


def test_a_list_that_breaks_off_is_refused() -> None:
    text = listed([node(f"n{number}", ["10.5.1.0/24"]) for number in range(9)])
    for end in (len(text) // 2, len(text) - 3):
        with pytest.raises(ValueError):
            read([text[:end]])
