"""``python -m training COMMAND …``: everything that is not served. ``COMMAND --help`` says what it takes."""

import sys
from importlib import import_module

COMMANDS = {
    "manifest": "data.make_manifest",
    "crops": "data.cut_crops",
    "imagenet": "fitting.imagenet",
    "shards": "fitting.shards",
    "train-detector": "fitting.train_detector",
    "train-grader": "fitting.train_grader",
    "fit-heads": "fitting.fit_heads",
    "fit-handedness": "fitting.fit_handedness",
    "calibrate": "fitting.calibrate",
    "evaluate": "evaluation.evaluate",
    "evaluate-films": "evaluation.evaluate_films",
    "out-of-scope": "evaluation.out_of_scope",
    "joint-spaces": "evaluation.joint_spaces",
    "reference": "evaluation.make_reference",
    "reproduce-paper": "experiments.reproduce",
    "ablation": "experiments.ablate",
    "synthetic": "synthesis.make_synthetic",
    "samples": "synthesis.make_samples",
}


def main(arguments: list[str]) -> None:
    """Hand the other arguments to the command that the first one names."""
    if not arguments or arguments[0] not in COMMANDS:
        told = "" if not arguments or arguments[0] in ("-h", "--help") else f"there is no command {arguments[0]!r}\n"
        sys.exit(f"{told}usage: python -m training COMMAND …\ncommands: {', '.join(COMMANDS)}")
    sys.argv[0] = f"python -m training {arguments[0]}"
    import_module(f"training.{COMMANDS[arguments[0]]}").main(arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
