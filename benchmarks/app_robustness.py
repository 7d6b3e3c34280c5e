"""Send the page of `segvit app` what a page on the open net is sent, and look whether it stands.

    python benchmarks/app_robustness.py [--uploads 500] [--at-once 50] [--model FILE]

Hostile files over HTTP, requests that ask for files of the server's or of other servers, and many at once. Afterwards
the server must be up, its memory (all its processes) within 300 MB of where it was, each answer one that a person can
read, nothing written outside its temporary folder, and that folder emptied. Exit code 1 where one does not hold.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from benchmarks.hostile import hostile, picture
from segvit.app.serving.refusals import STATUSES

ROOT = Path(__file__).resolve().parent.parent
MOST_MEMORY = 300
"""MB that the server's memory may have grown."""
FLAGS = ("--port", "0", "--max-megabytes", "2", "--max-megapixels", "12", "--queue", "20", "--keep-minutes", "0.1")
META = {"_type": "gradio.FileData"}
ASKED: tuple[object, ...] = (
    *({"path": path, "meta": META} for path in ("/etc/passwd", "../../../../etc/passwd", "\0", "", None, 7)),
    *({"path": path, "meta": META} for path in ("http://127.0.0.1:1/x.png", "https://example.com/x.png", "file:///x")),
    {"path": "/proc/self/environ"},
    {"path": "data:image/png;base64,AAAA", "url": "data:image/png;base64,AAAA", "meta": META},
    [{"path": "/etc/passwd", "meta": META}],
    None,
    "photo.jpg",
    [],
    {"url": "data:image/png;base64,AAAA", "meta": META},
)
"""In the place of a file that was sent; of the last three Gradio prints a trace."""
ADDRESSES = (
    "/gradio_api/file=/etc/passwd",
    "/gradio_api/file=../../../../etc/passwd",
    "/gradio_api/file=http://127.0.0.1:1/",
    "/gradio_api/proxy=http://127.0.0.1:1/",
    "/seen/../../../etc/passwd",
    "/seen/AAAAAAAAAAAAAAAAAAAAAA/..%2f..%2fx",
    "/monitoring",
    "/monitoring/summary",
    "/gradio_api/vibe-code",
    "/gradio_api/runs",
    "/api/predict/..%2f..%2fetc/passwd",
    "/api/x",
)
"""That give nobody anything."""


@dataclass(kw_only=True)
class Server:
    """A running page, and what belongs to it."""

    process: "subprocess.Popen[str]"
    address: str
    model: str
    home: Path
    """Home and working folder."""
    temporary: Path
    said: list[str] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """The one folder that it writes to."""
        (found,) = self.temporary.glob("segvit-app-*")
        return found

    def memory(self) -> float:
        """Resident memory of all its processes, in MB."""
        return sum(_resident(pid) for pid in _tree(self.process.pid)) / 2**20

    def kept(self) -> list[Path]:
        """Files of visitors, and results."""
        tops = (self.folder / "uploads", self.folder / "results")
        return [Path(base, name) for top in tops for base, _, names in os.walk(top) for name in names]

    def strays(self) -> list[Path]:
        """Files that are not in that folder."""
        tops = (self.home, self.temporary)
        found = [Path(base, name) for top in tops for base, _, names in os.walk(top) for name in names]
        return [path for path in found if not path.is_relative_to(self.folder)]


