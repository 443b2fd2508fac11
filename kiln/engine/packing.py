"""Compressing large layers of commands beside the steps that follow.

A RUN's layer is kept as it is first: the next step needs its diffID and its files, not its compressed form. Only layers of the
final image are compressed at all; those of other stages never leave this machine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from kiln.oci.image import Descriptor, Image
from kiln.store.blobs import Follow
from kiln.store.convert import convert
from kiln.store.layer import Compression, Layer
from kiln.store.layers import Layers

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_AT_ONCE = 2


class Packing:
    """The layers of one image that are being compressed; to be closed. `follow` is called with the file of each, `check` now
    and then: what it raises ends the work."""

    def __init__(
        self, layers: Layers, compression: Compression, follow: Follow | None, check: Callable[[], None]
    ) -> None:
        self._layers, self._compression, self._follow, self._check = layers, compression, follow, check
        self._pool: ThreadPoolExecutor | None = None
        self._packed: dict[str, Future[Descriptor]] = {}

    def take(self, layer: Layer, done: Callable[[Layer], None]) -> None:
        """Begins to compress a layer that is not, and calls `done` with what it became."""
        if layer.plain and layer.diff_id not in self._packed:
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor

                self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="kiln-packing")
            self._packed[layer.diff_id] = self._pool.submit(self._pack, layer, done)

    def _pack(self, layer: Layer, done: Callable[[Layer], None]) -> Descriptor:
        self._check()
        made = convert(
            self._layers, layer.diff_id, layer.descriptor, self._compression, follow=self._follow, check=self._check
        )
        done(made)
        self._layers.blobs.retire(layer.descriptor.digest)
        return made.descriptor

    def packed(self, image: Image) -> Image:
        """The image with its layers compressed, once they are; raises what kept one from being so."""
        return Image(image.config, tuple(map(self._descriptor, image.diff_ids, image.layers)))

    def _descriptor(self, diff_id: str, descriptor: Descriptor) -> Descriptor:
        future = self._packed.get(diff_id)
        return descriptor if future is None else future.result()

    def close(self) -> None:
        """Waits for what has begun."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
