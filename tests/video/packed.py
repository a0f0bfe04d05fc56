"""Videos packed into tars and parquet files, and a web server on loopback that gives parts of files."""

import io
import re
import tarfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def pack(tar: Path, files: Iterable[Path], prefix: str = "", form: int = tarfile.PAX_FORMAT) -> Path:
    """A tar of these files, each with a label beside it, as WebDataset has them."""
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar, "w", format=form) as out:
        for file in files:
            out.add(file, f"{prefix}{file.name}")
            label = tarfile.TarInfo(f"{prefix}{file.stem}.json")
            label.size = 2
            out.addfile(label, io.BytesIO(b"{}"))
    return tar


def member(name: str, content: bytes = b"", **fields: Any) -> bytes:
    """A member as a tar holds it, with fields of its header set, whatever they say."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


@contextmanager
def served(
    folder: Path, latency: float = 0.0, listing: bool = True, refuse: int = 0, unsized: int = 0, status: int = 503
) -> Iterator[tuple[str, list[str]]]:
    """The URL of a folder on a server on loopback, and the paths that were asked for.

    Args:
        folder: what is served.
        latency: seconds before each answer.
        listing: answer for a folder with links to what is in it.
        refuse: so many first requests for parts fail.
        unsized: so many first requests for sizes, folders or whole files fail.
        status: of those that fail.
    """
    asked: list[str] = []
    left = {True: refuse, False: unsized}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize, disable_nagle_algorithm = -1, True  # else an answer in two parts waits for 40 ms

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            time.sleep(latency)
            asked.append(self.path)
            file = folder / self.path.partition("?")[0].lstrip("/")
            of_part = "Range" in self.headers
            code, content, headers = 404, b"", {}
            if left[of_part]:
                left[of_part] -= 1
                code = status
            elif file.is_dir() and listing:
                names = (f"{path.name}/" if path.is_dir() else path.name for path in sorted(file.iterdir()))
                base = self.path.rstrip("/")
                code, content = 200, "".join(f'<a href="{base}/{name}">{name}</a>\n' for name in names).encode()
                headers["Content-Type"] = "text/html"
            elif file.is_file():
                whole = file.read_bytes()
                code, content = 200, whole
                headers |= {"Accept-Ranges": "bytes", "ETag": f'"{len(whole)}"'}
                asks = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                if asks:
                    first, last = int(asks[1]), min(int(asks[2] or len(whole)), len(whole) - 1)
                    code, content = 206, whole[first : last + 1]
                    headers["Content-Range"] = f"bytes {first}-{last}/{len(whole)}"
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
