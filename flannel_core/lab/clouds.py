"""Which backends live in a cloud, and what the lab needs to have one for them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from .cloud import LabCloud

NEEDS = {"aws-vpc": ("moto", "flask", "flask_cors", "boto3"), "gce": ("googleapiclient",)}
"""The modules that the lab's cloud for a backend runs on, which no agent needs."""
CURES = {
    "aws-vpc": "the lab's EC2 is moto: pip install 'moto[ec2]' flask-cors boto3",
    "gce": "the lab's compute API is what its discovery document says: pip install google-api-python-client",
}


def cloud_lacks(backend: str) -> tuple[str, ...]:
    """What keeps the lab's cloud for this backend from working here, each with its cure."""
    missing = [name for name in NEEDS.get(backend, ()) if importlib.util.find_spec(name) is None]
    return (f"{', '.join(missing)} cannot be imported; {CURES[backend]}",) if missing else ()


def lab_cloud(backend: str, directory: Path, namespace: str, environment: Mapping[str, str]) -> LabCloud | None:
    """The cloud that ``backend`` lives in, started in the underlay's ``namespace``; None for one that needs none."""
    if backend == "aws-vpc":
        from .aws.lab_cloud import AwsLabCloud

        return AwsLabCloud(directory, namespace, environment)
    if backend == "gce":
        from .gce.lab_cloud import GceLabCloud

        return GceLabCloud(directory, namespace, environment)
    return None
