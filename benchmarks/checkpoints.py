"""A random llama checkpoint, large enough that computing it costs more than scheduling it.

What a benchmark measures depends on shapes and not on what weights know, so no download is needed.

    python -m benchmarks.checkpoints DIRECTORY
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import transformers

VOCABULARY = 16_384
CONTEXT = 2_048
_SPREAD = 0.05
"""Standard deviation of all matrices. With transformers' 0.02 logits differ so little that rounding
decides between tokens."""


def random_llama(path: Path, *, seed: int = 0) -> Path:
    """Write a float32 llama of 100 million parameters and no tokenizer into `path` and return it.

    12 layers of 768 with 12 query and 4 KV heads, a vocabulary of 16,384 and a context of 2,048.

    Args:
        path: a directory, made if need be.
        seed: of the weights.
    """
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=768,
        intermediate_size=2_048,
        num_hidden_layers=12,
        num_attention_heads=12,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        initializer_range=_SPREAD,
        bos_token_id=None,
        eos_token_id=None,
        tie_word_embeddings=False,
    )
    torch.manual_seed(seed)
    transformers.LlamaForCausalLM(config).float().save_pretrained(path)
    return path


def main() -> None:
    """Write one where the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    args = parser.parse_args()
    print(random_llama(args.directory, seed=args.seed))


if __name__ == "__main__":
    main()
