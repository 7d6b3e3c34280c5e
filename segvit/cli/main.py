"""The command line: the table of commands. Each command imports the library when it runs, so that --help is quick."""

import io
import os
import sys
from collections.abc import Callable
from typing import Any

from cyclopts import Parameter

from segvit.cli.app import serve
from segvit.cli.backbones import backbones
from segvit.cli.bench import bench
from segvit.cli.config_file import from_config_file
from segvit.cli.cvat import cvat
from segvit.cli.data import check_data, prepare
from segvit.cli.errors import parser_errors, say_once
from segvit.cli.evaluate import evaluate
from segvit.cli.export import export
from segvit.cli.help.mistyped import check_words, explain_missing
from segvit.cli.help.panels import GroupedApp, examples_of
from segvit.cli.info import explain_size, info
from segvit.cli.look import look
from segvit.cli.lr_find import lr_find
from segvit.cli.models import convert, drop_group, merge_find, push
from segvit.cli.path_errors import explain
from segvit.cli.predict import predict
from segvit.cli.report import report
from segvit.cli.train import demo, train
from segvit.errors import UserError

app = GroupedApp(
    name="segvit",
    help="Semantic segmentation with plain Vision Transformers.",
    help_epilogue=examples_of("segvit"),
    config=from_config_file,
    error_formatter=explain_missing,
    default_parameter=Parameter(consume_multiple=True),  # --data.classes sky road car
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # main says how to resume
    version_flags=["--version"],
)
IN_ORDER_OF_USE: tuple[Callable[..., Any], ...] = (
    check_data,
    train,
    evaluate,
    predict,
    serve,
    cvat,
    export,
    report,
    look,
    info,
    bench,
    backbones,
    lr_find,
    merge_find,
    convert,
    drop_group,
    push,
    demo,
)
"""Commands in the order in which the help lists them."""
NAMES: dict[Callable[..., Any], str] = {serve: "app"}
"""Names of the commands that are not called like their function."""
for place, function in enumerate(IN_ORDER_OF_USE):
    name = NAMES.get(function, function.__name__.replace("_", "-"))
    formatter = explain_size if function is info else explain_missing
    app.command(function, name=name, sort_key=place, help_epilogue=examples_of(name), error_formatter=formatter)
data = GroupedApp(name="data", help="Unpack datasets that come as archives.", sort_key=len(IN_ORDER_OF_USE))
data.command(prepare, help_epilogue=examples_of("data prepare"))
app.command(data)


def main() -> None:
    """Run the command line. A UserError is printed without a traceback and exits with 2; Ctrl-C exits with 130."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the output's encoding lacks must not end the command
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads that spin would starve the loader
    try:
        check_words(app, sys.argv[1:])
        with parser_errors() as console:
            app(sys.argv[1:], error_console=console)
    except UserError as error:
        say_once(f"error: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:  # the reader of our output, such as `head`, has stopped
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the interpreter's last flush works
        sys.exit(141)  # the exit code of a program ended by SIGPIPE
    except OSError as error:
        explained = explain(error, sys.argv[1:])
        if explained is None:  # not about a path of the user's
            raise
        say_once(f"error: {explained}")
        sys.exit(explained.exit_code)
    except KeyboardInterrupt:
        say_once("stopped; to resume, add --resume to train, or run the same predict command again")
        sys.exit(130)


if __name__ == "__main__":
    main()
