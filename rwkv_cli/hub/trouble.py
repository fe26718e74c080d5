"""What can go wrong between here and a server, each in a sentence of its own."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

from rwkv_cli.errors import RwkvError, StorageError

MIRROR = "a mirror, where there is one: export HF_ENDPOINT=https://hf-mirror.com"


class Trouble(StorageError):
    """A failure of the network that may pass: worth another try.

    Attributes:
        wait: Seconds the server asked to wait; None when it asked for nothing.
    """

    def __init__(self, message: str, *, hint: str | None = None, wait: float | None = None) -> None:
        super().__init__(message, hint=hint)
        self.wait = wait


class NoNameError(Trouble):
    """The name of a host is not known."""


def of_status(status: int, headers: Mapping[str, str], host: str, what: str) -> RwkvError | None:
    """Say what a status means; None when it is one that brings bytes."""
    if status in (200, 206):
        return None
    if status == 401:
        return StorageError(
            f"{host} wants to know who asks for {what} (401): it is private, or does not exist",
            hint="check the name, or set HF_TOKEN (tokens are only sent to huggingface.co)",
        )
    if status == 403:
        return StorageError(
            f"{host} does not let you have {what} (403)",
            hint="accept its terms on its page on huggingface.co, if it has any; then set HF_TOKEN",
        )
    if status in (404, 410):
        return StorageError(
            f"{host} has no {what} ({status})", hint="rwkv download --list shows what there is"
        )
    if status == 416:
        return StorageError(f"{host} says that {what} has no such part (416): it has changed there")
    if status == 429:
        return Trouble(
            f"{host} asks to come back later (429: too many requests)",
            wait=_seconds(headers.get("retry-after")),
        )
    if status == 408 or status >= 500:
        wait = _seconds(headers.get("retry-after"))
        return Trouble(f"{host} cannot answer now ({status})", wait=wait)
    return StorageError(f"{host} answered {status} to a request for {what}")


def _seconds(text: str | None) -> float | None:
    """Read Retry-After, where it is a number; a date is not worth understanding."""
    if text is None or not text.strip().isdecimal():
        return None
    return float(text.strip()[:6])


def of_exception(error: Exception, host: str) -> RwkvError:
    """Say what an exception of the HTTP client means."""
    from urllib3 import exceptions

    reasons = " ".join(str(part) for part in (error, *error.args, error.__cause__) if part)
    refused = _certificate(error)
    if refused is not None:
        return StorageError(
            f"{host} cannot prove who it is: {refused}",
            hint="a wrong clock or a firewall that reads along does this; see SSL_CERT_FILE",
        )
    if isinstance(error, exceptions.ProxyError):
        return Trouble(f"the proxy to {host} does not work", hint="see HTTPS_PROXY and NO_PROXY")
    if isinstance(error, exceptions.NameResolutionError):
        return NoNameError(
            f"cannot find {host}: there is no network, or no such name",
            hint=f"models that are installed work without it; {MIRROR}",
        )
    if "refused" in reasons.lower():
        return Trouble(f"{host} refuses the connection", hint=MIRROR)
    if isinstance(error, exceptions.TimeoutError):
        return Trouble(f"{host} does not answer", hint=MIRROR)
    if isinstance(error, exceptions.SSLError):
        return Trouble(f"the connection to {host} is no sound TLS")
    return Trouble(f"the connection to {host} broke", hint=MIRROR)


def _certificate(error: BaseException | None) -> str | None:
    """Find why a certificate was not believed; None when it was."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message or "its certificate is not valid"
        inner = [part for part in error.args if isinstance(part, BaseException)]
        error = inner[0] if inner else error.__cause__ or error.__context__
    return None
