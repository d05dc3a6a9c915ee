"""docs/kv-cache.md: keys and values, as plain arrays per sequence or as pages in arenas."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .layout import WORD, Bytes, divide_up, float_words
from .numerics import F32, Floats, flush

PAGE_TOKENS = 32
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class KeysValues:
    """INT8 values as float32, [kv_heads][tokens][head_dim], with scales [kv_heads][tokens]."""

    keys: Floats
    key_scales: Floats
    values: Floats
    value_scales: Floats


class Cache(Protocol):
    def write(self, layer: int, sequence: int, positions: Ints, tokens: KeysValues) -> None: ...

    def read(self, layer: int, sequence: int, count: int) -> KeysValues:
        """Positions 0..count-1."""


@dataclass(frozen=True)
class PageLayout:
    layers: int
    kv_heads: int
    head_dim: int

    @property
    def scale_words(self) -> int:
        return float_words(2 * self.kv_heads)

    @property
    def head_bytes(self) -> int:
        return divide_up(self.head_dim, WORD) * WORD

    @property
    def scale_bytes(self) -> int:
        return PAGE_TOKENS * self.scale_words * WORD

    @property
    def half_bytes(self) -> int:
        """Keys, or values, of a layer."""
        return PAGE_TOKENS * self.kv_heads * self.head_bytes

    @property
    def layer_bytes(self) -> int:
        return self.scale_bytes + 2 * self.half_bytes

    @property
    def page_bytes(self) -> int:
        return self.layers * self.layer_bytes

    def views(self, page: Bytes, layer: int) -> tuple[Floats, npt.NDArray, npt.NDArray]:
        """Writable views of a page: scales [32][16 scale_words], keys and values
        [32][kv_heads][head_bytes]."""
        part = page[layer * self.layer_bytes : (layer + 1) * self.layer_bytes]
        scales = part[: self.scale_bytes].view("<f4").reshape(PAGE_TOKENS, -1)
        rest = part[self.scale_bytes :].view(np.int8)
        halves = rest.reshape(2, PAGE_TOKENS, self.kv_heads, self.head_bytes)
        return scales, halves[0], halves[1]

    def put(self, page: Bytes, layer: int, slots: Ints, tokens: KeysValues) -> None:
        """Whole words are written: padding becomes zero."""
        scales, keys, values = self.views(page, layer)
        heads = self.kv_heads
        scales[slots] = 0
        scales[slots, :heads] = tokens.key_scales.T
        scales[slots, heads : 2 * heads] = tokens.value_scales.T
        for half, source in ((keys, tokens.keys), (values, tokens.values)):
            half[slots] = 0
            half[slots, :, : self.head_dim] = source.transpose(1, 0, 2)


class PlainCache:
    """Grows as sequences grow; pages exist only when `page` renders them."""

    def __init__(self, layout: PageLayout):
        self.layout = layout
        self._entries: dict[tuple[int, int], KeysValues] = {}

    def write(self, layer: int, sequence: int, positions: Ints, tokens: KeysValues) -> None:
        entry = self._room(layer, sequence, int(positions.max()) + 1)
        entry.keys[:, positions] = tokens.keys
        entry.values[:, positions] = tokens.values
        entry.key_scales[:, positions] = tokens.key_scales
        entry.value_scales[:, positions] = tokens.value_scales

    def read(self, layer: int, sequence: int, count: int) -> KeysValues:
        entry = self._entries[layer, sequence]
        return KeysValues(
            entry.keys[:, :count],
            entry.key_scales[:, :count],
            entry.values[:, :count],
            entry.value_scales[:, :count],
        )

    def drop(self, sequence: int) -> None:
        for layer in range(self.layout.layers):
            self._entries.pop((layer, sequence), None)

    def page(self, sequence: int, index: int, tokens: int) -> Bytes:
        """Bytes of the sequence's page `index` when `tokens` positions are written; the rest 0."""
        page = np.zeros(self.layout.page_bytes, np.uint8)
        first = index * PAGE_TOKENS
        last = min(first + PAGE_TOKENS, tokens)
        for layer in range(self.layout.layers):
            entry = self.read(layer, sequence, last)
            part = KeysValues(
                entry.keys[:, first:],
                entry.key_scales[:, first:],
                entry.values[:, first:],
                entry.value_scales[:, first:],
            )
            self.layout.put(page, layer, np.arange(last - first), part)
        return page

    def _room(self, layer: int, sequence: int, count: int) -> KeysValues:
        heads, size = self.layout.kv_heads, self.layout.head_dim
        old = self._entries.get((layer, sequence))
        capacity = 0 if old is None else old.keys.shape[1]
        if old is not None and count <= capacity:
            return old
        capacity = divide_up(max(count, capacity * 3 // 2), PAGE_TOKENS) * PAGE_TOKENS
        new = KeysValues(
            np.zeros((heads, capacity, size), F32),
            np.zeros((heads, capacity), F32),
            np.zeros((heads, capacity, size), F32),
            np.zeros((heads, capacity), F32),
        )
        if old is not None:
            filled = old.keys.shape[1]
            new.keys[:, :filled] = old.keys
            new.values[:, :filled] = old.values
            new.key_scales[:, :filled] = old.key_scales
            new.value_scales[:, :filled] = old.value_scales
        self._entries[layer, sequence] = new
        return new


class PagedCache:
    """Pages in arenas, one per KV stream: page id P at page P / Q of stream P mod Q."""

    def __init__(self, layout: PageLayout, arenas: Sequence[Bytes], tables: Sequence[Ints]):
        self.layout = layout
        self._arenas = arenas
        self._tables = tables  # page ids, per sequence

    def page(self, page_id: int) -> Bytes:
        arena = self._arenas[page_id % len(self._arenas)]
        at = page_id // len(self._arenas) * self.layout.page_bytes
        return arena[at : at + self.layout.page_bytes]

    def write(self, layer: int, sequence: int, positions: Ints, tokens: KeysValues) -> None:
        pages = positions // PAGE_TOKENS
        for index in np.unique(pages):
            here = pages == index
            part = KeysValues(
                tokens.keys[:, here],
                tokens.key_scales[:, here],
                tokens.values[:, here],
                tokens.value_scales[:, here],
            )
            page = self.page(int(self._tables[sequence][index]))
            self.layout.put(page, layer, positions[here] % PAGE_TOKENS, part)

    def read(self, layer: int, sequence: int, count: int) -> KeysValues:
        ids = self._tables[sequence][: divide_up(count, PAGE_TOKENS)]
        views = [self.layout.views(self.page(int(page_id)), layer) for page_id in ids]
        heads, size = self.layout.kv_heads, self.layout.head_dim
        scales = flush(np.concatenate([view[0] for view in views])[:count])

        def half(index: int) -> Floats:
            joined = np.concatenate([view[index] for view in views])[:count, :, :size]
            return np.ascontiguousarray(joined.transpose(1, 0, 2), F32)

        return KeysValues(
            half(1), scales[:, :heads].T.copy(), half(2), scales[:, heads : 2 * heads].T.copy()
        )
