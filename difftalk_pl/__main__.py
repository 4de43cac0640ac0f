"""The table of commands. Nothing heavy is imported before a command is known."""

import inspect
import re
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, get_args, get_origin, get_type_hints

from difftalk_pl.errors import UsageError, UserError

LIGHTNING = {
    "fit": "train a stage: the autoencoder, the diffusion model or a SyncNet",
    "validate": "compute the validation losses of a trained model and score its validation clips",
    "test": "score generated frames against true ones; write results.json and contact sheets",
    "predict": "generate the test clips as videos with their sound",
}


OURS = {  # command: the module that has its function, one line of help
    "synthesize": ("data.synthetic.dataset", "write a prepared dataset of drawn, talking faces"),
    "hdtf download": ("data.hdtf", "download HDTF's videos with yt-dlp"),
    "hdtf clips": ("data.hdtf", "list HDTF's clips, as the published tables say, for prepare"),
    "prepare": ("data.prepare", "turn videos of people speaking into a prepared dataset"),
    "report": ("data.quality", "measure the clips of a prepared dataset and show them on a page"),
    "add-features": ("data.features.stored", "compute another kind of speech features for a prepared dataset"),
    "cache-latents": ("training.cache_latents", "encode a dataset once with a trained autoencoder"),
    "animate": ("animate.command", "make a talking video from any video of a person and any speech"),
    "watermark": ("animate.watermark", "say whether videos carry the invisible watermark of generated ones"),
    "export": ("training.weights", "turn a checkpoint into a folder of config.json and model.safetensors"),
    "import-checkpoint": ("training.importing", "turn a published checkpoint into such a folder"),
    "fetch-weights": (
        "training.pretrained",
        "download networks that measure: alex, vgg, squeeze of LPIPS; syncnet",
    ),
    "score": ("evaluation.score", "score any videos against true ones, as test scores a model"),
    "table": ("evaluation.table", "print the results of runs as one table: markdown, LaTeX or csv"),
    "benchmark": ("benchmark", "measure speed and memory of an experiment's training and loader"),
}
EXAMPLES = {
    "synthesize": "--out data/synthetic --clips 24 --seconds 12 --size 64",
    "hdtf download": "--annotations HDTF_dataset --out data/hdtf_videos",
    "hdtf clips": "--annotations HDTF_dataset --videos data/hdtf_videos --out data/hdtf.csv",
    "prepare": "videos/ person.mp4 --out data/people --size 256 --workers 4",
    "report": "--data data/people",
    "add-features": "--data data/people --features deepspeech --deepspeech models/output_graph.pb",
    "cache-latents": "--data data/people --autoencoder runs/vq_f4/checkpoints/last.ckpt",
    "animate": "--checkpoint experiments/demo/weights --video person.mp4 --audio speech.wav --out talking.mp4",
    "watermark": "talking.mp4",
    "export": "--checkpoint runs/talk/checkpoints/last.ckpt --out models/talk",
    "import-checkpoint": "--checkpoint model.ckpt --out models/vq_f4",
    "fetch-weights": "alex vgg",
    "score": "wav2lip/ --reference true/ --method Wav2Lip --out wav2lip.json",
    "table": "runs/one runs/two wav2lip.json --format latex --paper table3",
    "benchmark": "experiments/demo/diffusion.yaml --steps 20",
}
HELP = """usage: python -m difftalk_pl COMMAND [options]

commands:
{commands}

examples:
  python -m difftalk_pl prepare videos/ --out data/people --size 256 --workers 8
  python -m difftalk_pl fit -c experiments/autoencoder/vq_f4.yaml
  python -m difftalk_pl cache-latents --data data/people --autoencoder runs/vq_f4/checkpoints/last.ckpt
  python -m difftalk_pl fit -c experiments/diffusion/paper.yaml --trainer.devices 8
  python -m difftalk_pl animate --checkpoint CKPT --video person.mp4 --audio speech.wav --out talking.mp4

COMMAND --help explains a command; fit, validate, test and predict also take --print_config."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Exit codes: 0 done, 1 the work failed (one line says why), 2 wrong usage."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        _write(help_text(), sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] == "--version":
        _write(import_module("difftalk_pl").__version__)
        return 0
    words = 2 if " ".join(arguments[:2]) in OURS else 1  # "hdtf clips"
    command, given = " ".join(arguments[:words]), arguments[words:]
    if command not in LIGHTNING | OURS:
        _write(f"unknown command {command!r}\n\n{help_text()}", sys.stderr)
        return 2
    return _exit_code(command, given)


def help_text() -> str:
    """Return the list of all commands, a line for each."""
    lines = LIGHTNING | {name: line for name, (_, line) in OURS.items()}
    return HELP.format(commands="\n".join(f"  {name:17} {line}" for name, line in lines.items()))


def _exit_code(command: str, arguments: list[str]) -> int:
    """Run a command. Errors that a user can mend become one line; a defect keeps its traceback."""
    try:
        _run(command, arguments)
    except (UserError, OSError) as error:
        named = isinstance(error, OSError) and error.filename
        message = f"{error.filename}: {error.strerror}" if named else error  # type: ignore[union-attr]
        _write(f"difftalk_pl {command}: {message}", sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        _write(f"difftalk_pl {command}: stopped; run the same command again to go on", sys.stderr)
        return 130
    return 0


def _run(command: str, arguments: list[str]) -> None:
    if command in LIGHTNING:
        import_module("difftalk_pl.cli").run_lightning([command, *arguments])
        return
    import_module("difftalk_pl.logs").log_to_terminal()
    function = getattr(import_module(f"difftalk_pl.{OURS[command][0]}"), command.replace("-", "_").replace(" ", "_"))
    try:
        given = parse(command, function, arguments)
    except UserError as error:  # of a group of options that checks itself
        raise UsageError(str(error)) from error
    before = signal.signal(signal.SIGTERM, _raise_exit)
    try:
        function(**given)
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_exit(number: int, frame: object) -> None:
    """Turn SIGTERM into an exception, so that temporary files are removed as on Ctrl-C."""
    sys.exit(128 + number)


def parse(command: str, function: Callable[..., None], arguments: list[str]) -> dict[str, Any]:
    """Parse a function's typed arguments from the command line; its docstring is the help.

    A required list takes one or more words; as the function's first parameter it is given without its name.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(
        prog=f"python -m difftalk_pl {command}",
        description=(function.__doc__ or "").split("Args:")[0].strip(),
        allow_abbrev=False,
        epilog=f"example: python -m difftalk_pl {command} {EXAMPLES[command]}",
    )
    parameters, hints = inspect.signature(function).parameters, get_type_hints(function)
    lists = [name for name, one in parameters.items() if one.default is one.empty and get_origin(hints[name]) is list]
    for name in lists:
        words: dict[str, Any] = {"type": get_args(hints[name])[0], "nargs": "+", "help": _help(function, name)}
        if name == next(iter(parameters)):
            parser.add_argument(name, **words)
        else:
            parser.add_argument(f"--{name}", required=True, **words)
    parser.add_function_arguments(function, as_group=False, skip=set(lists))
    return vars(parser.instantiate(parser.parse_args(arguments)))


def _help(function: Callable[..., None], name: str) -> str:
    """Return the line of a parameter in the docstring's Args."""
    found = re.search(rf"^\s+{name}: (.+)", function.__doc__ or "", re.MULTILINE)
    return found[1] if found else ""


def _write(text: str, stream: Any = None) -> None:
    (stream or sys.stdout).write(text + "\n")


if __name__ == "__main__":
    sys.exit(main())
