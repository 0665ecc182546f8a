"""An issuer of access tokens, as a real HTTP server with real keys."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

__all__ = ["AUDIENCE", "Issuer", "running_issuer"]

AUDIENCE = "http://127.0.0.1/mcp"

_Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


@dataclass
class Issuer:
    """What it says, which a test may change, and what it was asked.

    Attributes:
        keys: Private keys by `kid`; their public halves are what is told.
        documents: Told at a path, besides the keys at /jwks.
        asked: The paths, in order.
    """

    url: str = ""
    keys: dict[str, _Key] = field(default_factory=dict)
    documents: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_broken: bool = False

    def token(
        self,
        *scopes: str,
        key: str = "rsa",
        subject: str = "anna",
        sign_with: Any = None,
        algorithm: str | None = None,
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """A token; a claim that is None is left out."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": subject, "exp": now + 60, "scope": " ".join(scopes)}
        usual |= {"iat": now, "client_id": "app"} | claims
        private: Any = self.keys.get(key) if sign_with is None else sign_with
        return jwt.encode(
            {name: value for name, value in usual.items() if value is not None},
            private,
            algorithm or ("ES256" if isinstance(private, ec.EllipticCurvePrivateKey) else "RS256"),
            {"kid": key} if header is None else header,
        )

    def jwks(self) -> dict[str, Any]:
        return {"keys": [{**_public(key), "kid": kid, "use": "sig"} for kid, key in self.keys.items()]}


def _public(key: _Key) -> dict[str, Any]:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return dict(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True))
    return dict(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True))


@contextmanager
def running_issuer() -> Iterator[Issuer]:
    """An issuer with one RSA and one EC key, at a port of its own."""
    issuer = Issuer()
    issuer.keys["rsa"] = rsa.generate_private_key(65537, 2048)
    issuer.keys["ec"] = ec.generate_private_key(ec.SECP256R1())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            told = issuer.jwks() if self.path == "/jwks" else issuer.documents.get(self.path)
            status = 500 if issuer.is_broken else 404 if told is None else 200
            body = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - it is called so there
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        issuer.url = f"http://127.0.0.1:{server.server_port}"
        issuer.documents["/.well-known/oauth-authorization-server"] = {
            "issuer": issuer.url,
            "jwks_uri": f"{issuer.url}/jwks",
        }
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()
