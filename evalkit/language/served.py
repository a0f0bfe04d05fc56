"""Language models that a server holds: `lm=http://127.0.0.1:8000/v1#model`, by OpenAI's completions interface.

vLLM, llama.cpp, text-generation-inference and others speak it. Log-likelihoods come from `echo` with `logprobs`; of a
server without it, the letters of options are weighed by the likeliest next tokens. A server is a stranger: what it says
has bounds, redirects are not followed, and what is not as asked is an error or a failed example.
"""

from __future__ import annotations

import http.client
import json
import logging
import math
import os
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import takewhile
from time import monotonic
from typing import Any, Literal, TypeVar

from evalkit.canary.finding import Finding
from evalkit.errors import UserError, in_line
from evalkit.language.continuations import Continuation, Generated, Likelihood
from evalkit.language.templates import PLAIN

logger = logging.getLogger("evalkit")

T = TypeVar("T")
Tells = Literal["echo", "letters", "nothing"]

PROBE = "Question: What is it? Answer: a red ring"  # asked first, to see what the server gives
KEY = "EVALKIT_LM_KEY"  # environment variable with the server's key
CONCURRENT = 8  # requests at once
TRIES = 6
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # between tries, twice as long each time
TIMEOUT_S = 120.0  # of one request, reply included
MAX_REPLY_BYTES = 16_000_000
LIKELIEST = (20, 5)  # next tokens asked for, where letters are weighed: what vLLM and what OpenAI allow
REFUSED = "the server refuses the prompt"
NO_NUMBER = "the server refuses the prompt, or gives no log-probability of each of its tokens"
RETRIED = {408, 409, 425, 429, 500, 502, 503, 504}


class Refused(Exception):
    """A request that the server does not take, with its status; another one it may take."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def is_address(lm: str) -> bool:
    """Whether `lm=` names a served model: only the user's own words may."""
    return lm.lower().startswith(("http://", "https://"))


