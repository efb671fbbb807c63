"""One attempt of a process in a pod to reach somebody: what became of it, as one line of JSON. A program of its own, because a process
is in one network namespace, and gives its user up for good.

`ip netns exec POD python tests/mesh/attempt.py '{"to": ["10.0.2.2", 8080], "uid": 1000, "tls": null, "path": "/status"}'`
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - what connecting imports, when it is too late: the user can read no modules
import errno
import http.client
import json
import os
import socket
import ssl
import sys
from typing import Any

_TIMEOUT_SECONDS = 10


class _Connection(http.client.HTTPConnection):
    def __init__(self, wanted: dict[str, Any], context: ssl.SSLContext | None) -> None:
        super().__init__("nobody", timeout=_TIMEOUT_SECONDS)
        self._to, self._context = wanted["to"], context

    def connect(self) -> None:
        if isinstance(self._to, str):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._to)
            return
        self.sock = socket.create_connection(tuple(self._to), timeout=self.timeout)
        if self._context:
            self.sock = self._context.wrap_socket(self.sock)


def _tls(wanted: dict[str, Any]) -> ssl.SSLContext | None:
    if (tls := wanted.get("tls")) is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(tls["root"])
    context.check_hostname = False  # SPIFFE certificates carry a URI and no host name
    if tls.get("certificate"):
        context.load_cert_chain(*tls["certificate"])
    return context


def _attempt(wanted: dict[str, Any]) -> dict[str, Any]:
    context = _tls(wanted)
    # Only now, so that what is read here need not be readable to that user; and for good.
    os.setgroups([])
    os.setresgid(*[wanted.get("gid", wanted["uid"])] * 3)
    os.setresuid(*[wanted["uid"]] * 3)
    connection = _Connection(wanted, context)
    try:
        connection.request(
            "POST" if wanted.get("body") else "GET",
            wanted.get("path", "/"),
            body=wanted.get("body"),
            headers={"host": wanted.get("host", "nobody"), **wanted.get("headers", {})},
        )
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return {"status": response.status, "headers": headers, "body": response.read().decode(errors="replace")}
    except ssl.SSLError as error:
        return {"refused": "tls", "detail": str(error)}
    except http.client.RemoteDisconnected as error:
        return {"refused": "closed", "detail": str(error)}
    except OSError as error:
        return {"refused": errno.errorcode.get(error.errno or 0, "timeout"), "detail": str(error)}
    except http.client.HTTPException as error:
        return {"refused": "no HTTP", "detail": repr(error)}


if __name__ == "__main__":
    print(json.dumps(_attempt(json.loads(sys.argv[1]))))
