"""A metadata server of Compute Engine, as flanneld and google-auth ask it.

https://cloud.google.com/compute/docs/metadata/querying-metadata: every request and every answer has the header
``Metadata-Flavor: Google``, and none that was forwarded is answered.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from urllib.parse import urlsplit

PORT = 80
ROOT = "/computeMetadata/v1/"
TOKEN = "ya29.lab-"
TOKEN_SECONDS = 3599
PROJECT_NUMBER = "123456789012"
SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class Metadata:
    """What the server says. ``instance_of`` tells which instance (``projects/P/zones/Z/instances/N``) an address
    belongs to, "" if to none."""

    def __init__(self, instance_of: Callable[[str], str]) -> None:
        self.instance_of = instance_of
        self.service_account = True
        """Whether the instances have one, and with it credentials."""

    def find(self, path: str, instance: str) -> tuple[str, str] | None:
        """The text at a path below ``ROOT``, and its type. None: there is none."""
        _, project, _, zone, _, name = instance.split("/")
        email = f"{PROJECT_NUMBER}-compute@developer.gserviceaccount.com"
        texts = {
            "project/project-id": project,
            "project/numeric-project-id": PROJECT_NUMBER,
            "instance/zone": f"projects/{PROJECT_NUMBER}/zones/{zone}",
            "instance/name": name,
            "instance/hostname": f"{name}.{zone}.c.{project}.internal",
            "universe/universe-domain": "googleapis.com",
        }
        token = {"access_token": TOKEN + name, "expires_in": TOKEN_SECONDS, "token_type": "Bearer"}
        account = {"aliases": ["default"], "email": email, "scopes": [SCOPE]}
        answers = {
            "instance/service-accounts/default/": account,
            "instance/service-accounts/default/token": token,
            f"instance/service-accounts/{email}/": account,
            f"instance/service-accounts/{email}/token": token,
        }
        if path in texts:
            return texts[path], "application/text"
        if path in answers and self.service_account:
            return json.dumps(answers[path]), "application/json"
        return None


def user_of(token: str) -> str:
    """The name of the instance that an access token is of, "" for a token that is none."""
    return token.removeprefix(TOKEN) if token.startswith(TOKEN) else ""


def metadata_server(metadata: Metadata, address: str) -> ThreadingHTTPServer:
    """Listening; ``serve_forever`` is the caller's."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = urlsplit(self.path).path
            instance = metadata.instance_of(str(ip_address(self.client_address[0])))
            if self.headers.get("X-Forwarded-For") or self.headers.get("Metadata-Flavor") != "Google":
                self._say(403, "Missing Metadata-Flavor:Google header.\n")
            elif path == "/":
                self._say(200, "computeMetadata/\n")
            elif not instance or not path.startswith(ROOT):
                self._say(404, "Not Found\n")
            elif found := metadata.find(path.removeprefix(ROOT), instance):
                self._say(200, *found)
            else:
                self._say(404, "Not Found\n")

        def _say(self, status: int, text: str, kind: str = "text/html") -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Metadata-Flavor", "Google")
            self.send_header("Server", "Metadata Server for VM")
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        daemon_threads = True

    return Server((address, PORT), Handler)
