"""A GGUF file read once, where transformers reads it anew for tokenizer, config, shape and weights.

    with read_once():
        AutoModelForCausalLM.from_pretrained(folder, gguf_file="model.gguf")

Most of loading a small model was that: half a million fields of its vocabulary and merges, four times over, and a table of names
made for every module (docs/adr/0027-a-gguf-is-read-once.md). Weights and tokenizer are what they were.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import threading
from collections.abc import Iterator
from typing import Any

_ONE_AT_A_TIME = threading.RLock()  # what is replaced is the whole process's


@contextlib.contextmanager
def read_once() -> Iterator[None]:
    """Share one reader and one table of names inside the block, and hide transformers' bar, which heeds no switch of its own."""
    import gguf

    loader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    with _ONE_AT_A_TIME, contextlib.ExitStack() as back:
        for module, name, ours in (
            (gguf, "GGUFReader", functools.lru_cache(maxsize=1)(_reader_of_arrays())),
            (gguf, "get_tensor_name_map", functools.cache(gguf.get_tensor_name_map)),
            (loader, "tqdm", functools.partial(loader.tqdm, disable=True)),
        ):
            back.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, ours)
        yield


def _reader_of_arrays() -> Any:
    """A reader on a plain array over the same mapped bytes: a slice of a ``memmap`` takes several times as long."""
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):  # type: ignore[misc]
        """With ``data`` as an array."""

        @property
        def data(self) -> Any:
            """The file's bytes."""
            return self._bytes

        @data.setter
        def data(self, mapped: Any) -> None:
            self._bytes = mapped.view(np.ndarray)

    return Reader
