"""An instance metadata service, version 2, as flanneld and the AWS SDKs ask it.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html: a session token by PUT,
which every GET shows; the answer to the PUT travels ``hop_limit`` hops and no further.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address

PORT = 80
ROLE = "flannel-lab"
CREDENTIAL_HOURS = 6
TOKEN_HEADER = "X-aws-ec2-metadata-token"
LIFETIME_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"


class Metadata:
    """What the service says. ``instance_of`` tells which instance an address belongs to, "" if to none. ``enabled``
    False: the service is switched off (HttpEndpoint)."""

    def __init__(self, region: str, instance_of: Callable[[str], str]) -> None:
        self.region = region
        self.instance_of = instance_of
        self.enabled = True
        self.role = True
        """Whether the instances have a role, and with it credentials."""
        self.hop_limit = 1
        self._tokens: set[str] = set()

    def new_token(self) -> str:
        token = secrets.token_urlsafe(40)
        self._tokens.add(token)
        return token

    def knows(self, token: str | None) -> bool:
        return token in self._tokens

    def find(self, path: str, instance: str) -> str | None:
        """The text at a path below /latest/meta-data/."""
        found = {"instance-id": instance, "placement/region": self.region}
        if self.role:
            found["iam/security-credentials/"] = ROLE
            found[f"iam/security-credentials/{ROLE}"] = json.dumps(_credentials(instance))
        return found.get(path)


def access_key_of(instance: str) -> str:
    """The id of the access key that an instance's role gives it."""
    return "ASIA" + instance.removeprefix("i-").upper()


def _credentials(instance: str) -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        "Code": "Success",
        "Type": "AWS-HMAC",
        "LastUpdated": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "Expiration": f"{now + timedelta(hours=CREDENTIAL_HOURS):%Y-%m-%dT%H:%M:%SZ}",
        "AccessKeyId": access_key_of(instance),
        "SecretAccessKey": "lab-secret-key",
        "Token": "lab-session-token",
    }


def metadata_server(metadata: Metadata, address: str) -> ThreadingHTTPServer:
    """Listening; ``serve_forever`` is the caller's."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            if not metadata.enabled:
                self._say(403)
            elif self.path != "/latest/api/token" or not self.headers.get(LIFETIME_HEADER, "").isdigit():
                self._say(400)
            elif self.headers.get("X-Forwarded-For"):
                self._say(403)
            else:
                self._travel(metadata.hop_limit)
                self._say(200, metadata.new_token())

        def do_GET(self) -> None:
            instance = metadata.instance_of(str(ip_address(self.client_address[0])))
            path = self.path.removeprefix("/latest/meta-data/")
            if not metadata.enabled:
                self._say(403)
            elif not metadata.knows(self.headers.get(TOKEN_HEADER)):
                self._say(401)
            elif not instance or (text := metadata.find(path, instance)) is None:
                self._say(404)
            else:
                self._say(200, text)

        def _travel(self, hops: int) -> None:
            if self.connection.family == socket.AF_INET6:
                self.connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
            else:
                self.connection.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)

        def _say(self, status: int, text: str = "") -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        daemon_threads = True

    return Server((address, PORT), Handler)
