"""The wheel and the source distribution: what they hold, and that they work in an environment of their own.

Nothing is downloaded: the environment borrows the dependencies of the one that runs the tests.
`.ci/try_wheel` alone installs everything from pip's index, as the workflows do.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "segvit"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("packages")
    command = [ROOT / ".ci" / "build_packages", folder]
    subprocess.run(command, check=True, env={**os.environ, "PYTHON": sys.executable}, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(packages: Path) -> Path:
    (found,) = packages.glob("segvit-*-py3-none-any.whl")
    return found


def borrow_dependencies(folder: Path) -> None:
    """Create a virtual environment that finds every installed package of this one, except segvit."""
    venv.create(folder / "venv", with_pip=True)
    borrowed = folder / "borrowed"
    borrowed.mkdir()
    for path in map(Path, {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}):
        for entry in path.iterdir():
            name = entry.name.lower().lstrip("_")
            if not name.startswith(("segvit", "pip", "__pycache__")) and entry.suffix != ".pth":
                (borrowed / entry.name).symlink_to(entry)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    for bundled in packages.glob("setuptools*"):  # Python 3.11 adds an old one, which would hide the borrowed one
        shutil.rmtree(bundled)
    (packages / "borrowed.pth").write_text(f"{borrowed}\n")


def expected_files() -> set[str]:
    """Files of the wheel: modules, dataset specs, recipes, the mark of typed packages."""
    found = {file.relative_to(ROOT) for file in PACKAGE.rglob("*.py")}
    found |= {file.relative_to(ROOT) for file in (PACKAGE / "data" / "specs").glob("*.yaml")}
    found |= {"segvit" / file.relative_to(ROOT) for file in (ROOT / "configs").rglob("*.yaml")}
    return {file.as_posix() for file in [*found, PACKAGE.relative_to(ROOT) / "py.typed"]}


def test_wheel_holds_the_package_alone(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert expected_files() <= names
    assert not [name for name in names if not name.startswith(("segvit/", "segvit-"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_source_distribution_builds_the_same_wheel(packages: Path, wheel: Path, tmp_path: Path) -> None:
    (archive,) = packages.glob("segvit-*.tar.gz")
    with tarfile.open(archive) as tar:
        tops = {name.split("/")[1] for name in tar.getnames() if "/" in name}
    assert {"segvit", "configs", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "PKG-INFO"} <= tops
    assert not tops & {".venv", ".venv-lowest", "runs", "dist", "build", "site"}
    assert archive.stat().st_size < 10e6
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", "wheel", "--no-deps"]
    subprocess.run([*pip, "--no-index", "--no-build-isolation", "-w", tmp_path, archive], check=True)
    (again,) = tmp_path.glob("segvit-*.whl")
    first, second = ({each.filename: each.CRC for each in zipfile.ZipFile(path).infolist()} for path in (wheel, again))
    assert first == second


def test_wheel_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    borrow_dependencies(tmp_path)
    environment = {**os.environ, "PIP_NO_INDEX": "1", "STEPS": "4", "OMP_NUM_THREADS": "1"}
    command = [ROOT / ".ci" / "try_wheel", wheel, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No broken requirements found" in done.stdout
    assert 0 <= json.loads((tmp_path / "demo" / "scores.json").read_text())["miou"] <= 1

    code = """
from pathlib import Path
import segvit
from segvit.config import TrainConfig
from segvit.data.spec import load_spec
home = Path(segvit.__file__).parent
assert home.is_relative_to(Path.cwd() / "venv"), home
specs = [load_spec(file.stem).name for file in (home / "data" / "specs").glob("*.yaml")]
files = [file.relative_to(home / "configs") for file in (home / "configs").rglob("*.yaml")]
recipes = [TrainConfig.load(file.with_suffix("")) for file in files]
print(len(specs), len(recipes))
"""
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    python = tmp_path / "venv" / "bin" / "python"
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr
    specs, recipes = map(int, done.stdout.split())
    assert specs == len([*(PACKAGE / "data" / "specs").glob("*.yaml")]) > 0
    assert recipes == len([*(ROOT / "configs").rglob("*.yaml")]) > 0
