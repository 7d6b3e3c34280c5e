"""Read a pickle of torch.save as plain data, without running anything that it asks for.

A pickle is a program that can import any module and call any function by name. Python's own unpickler reads it here,
but `find_class` replaces every name by an inert placeholder: nothing is imported, looked up or called. A pickle that
names anything but plain data is refused all the same, since other readers would run it.
"""

import pickle
import re
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

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
"""Names that pickles of plain data use, by module. Apart from these, only classes of other libraries count as data."""
CLASS_NAME = re.compile(r"_*[A-Z]\w*(\._*[A-Z]\w*)*")
"""Name of a class: it begins with a capital letter, unlike a function's."""


class Made:
    """Result of a call in a pickle: the arguments, with nothing behind them. Each name has a subclass of its own."""

    by = ""
    """Name of the function or class, such as "torch._utils._rebuild_tensor_v2"."""
    arguments: tuple[Any, ...]

    def __new__(cls, *arguments: Any, **_: Any) -> "Made":
        """Keep the arguments, and do nothing with them."""
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    def __call__(self, *_: Any) -> NoReturn:
        """Refuse to be called: plain data never calls what another call returned.

        Raises:
            CallOfResult: always.
        """
        raise CallOfResult

    def swallow(self, *_: Any) -> None:
        """Drop what the pickle would put into the object."""

    __setstate__ = append = extend = add = update = __setitem__ = swallow


class Ordered(dict[Any, Any]):
    """An OrderedDict, which holds a checkpoint's tensors: its items are kept, its attributes are dropped."""

    def __setstate__(self, _: Any) -> None:
        """Drop the attributes, such as the `_metadata` of a state_dict."""


class Stored(NamedTuple):
    """Numbers of a tensor, which are stored beside the pickle."""

    key: str
    dtype: torch.dtype


class Refused(UserError):
    """The file asks for code to be run."""


class Broken(Exception):
    """The file is cut short or damaged."""


class CallOfResult(Exception):
    """The pickle calls the result of another call."""


def read_pickle(file: IO[bytes], path: Path) -> tuple[Any, dict[str, Stored]]:
    """Return the content of the pickle at the file's position, and the numbers that it refers to by key.

    Every call in the pickle gives a `Made`.

    Raises:
        Refused: the pickle names a function, or a class of Python itself that is not plain data.
        Exception: of any kind, if the pickle is not whole.
    """
    reader = _Reader(file, path)
    try:
        return reader.load(), reader.stored
    except CallOfResult as error:
        raise Refused(
            f"{path}: refused, nothing of it was run: it calls the result of another call, which no checkpoint needs"
        ) from error


class _Reader(pickle._Unpickler):
    """Python's unpickler in which every name is a placeholder.

    It is the version written in Python. The C version allocates 4 GB for the 9 bytes `80 02 4e 72 ff ff ff 0f 2e`,
    since its memo is an array, and it reads past the end of a pickle, where the older layout has the next one.
    """

    # A bytearray is read as bytes: Python would allocate the length that the pickle claims before reading any byte.
    dispatch = pickle._Unpickler.dispatch | {pickle.BYTEARRAY8[0]: pickle._Unpickler.dispatch[pickle.BINBYTES8[0]]}

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding="latin1")  # fits the strings of Python 2 whatever their bytes
        self.path = path
        self.stored: dict[str, Stored] = {}
        self.placeholders: dict[str, type] = {"collections.OrderedDict": Ordered}

    def find_class(self, module: str, name: str) -> type:
        """Return the placeholder for a function or class that plain data may name.

        Raises:
            Refused: plain data does not name it.
        """
        if (module, name) in NAME_MAPPING:  # torch.save writes the names of Python 2: `subprocess` is `commands`
            module, name = NAME_MAPPING[module, name]
        module = IMPORT_MAPPING.get(module, module)
        is_foreign_class = module.partition(".")[0] not in sys.stdlib_module_names and CLASS_NAME.fullmatch(name)
        if name not in DATA.get(module, "").split() and not is_foreign_class:
            raise Refused(
                f"{self.path}: refused, nothing of it was run: loading it in the usual way would call {module}.{name}, "
                "which no checkpoint needs; do not load this file with other programs, and fetch it from its authors"
            )
        full_name = f"{module}.{name}"
        if full_name not in self.placeholders:
            self.placeholders[full_name] = type("Placeholder", (Made,), {"by": full_name})
        return self.placeholders[full_name]

    def get_extension(self, code: int) -> NoReturn:
        """Refuse numbers in place of names, which Python may resolve without asking `find_class`.

        Raises:
            Broken: always; torch.save does not write them.
        """
        raise Broken(f"the extension code {code}, which torch.save does not write")

    def persistent_load(self, reference: Any) -> Stored:
        """Return the numbers that torch.save refers to by ("storage", class, key, device, count).

        Raises:
            Broken: torch.save does not write such a reference.
            UserError: the numbers are of a kind that checkpoints do not need, such as complex.
        """
        kind, storage, key = reference[:3]
        if kind != "storage" or not isinstance(storage, type) or not issubclass(storage, Made) or any(reference[5:]):
            raise Broken("a reference to numbers that torch.save does not write")
        name = storage.by.rpartition(".")[2]
        if name not in DTYPES:
            raise UserError(f"{self.path}: holds tensors of the kind {storage.by}; give a checkpoint in floating point")
        self.stored[key] = Stored(key, DTYPES[name])
        return self.stored[key]
