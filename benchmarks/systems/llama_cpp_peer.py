"""llama.cpp as a measured system, run by the interpreter that has llama-cpp-python.

That package's own server answers one request after another, so its functions of C are called here,
with continuous batching in front of them. A row has room for the longest request, as in llama.cpp's
server; so the KV cache is as large as all rows need, whatever the job says.
"""

from __future__ import annotations

import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.systems.foreign_load import ForeignLoad
from benchmarks.systems.gguf_file import ggml_type, write_gguf
from benchmarks.systems.job import WARM_UP, Run
from benchmarks.systems.row_filling import RowFilling
from tdpipe.core.errors import PipelineError

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Sequence

    from benchmarks.request_mix import MixRequest
    from benchmarks.systems.job import Job
    from benchmarks.systems.row_filling import Piece

_ERROR = 4
"""ggml's level of errors; below are some thousand lines about the graph."""


def run_llama_cpp(job: Job) -> Run:
    """Convert and load the model, warm up and serve the requests.

    Raises:
        PipelineError: llama.cpp refuses the model or a batch.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.gguf"
        write_gguf(Path(job.checkpoint), file, job.dtype)
        context = _Context(file, job)
    context.serve(WARM_UP)
    load = ForeignLoad()
    started = time.perf_counter()
    outputs = context.serve(job.requests)
    seconds = time.perf_counter() - started
    software = f"llama-cpp-python {version('llama-cpp-python')}"
    return Run(seconds, outputs, load.cores(), software=software)


def _print_error(level: int, text: bytes, _: object) -> None:
    if level == _ERROR:
        sys.stderr.write(text.decode())


class _Context:
    def __init__(self, file: Path, job: Job) -> None:
        import llama_cpp

        self._llama = llama_cpp
        self._rows = job.system.rows
        self._budget = max(job.token_budget, job.system.rows)
        # Kept, since C holds no reference.
        self._log = llama_cpp.llama_log_callback(_print_error)
        llama_cpp.llama_log_set(self._log, None)
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(str(file).encode(), self._model_parameters())
        if not model:
            raise PipelineError("llama.cpp cannot load the converted model")
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        parameters = llama_cpp.llama_context_default_params()
        longest = max(len(each.prompt) + each.output_tokens for each in job.requests)
        parameters.n_ctx = longest * self._rows
        parameters.n_seq_max = self._rows
        parameters.n_batch = parameters.n_ubatch = self._budget
        parameters.n_threads = parameters.n_threads_batch = job.threads
        parameters.kv_unified = False
        if job.dtype == "float32":
            # No slower, and with it 15 of 20 requests end in other tokens than float32's.
            parameters.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.type_k = parameters.type_v = int(ggml_type(job.dtype))
        self._context = llama_cpp.llama_init_from_model(model, parameters)
        if not self._context:
            raise PipelineError("llama.cpp makes no context of the size asked for")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(self._budget, 0, 1)

    def serve(self, requests: Sequence[MixRequest]) -> tuple[tuple[int, ...], ...]:
        filling = RowFilling(requests, self._rows, self._budget)
        while pieces := filling.next_step():
            for row in filling.take(pieces, self._compute(pieces)):
                self._llama.llama_memory_seq_rm(self._memory, row, -1, -1)
        return filling.outputs()

    def _model_parameters(self) -> ctypes.Structure:
        parameters: ctypes.Structure = self._llama.llama_model_default_params()
        parameters.use_mmap = False  # the file goes when it is loaded
        return parameters

    def _compute(self, pieces: Sequence[Piece]) -> list[int]:
        batch, at = self._batch, 0
        sampling = []
        for piece in pieces:
            for offset, token in enumerate(piece.tokens):
                batch.token[at] = token
                batch.pos[at] = piece.start + offset
                batch.n_seq_id[at] = 1
                batch.seq_id[at][0] = piece.row
                batch.logits[at] = 0
                at += 1
            if piece.samples:
                batch.logits[at - 1] = 1
                sampling.append(at - 1)
        batch.n_tokens = at
        if status := self._llama.llama_decode(self._context, batch):
            raise PipelineError(f"llama.cpp ended a batch of {at} tokens with status {status}")
        return [self._likeliest(place) for place in sampling]

    def _likeliest(self, place: int) -> int:
        logits = self._llama.llama_get_logits_ith(self._context, place)
        return int(np.ctypeslib.as_array(logits, (self._vocabulary,)).argmax())
