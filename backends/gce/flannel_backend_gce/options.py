"""The keys of ``Backend`` for type gce."""

from __future__ import annotations

import re
from typing import Annotated

import msgspec


class GceOptions(msgspec.Struct, frozen=True):
    """None of them is needed on an instance whose service account may do what the backend does."""

    endpoint: Annotated[str, msgspec.Meta(description="URL of the compute API; none: Google's")] = msgspec.field(
        default="", name="Endpoint"
    )
    check_interval: Annotated[
        int, msgspec.Meta(ge=1, le=86_400, description="seconds between two looks at the routes, give or take a tenth")
    ] = msgspec.field(default=180, name="CheckInterval")

    def __post_init__(self) -> None:
        if self.endpoint and not re.match(r"https?://[^/\s]+", self.endpoint):
            raise ValueError(f"Endpoint is {self.endpoint!r}, and a URL is wanted, https://compute.googleapis.com")
