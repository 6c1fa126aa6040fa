"""The build of the kernel, which is compiled on first use and kept in the user's cache.

A wheel with a compiled kernel would have to be built for every platform; compiling for a few seconds once per machine
is cheaper. The library has a variant for every instruction set and chooses one by the CPU that it runs on, so machines
with different CPUs can share a cache.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

_SOURCES = Path(__file__).parent
_FLAGS = ("-O3", "-fopenmp", "-fPIC", "-std=gnu11", "-Wno-psabi")
_X86_VARIANTS = {
    "avx2": ("-mavx2", "-mfma"),
    "avx512": (
        *("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx2", "-mfma"),
        "-mprefer-vector-width=512",
    ),
}


class KernelUnavailableError(Exception):
    """The kernel cannot be built or loaded on this machine. The message gives the reason and the remedy in one line."""


def build() -> Path:
    """Return the path of the compiled library, and build it first unless it is in the cache.

    Raises:
        KernelUnavailableError: there is no compiler, it fails, or the cache cannot be written.
    """
    compiler = _find_compiler()
    commands = _commands(compiler)
    library = _cache_directory() / f"attention-{_fingerprint(compiler, commands)}.so"
    if library.exists():
        return library
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent, prefix="build-") as scratch:
            _run_all(commands[:-1], Path(scratch))
            _run_all(commands[-1:], Path(scratch))
            # The move is atomic, so processes that build at the same time always leave a complete library.
            os.replace(Path(scratch) / "attention.so", library)
    except OSError as error:
        problem = f"cannot build in {library.parent} ({error.strerror})"
        remedy = "set XDG_CACHE_HOME to a writable directory"
        raise KernelUnavailableError(f"{problem}; {remedy}") from error
    return library


def _find_compiler() -> list[str]:
    for candidate in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        command = shlex.split(candidate)
        if command and (found := shutil.which(command[0])):
            return [found, *command[1:]]
    raise KernelUnavailableError("no C compiler found; run `apt-get install gcc` or set CC")


def _cache_directory() -> Path:
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "tdpipe"


def _commands(compiler: list[str]) -> list[list[str]]:
    """Return one command per object file, followed by the command that links them."""
    variants: dict[str, tuple[str, ...]] = {"portable": ()}
    if platform.machine() in ("x86_64", "AMD64"):
        variants |= _X86_VARIANTS
    compile_, kernel = [*compiler, *_FLAGS, "-c"], str(_SOURCES / "kernel.c")
    commands = [
        [*compile_, *flags, f"-DTDPIPE_VARIANT=tdpipe_attend_{name}", f"-o{name}.o", kernel]
        for name, flags in variants.items()
    ]
    commands.append([*compile_, "-odispatch.o", str(_SOURCES / "dispatch.c")])
    objects = [f"{name}.o" for name in (*variants, "dispatch")]
    return [*commands, [*compiler, "-shared", "-fopenmp", "-oattention.so", *objects]]


def _fingerprint(compiler: list[str], commands: list[list[str]]) -> str:
    digest = hashlib.sha256()
    for source in sorted(_SOURCES.glob("*.[ch]")):
        digest.update(source.read_bytes())
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=False).stdout
    digest.update(version + repr(commands).encode())
    return digest.hexdigest()[:16]


def _run_all(commands: list[list[str]], directory: Path) -> None:
    """Run commands in parallel in `directory`."""
    running = [
        subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for command in commands
    ]
    outputs = [process.communicate()[0].decode(errors="replace") for process in running]
    for command, process, output in zip(commands, running, outputs, strict=True):
        if process.returncode:
            reason = next((line for line in output.splitlines() if "error" in line), output.strip())
            remedy = "set CC to another compiler, such as gcc"
            raise KernelUnavailableError(f"{command[0]} failed ({reason}); {remedy}")
