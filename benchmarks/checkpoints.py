"""Writes a random Llama checkpoint that is large enough that computing costs more than scheduling.

Throughput depends on the shapes of weights and not on their values, so nothing has to be downloaded.

    python -m benchmarks.checkpoints DIRECTORY
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import transformers

VOCABULARY = 16_384
CONTEXT = 2_048
_INITIALIZER_RANGE = 0.05
"""Standard deviation of all matrices. With the default of transformers, 0.02, logits differ so little that rounding
errors decide between tokens."""


def random_llama(path: Path, *, seed: int = 0) -> Path:
    """Write a float32 Llama of 100 million parameters without a tokenizer to `path`, and return `path`.

    The model has 12 layers of 768 with 12 query and 4 KV heads, a vocabulary of 16,384 and a context of 2,048.

    Args:
        path: Directory of the checkpoint, which is created if it does not exist.
        seed: Seed of the weights.
    """
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=768,
        intermediate_size=2_048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        initializer_range=_INITIALIZER_RANGE,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    transformers.LlamaForCausalLM(config).float().save_pretrained(path)
    return path


def main() -> None:
    """Write a checkpoint to the directory that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    args = parser.parse_args()
    print(random_llama(args.directory, seed=args.seed))


if __name__ == "__main__":
    main()
