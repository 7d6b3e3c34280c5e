"""Explain what people type from habit: commands and names of other libraries, NAME=VALUE, forgotten quotes.

    check_words(app, ["train", "epochs=100", "--lr", "0.1"])  # a UserError with what to type for both

All mistakes of a line are listed at once. Other errors are left to the parser.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from cyclopts import UNSET, App, ArgumentCollection, CycloptsError, CycloptsPanel, MissingArgumentError

from segvit.cli.help.examples import EXAMPLES
from segvit.cli.help.spread_patterns import spread_pattern
from segvit.errors import UserError
from segvit.utils.other_names import Found, find, value_here
from segvit.utils.text import nearest
from segvit.weights.file_kind import PICKLE, ZIP, first_bytes
from segvit.weights.names import MODELS

OTHER_COMMANDS = {
    "check-data": "check verify validate-data inspect dataset datasets stats",
    "train": "fit finetune fine-tune learn run-training trainer",
    "evaluate": "val validate validation test eval score metrics miou",
    "predict": "infer inference detect segment label paint run visualize demo-image image-demo",
    "app": "serve server web ui gui gradio streamlit",
    "export": "onnx deploy to-onnx torchscript tensorrt",
    "report": "plot plots dashboard analyze-logs",
    "look": "attention explain gradcam visualize-attention",
    "info": "summary describe params flops get-flops parameters",
    "bench": "benchmark speed fps latency profile",
    "backbones": "models list list-models zoo model-zoo",
    "lr-find": "find-lr lr-finder lrfind tune",
    "merge-find": "merge find-merge merging token-merging tome algm",
    "convert": "import convert-checkpoint",
    "push": "upload publish share hub",
    "data prepare": "prepare download unpack prepare-data",
    "demo": "tour quickstart hello",
    "--help": "help h usage",
    "--version": "version checks v",
}
"""Words that other libraries have for a command."""
TASKS = {"segment", "segmentation", "semantic", "seg", "yolo"}
"""Words that name the task before the command, as in `yolo segment train`."""
YES, NO = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
FOREIGN = {".pt", ".pth", ".ckpt", ".bin", ".pkl", ".h5", ".engine", ".tar"}
"""Suffixes of other libraries' models."""
ASSIGNED = re.compile(r"(-{0,2}[A-Za-z][\w.-]*)=(.*)", re.DOTALL)
LONGEST_NAME = 6
"""Number of words at most that a name with spaces is looked for in."""


@dataclass(frozen=True)
class Option:
    """An option or argument of a command."""

    name: str
    """Name without hyphens in front; of a positional argument in capitals."""
    values: int
    """Number of values that it takes at least; 0 of a flag."""
    negatives: tuple[str, ...]
    """Flags that turn it off."""


def check_words(app: App, words: Sequence[str]) -> None:
    """Refuse a line with words that segvit has under another name, and list what to type for each.

    Raises:
        UserError: there are such words.
    """
    if {"--help", "-h", "--version"} & set(words):
        return
    chain, apps, rest = app.parse_commands(list(words))
    command, name, head = apps[-1], " ".join(chain), ""
    if command.default_command is None:
        if not rest:
            return
        known = [word for word in command if not word.startswith("-")]
        head, name, rest = _other_command(rest, known, within=chain)
        if not name:
            raise UserError(head)
        command = app
        for part in name.split():
            command = command[part]
        if command.default_command is None:
            raise UserError(f"{head}: type segvit {name} --help")
    lines = list(Line(app, command, name).mistakes(rest))
    if head and not lines:
        raise UserError(f"{head} For example:\n  {EXAMPLES[name][0]}\nCommands: {', '.join(known)}")
    if lines:
        head = head or f"segvit {name} does not take " + ("this:" if len(lines) == 1 else "these words:")
        answers = [f"  {typed}: {answer}" for typed, answer in lines]
        raise UserError("\n".join([head, *answers, f"All options: segvit {name} --help"]))


def explain_missing(error: CycloptsError) -> Any:
    """Return the panel of a parser's error, with an example of the command if a value or an argument is missing."""
    name = " ".join(error.command_chain or ())
    if isinstance(error, MissingArgumentError) and name in EXAMPLES:
        return CycloptsPanel(f"{error} For example:\n{EXAMPLES[name][0]}")
    return CycloptsPanel(error)


