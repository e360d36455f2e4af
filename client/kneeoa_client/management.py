"""The two archives as plain models: registered, scaled and listed through the management API."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from kneeoa_client.client import ServerError, locate, silent
from kneeoa_client.web import ask

NAMES = ("detector", "grader")
WORKFLOW = "knee_oa.war"
TIMEOUT = 180.0  # s; a registration answers when its workers have loaded their weights


@dataclass
class Management:
    """The management address, and the file that holds its token."""

    url: str
    key_file: Path = field(repr=False)

    @classmethod
    def find(cls, url: str | None = None, key_file: Path | None = None) -> "Management":
        """The named server, or the one that ``make serve`` started here or in a folder above; `ServerError` if neither."""
        return cls(*locate("management", url, key_file))

    def up(self, batch: int, delay_ms: int, workers: int) -> None:
        """Register both archives again, each with this batch size, this wait for a batch to fill and this many workers."""
        for name in NAMES:
            if self.ask("GET", f"models/{name}", accepted=(200, 404)) is not None:
                self.ask("DELETE", f"models/{name}")
            self.ask(
                "POST", "models", url=f"{name}.mar", batch_size=batch, max_batch_delay=delay_ms, initial_workers=workers,
                response_timeout=60, synchronous="true",
            )  # fmt: skip

    def register_workflow(self) -> None:
        """Register the detector and the grader, chained; answers when their workers have loaded their weights."""
        self.ask("POST", "workflows", url=WORKFLOW, response_timeout=60, synchronous="true")

    def listening(self) -> bool:
        """Whether there is a server that accepts our token."""
        try:
            self.ask("GET", "models")
        except ServerError:
            return False
        return True

    def ready(self, name: str) -> bool:
        """Whether a model has a worker that is ready."""
        found = self.ask("GET", f"models/{name}", accepted=(200, 404))
        return found is not None and any(worker["status"] == "READY" for worker in found[0]["workers"])

    def scale(self, workers: int, names: Sequence[str] = NAMES) -> None:
        """Set the number of workers of each model; of the workflow's nodes, if these are named."""
        for name in names:
            self.ask("PUT", f"models/{name}", min_worker=workers, max_worker=workers, synchronous="true")

    def down(self) -> None:
        """Unregister both models; the workflow stays."""
        for name in NAMES:
            self.ask("DELETE", f"models/{name}", accepted=(200, 404))

    def describe(self, name: str) -> dict[str, Any]:
        """TorchServe's description of one model: workers with id, pid and status; batch size; queue."""
        return self.ask("GET", f"models/{name}")[0]

    def table(self) -> list[dict[str, Any]]:
        """One row per model, including the workflow's nodes: model, workers (ready of all), batch, delay_ms, queued."""
        rows = []
        for listed in self.ask("GET", "models", limit=100)["models"]:
            found = self.describe(listed["modelName"])
            ready = sum(worker["status"] == "READY" for worker in found["workers"])
            queue = found.get("jobQueueStatus", {})
            rows.append(
                {
                    "model": found["modelName"],
                    "workers": f"{ready} of {len(found['workers'])}",
                    "batch": found["batchSize"],
                    "delay_ms": found["maxBatchDelay"],
                    "queued": queue.get("pendingRequests", 0),
                }
            )
        return rows

    def ask(self, method: str, path: str, accepted: tuple[int, ...] = (200,), **query: Any) -> Any:
        """The answer as JSON; None for an accepted 404.

        Raises
        ------
        ServerError
            If there is no server, or it answers anything else.
        """
        try:
            key = json.loads(self.key_file.read_text())["management"]["key"]
            headers = {"Authorization": f"Bearer {key}"}
            reply = ask(method, f"{self.url}/{path}", params=query, headers=headers, timeout=TIMEOUT)
        except (requests.RequestException, OSError, ValueError, KeyError) as error:
            raise ServerError(silent(self.url, error, "--management")) from None
        if reply.status_code not in accepted:
            raise ServerError(f"{self.url} answered HTTP {reply.status_code} to {method} {path}")
        return None if reply.status_code == 404 else reply.json()
