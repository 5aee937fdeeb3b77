"""How a function becomes a command: its words, and its options, each written once."""

from __future__ import annotations

import difflib
import inspect
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Annotated, Any

import typer

from featvis import loading, methods
from featvis import text as texts
from featvis.errors import InputError, printable
from featvis.results.run import options_of_runs

#: How a shell reports a program ended by Ctrl-C.
INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="See what any unit of a network looks for, reproducibly and with evidence.",
    epilog="Exit codes: 0 all is well; 1 a replay differs from the original; 2 a mistake in what "
    "was asked, or a NaN; 3 pictures were written, but a unit never gave a gradient and its "
    "picture shows nothing of it (a line says why); 130 Ctrl-C.",
)


#: What the words of commands are.
WORDS = {
    "[MODEL]": "The name of a network (see `featvis models`); left out where --model says it.",
    "MODEL": "The name of a network (see `featvis models`).",
    "GENERATOR": "The name of a generator, as mnist_ppgn; or package.module:factory.",
    "LAYER": "A layer of the network (see `featvis layers`).",
    "OBJECTIVE": "What to maximise or explain: a channel block8:3, a neuron block8:3@7,7 or at a "
    "token block3:5@0, a class logits:285, several block8:0-3, 'block8:[0,3]' or 'block8:*', a "
    "layer block8, or an expression such as 'block8:3 - 0.1*tv'.",
    "UNIT": "A unit, as block4:3.",
    "UNIT|LAYER": "A unit, as block4:3; or a layer or several of its units, as block4 or "
    "block4:0-31, for a table.",
    "FOLDER": "A folder of images.",
    "DATASET": "A folder with index.csv, label.csv and images/, as Broden has them.",
    "IMAGES": "An index (see `featvis index`), or a folder of images.",
    "INDEX": "The folder of an index (see `featvis index`).",
    "IMAGE...": "Picture files.",
    "IMAGE": "A picture file.",
    "CLASS...": "Classes, by number or name.",
    "FILE": "A PNG that featvis wrote, or the JSON beside it.",
}


class _Grouped(typer.core.TyperCommand):
    """A command whose help has its words, and its options in groups; one of each is enough."""

    def make_parser(self, ctx: Any) -> Any:
        parser: Any = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_args(args: list[str]) -> Any:
            *found, order = parse(args)
            for one in order:
                # Of several values all but the last would be lost without a word.
                single = one.param_type_name == "option" and not (one.multiple or one.is_flag)
                if single and order.count(one) > 1:
                    ctx.fail(
                        f"{one.opts[-1]} is given {order.count(one)} times; it takes one value"
                    )
            return *found, order

        parser.parse_args = parse_args
        return parser

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return ["[OPTIONS]", *(getattr(one, "metavar", None) or "" for one in self.params[:1])]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for one in self.get_params(ctx):
            if one.param_type_name == "argument":
                listed = dict.fromkeys((one.metavar or "").split())
                groups["Arguments"] = [
                    (word, WORDS.get(word) or WORDS[word.removesuffix("...")]) for word in listed
                ]
            elif (record := one.get_help_record(ctx)) is not None:
                group = getattr(one, "rich_help_panel", None) or "Other options"
                groups.setdefault(group, []).append(record)
        for group, records in groups.items():
            if records:
                with formatter.section(group):
                    formatter.write_dl(records)


def option(
    name: str, kind: Any, help: str, *written: str, group: str = "This command", **more: Any
) -> dict[str, inspect.Parameter]:
    """Make an option of commands.

    Args:
        name: what commands call it.
        kind: of its value; None, or False of a bool, where it is not given and has no default.
        help: what `--help` says of it.
        *written: how it is written, by default `--name`.
        group: of the help.
        **more: `default`, that of `inspect` for an option that must be given; `shown`, the default
            in words; `metavar`.
    """
    default = more.get("default", False if kind is bool else None)
    shown = more.get("shown", default is not None and kind is not bool)
    if default is inspect.Parameter.empty:
        help, shown = f"{help}  [required]", False
    told = typer.Option(
        *written, help=help, rich_help_panel=group, show_default=shown, metavar=more.get("metavar")
    )
    annotation = Annotated[kind | None, told] if default is None else Annotated[kind, told]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return {name: inspect.Parameter(name, keyword, default=default, annotation=annotation)}


_NETWORK, _RUN, _FILES = "The network", "The run", "Files and output"
NETWORK = {
    **option(
        "model", str, "Where the function is that makes your own network, in place of MODEL.",
        group=_NETWORK, metavar="PACKAGE.MODULE:FACTORY",
    ),
    **option(
        "weights", str, "A file of weights (.safetensors, .pth, .npz), or one of the Hugging Face "
        "hub, hf://owner/repository@revision/path; after a # the part of it, as in run.pth#ema.",
        group=_NETWORK,
    ),
}  # fmt: skip
SIZE = option(
    "size", str, "Height x width in pixels, as 160x224, or 160.",
    group=_NETWORK, shown="the network's own",
)  # fmt: skip
JSON = option("json", bool, "Print a line of JSON a result.", "--json", group=_FILES)
QUIET = option("quiet", bool, "Show no progress bar.", "--quiet", group=_FILES)
_WHERE = "Where the picture goes: a file.png, or a folder/, which is made."
FILES = {
    **option(
        "output", str, f"{_WHERE} Several get names of their own in it, or after the file's, which "
        "is then their grid.",
        "-o", "--output", group=_FILES, shown="this folder",
    ),
    **option("force", bool, "Write over existing files.", "--force", group=_FILES),
    **QUIET,
    **JSON,
}  # fmt: skip


