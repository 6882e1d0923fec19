"""Reading a checkpoint's states through TransformerLens hooks, with the weights as they were saved."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pythiageo.compute.side_by_side import SideBySide
from pythiageo.errors import CheckpointError
from pythiageo.interrupts import wait_for_all
from pythiageo.lens.booting import boot, take_apart
from pythiageo.lens.faithful import TriedLogits
from pythiageo.lens.placing import copy_without_weights, place
from pythiageo.names import FINAL_NORM
from pythiageo.no_value import NoValueError

_BLOCK = re.compile(r"blocks\.(\d+)\.")


class BridgeReader:
    """A checkpoint opened through ``TransformerBridge``: no LayerNorm folding, no centring, no compatibility mode.

    Booting changes ``model`` (attention implementation, parameter names, ``dtype``): fingerprint and save it before.
    ``device`` may be ``split``: then it is divided over all GPUs (``lens.placing``).

    ``at_once`` threads may read at a time, each through modules of its own: a pass leaves its mark on TransformerLens'
    modules, so no two passes share any. Their weights are there once.

    Use it as a context manager: at the end, or where it cannot be opened, the model is taken apart and its memory is
    free at once (``take_apart``); nothing can be asked of either any more.

    Raises:
        CheckpointError: TransformerLens has no adapter for this architecture, or does not compute what it computes.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: Path,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        at_once: int = 1,
    ) -> None:
        from transformers import AutoTokenizer  # noqa: PLC0415 - takes seconds to import

        model.config.use_cache = False  # type: ignore[union-attr] # keys and values of every block, for nobody
        tried = TriedLogits(model)
        modules: list[nn.Module] = [model]
        self._bridges: list[Any] = []
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            placed = place(model, device, dtype)
            modules += [copy_without_weights(placed) for _ in range(at_once - 1)]
            for one in modules:
                self._bridges.append(boot(one, folder, tokenizer, device, dtype, self._bridges[:1]))
        except (OSError, ValueError, KeyError, NotImplementedError) as error:
            kind = type(model).__name__
            take_apart(*modules, *self._bridges)
            raise CheckpointError(f"{folder.name}: TransformerLens cannot open a {kind}: {error}") from None
        self._bridge = self._bridges[0]
        self._device = torch.device(str(self._bridge.cfg.device))  # of the embedding, where the model is divided
        self._dtype = dtype
        self._layers = len(self._bridge.blocks)
        self._idle: SimpleQueue[Any] = SimpleQueue()
        for bridge in self._bridges:
            self._idle.put(bridge)
        # the unembedding is the waste of a large vocabulary: most architectures can leave positions out of it
        self._keeps_logits = "logits_to_keep" in inspect.signature(self._bridge.original_model.forward).parameters

        def check() -> None:
            _, logits = self.read(tried.ids, [], torch.arange(tried.ids.shape[1]))
            tried.check(logits, dtype, folder.name)

        try:
            with SideBySide(at_once, 0) as threads:
                checks = [threads.submit_first(check) for _ in self._bridges]  # each borrows the next one
                wait_for_all(checks)
            for done in checks:
                done.result()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> BridgeReader:
        return self

    def __exit__(self, *_error: object) -> None:
        for bridge in self._bridges:
            take_apart(bridge, bridge.original_model)

    def sites(self) -> dict[str, int]:
        """Return every default site with its layer: resid_post of each block, and the final LayerNorm's output.

        Some old architectures, whose blocks end in a LayerNorm, have no final one, and no such site.
        """
        sites = {f"blocks.{layer}.hook_resid_post": layer for layer in range(self._layers)}
        return {**sites, FINAL_NORM: self._layers - 1} if FINAL_NORM in self._bridge.hook_dict else sites

    def hooks(self) -> dict[str, str]:
        """Return every hook name that gives one state a position, aliases too, with the hook's own name.

        Found by two small forward passes: a tensor whose second axis is the number of positions both times is one
        state a position; attention patterns and scores, and logits, are not. States split by head are one state.
        """
        names = {name: str(point.name) for name, point in self._bridge.hook_dict.items()}
        shapes = [self._shapes(positions) for positions in (3, 4)]
        fitting = {
            hook
            for hook in set(names.values())
            if all(hook in found for found in shapes)
            and all(
                len(found[hook]) in {3, 4} and found[hook][:2] == (2, positions)
                for found, positions in zip(shapes, (3, 4), strict=True)
            )
            and shapes[0][hook][2:] == shapes[1][hook][2:]
        }
        return {name: hook for name, hook in names.items() if hook in fitting and not hook.startswith("unembed.")}

    def _shapes(self, positions: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of what every hook is given in a forward pass of two examples."""
        shapes: dict[str, tuple[int, ...]] = {}

        def note(value: object, hook: Any) -> None:
            if isinstance(value, Tensor):
                shapes[str(hook.name)] = tuple(value.shape)

        with torch.inference_mode(), warnings.catch_warnings():
            # by a predicate, hooks that must be switched on first are passed over, with a warning
            warnings.simplefilter("ignore", UserWarning)
            self._bridge.run_with_hooks(
                torch.zeros(2, positions, dtype=torch.long, device=self._device), fwd_hooks=[(lambda _: True, note)]
            )
        return shapes

    def read(
        self,
        ids: Int[Tensor, "example position"],
        sites: list[str],
        logit_positions: Int[Tensor, " scored"] | None,
        depths: Int[Tensor, "example position"] | None = None,
        visible: Bool[Tensor, "position position"] | None = None,
    ) -> tuple[dict[str, Float[Tensor, "example position width"]], Float[Tensor, "example scored vocab"] | None]:
        """Run one forward pass over examples of equal length, no further than the last block that is asked for.

        Args:
            ids: token ids, no padding.
            sites: hook names of ``sites()`` or ``hooks()``; states split by head come joined.
            logit_positions: ascending positions at which logits are wanted, or ``None`` for no logits.
            depths: where each position counts as standing, if not one behind the other.
            visible: which positions (columns) each position (row) may look at, if not all up to it. Whether a model
                keeps to these two is for the caller to try.

        Returns:
            States and logits as float32 where the model is, of a divided one where its embedding is.

        Raises:
            CheckpointError: the model's forward pass does not go through a site.
        """
        states: dict[str, Tensor] = {}

        def keep(site: str) -> tuple[str, object]:
            def hook(value: Tensor, hook: object) -> None:
                states[site] = value.detach().flatten(2).float().to(self._device)

            # resid_post is an alias in TransformerBridge: the hook that fires is the block's output
            return site.replace("hook_resid_post", "hook_out"), hook

        wanted = torch.tensor([0]) if logit_positions is None else logit_positions
        options: dict[str, Any] = {"logits_to_keep": wanted.to(self._device)} if self._keeps_logits else {}
        if logit_positions is None:
            options["stop_at_layer"] = self._stop(sites)
        if depths is not None and visible is not None:
            options["position_ids"] = depths.to(self._device)
            options["attention_mask"] = self._mask(visible)
        with torch.inference_mode(), self._borrow() as bridge:
            logits = bridge.run_with_hooks(
                ids.to(self._device), return_type="logits", fwd_hooks=[keep(site) for site in sites], **options
            )
        if lost := [site for site in sites if site not in states]:
            raise CheckpointError(f"{type(self._bridge.original_model).__name__}: there is no state at {lost[0]}")
        if logit_positions is None:
            return states, None
        return states, (logits if self._keeps_logits else logits[:, wanted.to(logits.device)]).float().to(self._device)

    def attention_to_first(
        self, ids: Int[Tensor, "example position"], layers: list[int]
    ) -> dict[int, Float[Tensor, "example head"]]:
        """Return, for each layer, every head's attention to the first position, a mean over all positions.

        Of a pattern (example, head, position, position) no more is kept than that.

        Raises:
            NoValueError: TransformerLens gives no attention patterns of this model.
        """
        found: dict[int, Tensor] = {}

        def keep(layer: int) -> tuple[str, object]:
            def hook(pattern: Tensor, hook: object) -> None:
                found[layer] = pattern[..., 0].double().mean(dim=-1).detach().cpu()

            return f"blocks.{layer}.attn.hook_pattern", hook

        hooks = [keep(layer) for layer in layers]
        if all(name in self._bridge.hook_dict for name, _ in hooks):
            stop = max(layers) + 1
            with torch.inference_mode(), self._borrow() as bridge:
                bridge.run_with_hooks(
                    ids.to(self._device),
                    return_type="logits",
                    fwd_hooks=hooks,
                    stop_at_layer=stop if stop < self._layers else None,
                )
        if lost := [layer for layer in layers if layer not in found]:
            kind = type(self._bridge.original_model).__name__
            raise NoValueError(f"TransformerLens gives no attention pattern of a {kind} at block {lost[0]}")
        return found

    @contextmanager
    def _borrow(self) -> Iterator[Any]:
        """Give modules that no other thread is using."""
        bridge = self._idle.get()
        try:
            yield bridge
        finally:
            self._idle.put(bridge)

    def _mask(self, visible: Bool[Tensor, "position position"]) -> Float[Tensor, "one one position position"]:
        """Return what is added to attention scores. One of booleans some attentions would add as it is, 0 or 1."""
        mask = torch.zeros(visible.shape, dtype=self._dtype).masked_fill_(~visible, torch.finfo(self._dtype).min)
        return mask[None, None].to(self._device)

    def _stop(self, sites: list[str]) -> int | None:
        """Return the block before which a pass may stop, ``None`` where it must go to the end."""
        blocks = [_BLOCK.match(site) for site in sites]
        if not all(blocks):
            return None
        after = max(int(match[1]) for match in blocks if match) + 1
        return after if after < self._layers else None
