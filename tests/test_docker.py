"""The Dockerfile, read instruction by instruction, and its steps as commands: building needs a daemon, testing none.

The slow test does what `docker build` and `docker run` would, in a folder that stands for the image's root: the pip
steps in a virtual environment, the entry point as another user, who may write where the image says and nowhere else.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch
from PIL import Image

from segvit.cli.main import app
from segvit.config import ModelConfig
from segvit.data.shapes.scenes import render_scene
from segvit.data.spec import load_spec
from segvit.models.create import create_model

ROOT = Path(__file__).resolve().parent.parent
KNOWN = ("ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "RUN", "USER", "WORKDIR")
"""Instructions that this reader understands; another one fails the tests."""
PLACES = re.compile(r"(?<![\w.}])/(?:src|opt/segvit|models|output|cache|tmp|photos)(?=[/\"':\s]|$)")
"""Folders of the image that the stand-in has, where they stand in a command."""
WRITABLE = {"/cache", "/output", "/tmp"}
PORT = "7860"
GRACE = 10
"""Seconds that `docker stop` leaves between SIGTERM and SIGKILL."""


@dataclass(frozen=True)
class Step:
    """An instruction: its word, and what follows, on one line."""

    word: str
    text: str

    @property
    def words(self) -> list[str]:
        """Of the exec form, `["segvit", "app"]`."""
        said: list[str] = json.loads(self.text)
        return said


def read_steps(text: str) -> list[Step]:
    """The instructions of a Dockerfile, comments left out and continued lines joined."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    steps = []
    for line in lines.replace("\\\n", " ").splitlines():
        if line.strip():
            word, _, rest = line.strip().partition(" ")
            assert word in KNOWN, f"{word}: an instruction that the tests do not read"
            steps.append(Step(word, " ".join(rest.split())))
    return steps


def read_stages(steps: Sequence[Step]) -> list[list[Step]]:
    """What comes before the first FROM, and each stage with its FROM."""
    stages: list[list[Step]] = [[]]
    for step in steps:
        if step.word == "FROM":
            stages.append([])
        stages[-1].append(step)
    return stages


def of(stage: Sequence[Step], word: str) -> list[str]:
    """What follows a word in a stage."""
    return [step.text for step in stage if step.word == word]


def only(stage: Sequence[Step], word: str) -> str:
    (text,) = of(stage, word)
    return text


def is_ignored(path: str, patterns: Sequence[str]) -> bool:
    """Whether .dockerignore leaves a file out: the last pattern that fits it, or a folder above it, decides."""
    ignored = False
    names = [str(part) for part in (PurePosixPath(path), *PurePosixPath(path).parents) if str(part) != "."]
    for pattern in patterns:
        if any(shape_of(pattern.lstrip("!")).fullmatch(name) for name in names):
            ignored = not pattern.startswith("!")
    return ignored


def shape_of(pattern: str) -> re.Pattern[str]:
    """A pattern of .dockerignore as a regular expression."""
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile(re.sub(r"\*\*/|\*\*|.", lambda found: parts.get(found[0], re.escape(found[0])), pattern))