class Line:
    """A command, and what is typed behind it."""

    def __init__(self, app: App, command: App, name: str) -> None:
        self.app, self.name = app, name
        self.arguments = command.assemble_argument_collection()
        self.options = options_of(self.arguments)
        self.places = [argument for argument in self.arguments if argument.index is not None]

    def mistakes(self, words: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yield (what is typed, what to do) for each mistake."""
        if unquoted := list(_unquoted(words)):
            yield from unquoted
            return
        free: list[str] = []
        place = 0
        while place < len(words) and words[place] != "--":
            word, following = words[place], words[place + 1 :]
            values = [each for each in following[: _first_option(following)] if each != "--"]
            if not _is_option(word):
                yield from self._free(word, len(free))
                free.append(word)
                place += 1
                continue
            typed, equals, value = word.partition("=")
            try:
                argument, _, implicit = self.arguments.match(typed)
            except ValueError:
                used, mistake = self._unknown(typed, value if equals else None, values)
                yield mistake
                place += 1 + used
                continue
            if implicit is not UNSET:
                if not equals and values and values[0].lower() in YES | NO and not _exists(values[0]):
                    option = Option(argument.name.lstrip("-"), 0, tuple(argument.negatives))
                    off = (values[0].lower() in NO) != (typed in option.negatives)
                    yield f"{typed} {values[0]}", f"type {_switched(option, on=not off)}"
                    place += 1
                elif argument.name == "--resume" and values and Path(values[0]).suffix.lower() in FOREIGN:
                    yield f"{typed} {values[0]}", "type --resume --output FOLDER, with the folder of the run"
                    place += 1
                place += 1
                continue
            given = value if equals else values[0] if values else ""
            here, note = value_here(argument.name, given)
            if here != given:
                choices = ", ".join(f'"{choice}"' for choice in argument.get_choices() or ())
                answer = f"type {argument.name} {here}" + (f", one of {choices}" if choices else "")
                yield f'{typed} "{given}"', _sentences(answer, note)
            count, every = argument.token_count()
            place += 1 + (0 if equals else len(values) if every else min(count, len(values)))
        if "MASKS" in {option.name for option in self.options} and (spread := spread_pattern(self.name, free)):
            yield spread

    def _unknown(self, typed: str, value: str | None, values: Sequence[str]) -> tuple[int, tuple[str, str]]:
        """Return how many of the words after an unknown option are its values, and the mistake."""
        found, command = self._find(typed)
        used = 0
        takes = values and not ASSIGNED.fullmatch(values[0]) and not (found and found.bare)
        if value is None and values and (takes or values[0].lower() in YES | NO):
            value, used = values[0], 1
        said = typed if value is None else f"{typed} {quote(value)}"
        if found is None:
            return used, (said, "unknown option")
        if found.guessed:
            return used, (said, f"unknown option {typed}. Did you mean {_dashed(found.options[0])}?")
        return used, (said, self._answer(found, value, command))

    def _free(self, word: str, index: int) -> Iterator[tuple[str, str]]:
        """Yield the mistake in a word that belongs to no option, if there is one."""
        suffix = Path(word).suffix.lower()
        names = {option.name for option in self.options}
        full = self.places and self.places[-1].token_count()[1] is False and index >= len(self.places)
        taken = not self.places or bool(full)
        if not _exists(word) and (match := ASSIGNED.fullmatch(word)):
            found, command = self._find(match[1])
            if found and not (found.guessed and re.search(r"\.[A-Za-z]\w*$", word)):
                yield word, self._answer(found, match[2], command)
                return
            if found is None and taken:
                yield word, "unknown setting; settings are typed as --NAME VALUE"
                return
        here = self.places[min(index, len(self.places) - 1)].name.lstrip("-").upper() if self.places else ""
        if here in ("MODEL", "MODELS") and suffix in FOREIGN and _is_foreign(Path(word)):
            convert = f"segvit convert {quote(word)} model.safetensors"
            answer = f"segvit loads {' and '.join(MODELS)} files"
            yield word, f"{answer}. To convert a checkpoint of the paper's authors, type {convert}"
        elif suffix == ".py" and not (_exists(word) and Path(word).is_dir()):
            recipe = "Start from a recipe, such as --config finetune"
            yield word, f"segvit reads no Python config. {recipe} (docs/coming-from.md)"
        elif suffix in (".yaml", ".yml") and "config" in names and not ("PHOTOS" in names and _exists(word)):
            yield word, f"type --config {quote(word)}"
        elif suffix in FOREIGN | {*MODELS} and "init" in names:
            yield word, self._answer(find("model", names) or Found([]), word, "")
        elif taken and not self.places:
            yield word, f"segvit {self.name} takes options alone, as --NAME VALUE"

    def _find(self, typed: str) -> tuple[Found | None, str]:
        """Return what a name means here or, with that command's name, in another command."""
        own = find(typed, [option.name for option in self.options])
        if own and not own.guessed:
            return own, ""
        for name in ("train", "predict", "evaluate", "check-data", "export"):
            options = options_of(self.app[name].assemble_argument_collection()) if name != self.name else []
            found = find(typed, [option.name for option in options])
            if found and found.options and not found.guessed:
                return found, name
        return own, ""

    def _answer(self, found: Found, value: str | None, command: str) -> str:
        """Return what to type for a name with a value."""
        if found.guessed:
            return f"unknown setting. Did you mean {_dashed(found.options[0])}?"
        if command:
            return f"segvit {self.name} has no such option; segvit {command} has {_dashed(found.options[0])}"
        typed = [self._spelled(option, value) for option in found.options[:2]]
        own_model = value is not None and Path(value).suffix.lower() in MODELS
        if not typed:
            return found.note[:1].lower() + found.note[1:].removesuffix(".")
        return _sentences(f"type {' or '.join(typed)}", "" if own_model else found.note)

    def _spelled(self, option: str, value: str | None) -> str:
        """Return an option, and its value if it takes one, as segvit reads them."""
        setting, _, given = option.partition(" ")
        about = next(each for each in self.options if each.name == setting)
        if given:
            return f"--{option}"
        if about.values == 0:
            return _switched(about, on=value is None or value.lower() not in NO)
        if value is None:
            return f"--{setting} VALUE"
        if setting in ("MODEL", "MODELS", "init") and Path(value).suffix.lower() in FOREIGN:
            value = "MODEL.safetensors"
        here = " ".join([quote(value_here(setting, value)[0])] * about.values)
        return f"{here} without a flag, as the argument {setting}" if setting.isupper() else f"--{setting} {here}"


def options_of(arguments: ArgumentCollection) -> list[Option]:
    """Return the options and arguments of a command, without sections such as --data, which hold others."""
    found = []
    for argument in arguments:
        if argument.children or not argument.show:
            continue
        name = argument.name.lstrip("-")
        values = argument.token_count()[0]
        found.append(Option(name.upper() if argument.index is not None else name, values, tuple(argument.negatives)))
    return found


def _other_command(words: Sequence[str], known: Sequence[str], *, within: Sequence[str]) -> tuple[str, str, list[str]]:
    """Return the answer to a line without a command of segvit, the command meant, or "", and the words behind it.

    Args:
        words: the line.
        known: the commands.
        within: commands that are typed before, such as `data`.
    """
    rest = list(words)
    while len(rest) > 1 and (rest[0].lower() in TASKS or rest[0].startswith("task=")):
        rest.pop(0)
    first = rest.pop(0)
    typed = " ".join(words[: len(words) - len(rest)])
    if _is_option(first):
        line = " ".join(["segvit train", first, *map(quote, rest)])
        return f"{first}: the command comes first, as in: {line}", "", rest
    word = Path(first).stem if first.endswith(".py") else first.removeprefix("mode=")
    word = word.lower().replace("_", "-")
    others = {other: name for name, said in OTHER_COMMANDS.items() for other in said.split()} if not within else {}
    guess = [word] if word in known else [others[word]] if word in others else nearest(word, known)
    unknown = f'unknown command "{typed}"'
    if guess and guess[0].startswith("-"):
        return f"{unknown}: type segvit {' '.join([*rest[:1], guess[0]])}", "", rest
    if guess:
        return f'{unknown}. Did you mean "{guess[0]}"?', " ".join([*within, guess[0]]), rest
    if line := _for_file(first, rest):
        return f"{unknown}. Did you mean this?\n  {line}\nCommands: {', '.join(known)}", "", rest
    return f"{unknown}. Commands: {', '.join(known)}", "", rest


def _for_file(first: str, words: Sequence[str]) -> str:
    """Return the line for a file that is typed in the place of the command, or ""."""
    suffix = Path(first).suffix.lower()
    others = " ".join(map(quote, words))
    if suffix in MODELS:
        return f"segvit predict {quote(first)} {others or 'PHOTO'} --output seen"
    if suffix in (".yaml", ".yml"):
        return f"segvit train --config {quote(first)} {others}".rstrip()
    if suffix in (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".mp4"):
        return f"segvit predict MODEL {quote(first)} --output seen"
    return ""


def _unquoted(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the files and folders with spaces in their names that are typed without quotes."""
    for start, word in enumerate(words):
        for end in range(start + 2, min(start + LONGEST_NAME, len(words)) + 1):
            name = " ".join(words[start:end])
            if any(map(_is_option, words[start:end])) or _exists(word):
                break
            if _exists(name):
                yield name, f'put the name in quotes: "{name}"'


def _exists(name: str) -> bool:
    """True if there is a file or folder of that name; a word may also be too long for one."""
    try:
        return Path(name).exists()
    except OSError:
        return False


def _is_foreign(path: Path) -> bool:
    """True unless the file can be read and is no file of torch.save."""
    readable = _exists(str(path)) and path.is_file() and os.access(path, os.R_OK)
    return not readable or first_bytes(path).startswith((PICKLE, ZIP))


def _is_option(word: str) -> bool:
    """True if a word begins like an option; a negative number does not."""
    return len(word) > 1 and word[0] == "-" and not re.match(r"-[\d.]", word)


def _first_option(words: Sequence[str]) -> int:
    """Return the number of words before the first option."""
    return next((index for index, word in enumerate(words) if _is_option(word)), len(words))


def _switched(option: Option, *, on: bool) -> str:
    """Return the flag that turns an option on or off."""
    if on:
        return f"--{option.name}"
    return option.negatives[0] if option.negatives else f"no --{option.name}"


def _dashed(option: str) -> str:
    """Return an option with hyphens; the name of a positional argument without."""
    return option if option.isupper() else f"--{option}"


def _sentences(first: str, note: str) -> str:
    """Join a sentence and a note, which may be empty."""
    return f"{first}. {note.removesuffix('.')}" if note else first
