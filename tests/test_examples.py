"""The examples in the docstrings of the most important public names run, in a folder such as a newcomer has."""

import doctest
from pathlib import Path

import pytest

import segvit
from tests.helpers.newcomer import make_folder

NAMES = (
    "DataConfig",
    "Prediction",
    "SegViT",
    "check_data",
    "create_model",
    "criterion",
    "evaluate",
    "load_model",
    "load_spec",
    "open_dataset",
    "predict",
    "profile",
    "recipe",
    "train",
    "with_classes",
)


class Checker(doctest.OutputChecker):
    """Compares what an expression gives; what a statement prints, such as the progress of a run, may be anything."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


def examples_of(name: str) -> doctest.DocTest:
    """The examples in the docstring of a public name itself."""
    text = getattr(segvit, name).__doc__ or ""
    return doctest.DocTestParser().get_doctest(text, {}, f"segvit.{name}", None, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples")
    make_folder(path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    test = examples_of(name)
    assert len(test.examples) >= 2 and test.examples[0].source == "import segvit\n"
    said: list[str] = []
    runner = doctest.DocTestRunner(checker=Checker())
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


def test_a_wrong_example_is_seen() -> None:
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    runner = doctest.DocTestRunner()
    runner.run(test, out=lambda text: None)
    assert runner.failures == 1