#: The same, of commands that write one picture of all.
ONE_FILE = FILES | option(
    "output", str, _WHERE, "-o", "--output", group=_FILES, shown="this folder"
)


def run_options(kind: str | None, *, animated: bool = False) -> dict[str, inspect.Parameter]:
    """Return the options of a run, as `Run` has them, with presets and an animation.

    Args:
        kind: of presets, as `featvis.methods.presets` has it; None for a method without.
        animated: whether the way there can be kept.
    """
    found: dict[str, inspect.Parameter] = {}
    shown = "the method's own"
    if kind is not None:
        known, shown = list(methods.presets(kind)), "the preset's own"
        told = f"The recipe of the paper: {', '.join(known)}."
        found |= option("preset", str, told, group=_RUN, default=known[0])
    choices = texts.choices()
    named = ", ".join(choices["parameterization"])
    told = f"How the image is written: {named}; or with arguments, as 'Fourier(decay=1.5)'."
    found |= option("param", str, told, group=_RUN, shown=shown)
    for name, one in options_of_runs().items():
        told, kind_of = one.metadata["help"], one.metadata["typed"]
        if name in choices:
            told += f" One of: {', '.join(choices[name])}."
        # The seed is no preset's.
        default: dict[str, Any] = {"default": one.default} if name == "seed" else {"shown": shown}
        if kind_of is not None:
            found |= option(name, kind_of, told, group=_RUN, **default)
    told = "Write the way there as an animation: a file.webp or file.gif, or a folder/."
    return found | (option("animate", str, told, group=_FILES) if animated else {})


def command(
    words: str,
    *groups: dict[str, inspect.Parameter],
    examples: tuple[str, ...],
    name: str = "",
    help: str = "",
    actions: Mapping[str, str] | None = None,
) -> Callable[[Callable[[Namespace], None]], Callable[..., None]]:
    """Make a function a command: it gets its words as `given.words`, and all options by name.

    Args:
        words: what it takes beside options, as "[MODEL] IMAGE...": a name each, the last with dots
            if there may be several; MODEL is left out where `--model` says it.
        *groups: its options.
        examples: what one can type, after the command's name; the first is shown with a mistake.
        name: of the command; by default the function's, with hyphens.
        help: what `--help` says; by default the function's docstring.
        actions: first words that ask for something else, and what is taken after each, as `words`
            has it; an example of each is among `examples`.
    """
    options = {name: one for group in groups for name, one in group.items()}

    def decorate(function: Callable[[Namespace], None]) -> Callable[..., None]:
        called = name or function.__name__.replace("_", "-")
        lines = [f"featvis {called} {example}".rstrip() for example in examples]

        def call(**values: Any) -> None:
            given = Namespace(**values)
            given.words = list(given.words or [])
            own = getattr(given, "model", None) is not None
            takes = [one for one in words.split() if not (own and one == "[MODEL]")]
            asked, got, example = called, given.words, lines[0]
            if not own and got and actions:
                _check_meant(called, got[0], actions)
            if not own and got and got[0] in (actions or {}):
                asked, takes, got = f"{called} {got[0]}", (actions or {})[got[0]].split(), got[1:]
                example = next(line for line in lines if line.startswith(f"featvis {asked} "))
            many = bool(takes) and takes[-1].endswith("...")
            if len(got) < len(takes) or (len(got) > len(takes) and not many):
                raise InputError(
                    f"{asked} takes {' '.join(takes).replace('[MODEL]', 'MODEL') or 'nothing'}"
                    f"{' beside --model' if own else ''}, as in: {example}; got "
                    f"{printable(' '.join(got)) or 'nothing'}"
                )
            for name, one in options.items():
                if one.default is one.empty and getattr(given, name) is None:
                    raise InputError(f"{called} takes --{name} too, as in: {lines[0]}")
            function(given)

        positional = Annotated[list[str] | None, typer.Argument(metavar=words)]
        keyword = inspect.Parameter.KEYWORD_ONLY
        first = inspect.Parameter("words", keyword, default=None, annotation=positional)
        parameters = [
            one.replace(default=None) if one.default is one.empty else one
            for one in (first, *options.values())
        ]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {one.name: one.annotation for one in parameters}
        epilog = "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
        told = inspect.cleandoc(help or function.__doc__ or "")
        return app.command(called, cls=_Grouped, help=told, epilog=epilog)(call)

    return decorate


def _check_meant(called: str, word: str, actions: Iterable[str]) -> None:
    """Refuses a first word that is nearly an action, and no network's name.

    Raises:
        InputError: it is; says which.
    """
    near = difflib.get_close_matches(word.casefold(), actions, n=1, cutoff=0.7)
    if near and near[0] != word and word not in {one.name for one in loading.available()}:
        raise InputError(
            f"{called} has no {printable(repr(word), 60)}, and there is no such network: did you "
            f"mean `featvis {called} {near[0]}`?"
        )


def _tell_version(wanted: bool) -> None:
    if wanted:
        print(f"featvis {version('featvis')}")
        raise typer.Exit


@app.callback()
def _featvis(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Say the version."),
    ] = False,
) -> None:
    pass
