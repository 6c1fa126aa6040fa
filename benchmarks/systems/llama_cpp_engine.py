"""Runs llama.cpp, in an interpreter that has llama-cpp-python.

The server of that package answers one request after another. This module therefore calls the C functions and
batches continuously itself. As in llama.cpp's server, each row has room for the longest request, so the KV cache is as
large as all rows need, whatever size the configuration asks for.
"""

from __future__ import annotations

import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.systems.background_load import BackgroundLoad
from benchmarks.systems.continuous_batching import ContinuousBatcher
from benchmarks.systems.gguf_file import ggml_type, write_gguf
from benchmarks.systems.run import WARM_UP_REQUESTS, RunResult
from tdpipe.core.errors import PipelineError

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Sequence

    from benchmarks.request_mix import MixRequest
    from benchmarks.systems.continuous_batching import Chunk
    from benchmarks.systems.run import RunConfig

_ERROR = 4
"""Log level of errors in ggml. Lower levels print thousands of lines about the graph."""


def run_llama_cpp(config: RunConfig) -> RunResult:
    """Convert the model, load it, warm it up and serve the requests.

    Raises:
        PipelineError: llama.cpp rejects the model or a batch.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        write_gguf(Path(config.checkpoint), file, config.dtype)
        context = _Context(file, config)
    context.serve(WARM_UP_REQUESTS)
    load = BackgroundLoad()
    started = time.perf_counter()
    outputs = context.serve(config.requests)
    seconds = time.perf_counter() - started
    software = f"llama-cpp-python {version('llama-cpp-python')}"
    return RunResult(seconds, outputs, load.cores(), software=software)


def _print_error(level: int, text: bytes, _: object) -> None:
    if level == _ERROR:
        sys.stderr.write(text.decode())


class _Context:
    def __init__(self, file: Path, config: RunConfig) -> None:
        import llama_cpp

        self._llama = llama_cpp
        self._rows = config.system.rows
        self._budget = max(config.token_budget, config.system.rows)
        # The callback is kept, because C holds no reference to it.
        self._log = llama_cpp.llama_log_callback(_print_error)
        llama_cpp.llama_log_set(self._log, None)
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(str(file).encode(), self._model_parameters())
        if not model:
            raise PipelineError("llama.cpp cannot load the converted model")
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        parameters = llama_cpp.llama_context_default_params()
        longest = max(len(each.prompt) + each.output_tokens for each in config.requests)
        parameters.n_ctx = longest * self._rows
        parameters.n_seq_max = self._rows
        parameters.n_batch = parameters.n_ubatch = self._budget
        parameters.n_threads = parameters.n_threads_batch = config.threads
        parameters.kv_unified = False
        if config.dtype == "float32":
            # Flash attention is no faster here, and with it 15 of 20 requests get other tokens than in float32.
            parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.type_k = parameters.type_v = int(ggml_type(config.dtype))
        self._context = llama_cpp.llama_init_from_model(model, parameters)
        if not self._context:
            raise PipelineError("llama.cpp cannot create a context of the requested size")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(self._budget, 0, 1)

    def serve(self, requests: Sequence[MixRequest]) -> tuple[tuple[int, ...], ...]:
        batcher = ContinuousBatcher(requests, self._rows, self._budget)
        while chunks := batcher.next_step():
            for row in batcher.complete_step(chunks, self._compute(chunks)):
                self._llama.llama_memory_seq_rm(self._memory, row, -1, -1)
        return batcher.outputs()

    def _model_parameters(self) -> ctypes.Structure:
        parameters: ctypes.Structure = self._llama.llama_model_default_params()
        parameters.use_mmap = False  # the file is deleted after loading
        return parameters

    def _compute(self, chunks: Sequence[Chunk]) -> list[int]:
        batch, at = self._batch, 0
        sampling = []
        for chunk in chunks:
            for offset, token in enumerate(chunk.tokens):
                batch.token[at] = token
                batch.pos[at] = chunk.start + offset
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = chunk.row
                batch.logits[at] = 0
                at += 1
            if chunk.samples:
                batch.logits[at - 1] = 1
                sampling.append(at - 1)
        batch.n_tokens = at
        if status := self._llama.llama_decode(self._context, batch):
            raise PipelineError(f"llama.cpp failed on a batch of {at} tokens with status {status}")
        return [self._likeliest(place) for place in sampling]

    def _likeliest(self, place: int) -> int:
        logits = self._llama.llama_get_logits_ith(self._context, place)
        return int(np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax())