def read_patterns() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def clone_files() -> list[str]:
    """Every file that a clone has, and those that will be committed."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a clone")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def context() -> list[str]:
    """The files that a build is given."""
    patterns = read_patterns()
    return [name for name in clone_files() if not is_ignored(name, patterns)]


@pytest.fixture(scope="module")
def stages() -> list[list[Step]]:
    return read_stages(read_steps((ROOT / "Dockerfile").read_text()))


# --- what it says ----------------------------------------------------------------------------------------------------


def test_reader_can_fail() -> None:
    steps = read_steps('# a\nARG A=1\nRUN one && \\\n # b\n    two\nCMD ["x"]\n')
    assert [(step.word, step.text) for step in steps] == [("ARG", "A=1"), ("RUN", "one && two"), ("CMD", '["x"]')]
    with pytest.raises(AssertionError, match="ADD"):
        read_steps("ADD https://example.org/x /x\n")
    patterns = ["*", "!keep", "**/*.pyc", "!keep/a?c"]
    ignored = ("x", "x/y", "keep/m.pyc", "keep/deep/m.pyc", ".git/config", "keeper")
    assert all(is_ignored(path, patterns) for path in ignored)
    assert not any(is_ignored(path, patterns) for path in ("keep/x", "keep/deep/x", "keep/abc"))


def test_bases_are_pinned_and_the_same(stages: list[list[Step]]) -> None:
    before, build, final = stages
    assert re.fullmatch(r"BASE=[\w./-]+:\d[\w.-]+", only(before, "ARG")), "a tag that says the version"
    assert only(build, "FROM") == "${BASE} AS build" and only(final, "FROM") == "${BASE}"


def test_every_copied_path_is_in_the_context(stages: list[list[Step]], context: list[str]) -> None:
    copied = [name for step in of(stages[1], "COPY") for name in step.split()[:-1]]
    assert len(copied) > 4
    for name in copied:
        assert any(file == name or file.startswith(f"{name}/") for file in context), f"{name} is not in the context"
    assert all(any(file == name or file.startswith(f"{name}/") for name in copied) for file in context), "sent in vain"
    package = {name for name in clone_files() if name.startswith(("segvit/", "configs/"))}
    assert package <= set(context)
    (moved,) = of(stages[2], "COPY")
    assert re.fullmatch(r"--from=build (/\S+) \1", moved), "a virtual environment works at its own path alone"


def test_no_root_and_one_port(stages: list[list[Step]]) -> None:
    final = stages[2]
    order = [step.word for step in final]
    user = only(final, "USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user), "a number other than 0: a cluster cannot look up names"
    assert "RUN" not in order[order.index("USER") :]
    owned = set(re.findall(r"--owner \d+|/\w+", only(final, "RUN")))
    assert {f"--owner {user.split(':')[0]}", "/cache", "/output"} <= owned
    command = Step("CMD", only(final, "CMD")).words
    assert command[command.index("--port") + 1] == PORT == only(final, "EXPOSE")
    assert f"http://127.0.0.1:{PORT}/" in only(final, "HEALTHCHECK")


def test_command_is_one_that_segvit_knows(stages: list[list[Step]]) -> None:
    assert Step("ENTRYPOINT", only(stages[2], "ENTRYPOINT")).words == ["segvit"]
    verb, given, _ = app.parse_args(Step("CMD", only(stages[2], "CMD")).words, exit_on_error=False, print_error=False)
    assert verb.__name__ == "serve"
    assert given.arguments["models"] == ["/models/model.safetensors"]
    assert given.arguments["host"] == "0.0.0.0" and given.arguments["port"] == int(PORT)


@pytest.mark.parametrize("index", ["", "ADDRESS"])
def test_index_of_pytorch_is_used_for_pytorch_alone(stages: list[list[Step]], tmp_path: Path, index: str) -> None:
    step = next(text for text in of(stages[1], "RUN") if "TORCH_INDEX" in text)
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n')
    pip.chmod(0o755)
    command = step.replace("/opt/segvit/bin/pip", str(pip))
    subprocess.run(["sh", "-c", command], check=True, env={**os.environ, "TORCH_INDEX": index})
    said = (tmp_path / "said").read_text().splitlines()
    wanted = "install -c constraints.txt torch torchvision"
    first = "install --no-deps -i ADDRESS -c constraints.txt torch torchvision"
    assert said == ([first, wanted] if index else [wanted])


# --- what docs/docker.md says ----------------------------------------------------------------------------------------


def told_commands() -> Iterator[list[str]]:
    """The docker commands of the page, as words."""
    text = (ROOT / "docs" / "docker.md").read_text(encoding="utf-8").replace("\\\n", " ")
    for line in text.splitlines():
        if line.startswith("docker "):
            yield shlex.split(line, comments=True)


def values(words: Sequence[str], flag: str) -> list[str]:
    return [words[index + 1] for index, word in enumerate(words) if word == flag]


def test_page_and_file_agree(stages: list[list[Step]]) -> None:
    arguments = {text.partition("=")[0] for stage in stages for text in of(stage, "ARG")}
    told: dict[str, list[list[str]]] = {}
    for words in told_commands():
        told.setdefault(words[1], []).append(words)
    assert len(told["build"]) >= 2 and len(told["run"]) >= 3
    for words in told["build"]:
        assert {value.partition("=")[0] for value in values(words, "--build-arg")} <= arguments
    for words in told["run"]:
        for volume in values(words, "--volume"):
            _, target, *mode = volume.split(":")
            assert target in WRITABLE or (target in {"/models", "/photos"} and mode == ["ro"])
        for published in values(words, "--publish"):
            assert published.startswith("127.0.0.1:") and published.endswith(f":{PORT}")


@pytest.mark.skipif(not shutil.which("docker"), reason="needs the docker client; no daemon")
def test_docker_knows_the_flags_of_the_page() -> None:
    nowhere = {**os.environ, "DOCKER_HOST": "unix:///nowhere.sock"}
    for words in told_commands():
        if words[1] == "run":
            said = subprocess.run(words, capture_output=True, text=True, env=nowhere).stderr
            assert "unknown" not in said and "invalid" not in said and "nowhere.sock" in said, said


# --- what it does ----------------------------------------------------------------------------------------------------


@dataclass
class StandIn:
    """A folder in the place of an image's root, in which the steps of a Dockerfile are run."""

    root: Path
    python: str
    context: Sequence[str]
    variables: dict[str, str] = field(default_factory=dict)
    """Of ENV."""
    folder: str = "/"
    user: int | None = None
    """None: whoever runs the tests, where that is not root."""

    def placed(self, text: str) -> str:
        """A command with the image's folders where they stand here."""
        return PLACES.sub(lambda found: f"{self.root}{found[0]}", text)

    def build(self, steps: Sequence[Step]) -> None:
        """Run the steps of a stage that change files."""
        arguments = dict(text.partition("=")[::2] for text in of(steps, "ARG"))
        arguments = {name: value.strip('"') for name, value in arguments.items()}
        for step in steps:
            if step.word == "ENV":
                for name, value in (word.partition("=")[::2] for word in shlex.split(step.text)):
                    path = self.variables.get("PATH", f"{self.root}/bin:/usr/bin:/bin")
                    self.variables[name] = self.placed(value).replace("${PATH}", path)
            elif step.word == "WORKDIR":
                self.folder = self.placed(step.text)
                Path(self.folder).mkdir(parents=True, exist_ok=True)
            elif step.word == "COPY" and not step.text.startswith("--from="):
                self._copy(*step.text.split())
            elif step.word == "RUN":
                self._run(step.text, arguments)

    def _copy(self, *names: str) -> None:
        for name in names[:-1]:
            for file in self.context:
                if file == name or file.startswith(f"{name}/"):
                    target = Path(self.folder) / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / file, target)

    def _run(self, text: str, arguments: Mapping[str, str]) -> None:
        if os.geteuid() != 0:
            text = re.sub(r"--(owner|group) \d+", "", text)
        environment = {**os.environ, **self.variables, **arguments}
        environment["PATH"] = f"{self.root}/bin:{os.environ['PATH']}"  # where `python` is the one chosen
        environment.pop("PIP_CONSTRAINT", None)
        done = subprocess.run(
            ["sh", "-c", self.placed(text)], cwd=self.folder, env=environment, capture_output=True, text=True
        )
        if "connection" in done.stderr.lower() and done.returncode:
            pytest.skip(f"no package index can be reached: {done.stderr[-300:]}")
        assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"

    def start(self, words: Sequence[str]) -> "subprocess.Popen[str]":
        """A command in the finished image, as its user."""
        identity: dict[str, Any] = {}
        if self.user is not None:
            identity = {"user": self.user, "group": self.user, "extra_groups": []}
        return subprocess.Popen(
            words,
            cwd=self.folder,
            env={**self.variables, "TMPDIR": f"{self.root}/tmp", "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **identity,
        )

    def run(self, *words: str) -> str:
        """What a command prints; it must end well."""
        process = self.start(words)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        return said

    def written(self) -> set[str]:
        """Files below the root that belong to the image's user, or, where that is nobody else, were changed."""
        test = ["-user", str(self.user)] if self.user else ["-newer", str(self.root / "built")]
        found = subprocess.run(["find", self.root, "-type", "f", *test], capture_output=True, text=True).stdout
        return {f"/{Path(line).relative_to(self.root)}" for line in found.splitlines()}


def find_python() -> str:
    """A Python of segvit's that another user may run."""
    for name in ("python3.12", "python3.11", sys.executable):
        path = shutil.which(name, path=f"/usr/local/bin:/usr/bin:{os.environ['PATH']}")
        script = "import venv, ensurepip, sys; assert sys.version_info >= (3, 11)"
        identity: dict[str, Any] = {"user": 10001} if os.geteuid() == 0 else {}
        with tempfile.TemporaryDirectory() as folder:
            Path(folder).chmod(0o755)
            try:
                done = subprocess.run([path or name, "-c", script], cwd=folder, capture_output=True, **identity)
            except OSError:  # it is not there, or not for others
                continue
        if done.returncode == 0:
            return path or name
    pytest.skip("no Python 3.11 or newer that another user may run")


@pytest.fixture(scope="module")
def image(stages: list[list[Step]], context: list[str]) -> Iterator[StandIn]:
    """The Dockerfile built, with a model and photos mounted."""
    python = find_python()
    root = Path(tempfile.mkdtemp(prefix="segvit-image-", dir="/tmp"))  # where another user may go
    try:
        root.chmod(0o755)
        for name in ("bin", "tmp", "photos"):
            (root / name).mkdir()
        (root / "tmp").chmod(0o1777)
        (root / "bin" / "python").write_text(f'#!/bin/sh\nexec {python} "$@"\n')
        (root / "bin" / "python").chmod(0o755)
        made = StandIn(root, python, context)
        for stage in stages[1:]:
            made.variables.clear()  # a stage begins anew
            made.build(stage)
        made.user = int(only(stages[2], "USER").split(":")[0]) if os.geteuid() == 0 else None
        (root / "built").touch()
        torch.manual_seed(0)
        network = ModelConfig(backbone="vit_tiny_patch16_224", patch_size=8, embed_dim=32, depth=3, image_size=32)
        create_model(config=network, num_classes=8, spec=load_spec("shapes")).save(
            root / "models" / "model.safetensors"
        )
        Image.fromarray(render_scene(3, 64)[0]).save(root / "photos" / "scene.png")
        for path in (root / "models" / "model.safetensors", root / "photos" / "scene.png"):
            path.chmod(0o444)
        yield made
    finally:
        shutil.rmtree(root)


def health(stages: list[list[Step]], port: int) -> list[str]:
    """The command of HEALTHCHECK, at another port."""
    check = only(stages[2], "HEALTHCHECK")
    return Step("CMD", check[check.index("[") :].replace(PORT, str(port))).words


@pytest.mark.slow
def test_build_installs_what_is_pinned(image: StandIn) -> None:
    pip = f"{image.root}/opt/segvit/bin/pip"
    assert "No broken requirements" in image.run(pip, "check")
    frozen = dict(line.lower().split("==") for line in image.run(pip, "freeze").splitlines() if "==" in line)
    pins = re.findall(r"^(\S+)==(\S+)$", (ROOT / "constraints.txt").read_text().lower(), re.MULTILINE)
    for name, version in pins:
        found = frozen.get(name, frozen.get(name.replace("_", "-"), version))
        assert found.partition("+")[0] == version, f"{name} {found}, pinned to {version}"
    assert {"gradio", "av", "onnxruntime", "torch"} <= set(frozen)
    assert not {"pytest", "ruff", "mypy", "nbclient", "playwright"} & set(frozen)
    assert image.run("segvit", "--version").strip()
    total = sum(path.lstat().st_size for path in (image.root / "opt").rglob("*") if not path.is_dir())
    print(f"the virtual environment: {total / 1e9:.1f} GB")


@pytest.mark.slow
def test_page_is_healthy_and_ends_when_told(image: StandIn, stages: list[list[Step]]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [image.placed(word).replace(PORT, str(port)) for word in Step("CMD", only(stages[2], "CMD")).words]
    check = health(stages, port)
    assert image.start(check).wait(60) == 1, "healthy before it was started"
    process = image.start(["segvit", *command])
    try:
        until = time.monotonic() + 120  # --start-period
        while image.start(check).wait(60):
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            assert time.monotonic() < until, "not healthy within the start period"
            time.sleep(1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
            assert "segvit" in page.read().decode().lower()
        held = [path for path in image.written() if not path.startswith("/tmp/")]
        assert not held, held
    finally:
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        said, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < GRACE, said
    assert "Traceback" not in said, said
    assert not list((image.root / "tmp").glob("segvit-*")), "photos of visitors are left behind"


@pytest.mark.slow
def test_predict_writes_to_its_output_alone(image: StandIn) -> None:
    words = ("predict", "/models/model.safetensors", "/photos", "--output", "/output")
    image.run("segvit", *map(image.placed, words))
    written = {path for path in image.written() if not path.startswith("/tmp/")}
    assert "/output/scene.png" in written
    assert {PurePosixPath(path).parent.as_posix() for path in written} <= {"/output"}
    if image.user is not None:
        elsewhere = image.start(["segvit", *map(image.placed, words[:-1]), f"{image.root}/opt/segvit/out"])
        said, _ = elsewhere.communicate(timeout=300)
        assert elsewhere.returncode == 2 and "Permission denied" in said, said
