"""AWS credentials, found where AWS's own SDKs find them, kept fresh, with no dependency.

Order: environment, web identity (by botocore), static profile in the shared files, ECS or EKS container endpoint, IMDSv2. Where the profile
asks for more than two keys (SSO, an assumed role, a process), botocore resolves it if it is installed.
https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
"""

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from crosswatch_exporters.aws.sigv4 import Credentials

log = logging.getLogger(__name__)

_CONTAINER_HOST = "http://169.254.170.2"
_IMDS_HOST = "http://169.254.169.254"
_LOOKUP_TIMEOUT = 2.0
# AWS's SDKs renew between 5 and 15 minutes before expiry; containers hand out new keys at 5.
_RENEW_BEFORE = 300.0
# After a failed lookup wait this long; the endpoint is local, so asking is cheap, but a thread must not spin on it.
_RETRY_AFTER = 5.0

Source = Callable[[Mapping[str, str]], Credentials | None]


class CredentialProvider:
    """Gives valid credentials, or None when there are none now. Safe to share between threads."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ
        self._lock = threading.Lock()
        self._current: Credentials | None = None
        self._ask_again_at = 0.0

    def get(self) -> Credentials | None:
        """The credentials to sign with now. Expired ones are never given."""
        now = time.time()
        with self._lock:
            current = self._current
            due = current is None or (current.expires_at is not None and current.expires_at - now < _RENEW_BEFORE)
            if due and now >= self._ask_again_at:
                found = find_credentials(self._environ)
                self._ask_again_at = now + _RETRY_AFTER
                if found is not None:
                    self._current = current = found
            if current is not None and current.expires_at is not None and current.expires_at <= now:
                return None
            return current

    def forget(self) -> None:
        """Look again before the next request: the service has refused the keys we have."""
        with self._lock:
            self._current = None

    def after_fork(self) -> None:
        """The lock may have been held by a thread that does not exist in the child."""
        self._lock = threading.Lock()


def find_credentials(environ: Mapping[str, str]) -> Credentials | None:
    """Ask each source in order; the first that has credentials wins. A source that fails is named in the log and skipped."""
    for source in (from_environment, from_botocore_only, from_shared_files, from_container, from_instance):
        try:
            found = source(environ)
        except Exception as error:  # noqa: BLE001  # files, networks, parsers, plugins of botocore: any can fail in ways of its own
            log.debug("%s: %s", source.__name__, error)
            continue
        if found is not None:
            return found
    return None


def from_environment(environ: Mapping[str, str]) -> Credentials | None:
    """AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN."""
    access, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    return Credentials(access, secret, environ.get("AWS_SESSION_TOKEN", "")) if access and secret else None


def from_botocore_only(environ: Mapping[str, str]) -> Credentials | None:
    """What we leave to botocore: web identity, and profiles that are more than two keys."""
    profile = _profile(environ)
    if "AWS_WEB_IDENTITY_TOKEN_FILE" not in environ and not (
        {"sso_session", "sso_start_url", "role_arn", "credential_process"} & set(profile)
    ):
        return None
    try:
        import botocore.session
    except ImportError:
        log.warning("these AWS credentials need botocore: pip install 'crosswatch-exporters[aws]'")
        return None
    try:
        found = botocore.session.Session().get_credentials()
        if found is None:
            return None
        frozen = found.get_frozen_credentials()
    except Exception as error:  # noqa: BLE001  # ClientError (throttled, denied) and BotoCoreError have nothing else in common
        log.warning("AWS credentials could not be resolved: %s", error)
        return None
    expiry = getattr(found, "_expiry_time", None)
    return Credentials(frozen.access_key, frozen.secret_key, frozen.token or "", expiry.timestamp() if expiry else None)


def from_shared_files(environ: Mapping[str, str]) -> Credentials | None:
    """Two static keys in ~/.aws/credentials or ~/.aws/config."""
    profile = _profile(environ)
    access, secret = profile.get("aws_access_key_id"), profile.get("aws_secret_access_key")
    return Credentials(access, secret, profile.get("aws_session_token", "")) if access and secret else None


def from_container(environ: Mapping[str, str]) -> Credentials | None:
    """The endpoint that ECS and EKS Pod Identity name in the environment.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
    """
    relative, full = environ.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"), environ.get("AWS_CONTAINER_CREDENTIALS_FULL_URI")
    if not relative and not full:
        return None
    headers = {}
    if token_file := environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
        headers["Authorization"] = Path(token_file).read_text().strip()
    elif token := environ.get("AWS_CONTAINER_AUTHORIZATION_TOKEN"):
        headers["Authorization"] = token
    return _parse(json.loads(fetch(f"{_CONTAINER_HOST}{relative}" if relative else str(full), headers=headers)))


def from_instance(environ: Mapping[str, str]) -> Credentials | None:
    """The EC2 instance's role, through IMDSv2."""
    if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    host = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", _IMDS_HOST).rstrip("/")
    token = fetch(f"{host}/latest/api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}, timeout=1.0)
    headers = {"X-aws-ec2-metadata-token": token}
    path = f"{host}/latest/meta-data/iam/security-credentials/"
    return _parse(json.loads(fetch(path + fetch(path, headers=headers).splitlines()[0], headers=headers)))


def _parse(document: Mapping[str, str]) -> Credentials:
    expires = datetime.fromisoformat(document["Expiration"]).timestamp() if document.get("Expiration") else None
    return Credentials(document["AccessKeyId"], document["SecretAccessKey"], document.get("Token", ""), expires)


def _profile(environ: Mapping[str, str]) -> dict[str, str]:
    import configparser

    home = Path(environ.get("HOME", "/"))
    name = environ.get("AWS_PROFILE") or "default"
    settings: dict[str, str] = {}
    for path, section in (
        (environ.get("AWS_CONFIG_FILE") or home / ".aws/config", name if name == "default" else f"profile {name}"),
        (environ.get("AWS_SHARED_CREDENTIALS_FILE") or home / ".aws/credentials", name),
    ):
        parser = configparser.RawConfigParser()
        parser.read(path)
        if parser.has_section(section):
            settings.update(parser.items(section))
    return settings


def fetch(url: str, method: str = "GET", headers: Mapping[str, str] | None = None, timeout: float = _LOOKUP_TIMEOUT) -> str:
    """The body of a small document from a link-local endpoint. No proxy, no redirects. Raises OSError on any other status than 200."""
    import http.client

    parts = urlsplit(url)
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = connect(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request(method, parts.path + (f"?{parts.query}" if parts.query else ""), headers=dict(headers or {}))
        response = connection.getresponse()
        body = response.read().decode()
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(f"{url}: HTTP {response.status}")
    return body