class ServedModel:
    """A causal language model that a server holds, asked about text alone.

    Args:
        address: `http://host:port/v1#model`.

    Attributes:
        name: of the model.
        tells: what the server gives of probabilities, asked once: those of a prompt's tokens (echo), of the likeliest
            next tokens alone (letters), or none (nothing).
        template: none, since only the server knows the model's own.

    Raises:
        UserError: the address is none, or the server does not answer as OpenAI's completions interface does.
    """

    def __init__(self, address: str) -> None:
        parts = urllib.parse.urlsplit(address)
        self.name = urllib.parse.unquote(parts.fragment)
        self.base = urllib.parse.urlunsplit(parts._replace(fragment="")).rstrip("/")
        try:
            port = parts.port
        except ValueError as error:
            raise UserError(f"lm={address}: {error}") from error
        if parts.username is not None or parts.password is not None:
            raise UserError(f"lm={parts.scheme}://...@{parts.hostname}: give a key as {KEY}=... in the environment")
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname or parts.query or not self.name:
            raise UserError(f"lm={address}: wanted the address of a served model, as http://127.0.0.1:8000/v1#MODEL")
        self._secure = parts.scheme.lower() == "https"
        self._host, self._port, self._path = parts.hostname, port, parts.path.rstrip("/")
        self._key = os.environ.get(KEY, "")
        if not self._key.isascii() or not self._key.isprintable():
            raise UserError(f"{KEY} holds characters that no key has")
        self.template = PLAIN
        self.findings: tuple[Finding, ...] = ()
        self._over = threading.Event()  # ends the requests of a call that has failed, or was interrupted
        self._sockets: set[socket.socket] = set()  # in use
        self._reasons: set[str] = set()  # those that were logged
        self.tells: Tells = "echo" if self._has_echo() else "letters" if self._next_tokens(PROBE) else "nothing"

    @property
    def sha256(self) -> str:
        """What identifies the model in place of a hash of its weights, which only the server knows."""
        return f"{self.name} served at {self.base}"

    # --- what adapters ask -------------------------------------------------------------------------------------------

    def loglikelihoods(self, continuations: Sequence[Continuation], tokens: Any = None) -> list[Likelihood]:
        """Log-likelihood of each text after its context; NaN where the server refuses a prompt or tells no number.

        Options of one context are cut where the tokens of the first of them leave the context's, as
        `LanguageModel.loglikelihoods` cuts them.
        """
        echoed = self._each(self._echo, [f"{context} {text}" for _, context, text in continuations])
        starts: dict[tuple[int, str], int] = {}
        for (video, context, _), rows in zip(continuations, echoed, strict=True):
            within = takewhile(lambda row: row[1] + len(row[0]) <= len(context), rows[:-1])  # noqa: B023 read at once
            inside = len(list(within))
            starts[video, context] = min(inside, starts.get((video, context), inside))
        likelihoods = []
        for (video, context, _), rows in zip(continuations, echoed, strict=True):
            values = [value for _, _, value in rows[starts[video, context] :]]
            known = bool(values) and all(value is not None for value in values)
            total = math.fsum(value for value in values if value is not None) if known else math.nan
            likelihoods.append(Likelihood(total, len(values), "" if known else NO_NUMBER))
        return likelihoods

    def letter_logprobs(self, prompts: Sequence[str], letters: Sequence[str]) -> list[list[float]]:
        """Log-probability that each letter follows each prompt; minus infinity where it is none of the likeliest."""
        rows = []
        for likeliest in self._each(self._next_tokens, prompts):
            row = []
            for letter in letters:
                of_letter = [value for token, value in likeliest.items() if token.strip(" \u2581\u0120\n") == letter]
                row.append(_logsumexp(of_letter))
            rows.append(row)
        return rows

    def generate(self, prompts: Sequence[str], tokens: Any, beams: int, most: int) -> list[Generated]:
        """Generate a text after each prompt; none of one that is refused.

        Raises:
            UserError: several beams, which the interface does not know.
        """
        if beams > 1:
            raise UserError(f"adapter.beams={beams}: a served model generates greedily; leave it out")
        return self._each(lambda prompt: self._complete(prompt, most), prompts)

    # --- requests ----------------------------------------------------------------------------------------------------

    def _each(self, ask: Callable[[str], T], prompts: Sequence[str]) -> list[T]:
        """What is asked of each prompt, `CONCURRENT` at once; an error or Ctrl-C ends the others, too."""
        pool, self._over = ThreadPoolExecutor(CONCURRENT), threading.Event()
        try:
            return list(pool.map(ask, prompts))
        finally:
            self._over.set()
            for connected in [*self._sockets]:
                _cut(connected)
            pool.shutdown(cancel_futures=True)

    def _has_echo(self) -> bool:
        """Whether a prompt's own tokens come back with their log-probabilities."""
        try:
            rows = self._parse_echo(self._post(self._echo_request(PROBE)), PROBE)
        except Refused as error:
            if error.status in (400, 413, 422, 501):
                return False
            raise UserError(f"lm={self.base}#{self.name}: {error}") from error
        covered = "".join(token for token, _, _ in rows)
        return len(rows) > 2 and PROBE.endswith(covered[-8:]) and all(value is not None for *_, value in rows[1:])

    def _echo_request(self, prompt: str) -> dict[str, Any]:
        return {"prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}

    def _echo(self, prompt: str) -> list[tuple[str, int, float | None]]:
        """Text, offset and log-probability of each token of a prompt; nothing where the server refuses it."""
        try:
            return self._parse_echo(self._post(self._echo_request(prompt)), prompt)
        except Refused as error:
            self._warn(error)
            return []

    def _parse_echo(self, choice: dict[str, Any], prompt: str) -> list[tuple[str, int, float | None]]:
        logprobs = choice.get("logprobs")
        if not isinstance(logprobs, dict):
            return []
        tokens, values, offsets = (logprobs.get(key) for key in ("tokens", "token_logprobs", "text_offset"))
        if not (isinstance(tokens, list) and isinstance(values, list) and len(tokens) == len(values)):
            return []
        if not all(isinstance(token, str) for token in tokens):
            return []
        known = isinstance(offsets, list) and len(offsets) == len(tokens) and all(type(o) is int for o in offsets)
        rows = [
            (token, offset, float(value) if type(value) in (int, float) else None)
            for token, offset, value in zip(
                tokens, _aligned(tokens, offsets if known else None, prompt), values, strict=True
            )
        ]
        return [row for row in rows if row[1] < len(prompt)]

    def _next_tokens(self, prompt: str) -> dict[str, float]:
        """Log-probabilities of the likeliest tokens after a prompt; none where the server refuses or tells none."""
        for most in LIKELIEST:
            try:
                choice = self._post({"prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": most})
            except Refused as error:
                if most != LIKELIEST[-1] and error.status in (400, 422):
                    continue
                self._warn(error)
                return {}
            return {token: float(v) for token, v in _first_likeliest(choice.get("logprobs")) if type(v) in (int, float)}
        return {}

    def _warn(self, reason: object) -> None:
        """Notes why a request failed, each reason once."""
        if str(reason) not in self._reasons:
            self._reasons.add(str(reason))
            logger.warning(f"lm={self.base}#{self.name}: {reason}")

    def _complete(self, prompt: str, most: int) -> Generated:
        try:
            choice = self._post({"prompt": prompt, "max_tokens": most, "temperature": 0})
        except Refused as error:
            self._warn(error)
            return Generated(None, failure=REFUSED)
        text = choice.get("text")
        if not isinstance(text, str):
            raise UserError(f"lm={self.base}#{self.name}: a completion without text")
        return Generated(text.strip(), choice.get("finish_reason") == "stop")

    def _post(self, request: dict[str, Any]) -> dict[str, Any]:
        """The first choice of a completion, asked again where the server is busy or stumbles.

        Raises:
            Refused: the server takes this request for a wrong one.
            UserError: it cannot be reached, does not answer in time, or not as the interface does.
        """
        body = json.dumps({"model": self.name, **request}).encode()
        wait, reason = FIRST_WAIT_S, ""
        for attempt in range(TRIES):
            if attempt:
                self._warn(f"{reason}; asked again, {TRIES - attempt} times at most")
            if self._over.wait(wait if attempt else 0):
                break
            if attempt:
                wait = min(2 * wait, LONGEST_WAIT_S)
            started = monotonic()
            try:
                status, headers, content = self._send(body)
            except (OSError, http.client.HTTPException) as error:
                if monotonic() - started >= TIMEOUT_S:
                    reason = f"no whole reply within {TIMEOUT_S:g} s"
                    continue
                reason = f"{type(error).__name__}: {in_line(error)[:200]}" if str(error) else type(error).__name__
                continue
            if status in RETRIED:
                reason = f"HTTP {status}: {self._message(content)}"
                with_after = headers.get("Retry-After", "")
                if with_after.isascii() and with_after.isdigit():
                    wait = min(max(wait, float(with_after)), LONGEST_WAIT_S)
                continue
            if 300 <= status < 400:
                target = in_line(headers.get("Location", ""))[:200]
                raise UserError(
                    f"lm={self.base}#{self.name}: the server redirects to {target!r}, which is not followed"
                )
            if status in (401, 403, 404):
                raise UserError(
                    f"lm={self.base}#{self.name}: HTTP {status}: {self._message(content)}; wanted a server with "
                    f"{self._path}/completions that knows this model, and its key, if any, in {KEY}"
                )
            if status != 200:
                raise Refused(status, f"HTTP {status}: {self._message(content)}")
            return self._choice(content)
        raise UserError(f"lm={self.base}#{self.name} does not answer, asked {TRIES} times: {reason}")

    def _choice(self, content: bytes) -> dict[str, Any]:
        try:
            choice = json.loads(content)["choices"][0]
            if isinstance(choice, dict):
                return choice
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
        raise UserError(
            f"lm={self.base}#{self.name}: the reply is no completion as OpenAI's interface gives it: "
            f"{self._message(content)!r}"
        )

    def _message(self, content: bytes) -> str:
        """What a server said, as the start of a line, without the key."""
        text = content[:2000].decode("utf-8", "replace")
        try:
            reply: Any = json.loads(content)
            error = reply.get("error", reply.get("message", reply))
            text = str(error.get("message", error) if isinstance(error, dict) else error)
        except (ValueError, AttributeError, RecursionError):
            pass
        return in_line(text.replace(self._key, "***") if self._key else text)[:200]

    def _send(self, body: bytes) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Status, headers and content of one reply, which is read for `TIMEOUT_S` and `MAX_REPLY_BYTES` at most."""
        deadline = monotonic() + TIMEOUT_S
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        connection: http.client.HTTPConnection
        if self._secure:
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=context)
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)
        connection.connect()
        connected = connection.sock  # of which the connection lets go before all is read
        self._sockets.add(connected)
        timer = threading.Timer(TIMEOUT_S, _cut, [connected])  # a socket's own timeout is of each piece that comes
        timer.start()
        try:
            connection.request("POST", f"{self._path}/completions", body, headers)
            with connection.getresponse() as reply:
                content = bytearray()
                while piece := reply.read1(65_536):
                    content += piece
                    if len(content) > MAX_REPLY_BYTES:
                        most = f"more than {MAX_REPLY_BYTES:,} bytes"
                        raise UserError(f"lm={self.base}#{self.name}: a reply of {most}; wanted a completion")
                if monotonic() > deadline:
                    raise TimeoutError  # it may be cut off
                return reply.status, reply.headers, bytes(content)
        finally:
            timer.cancel()
            self._sockets.discard(connected)
            connection.close()


def _cut(connected: socket.socket) -> None:
    """Ends a connection that another thread waits for."""
    with suppress(OSError):  # it has just ended
        connected.shutdown(socket.SHUT_RDWR)


def _first_likeliest(logprobs: Any) -> list[tuple[str, Any]]:
    """The likeliest tokens at the first place, with what a server says of each; none where it lists none.

    Completions list them as `{"top_logprobs": [{token: value}]}`; llama.cpp's server as a chat does,
    `{"content": [{"top_logprobs": [{"token": token, "logprob": value}]}]}`.
    """
    try:
        if "content" in logprobs:
            return [(str(one["token"]), one["logprob"]) for one in logprobs["content"][0]["top_logprobs"]]
        return [(str(token), value) for token, value in logprobs["top_logprobs"][0].items()]
    except (LookupError, TypeError, AttributeError):
        return []


def _logsumexp(values: Sequence[float]) -> float:
    highest = max(values, default=-math.inf)
    if not math.isfinite(highest):
        return highest
    return highest + math.log(math.fsum(math.exp(value - highest) for value in values))


def _aligned(tokens: Sequence[str], offsets: Sequence[int] | None, prompt: str) -> list[int]:
    """Where each token begins in the prompt.

    Servers count from the start of what they read, which has a first token of its own (<s>), or a blank, before it.
    """
    first, counted, place = len(tokens[0]) if tokens else 0, list[int](), 0
    for token in tokens:
        counted.append(place)
        place += len(token)
    guesses = [
        [o - shift for o in listed] for listed in (offsets, counted) if listed for shift in (0, first, 1, first + 1)
    ]

    def matching(guess: Sequence[int]) -> int:
        return sum(offset >= 0 and prompt.startswith(t, offset) for t, offset in zip(tokens, guess, strict=True) if t)

    return max(guesses, key=matching, default=[])
