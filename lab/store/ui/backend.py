"""The UI's calls to the services behind it, through Service Connect. Every failure is a `BackendError` that names the service."""

from __future__ import annotations

import threading
from typing import Any

import requests
from flask import has_request_context, request

from lab.store.service import SYNTHETIC_HEADER, is_synthetic

TIMEOUT_S = (2.0, 12.0)


class BackendError(Exception):
    """A service did not answer as it should; ``status`` is None where it did not answer at all."""

    def __init__(self, service: str, status: int | None, detail: str) -> None:
        super().__init__(f"{service}: {detail}")
        self.service = service
        self.status = status


class Backend:
    """One service at ``url``."""

    def __init__(self, service: str, url: str) -> None:
        self._service = service
        self._url = url
        self._local = threading.local()

    def get(self, path: str, **query: Any) -> Any:
        """The JSON at ``path``."""
        return self._json("GET", path, params={key: value for key, value in query.items() if value not in (None, "")})

    def find(self, path: str) -> Any | None:
        """The JSON at ``path``, or None where there is nothing (404)."""
        try:
            return self.get(path)
        except BackendError as error:
            if error.status == 404:
                return None
            raise

    def post(self, path: str, body: Any) -> Any:
        """Send JSON, get JSON."""
        return self._json("POST", path, json=body)

    def delete(self, path: str) -> None:
        """Delete what is at ``path``."""
        self._json("DELETE", path)

    def _json(self, method: str, path: str, **arguments: Any) -> Any:
        session = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
        headers = {"Accept": "application/json"}
        if has_request_context() and is_synthetic(request.headers):
            headers[SYNTHETIC_HEADER] = "true"
        try:
            answer = session.request(method, self._url + path, headers=headers, timeout=TIMEOUT_S, **arguments)
        except requests.RequestException as error:
            raise BackendError(self._service, None, type(error).__name__) from error
        if answer.status_code >= 400:
            raise BackendError(self._service, answer.status_code, f"{method} {path} answered {answer.status_code}")
        if not answer.content:
            return None
        try:
            return answer.json()
        except ValueError as error:
            raise BackendError(self._service, answer.status_code, f"{method} {path} did not answer JSON") from error
