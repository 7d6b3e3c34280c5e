"""A pickle of torch.save as plain data, read without running anything that it asks for.

A pickle is a program for a small machine that can call any function by its name. Here the program is read, never run:
`pickletools` tells its instructions apart, no name in it is looked up, and what a call would have made becomes an inert
`Made`. A program that names anything but plain data is refused nevertheless, since other readers would run it.
"""

import pickletools
import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch

from segvit.errors import UserError

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_NUMPY = "_reconstruct scalar"
_PATHS = "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"
DATA: dict[str, str] = {
    "_codecs": "encode",
    "argparse": "Namespace",
    "builtins": "bool bytearray bytes complex dict float frozenset int list object range set slice str tuple",
    "collections": "Counter OrderedDict defaultdict deque",
    "copyreg": "_reconstructor",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "numpy": "bool_ dtype float16 float32 float64 int8 int16 int32 int64 ndarray uint8 uint16 uint32 uint64",
    "numpy._core.multiarray": _NUMPY,
    "numpy._core.numeric": "_frombuffer",
    "numpy.core.multiarray": _NUMPY,
    "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,
    "torch": "bfloat16 bool device float16 float32 float64 int8 int16 int32 int64 uint8",
    "torch._utils": "_rebuild_parameter _rebuild_parameter_with_state _rebuild_tensor _rebuild_tensor_v2",
    "types": "SimpleNamespace",
    "uuid": "UUID",
}
"""Names by which plain data is pickled; beyond them, only classes of other libraries are taken for data."""
CLASS_NAME = re.compile(r"_*[A-Z]\w*(\._*[A-Z]\w*)*")
"""How a class is named; functions begin with a small letter."""


class Name(NamedTuple):
    """A function or class that a pickle names; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Made:
    """What a call in a pickle would have given: the name and the arguments, and nothing behind them."""

    by: Name
    arguments: Any

    def swallow(self, *_: Any) -> None:
        """Take what the pickle would put into the object."""

    append = extend = add = update = __setitem__ = swallow


class Stored(NamedTuple):
    """Numbers that lie beside the pickle."""

    key: str
    dtype: torch.dtype


class Refused(UserError):
    """The file asks for code to be run."""


class Broken(Exception):
    """The file is cut short or damaged."""


def read_pickle(file: IO[bytes], path: Path) -> tuple[Any, dict[str, Stored]]:
    """What the pickle at the file's position would give, with `Made` for every call, and the numbers it refers to.

    Raises:
        Refused: it names a function, or a class of Python itself that is no plain data.
        Exception: of any kind, where it is no whole pickle.
    """
    machine = _Machine(path)
    for instruction, argument, _ in pickletools.genops(file):
        machine.step(instruction.name, argument)
    return machine.stack[-1], machine.stored


EMPTY: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}
LITERAL = re.compile(r"(INT|BININT\d?|LONG\d?|FLOAT|BINFLOAT|(SHORT_)?(BIN)?(STRING|BYTES|UNICODE)8?|BYTEARRAY8)")


class _Machine:
    """The stack of a pickle's program, on which names are names and calls are records of calls."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.stored: dict[str, Stored] = {}

    def step(self, name: str, argument: Any) -> None:
        """One instruction, by the name that pickletools gives it."""
        stack = self.stack
        if name in EMPTY:
            stack.append(EMPTY[name]())
        elif LITERAL.fullmatch(name):
            stack.append(argument)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if argument is None else argument] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self.group()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "BINPERSID":
            stack.append(self.numbers(stack.pop()))
        elif name in ("LIST", "DICT", "FROZENSET") or name.startswith("TUPLE"):
            self.gather(name)
        elif name in ("APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS"):
            self.fill(name)
        elif name not in ("PROTO", "FRAME", "STOP"):
            self.call(name, argument)

    def group(self) -> list[Any]:
        """Take the values since the last mark off the stack."""
        start = self.marks.pop()
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def gather(self, name: str) -> None:
        """Make a container of values on the stack."""
        if name[-1].isdigit():
            count = int(name[-1])
            values = self.stack[-count:]
            del self.stack[-count:]
        else:
            values = self.group()
        if name == "DICT":
            self.stack.append(dict(zip(values[::2], values[1::2], strict=True)))
        else:
            self.stack.append({"LIST": list, "FROZENSET": frozenset}.get(name, tuple)(values))

    def fill(self, name: str) -> None:
        """Put values into the container below them."""
        single = {"APPEND": 1, "SETITEM": 2}.get(name)
        values = [self.stack.pop() for _ in range(single)][::-1] if single else self.group()
        target: Any = self.stack[-1]
        if type(target) not in (dict, list, set, Made):
            raise Broken(f"{name} on a {type(target).__name__}")
        if name.startswith("SETITEM"):
            for key, value in zip(values[::2], values[1::2], strict=True):
                target[key] = value
        else:
            put = target.add if name == "ADDITEMS" else target.append
            for value in values:
                put(value)

    def call(self, name: str, argument: Any) -> None:
        """A name, or a call of one: recorded, and refused where it is not known for plain data."""
        stack = self.stack
        if name == "GLOBAL":
            stack.append(self.named(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(self.named(module, attribute))
        elif name == "BUILD":
            stack.pop()  # the state of an object that is not there
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, by = stack.pop(), stack.pop()
            stack.append(self.made(by, arguments))
        elif name == "NEWOBJ_EX":
            named, arguments, by = stack.pop(), stack.pop(), stack.pop()
            stack.append(self.made(by, (arguments, named)))
        elif name in ("INST", "OBJ"):
            values = self.group()
            by = self.named(*argument.split(" ", 1)) if name == "INST" else values.pop(0)
            stack.append(self.made(by, tuple(values)))
        else:
            raise Broken(f"the instruction {name}, which torch.save does not write")

    def named(self, module: Any, name: Any) -> Name:
        """The name of a function or class, if it can be plain data's."""
        if (module, name) in NAME_MAPPING:  # Python 2's names, as torch.save writes them: `commands` is `subprocess`
            module, name = NAME_MAPPING[module, name]
        module = IMPORT_MAPPING.get(module, module)
        if name in DATA.get(module, "").split():
            return Name(module, name)
        if module.partition(".")[0] not in sys.stdlib_module_names and CLASS_NAME.fullmatch(name):
            return Name(module, name)
        raise Refused(
            f"{self.path}: refused, nothing of it was run: loading it in the usual way would call {module}.{name}, "
            "which no checkpoint needs; do not load this file with other programs, and fetch it from its authors"
        )

    def made(self, by: Any, arguments: Any) -> Any:
        """What calling `by` gives: an ordered dict is a dict here, all else is inert."""
        if not isinstance(by, Name):
            raise Refused(f"{self.path}: refused, nothing of it was run: it calls what another call gave")
        if by == Name("collections", "OrderedDict"):
            return dict(*arguments) if isinstance(arguments, tuple) else {}
        return Made(by, arguments)

    def numbers(self, reference: Any) -> Stored:
        """What `torch.save` puts in place of a tensor's numbers: ("storage", class, key, device, count)."""
        kind, storage, key = reference[:3]
        if kind != "storage" or not isinstance(storage, Name) or any(reference[5:]):
            raise Broken("a reference to numbers that torch.save does not write")
        if storage.name not in DTYPES:
            raise UserError(f"{self.path}: holds tensors of the kind {storage}; give a checkpoint in floating point")
        self.stored[key] = Stored(key, DTYPES[storage.name])
        return self.stored[key]
