"""Order of the help: common options first, then one panel per section of the settings, and examples at the end.

app = GroupedApp(...)
app.command(train, sort_key=2, help_epilogue=examples_of("train"))
"""

from cyclopts import App, Argument, ArgumentCollection, Group, Parameter

from segvit.cli.help.examples import EXAMPLES

COMMON = {
    "train": ("config", "init", "extend", "steps", "output", "resume"),
    "lr-find": ("config", "init", "plot"),
    "evaluate": ("config", "split", "json", "pictures", "device"),
    "predict": ("output", "overwrite", "batch-size", "precision", "device"),
    "export": ("format", "precision", "size", "scores", "images", "web-runtime"),
}
"""Options that the help of a command shows first, in this order, behind the arguments without a flag."""
PANELS = {
    "data": "Data",
    "model": "Network",
    "augment": "Augmentation",
    "loss": "Loss",
    "optim": "Optimizer",
    "eval": "Test protocol",
}
"""Title of the panel of each section of the settings."""
FIRST, OTHER = Group("Common options", sort_key=0), Group("Options", sort_key=1)
SECTIONS = {section: Group(title, sort_key=2 + place) for place, (section, title) in enumerate(PANELS.items())}


class GroupedApp(App):
    """A command line whose help has panels."""

    def assemble_argument_collection(
        self, *, default_parameter: Parameter | None = None, parse_docstring: bool = False
    ) -> ArgumentCollection:
        """Return the options and arguments of the command; for the help, each with its panel."""
        arguments = super().assemble_argument_collection(
            default_parameter=default_parameter, parse_docstring=parse_docstring
        )
        if parse_docstring:
            common = COMMON.get(self.name[0], ())
            for argument in arguments:
                panel = Parameter(group=_panel_of(argument, common))
                argument.parameter = Parameter.combine(argument.parameter, panel)
            arguments.sort(key=lambda argument: _place(argument, common))
        return arguments


def examples_of(command: str) -> str:
    """Return the examples of a command as Markdown."""
    return "\n".join(["Examples:", "", *(f"    {line}" for line in EXAMPLES[command])])


def panel(title: str) -> Group:
    """Return a panel for the options of a class that several commands share."""
    return Group(title, sort_key=len(SECTIONS) + 2)


def _panel_of(argument: Argument, common: tuple[str, ...]) -> Group:
    """Return the panel that shows an argument."""
    name = argument.name.lstrip("-")
    section, dot, _ = name.partition(".")
    if name in common or (common and argument.index is not None):
        return FIRST
    if dot and section in SECTIONS:
        return SECTIONS[section]
    groups = argument.parameter.group
    own = [group for group in groups if isinstance(group, Group)] if isinstance(groups, tuple) else []
    return own[0] if own and own[0].name not in ("Parameters", "Arguments") else OTHER


def _place(argument: Argument, common: tuple[str, ...]) -> int:
    """Return the place of an argument among the common ones; arguments without a flag come first."""
    name = argument.name.lstrip("-")
    return -1 if argument.index is not None else common.index(name) if name in common else len(common)
