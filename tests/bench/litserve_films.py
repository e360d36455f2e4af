"""The same library behind LitServe, as another server of models would run it; as a process: its port, the runtime."""

import base64
import sys
from typing import Any

import litserve
import torch

from kneeoa import KneeOA


class Films(litserve.LitAPI):
    """``{"film": base64}`` in, the reply out."""

    def __init__(self, runtime: str) -> None:
        super().__init__()
        self.runtime = runtime

    def setup(self, device: str) -> None:
        torch.set_num_threads(1)
        self.service = KneeOA(device=device, runtime=self.runtime)

    def decode_request(self, request: dict[str, str]) -> bytes:
        return base64.b64decode(request["film"])

    def predict(self, film: bytes) -> dict[str, Any]:
        return self.service.grade(film).message

    def encode_response(self, reply: dict[str, Any]) -> dict[str, Any]:
        return reply


if __name__ == "__main__":
    served = litserve.LitServer(Films(sys.argv[2]), accelerator="cpu")
    served.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False)
