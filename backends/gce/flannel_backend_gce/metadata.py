"""The metadata server: which instance this is, in which project and zone.

https://cloud.google.com/compute/docs/metadata/predefined-metadata-keys
"""

from __future__ import annotations

import os

import msgspec

from flannel_core.errors import FlannelError
from flannel_core.printable import printable

HOST = "169.254.169.254"
HOST_VARIABLE = "GCE_METADATA_HOST"
"""Host, or host:port, as google-auth reads it."""
SECONDS = 3.0
FLAVOR = {"Metadata-Flavor": "Google"}


class Identity(msgspec.Struct, frozen=True):
    """Who this host is to Google Cloud."""

    project: str
    zone: str
    instance: str


def identity() -> Identity:
    """Blocks for a few milliseconds, or some seconds where nothing answers. Raises FlannelError with the cure."""
    return Identity(
        project=_ask("project/project-id"),
        zone=_ask("instance/zone").rpartition("/")[2],
        instance=_ask("instance/name"),
    )


def _ask(path: str) -> str:
    import httplib2  # the SDK's own, and like it only there where this backend runs

    host = os.environ.get(HOST_VARIABLE) or HOST
    url = f"http://{host}/computeMetadata/v1/{path}"
    try:
        response, content = httplib2.Http(timeout=SECONDS, proxy_info=None).request(url, headers=FLAVOR)
    except Exception as error:  # of any class: httplib2's, http.client's, OSError
        reason = getattr(error, "strerror", None) or "nothing answers"
        raise FlannelError(
            f"{host}: no metadata server ({reason}): the gce backend runs on Compute Engine instances whose metadata "
            f"server can be reached; {HOST_VARIABLE} names another address of it"
        ) from error
    if response.status != 200 or response.get("metadata-flavor") != "Google":
        said = printable(content, 60)
        raise FlannelError(f"{url}: {response.status} {said}; is it the metadata server of Compute Engine?")
    return str(content.decode("utf-8", "replace").strip())
