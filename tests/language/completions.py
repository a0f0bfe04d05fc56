"""A small server of OpenAI's completions interface, for tests: what it says is a function of the request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

from evalkit.language.causal_lm import LanguageModel
from evalkit.language.models import load

# Status, and a reply: a value for JSON, bytes as they are, or several of these, one by one; headers beside it.
Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]


class Served:
    """A running server.

    Attributes:
        address: what `lm=` takes.
        requests: bodies so far, each with the header Authorization under `key`.
    """

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}/v1#tiny"
        self.requests: list[dict[str, Any]] = []


@contextmanager
def serving(say: Callable[[dict[str, Any]], Reply]) -> Iterator[Served]:
    """A server that answers each request by this function."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            served.requests.append({**body, "key": self.headers.get("Authorization"), "path": self.path})
            status, content, *headers = say(body)
            pieces = content if isinstance(content, Iterator) else [content]
            self.send_response(status)
            for name, value in (headers[0] if headers else {}).items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # the client has had enough
                for piece in pieces:
                    self.wfile.write(piece if isinstance(piece, bytes) else json.dumps(piece).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Served(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Completions:
    """What a server of the embedded language model says.

    Args:
        echo: it gives the log-probabilities of a prompt's tokens.
        logprobs: it gives those of the likeliest next tokens.
        as_chat: these as a chat's, which is what llama.cpp's server does, and which passes over `echo`.
    """

    def __init__(self, echo: bool = True, logprobs: bool = True, as_chat: bool = False) -> None:
        self.model = LanguageModel(*load("")).eval()
        self.echo, self.logprobs, self.as_chat, self.lock = echo, logprobs, as_chat, threading.Lock()

    @torch.no_grad()
    def __call__(self, body: dict[str, Any]) -> Reply:
        if body.get("echo") and not self.echo:
            return 400, {"error": {"message": "echo is not supported"}}
        with self.lock:
            return 200, {"choices": [self._choice(body)]}

    def _choice(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt, tokenizer = body["prompt"], self.model.tokenizer
        ((text, ended, _),) = self.model.generate([prompt], None, 1, body["max_tokens"])
        choice: dict[str, Any] = {"text": f" {text}", "finish_reason": "stop" if ended else "length"}
        if body.get("logprobs") is None or not self.logprobs:
            return choice
        encoded = tokenizer(prompt, return_offsets_mapping=True)
        logprobs = self.model.lm(input_ids=torch.tensor([encoded["input_ids"]])).logits[0].log_softmax(-1)
        best = logprobs[-1].topk(body["logprobs"])
        names = [tokenizer.decode([token]) for token in best.indices.tolist()]
        next_tokens = dict(zip(names, best.values.tolist(), strict=True))
        if self.as_chat:
            listed = [{"token": token, "logprob": value} for token, value in next_tokens.items()]
            return {**choice, "logprobs": {"content": [{**listed[0], "top_logprobs": listed}]}}
        if not body.get("echo"):
            return {**choice, "logprobs": {"tokens": names[:1], "top_logprobs": [next_tokens]}}
        offsets = [(start, end) for start, end in encoded["offset_mapping"]]
        values = [None, *logprobs[:-1].gather(1, torch.tensor(encoded["input_ids"])[1:, None])[:, 0].tolist()]
        tokens = [prompt[start:end] for start, end in offsets]
        echoed = {
            "tokens": [*tokens, *names[:1]],
            "token_logprobs": [*values, best.values[0].item()],
            "text_offset": [*(start for start, _ in offsets), len(prompt)],
            "top_logprobs": [None, *({} for _ in tokens)],
        }
        return {"text": f"{prompt}{names[0]}", "finish_reason": "length", "logprobs": echoed}
