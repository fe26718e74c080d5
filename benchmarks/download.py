"""How fast a download is beside curl, from a TLS server on this machine.

    python benchmarks/download.py [--size 1000] [--rounds 7]

Both fetch the same file from the same server, in turn; ours also flushes it to the disk and finds
its SHA-256, which curl does not. What each takes for a file of one byte is measured too: the rest
of the time is the throughput. Needs curl.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

CERTIFICATE = Path(__file__).parents[1] / "tests" / "hub" / "localhost.pem"
BLOCK = 1 << 20


class Handler(BaseHTTPRequestHandler):
    """Serves files, in ranges."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    folder: Path

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.folder / self.path.rpartition("/")[2]
        size = path.stat().st_size
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        begin, end = (int(found[1]), min(size, int(found[2]) + 1)) if found else (0, size)
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
        self.send_header("Content-Length", str(end - begin))
        self.send_header("ETag", '"one"')
        self.end_headers()
        with path.open("rb") as file:
            file.seek(begin)
            while begin < end:
                block = file.read(min(BLOCK, end - begin))
                self.wfile.write(block)
                begin += len(block)


def serve(folder: Path) -> None:
    """Serve a folder until killed; the port is the first line on stdout."""
    Handler.folder = folder
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    print(server.server_address[1], flush=True)
    server.serve_forever()


def timed(command: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1000, help="MB")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--connections", default="4")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        source = folder / "source.pth"
        with source.open("wb") as file:
            for _ in range(given.size):
                file.write(os.urandom(1_000_000))
        compare(folder, source, given)


def compare(folder: Path, source: Path, given: argparse.Namespace) -> None:
    small = folder / "small.pth"
    small.write_bytes(b"x")
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    url = f"https://localhost:{int(server.stdout.readline())}"
    env = {**os.environ, "SSL_CERT_FILE": str(CERTIFICATE), "NO_PROXY": "localhost"}
    times: dict[str, list[float]] = {}
    try:
        for _ in range(given.rounds):
            for file in (small, source):
                target, to = folder / "curl.pth", folder / "models"
                address = f"{url}/{file.name}"
                curl = ["curl", "-s", "--cacert", str(CERTIFICATE), "-o", str(target), address]
                times.setdefault(f"curl {file.stem}", []).append(timed(curl, env))
                target.unlink()
                rwkv = [sys.executable, "-m", "rwkv_cli", "download", "-q", address]
                rwkv += ["--to", str(to), "--connections", given.connections]
                times.setdefault(f"rwkv {file.stem}", []).append(timed(rwkv, env))
                shutil.rmtree(to)
    finally:
        server.kill()
    report(times, given.size)


def report(times: dict[str, list[float]], size: int) -> None:
    median = {name: statistics.median(seconds) for name, seconds in times.items()}
    for name, seconds in times.items():
        print(f"{name}: median {median[name]:.2f} s  ({' '.join(f'{s:.2f}' for s in seconds)})")
    moving = {who: median[f"{who} source"] - median[f"{who} small"] for who in ("curl", "rwkv")}
    for who, seconds in moving.items():
        print(f"{who}: {size / seconds:.0f} MB/s")
    print(f"throughput: {100 * moving['curl'] / moving['rwkv']:.0f} % of curl's")
    whole = 100 * median["curl source"] / median["rwkv source"]
    print(f"the whole command: {whole:.0f} % of curl's speed")


if __name__ == "__main__":
    main()
