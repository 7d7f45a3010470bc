"""Degraded copies of a batch's images: what was made harder to recognise should be called more uncertain.

Blur, noise and occlusion are not among them: `idml_hf.evaluation.corruptions` tests the uncertainty on those.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from idml_hf.data import generator

TILES = 4
# keeps the stream of draws apart from that of `mix_batch`, which takes the same integers
_STREAM = 0xDE6


def degraded_views(
    pixel_values: Tensor, share: float, seed: int, step: int, micro_step: int = 0, process: int = 0
) -> Tensor:
    """Two views of some of the images, the second degraded more than the first.

    Half of the first views are the images themselves. The two views of an image differ in the severity of one
    degradation alone. The draws depend on the integers alone, so a resumed run draws the same.

    Args:
        pixel_values: `(B, 3, H, W)`, normalised.
        share: Share of the images that is viewed, in (0, 1]; at least one image is.
        seed: Seed of the run.
        step: Number of the optimizer step.
        micro_step: Number of the batch within that step, under gradient accumulation.
        process: Rank of this process.

    Returns:
        `(2 M, 3, H, W)`: the M views degraded less, then the M degraded more.

    Example:
        >>> import torch
        >>> degraded_views(torch.rand(8, 3, 16, 16), share=0.25, seed=0, step=0).shape
        torch.Size([4, 3, 16, 16])
    """
    rng = generator(seed, step, micro_step, _STREAM, process)
    batch = len(pixel_values)
    number = max(1, round(batch * share))
    rows = rng.permutation(batch)[:number]
    partners = (rows + rng.integers(1, max(2, batch), number)) % batch
    kinds = rng.integers(len(DEGRADATIONS), size=number)
    strong = rng.uniform(0.2, 1.0, number)
    weak = strong * np.maximum(0.0, rng.uniform(-0.8, 0.8, number))
    draws = rng.random((number, TILES * TILES))
    views = pixel_values[_index(np.tile(rows, 2), pixel_values)]
    severities = np.concatenate([weak, strong])
    for kind, degrade in enumerate(DEGRADATIONS.values()):
        chosen = np.flatnonzero(np.tile(kinds == kind, 2))
        if len(chosen):
            original = chosen % number
            at = _index(chosen, pixel_values)
            views[at] = degrade(
                views[at],
                pixel_values[_index(partners[original], pixel_values)],
                torch.from_numpy(severities[chosen]).to(views).view(-1, 1, 1, 1),
                torch.from_numpy(draws[original]).to(views),
            )
    return views


def mixing(images: Tensor, partners: Tensor, severity: Tensor, draws: Tensor) -> Tensor:
    """Blended with another image, up to half and half."""
    return torch.lerp(images, partners, 0.5 * severity)


def crop(images: Tensor, partners: Tensor, severity: Tensor, draws: Tensor) -> Tensor:
    """A random part of the image, down to 0.4 of its width and height, enlarged."""
    side = 1 - 0.6 * severity.view(-1)
    across, down = ((2 * draws[:, i] - 1) * (1 - side) for i in range(2))
    zero = torch.zeros_like(side)
    theta = torch.stack([side, zero, across, zero, side, down], dim=1).view(-1, 2, 3)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, padding_mode="border", align_corners=False)


def shift(images: Tensor, partners: Tensor, severity: Tensor, draws: Tensor) -> Tensor:
    """Moved in a random direction by up to 0.6 of the side; the margin that opens continues the border."""
    angle = 2 * torch.pi * draws[:, 0]
    move = torch.stack([angle.cos(), angle.sin()], dim=1).view(-1, 1, 1, 2) * 1.2 * severity
    return grid_sample(images, 2 * _places(images) - 1 + move, padding_mode="border", align_corners=False)


def pixelation(images: Tensor, partners: Tensor, severity: Tensor, draws: Tensor) -> Tensor:
    """Square cells of one colour, up to 6 pixels wide."""
    place = _places(images)
    cells = torch.tensor(images.shape[:1:-1], device=images.device) / (1 + 5 * severity)
    centres = ((place * cells).floor() + 0.5) / cells
    return grid_sample(images, 2 * centres - 1, padding_mode="border", align_corners=False)


def fading(images: Tensor, partners: Tensor, severity: Tensor, draws: Tensor) -> Tensor:
    """Contrast lost, up to nine tenths of it."""
    return torch.lerp(images, images.mean((2, 3), keepdim=True), 0.9 * severity)


def posterising(images: Tensor, partners: Tensor, severity: Tensor, draws: Tensor) -> Tensor:
    """Few values left in each channel, down to three."""
    low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
    width = (0.5 * severity * (high - low)).clamp_min(1e-3)
    return low + ((images - low) / width).round() * width


def tile_mixing(images: Tensor, partners: Tensor, severity: Tensor, draws: Tensor) -> Tensor:
    """Some of 4 x 4 tiles, up to 0.6 of them, from another image."""
    place = (_places(images) * TILES).floor().clamp_max(TILES - 1)
    tile = (place[..., 1] * TILES + place[..., 0]).long()
    other = draws.argsort(1) < (0.6 * severity.view(-1, 1) * TILES * TILES).round()
    chosen = other.gather(1, tile.expand(len(images), -1, -1).flatten(1)).view(-1, 1, *images.shape[2:])
    return torch.where(chosen, partners, images)


def _places(images: Tensor) -> Tensor:
    """Centres of the pixels, x and y in (0, 1), shape (1, H, W, 2)."""
    down, across = ((torch.arange(n, device=images.device, dtype=images.dtype) + 0.5) / n for n in images.shape[2:])
    return torch.stack(torch.meshgrid(across, down, indexing="xy"), dim=-1).unsqueeze(0)


def _index(rows: np.ndarray, images: Tensor) -> Tensor:
    return torch.from_numpy(rows).to(images.device)


DEGRADATIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "mixing": mixing,
    "crop": crop,
    "shift": shift,
    "pixelation": pixelation,
    "fading": fading,
    "posterising": posterising,
    "tile_mixing": tile_mixing,
}
"""Functions of images, other images to mix with, both (M, 3, H, W), severities (M, 1, 1, 1) in [0, 1], 0 changing
nothing, and 16 draws (M, 16) in [0, 1) for what is random, which the severities of an image share."""

__all__ = ["DEGRADATIONS", "degraded_views"]
