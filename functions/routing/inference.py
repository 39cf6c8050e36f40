"""What the HTTP function does for a user: answer a question from the faster cloud, take labelled feedback."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from functions.routing.router import Router
from shared.contracts import Cloud, Endpoint, RouteTable
from shared.errors import (
    InvalidInputError,
    NoEndpointError,
    OpportuneError,
    UnavailableError,
    VersionNotLoadedError,
)
from shared.headers import TIMEOUT_HEADER
from shared.ports import Clock, InferenceClient

log = logging.getLogger("opportune.functions.inference")

#: share of the remaining time the first endpoint gets while another could still be asked
FIRST_SHARE: Final = 0.6
#: with less time than this left, another attempt could not succeed
SHORTEST_ATTEMPT_S: Final = 0.02
#: the field in which a request names the version that shall answer it
VERSION_FIELD: Final = "model_version"


class Question(msgspec.Struct, frozen=True):
    """Body of POST /predict; further fields are handed on to the endpoint."""

    question: Annotated[str, Meta(min_length=1, max_length=4096)]


class Label(msgspec.Struct, frozen=True):
    """Body of POST /feedback: the question and its right answers; `cloud` is that of the answer, if known."""

    question: Annotated[str, Meta(min_length=1, max_length=4096)]
    answers: Annotated[list[str], Meta(min_length=1, max_length=32)]
    cloud: Cloud | None = None


def validated(kind: type[Any], body: object) -> Any:
    """`body` as `kind`. Raises InvalidInputError naming the field."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as exc:
        raise InvalidInputError(str(exc)) from exc


class RouteCache:
    """The route table, read off the request path.

    Only the first request waits for it. Afterwards the last table is used at once, and a stale one is replaced in
    the background; while no newer can be read, the last one stays.
    """

    def __init__(self, read: Callable[[], RouteTable | None], clock: Clock, ttl_s: float) -> None:
        self._read = read
        self._clock = clock
        self._ttl_s = ttl_s
        self._table: RouteTable | None = None
        self._read_s = float("-inf")
        self._refreshing = threading.Lock()

    def table(self) -> RouteTable:
        """The newest table known here. Raises NoEndpointError while there is none."""
        if self._table is None:
            with self._refreshing:
                if self._table is None:
                    self._refresh()
        elif self._clock() - self._read_s > self._ttl_s and self._refreshing.acquire(blocking=False):
            threading.Thread(target=self._refresh_and_release, name="routes", daemon=True).start()
        if self._table is None:
            raise NoEndpointError("no routes are published yet; the schedule function does so on its first tick")
        return self._table

    def _refresh_and_release(self) -> None:
        try:
            self._refresh()
        finally:
            self._refreshing.release()

    def _refresh(self) -> None:
        try:
            newer = self._read()
        except OpportuneError as exc:
            log.warning("routes not refreshed", extra={"action": "route", "reason": str(exc)})
        else:
            # Another cloud's older copy must not replace what is known.
            if newer is not None and (self._table is None or newer.epoch >= self._table.epoch):
                self._table = newer
        self._read_s = self._clock()


