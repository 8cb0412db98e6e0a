"""The commands of docs/how-to/move-from-go.md, run on a host as they stand there."""

import os
import re
import subprocess
from pathlib import Path

from flannel_core.lab.programs import FLANNELD

PAGE = Path(__file__).parents[2] / "docs/how-to/move-from-go.md"


def test_a_node_is_moved_as_the_page_says(cluster):
    before, after = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    go = cluster.go
    variables = {
        "PATH": f"{FLANNELD.parent}:{os.environ['PATH']}",
        "OPTIONS": "--iface=eth0",
        "FLANNELD_SUBNET_FILE": str(go.subnet_file),
        "FLANNELD_ETCD_ENDPOINTS": go.store.options["endpoints"],
    }

    def output(commands):
        words = ["ip", "netns", "exec", go.namespace, "sh", "-euc", commands]
        done = subprocess.run(words, env={**go.environment, **variables}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    checked, *planned = output(before)
    assert checked == "standard input: valid"
    assert len(planned) == 2
    assert all(line.startswith("change route ") for line in planned)
    with go.pinging(cluster.other) as pings:
        cluster.switch(go, FLANNELD)
        cluster.lab.eventually(cluster.all_ping)
    assert pings.lost == 0
    told = output(after)
    assert "ready" in told[0]
    assert any(line.startswith("peers") and "2 of 2 programmed, 0 refused" in line for line in told)
    assert told[-1].startswith("Nothing to do")