@contextmanager
def serving(
    *models: Path, flags: Sequence[str] = FLAGS, python_path: Sequence[Path] = (), threads: int = 1
) -> Iterator[Server]:
    """`segvit app` in a process of its own, with home and folders of its own; ended by SIGTERM.

    Args:
        models: files.
        flags: further words of the command.
        python_path: folders of modules that the process shall find first.
        threads: threads of a model.
    """
    with tempfile.TemporaryDirectory() as base:
        home, temporary = Path(base, "home"), Path(base, "tmp")
        home.mkdir()
        temporary.mkdir()
        given = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        given |= {"HOME": str(home), "TMPDIR": str(temporary), "OMP_NUM_THREADS": str(threads)}
        given["PYTHONPATH"] = os.pathsep.join(map(str, [*python_path, ROOT]))
        words = [sys.executable, "-m", "segvit", "app", *(str(model.resolve()) for model in models), *flags]
        process = subprocess.Popen(
            words,
            cwd=home,
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        said = []
        try:
            for line in process.stdout:
                said.append(line)
                if found := re.match(r"open (http://\S+) in", line):
                    name = said[1].partition(":")[0]
                    yield Server(
                        process=process, address=found[1], model=name, home=home, temporary=temporary, said=said
                    )
                    break
            else:
                raise SystemExit("".join(said))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            rest, _ = process.communicate(timeout=60)
            said.append(rest)


def send(client: httpx.Client, server: Server, name: str, content: bytes) -> tuple[str, str]:
    """Upload a file and have it labelled: ("refused" | "error" | "labelled", what was said)."""
    boundary = "6f1a7b"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode()
    body = head + content + f"\r\n--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    answer = client.post(f"{server.address}/gradio_api/upload", content=body, headers=kind)
    if answer.status_code != 200 or not answer.json():
        return "refused", answer.text
    return ask(client, server, {"path": answer.json()[0], "meta": META})


def post(client: httpx.Client, server: Server, name: str, content: bytes) -> tuple[str, str]:
    """Have a file labelled by one request of the API: ("refused" | "labelled" | "undocumented", what was said)."""
    answer = client.post(f"{server.address}/api/predict", files={"photo": (name, content)})
    if answer.status_code == 200:
        return "labelled", "labelled"
    try:
        said = str(answer.json()["error"])
    except (ValueError, KeyError):
        return "undocumented", answer.text
    return ("refused" if answer.status_code in STATUSES.keys() - {500} else "undocumented"), said


def ask(client: httpx.Client, server: Server, photo: object) -> tuple[str, str]:
    """Have an uploaded photo labelled, as programs do."""
    address = f"{server.address}/gradio_api/call/predict"
    answer = client.post(address, json={"data": [photo, server.model]})
    if answer.status_code != 200:
        return "refused", answer.text
    event, kind = answer.json()["event_id"], ""
    with client.stream("GET", f"{address}/{event}") as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind in ("complete", "error"):
                said = line.removeprefix("data: ")
                return ("labelled" if kind == "complete" else "error"), said
    return "error", ""


def is_readable(said: str, server: Server) -> bool:
    """Whether a person understands a refusal, and learns nothing of the server's folders."""
    plain = said.strip()
    return len(plain.split()) >= 3 and "Traceback" not in plain and str(server.temporary) not in plain


def storm(server: Server, at_once: int) -> dict[str, int]:
    """Many at the same time, by the page and by the API: how many were answered, were told to wait, or got nothing."""
    photo = picture("PNG", side=256)

    def one(number: int) -> str:
        with httpx.Client(timeout=120) as client:
            what, said = (post if number % 2 else send)(client, server, "photo.png", photo)
        if what == "labelled":
            return "answered"
        waits = any(word in said.lower() for word in ("queue", "busy", "requests wait already"))
        return "told to wait" if waits else f"failed: {said[:60]}"

    counts: dict[str, int] = defaultdict(int)
    with ThreadPoolExecutor(at_once) as pool:
        for outcome in pool.map(one, range(at_once)):
            counts[outcome] += 1
    return dict(counts)


def emptied(server: Server, seconds: float) -> bool:
    """Whether what was sent is gone after a time; the copies of examples stay."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not server.kept():
            return True
        time.sleep(0.5)
    return False


def main() -> int:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--uploads", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, help="default: a tiny one with random weights")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = attack(options.model or tiny_model(Path(folder)), options.uploads, options.at_once, options.seed)
    return 0 if report else 1


def attack(model: Path, uploads: int, at_once: int, seed: int) -> bool:
    """All of it; whether the server stood."""
    console, checks = Console(width=130), {}
    with serving(model) as server, httpx.Client(timeout=120) as client:
        send(client, server, "first.png", picture())
        before = server.memory()
        table, unread = _uploads(client, server, uploads, seed)
        checks["each answer can be read"] = (not unread, "; ".join(unread[:3]))
        asked = [ask(client, server, photo) for photo in ASKED]
        checks["files that were not sent are refused"] = (all(what != "labelled" for what, _ in asked), "")
        found = [address for address in ADDRESSES if client.get(server.address + address).status_code == 200]
        checks["other addresses give nothing"] = (not found, " ".join(found))
        counts = storm(server, at_once)
        checks[f"{at_once} at once are answered or told to wait"] = (
            counts.get("answered", 0) > 0 and not any(key.startswith("failed") for key in counts),
            ", ".join(f"{number} {key}" for key, number in counts.items()),
        )
        grown = server.memory() - before
        checks[f"memory within {MOST_MEMORY} MB"] = (grown < MOST_MEMORY, f"{before:.0f} MB, then {grown:+.0f}")
        checks["the folder is emptied"] = (emptied(server, 60), f"{len(server.kept())} files left")
        strays = server.strays()
        checks["nothing written outside it"] = (not strays, ", ".join(map(str, strays[:3])))
        checks["the server is up"] = (client.get(server.address).status_code == 200, "")
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
        gone = not list(server.temporary.glob("segvit-app-*"))
        checks["it ends by SIGTERM, and its folder is removed"] = (gone and server.process.returncode == 0, "")
    traces = [line.strip() for line in "".join(server.said).splitlines() if "/segvit/app/" in line]
    checks["no error in our own code"] = (not traces, "; ".join(traces[:3]))
    console.print(table)
    outcome = Table("must hold", "", "found")
    for name, (holds, text) in checks.items():
        outcome.add_row(name, "yes" if holds else "NO", text)
    console.print(outcome)
    return all(holds for holds, _ in checks.values())


def _uploads(client: httpx.Client, server: Server, uploads: int, seed: int) -> tuple[Table, list[str]]:
    """Send hostile files: what became of each kind, and what nobody could read."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    example: dict[str, str] = {}
    unread = []
    begin = time.monotonic()
    for kind, name, content in hostile(uploads, seed):
        what, said = send(client, server, name, content)
        counts[kind][what] += 1
        if what != "labelled":
            example.setdefault(kind, json.loads(said).get("error", said) if said.startswith("{") else said)
            if not is_readable(said, server):
                unread.append(f"{kind} {name[:20]!r}: {said[:80]!r}")
        other, said = post(client, server, name, content)
        counts[kind][f"API {other}"] += 1
        if other == "undocumented" or (other == "refused" and not is_readable(said, server)):
            unread.append(f"API, {kind} {name[:20]!r}: {said[:80]!r}")
    table = Table("kind", "labelled", "refused", "by the API", "refused", "one of the answers")
    table.title = f"{uploads} hostile files, to the page and to the API, in {time.monotonic() - begin:.0f} s"
    for kind, outcome in counts.items():
        refused = outcome["refused"] + outcome["error"]
        api = (outcome["API labelled"], outcome["API refused"])
        table.add_row(kind, *map(str, (outcome["labelled"], refused, *api)), example.get(kind, "")[:120])
    return table, unread


def tiny_model(folder: Path) -> Path:
    """A model file that takes no time."""
    import torch

    from segvit.config import ModelConfig
    from segvit.data.spec import load_spec
    from segvit.models.create import create_model

    torch.manual_seed(0)
    spec = load_spec("shapes")
    config = ModelConfig(backbone="vit_tiny_patch16_224", image_size=64, embed_dim=64, depth=2, num_heads=2)
    model = create_model(config=config, num_classes=spec.num_classes, spec=spec)
    model.save(folder / "tiny.safetensors")
    return folder / "tiny.safetensors"


def _tree(pid: int) -> list[int]:
    """A process and all below it (Linux)."""
    parents: dict[int, list[int]] = defaultdict(list)
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.read_text().rpartition(")")[2].split()[1])].append(int(status.parent.name))
        except OSError:  # it has ended
            continue
    found = [pid]
    for each in found:
        found += parents[each]
    return found


def _resident(pid: int) -> int:
    """Bytes in memory of a process."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