class Inference:
    """Routes requests within the caller's deadline."""

    def __init__(
        self,
        routes: RouteCache,
        router: Router,
        client: InferenceClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.routes = routes
        self._router = router
        self._client = client
        self._clock = clock

    def predict(self, body: dict[str, Any], deadline_s: float, trace_id: str) -> dict[str, Any]:
        """The endpoint's answer with `cloud`, `model_version` and `trace_id`, at most `deadline_s` from now.

        A body may name the version that shall answer; where that is not loaded, the stable one does.

        Raises:
            InvalidInputError: the body is wrong (ours or the endpoint's word); not retried.
            NoEndpointError: nobody answered in time.
        """
        validated(Question, body)
        # An endpoint with one address for everything tells a label by its answers.
        body = {name: value for name, value in body.items() if name != "answers"}
        endpoints = self.routes.table().endpoints
        return self._send("predict", body, self._router.order(endpoints), deadline_s, trace_id)

    def feedback(self, body: dict[str, Any], deadline_s: float, trace_id: str) -> dict[str, Any]:
        """Hand the label to the endpoint that answered, else to one that answers now."""
        label: Label = validated(Label, body)
        endpoints = self.routes.table().endpoints
        ordered = self._router.order(endpoints)
        ordered += [endpoint for endpoint in endpoints if endpoint not in ordered]
        if label.cloud is not None:
            # Its rolling quality is what the label is about; the other one only saves the label from being lost.
            ordered.sort(key=lambda endpoint: endpoint.cloud != label.cloud)
        return self._send("feedback", body, ordered, deadline_s, trace_id)

    def _send(
        self, path: str, body: dict[str, Any], ordered: list[Endpoint], deadline_s: float, trace_id: str
    ) -> dict[str, Any]:
        give_up = self._clock() + deadline_s
        reasons = []
        for position, endpoint in enumerate(ordered):
            remaining = give_up - self._clock()
            if remaining < SHORTEST_ATTEMPT_S:
                break
            last = position == len(ordered) - 1
            try:
                answer = self._answer(path, body, endpoint, remaining if last else remaining * FIRST_SHARE, trace_id)
            except UnavailableError as exc:
                reasons.append(f"{endpoint.cloud}: {exc}")
                log.warning("endpoint failed", extra={"action": path, "trace_id": trace_id, "cloud": endpoint.cloud})
                continue
            return {"model_version": endpoint.model_version, **answer, "cloud": endpoint.cloud, "trace_id": trace_id}
        why = "; ".join(reasons) or "the deadline left no time to ask"
        raise NoEndpointError(f"no endpoint answered within {deadline_s:g} s ({why})")

    def _answer(
        self, path: str, body: dict[str, Any], endpoint: Endpoint, timeout_s: float, trace_id: str
    ) -> dict[str, Any]:
        """The endpoint's answer; by its stable version where it has not loaded the one that is named."""
        give_up = self._clock() + timeout_s
        try:
            return self._attempt(path, body, endpoint, timeout_s, trace_id)
        except VersionNotLoadedError:
            left_s = give_up - self._clock()
            if VERSION_FIELD not in body or left_s < SHORTEST_ATTEMPT_S:
                raise
            unnamed = {name: value for name, value in body.items() if name != VERSION_FIELD}
            return self._attempt(path, unnamed, endpoint, left_s, trace_id)

    def _attempt(
        self, path: str, body: dict[str, Any], endpoint: Endpoint, timeout_s: float, trace_id: str
    ) -> dict[str, Any]:
        """One request. Feedback takes other time than an answer, so only `predict` teaches the router."""
        learn = path == "predict"
        headers = {"traceparent": f"00-{trace_id}-{trace_id[:16]}-01", TIMEOUT_HEADER: f"{timeout_s:.3f}"}
        started_s = self._clock()
        if learn:
            self._router.started(endpoint)
        try:
            answer = self._client.invoke(_address(endpoint, path), body, timeout_s, headers)
        except UnavailableError as exc:
            if learn and isinstance(exc, VersionNotLoadedError) and VERSION_FIELD in body:
                self._router.answered(endpoint, self._clock() - started_s)  # it is well, it has another version
            elif learn:
                self._router.failed(endpoint, timeout_s)
            raise
        except InvalidInputError:
            if learn:
                self._router.answered(endpoint, self._clock() - started_s)
            raise
        if learn:
            self._router.answered(endpoint, self._clock() - started_s)
        return answer


def _address(endpoint: Endpoint, path: str) -> str:
    """Where the request goes: below a base URL, or as it is where a cloud has one address for everything."""
    plain = endpoint.url.startswith(("http://", "https://"))
    return f"{endpoint.url.rstrip('/')}/{path}" if plain else endpoint.url
