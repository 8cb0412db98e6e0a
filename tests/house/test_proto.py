"""The messages in the repository are those of their .proto file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STORE = Path(__file__).parents[2] / "stores" / "etcd"
PACKAGE = "flannel_store_etcd"


def test_the_messages_of_the_etcd_store_are_those_of_its_proto_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([*command, f"{PACKAGE}/rpc.proto"], cwd=STORE, check=True)
    made, kept = tmp_path / PACKAGE, STORE / PACKAGE
    assert (made / "rpc_pb2.py").read_text() == (kept / "rpc_pb2.py").read_text(), "run `make proto`"
    assert (kept / "rpc_pb2.pyi").read_text().endswith((made / "rpc_pb2.pyi").read_text()), "run `make proto`"
