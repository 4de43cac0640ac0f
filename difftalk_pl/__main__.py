"""The list of commands. Nothing heavy is imported before a command is known."""

import inspect
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, get_args, get_origin, get_type_hints

from difftalk_pl.errors import UsageError, UserError

LIGHTNING = {
    "fit": "train a stage: the autoencoder or the diffusion model",
    "validate": "compute the validation losses of a trained model, and score its validation clips",
    "test": "score generated frames against true ones, write results.json and a contact sheet",
    "predict": "generate the test clips as videos with their sound",
}
OURS = {
    "synthesize": ("difftalk_pl.data.synthetic.dataset", "write a prepared dataset of drawn, talking faces"),
    "hdtf status": ("difftalk_pl.data.hdtf.download", "say which of HDTF's videos are here, gone or still to come"),
    "hdtf download": ("difftalk_pl.data.hdtf.download", "download HDTF's videos, or take those that are here"),
    "hdtf cut": ("difftalk_pl.data.hdtf.cut", "cut HDTF's videos to its clips, as the published tables say"),
    "prepare": ("difftalk_pl.data.prepare", "turn videos of people speaking into a prepared dataset"),
    "report": ("difftalk_pl.data.report", "measure the clips of a prepared dataset and show them on a page"),
    "split": ("difftalk_pl.data.split_files", "divide clips into train, val and test, as files to publish"),
    "add-features": ("difftalk_pl.data.add_features", "compute another kind of speech features for a prepared dataset"),
    "cache-latents": ("difftalk_pl.training.codec", "encode a dataset once with a trained autoencoder"),
    "animate": ("difftalk_pl.animate.command", "make a talking video from any video of a person and any speech"),
    "watermark": (
        "difftalk_pl.animate.watermark_command",
        "say whether videos carry the invisible mark of generated ones",
    ),
    "export": ("difftalk_pl.training.weights", "turn a checkpoint into a folder of config.json and model.safetensors"),
    "import-checkpoint": (
        "difftalk_pl.training.importing",
        "turn a published checkpoint, or one of ours, into a folder",
    ),
    "fetch-weights": (
        "difftalk_pl.models.pretrained",
        "download networks that measure: alex, vgg, squeeze of LPIPS, and syncnet",
    ),
    "score": ("difftalk_pl.evaluation.score", "score anybody's videos against true ones, as test scores a model"),
    "table": ("difftalk_pl.evaluation.table", "print the results of runs as one table: markdown, LaTeX or csv"),
}
EXAMPLES = {
    "synthesize": "synthesize --out data/synthetic --clips 24 --seconds 12 --size 64",
    "hdtf status": "hdtf status --annotations HDTF_dataset --folder data/hdtf_videos",
    "hdtf download": "hdtf download --annotations HDTF_dataset --folder data/hdtf_videos",
    "hdtf cut": "hdtf cut --annotations HDTF_dataset --folder data/hdtf_videos --out data/hdtf_clips --workers 4",
    "prepare": "prepare videos/ person.mp4 --out data/people --size 256 --workers 4",
    "report": "report data/people",
    "split": "split data/people --rule identity --out data/people/splits",
    "add-features": "add-features --data data/people --features deepspeech --deepspeech models/output_graph.pb",
    "cache-latents": "cache-latents --data data/people --autoencoder runs/vq/checkpoints/last.ckpt",
    "animate": "animate --checkpoint models/talk --video person.mp4 --audio speech.wav --out talking.mp4 --fps source",
    "watermark": "watermark talking.mp4",
    "export": "export --checkpoint runs/talk/checkpoints/last.ckpt --out models/talk",
    "import-checkpoint": "import-checkpoint model.ckpt --out models/vq_f4",
    "fetch-weights": "fetch-weights alex vgg",
    "score": "score wav2lip/ --reference true/ --method Wav2Lip --out wav2lip.json",
    "table": "table runs/one runs/two wav2lip.json --format latex --paper table3",
}
POSITIONAL = {  # arguments that are given without their names; a list takes one or more
    "dataset": "the folder of a prepared dataset",
    "whole": "a prepared dataset, a list of clips (CSV), or the folder of HDTF's annotation tables",
    "sources": "videos, or folders of videos",
    "runs": "run folders; for table also files like results.json",
    "videos": "videos, or folders of videos",
    "networks": "alex, vgg, squeeze",
    "file": "a checkpoint, or a folder made by export",
}
SEVERAL = {"reference": "as many true videos, or folders of videos"}  # options that take one or more values
INSTEAD: dict[str, str] = {}  # options that may stand in the place of a positional argument
HELP = """usage: python -m difftalk_pl COMMAND [options]

commands:
{commands}

examples:
  python -m difftalk_pl prepare videos/ --out data/hdtf --size 256 --workers 8
  python -m difftalk_pl fit -c experiments/autoencoder/vq_f4_256.yaml
  python -m difftalk_pl cache-latents --data data/hdtf --mask below_nose \\
    --autoencoder runs/vq_f4_256/checkpoints/last.ckpt
  python -m difftalk_pl fit -c experiments/diffusion/released_256.yaml --trainer.devices 8
  python -m difftalk_pl animate --checkpoint CKPT --video person.mp4 --audio speech.wav --out talking.mp4

COMMAND --help explains a command; fit, validate, test and predict also take --print_config."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Exit codes: 0 done, 1 the work failed (one line says why), 2 wrong usage."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        _write(help_text())
        return 0 if arguments else 2
    command, given = arguments[0], arguments[1:]
    if group := [name for name in OURS if name.startswith(f"{command} ")]:
        if " ".join(arguments[:2]) not in group:
            return _explain(command, group, given)
        command, given = " ".join(arguments[:2]), arguments[2:]
    if command == "--version":
        from difftalk_pl import __version__

        _write(__version__)
        return 0
    if command not in LIGHTNING | OURS:
        _write(f"unknown command {command!r}\n\n{help_text()}", sys.stderr)
        return 2
    return _outcome(command, given)


def _outcome(command: str, arguments: list[str]) -> int:
    """Run it; what a user can mend becomes one line, a defect keeps its traceback."""
    try:
        _run(command, arguments)
    except UsageError as error:
        _write(f"difftalk_pl {command}: {error}", sys.stderr)
        return 2
    except (UserError, OSError) as error:
        message = f"{error.filename or 'files'}: {error.strerror or error}" if isinstance(error, OSError) else error
        _write(f"difftalk_pl {command}: {message}", sys.stderr)
        return 1
    except KeyboardInterrupt:
        _write(f"difftalk_pl {command}: stopped; the same command goes on", sys.stderr)
        return 130
    return 0


def _explain(command: str, group: list[str], given: list[str]) -> int:
    """The commands of two words that begin with this one."""
    asked = given[:1] in (["-h"], ["--help"])
    wrong = "" if asked or not given else f"unknown command '{command} {given[0]}'\n\n"
    lines = "\n".join(f"  {name:14} {OURS[name][1]}" for name in group)
    _write(f"{wrong}usage: python -m difftalk_pl {command} COMMAND [options]\n\n{lines}", None if asked else sys.stderr)
    return 0 if asked else 2


def help_text() -> str:
    """All commands, each with one line."""
    lines = {**LIGHTNING, **{name: line for name, (_, line) in OURS.items()}}
    return HELP.format(commands="\n".join(f"  {name:14} {line}" for name, line in lines.items()))


def _run(command: str, arguments: list[str]) -> None:
    if command in LIGHTNING:
        import_module("difftalk_pl.cli").run_lightning([command, *arguments])
        return
    import_module("difftalk_pl.logs").log_to_terminal()
    function = getattr(import_module(OURS[command][0]), command.replace("-", "_").replace(" ", "_"))
    try:
        given = _parse(command, function, arguments)
    except UserError as error:  # of a group of options that checks itself
        raise UsageError(str(error)) from error
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        function(**given)
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: object) -> None:
    """SIGTERM as an exception, so that temporary files go as they do on Ctrl-C."""
    sys.exit(128 + number)


def _parse(command: str, function: Callable[..., None], arguments: list[str]) -> dict[str, Any]:
    """A function's typed arguments from the command line; its docstring is the help."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog=f"python -m difftalk_pl {command}",
        description=(function.__doc__ or "").split("Args:")[0].strip(),
        epilog=f"example: python -m difftalk_pl {EXAMPLES[command]}",
    )
    positional = [name for name in inspect.signature(function).parameters if name in POSITIONAL]
    for name in positional:
        hint = get_type_hints(function)[name]
        few = "*" if INSTEAD.get(name) in inspect.signature(function).parameters else "+"
        many = {"type": get_args(hint)[0], "nargs": few} if get_origin(hint) is list else {"type": hint}
        parser.add_argument(name, help=POSITIONAL[name], **many)
    hints = get_type_hints(function)
    several = [name for name in inspect.signature(function).parameters if _takes_several(name, hints[name])]
    for name in several:
        item = get_args(get_type_hints(function)[name])[0]
        parser.add_argument(f"--{name}", help=SEVERAL[name], type=item, nargs="+", required=True)
    parser.add_function_arguments(function, as_group=False, skip={*positional, *several})
    flags = {f"--{name}" for name, hint in get_type_hints(function).items() if hint is bool}
    given = parser.parse_args(_spelt_out([_underscored(a) for a in arguments], flags))
    for name in positional:
        other = INSTEAD.get(name, "")
        if other in vars(given) and bool(given[name]) == (given[other] is not None):
            option = "--" + other.replace("_", "-")
            parser.error(f"expected {POSITIONAL[name]}, or {option} DIR in their place, and not both")
    return vars(parser.instantiate(given))


def _takes_several(name: str, hint: Any) -> bool:
    return name in SEVERAL and get_origin(hint) is list


def _underscored(argument: str) -> str:
    """--first-identity=3 -> --first_identity=3: both spellings are taken."""
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value if argument.startswith("--") else argument


def _spelt_out(arguments: list[str], flags: set[str]) -> list[str]:
    """--half alone is --half=true."""
    following = [*arguments[1:], "--"]
    bare = [one in flags and after not in ("true", "false") for one, after in zip(arguments, following)]
    return [f"{one}=true" if alone else one for one, alone in zip(arguments, bare)]


def _write(text: str, stream=None) -> None:
    (stream or sys.stdout).write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
