"""Machine code of whole loops, kept in files of its own: the next process runs it without numba.

Why this way: to import numba and to read its own cache takes as long as a step of thousands of GPUs. What it makes of a loop that
allocates nothing needs nothing of it to run, so the bare object code is kept, and llvmlite, which numba stands on, loads it
in a hundredth of a second. A file is named after all that it was made from: bytecode and constants of the functions, types
of the arguments, versions, processor. What does not fit is compiled anew, and so is a file that was damaged.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from sim import kept


class MachineCode:
    """A function as machine code, found in a file or made by numba; called like the function.

    Parameters
    ----------
    name : str
        What its files begin with.
    made_from : () -> Any
        All of the source that decides the code; its `repr` counts.
    jitted : () -> dispatcher
        The function given to numba: of arrays, numbers and named tuples of them; it allocates nothing, and returns a
        whole number.
    otherwise : () -> function
        Runs in its place where machine code cannot be had.
    """

    def __init__(
        self,
        name: str,
        made_from: Callable[[], Any],
        jitted: Callable[[], Any],
        otherwise: Callable[[], Callable[..., Any]],
    ) -> None:
        self.name, self.made_from, self.jitted, self.otherwise = name, made_from, jitted, otherwise
        self._loaded: dict[str, Callable[..., int] | None] = {}

    def __call__(self, *args: Any) -> Any:
        """Run it, or what there is otherwise."""
        try:
            key, values = _taken(args)
            run = self._loaded.get(key)
            if run is None:
                run = self._loaded[key] = self._load(key, values, args)
        except Exception:  # whatever llvmlite, numba and a file system lack or raise
            run = None
        return run(*values) if run else self.otherwise()(*args)

    def is_kept(self, *args: Any) -> bool:
        """Tell whether there is machine code for such arguments without numba."""
        try:
            key, values = _taken(args)
            if key not in self._loaded:
                self._loaded[key] = self._load(key, values, None)
        except Exception:  # as in a call
            return False
        return self._loaded[key] is not None

    def _load(self, types: str, values: Sequence[float], args: Any) -> Callable[..., int] | None:
        """Load the code for arguments of some types; made where there is none and `args` are given."""
        from llvmlite import binding

        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        processor = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
        made_from = repr((self._versions, processor, self.made_from(), types))
        name = f"{self.name}-{hashlib.sha256(made_from.encode()).hexdigest()[:24]}.code"
        code = kept.read(name)
        if code is None and args is None:
            return None
        if code is None:
            code = self._make(args, values)
            kept.write(name, self.name, code)
        symbol, _, whole = code.partition(b"\0")
        machine = binding.Target.from_default_triple().create_target_machine()
        engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
        engine.add_object_file(binding.object_file.ObjectFileRef.from_data(whole))
        engine.finalize_object()
        # numba's convention: where the result goes, where an exception would, and the arguments taken apart.
        kinds = [ctypes.c_double if isinstance(value, float) else ctypes.c_int64 for value in values]
        bare = ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_void_p] * 2, *kinds)(
            engine.get_function_address(symbol.decode())
        )

        def run(*values: float) -> int:
            result, error = ctypes.c_int64(), ctypes.c_void_p()
            raised = bare(ctypes.addressof(result), ctypes.addressof(error), *values)
            assert not raised, "compiled loops raise nothing"
            return result.value

        run.__dict__["engine"] = engine  # it holds the code
        return run

    def _make(self, args: Any, values: Sequence[float]) -> bytes:
        """Symbol and object code, compiled by numba for such arguments; TypeError where numba would pass them otherwise."""
        import numba

        made, given = self.jitted(), tuple(map(numba.typeof, args))
        made.compile(given)
        compiled = made.overloads[given]
        result, types = compiled.signature.return_type, compiled.signature.args
        if result != numba.int64:
            raise TypeError(f"{self.name} returns {result}")
        called = made.targetctx.call_conv.get_function_type(result, types)
        taken = ["address" if str(word).endswith("*") else str(word) for word in called.args]
        wanted = ["double" if isinstance(value, float) else "i64" for value in values]
        pairs = zip(wanted, taken[2:], strict=False)
        fit = len(taken) == 2 + len(wanted) and all(b == a or (a, b) == ("i64", "address") for a, b in pairs)
        if str(called.return_type) != "i32" or not fit:
            raise TypeError(f"{self.name} is called with {taken}")
        code: bytes = compiled.library._get_compiled_object()
        return b"\0".join((compiled.fndesc.llvm_func_name.encode(), code))

    @cached_property
    def _versions(self) -> Any:
        """Versions that decide the code: Python's, numba's with its settings in the environment, numpy's."""
        spec = find_spec("numba")
        if spec is None or spec.origin is None:
            raise ImportError("numba")
        chosen = sorted((name, value) for name, value in os.environ.items() if name.startswith("NUMBA_"))
        return sys.version, Path(spec.origin).with_name("_version.py").read_bytes(), chosen, np.__version__


def _taken(args: Any) -> tuple[str, list[float]]:
    """Types of arguments, and all their values taken apart."""
    types: list[Any] = []
    values: list[float] = []
    for arg in args:
        _take(arg, types, values)
    return repr(types), values


@cache
def _described(dtype: np.dtype[Any]) -> Any:
    """Fields of a record with their places, or the type itself."""
    return dtype.descr


def _take(arg: Any, types: list[Any], values: list[float]) -> None:
    """Take an argument apart as numba does, and note all that its type depends on."""
    if isinstance(arg, np.ndarray):
        flags = arg.flags
        layout = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
        types.append(
            (_described(arg.dtype), type(arg).__name__, arg.ndim, layout, flags.aligned, flags.writeable)
        )
        values += (0, 0, arg.size, arg.itemsize, arg.ctypes.data, *arg.shape, *arg.strides)
    elif isinstance(arg, tuple) and hasattr(arg, "_fields"):
        types.append((type(arg).__name__, arg._fields))
        for field in arg:
            _take(field, types, values)
    elif type(arg) in (int, float):
        types.append(type(arg).__name__)
        values.append(arg)
    else:
        raise TypeError(f"no machine code for {type(arg).__name__}")
