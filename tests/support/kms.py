"""A stand-in for AWS's key service: it encrypts and decrypts, and refuses another encryption context than before."""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Kms:
    """What was encrypted, by its ciphertext."""

    def __init__(self) -> None:
        self.kept: dict[str, tuple[str, dict[str, str], str]] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.url = ""

    def encrypt(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        ciphertext = base64.b64encode(secrets.token_bytes(48)).decode()
        self.kept[ciphertext] = (asked["KeyId"], asked.get("EncryptionContext", {}), asked["Plaintext"])
        return 200, {"CiphertextBlob": ciphertext, "KeyId": asked["KeyId"]}

    def decrypt(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        key, context, plaintext = self.kept.get(asked["CiphertextBlob"], ("", {}, ""))
        if not plaintext or context != asked.get("EncryptionContext", {}):
            return 400, {"__type": "InvalidCiphertextException", "message": ""}
        return 200, {"Plaintext": plaintext, "KeyId": key}


@contextlib.contextmanager
def serving() -> Iterator[Kms]:
    """A key service on this computer, at its `url`."""
    kms = Kms()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            operation = self.headers["X-Amz-Target"].rpartition(".")[2].lower()
            kms.asked.append((operation, asked.get("KeyId", ""), asked.get("EncryptionContext", {})))
            status, answer = getattr(kms, operation)(asked)
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kms.url = f"http://127.0.0.1:{server.server_port}"
    yield kms
    server.shutdown()
    server.server_close()
