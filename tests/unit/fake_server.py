"""A server of a few lines for the client: what goes wrong with which film, and how often, is scripted."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kneeoa.messages import DETECTION_SCHEMA, REPLY_SCHEMA, envelope

CODES = {"busy": 503, "timeout": 504, "internal_error": 500, "corrupt_image": 422}


class Fake:
    """Answers both models; ``script`` maps a film's bytes to what goes wrong with it, and how often."""

    def __init__(self):
        self.seen, self.script, self.key, self.most, self.now = Counter(), {}, "key", 0, 0
        self.headers = []
        fake, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                model = self.path.rsplit("/", 1)[1]
                detection = json.loads(body) if model == "grader" else {}
                film = bytes.fromhex(detection["film"]["bytes"]) if detection else body
                with lock:
                    fake.now += 1
                    fake.most = max(fake.most, fake.now)
                    fake.seen[film, model] += 1
                    fake.headers.append(dict(self.headers))
                    status, times = fake.script.get(film, (200, 0))
                    failing = model != "grader" and fake.seen[film, model] <= times
                status = 400 if self.headers["Authorization"] != f"Bearer {fake.key}" else status if failing else 200
                message = envelope(
                    DETECTION_SCHEMA if model == "detector" else REPLY_SCHEMA, film={"bytes": film.hex()}
                )
                if status == 200 and detection.get("error"):  # handed through
                    message = detection | {"schema": REPLY_SCHEMA}
                elif isinstance(status, str):  # a code of the gateway, or of a node, in the shape of a reply
                    status, code = CODES[status], status
                    error = {"code": code, "message": "no", "stage": "decode", "http_status": status}
                    message = message | {"status": "error", "error": error}
                elif status != 200:
                    message = {"code": status, "message": "no"}
                content = json.dumps(message).encode()
                with lock:
                    fake.now -= 1
                if status == 0:  # the connection breaks
                    self.close_connection = True
                    return
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
