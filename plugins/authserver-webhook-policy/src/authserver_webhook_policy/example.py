"""An endpoint: WEBHOOK_SECRET=whsec_... python -m authserver_webhook_policy.example"""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from authserver_webhook_policy.signature import BadSignature, verify


def decide(hook: str, facts: dict[str, Any]) -> dict[str, Any]:
    if hook == "scope_decision" and facts["user_id"] is None:
        return {"verdict": "narrow", "reason": "machines-only-read", "value": ["files.read"]}
    return {"verdict": "none"}


class Endpoint(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection for the next question
    disable_nagle_algorithm = True  # which would hold each answer back for 40 ms

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            verify(os.environ["WEBHOOK_SECRET"], dict(self.headers), body)
        except BadSignature as problem:
            self.log_error("refused: %s", problem)
            self.send_error(401)
            return
        answer = json.dumps(decide(**json.loads(body))).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", 8099), Endpoint).serve_forever()
