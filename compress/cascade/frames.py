"""Which frames are for the teacher: what a net's agreement with itself says of its error.

The nets are those that make images. They have no probabilities; but a filter does the same to a
thing wherever it stands, and a net that does not has not learned what to do with the frame (the
variance under transformations of the input: Wang et al. 2019, "Aleatoric uncertainty estimation
with test-time augmentation").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compress.cascade.program.frames import agreement, moved
from compress.cascade.threshold import sent_back
from compress.measure.ondevice.dataset_metrics import DATASET_METRICS
from compress.measure.ondevice.scoring import scores
from compress.measure.stats import resampled_interval

__all__ = ["Expectation", "FrameFacts", "Looked", "Net", "curve_of", "facts_of", "look_at"]

Array = np.ndarray[Any, Any]
#: Makes an image of an image ``(3, height, width)`` from 0 to 1 and controls.
Net = Callable[[Array, Mapping[str, float]], Array]

#: Shares that a curve is worked out for.
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
_RESAMPLES, _SEED = 2000, 0
_FEWEST = 3  # frames that are ranked


@dataclass(frozen=True)
class Looked:
    """Frames that a net and its teacher made images of.

    Args:
        agreement_db: of the net with itself, ``(n,)``.
        psnr_db: of its images against the teacher's, ``(n,)``.
        photographs: of which photograph each is, ``(n,)``: frames of one are alike.
        controls: by name, ``(n,)``.
    """

    agreement_db: Array
    psnr_db: Array
    photographs: Array
    controls: Mapping[str, Array]


@dataclass(frozen=True)
class Expectation:
    """PSNR against the teacher, as it is expected: a line, by least squares on validation frames.

    Args:
        at_zero_db: at an agreement of 0 dB.
        for_each_db: more for each dB of agreement.
    """

    at_zero_db: float
    for_each_db: float

    @classmethod
    def of(cls, looked: Looked) -> Expectation:
        """The line; a level one where all frames agree alike."""
        given, wanted = looked.agreement_db, looked.psnr_db
        spread = float(((given - given.mean()) ** 2).sum())
        slope = float(((given - given.mean()) * wanted).sum()) / spread if spread else 0.0
        return cls(float(wanted.mean() - slope * given.mean()), slope)

    def __call__(self, agreement_db: Array) -> Array:
        """The PSNR that is expected, in dB."""
        return self.at_zero_db + self.for_each_db * agreement_db


@dataclass(frozen=True)
class FrameFacts:
    """What the agreement says of some frames.

    Args:
        name: of them.
        frames: how many.
        photographs: that they are of.
        correlation: Spearman's, of the agreement and the PSNR against the teacher, among frames
            with the same controls; ``None`` where there is none.
        ci95: its interval, over photographs; ``None`` where there is one photograph.
        off_db: root of the mean square of what the PSNR is off from what was expected.
        share: of the frames that goes back at the threshold.
        psnr_db: mean of all frames.
        worst_db: the least of them.
        kept_db: the mean of those that the net answers; ``None`` where all go back.
        worst_kept_db: the least of these.
        agreements: each frame's agreement and PSNR.
    """

    name: str
    frames: int
    photographs: int
    correlation: float | None
    ci95: tuple[float, float] | None
    off_db: float
    share: float
    psnr_db: float
    worst_db: float
    kept_db: float | None
    worst_kept_db: float | None
    agreements: list[tuple[float, float]]


def look_at(
    net: Net, images: Array, made: Array, controls: Mapping[str, Array], photographs: Array
) -> Looked:
    """Run a net on frames, as they are and moved.

    Args:
        net: makes an image of an image.
        images: ``(n, 3, height, width)`` in bytes.
        made: the teacher's, likewise.
        controls: by name, ``(n,)`` or ``(n, 1)``.
        photographs: of which photograph each is, ``(n,)``.
    """
    flat = {name: np.asarray(values, np.float64).reshape(-1) for name, values in controls.items()}
    agreements, psnr = [], []
    for place, (image, wanted) in enumerate(zip(images, made, strict=True)):
        own = {name: float(values[place]) for name, values in flat.items()}
        given = image.astype(np.float32) / 255
        answer = net(given, own)
        agreements.append(agreement(answer, net(moved(given), own)))
        psnr.append(scores(answer[None], wanted[None] / 255, "psnr")[0])
    return Looked(np.array(agreements), np.array(psnr), np.asarray(photographs), flat)


def facts_of(name: str, looked: Looked, threshold: float, expected: Expectation) -> FrameFacts:
    """What the agreement says of frames.

    Args:
        name: of the frames.
        looked: at them.
        threshold: below which they go back.
        expected: what is expected of them.
    """
    back = sent_back(looked.agreement_db, threshold)
    kept = looked.psnr_db[~back]
    off = looked.psnr_db - expected(looked.agreement_db)
    correlation, ci95 = _correlation(looked)
    pairs = zip(looked.agreement_db.tolist(), looked.psnr_db.tolist(), strict=True)
    return FrameFacts(
        name=name,
        frames=len(looked.psnr_db),
        photographs=len(np.unique(looked.photographs)),
        correlation=correlation,
        ci95=ci95,
        off_db=float(np.sqrt((off**2).mean())),
        share=float(back.mean()),
        psnr_db=float(looked.psnr_db.mean()),
        worst_db=float(looked.psnr_db.min()),
        kept_db=float(kept.mean()) if len(kept) else None,
        worst_kept_db=float(kept.min()) if len(kept) else None,
        agreements=list(pairs),
    )


def curve_of(looked: Looked) -> list[tuple[float, float, float]]:
    """For shares of the frames sent back: the share, mean and least PSNR of the others."""
    ordered = looked.psnr_db[np.argsort(looked.agreement_db, kind="stable")]
    found = []
    for share in SHARES:
        rest = ordered[round(share * len(ordered)) :]
        found.append((1 - len(rest) / len(ordered), float(rest.mean()), float(rest.min())))
    return list(dict.fromkeys(found))


def _correlation(looked: Looked) -> tuple[float | None, tuple[float, float] | None]:
    """The mean rank correlation over values of the controls, and its interval over photographs."""
    values = np.stack([*looked.controls.values(), np.zeros(len(looked.psnr_db))], axis=1)
    _, group = np.unique(values, axis=0, return_inverse=True)
    names, photograph = np.unique(looked.photographs, return_inverse=True)
    rng = np.random.default_rng(_SEED)
    chances = np.full(len(names), 1 / len(names))
    drawn = rng.multinomial(len(names), chances, _RESAMPLES)
    times = np.concatenate([np.ones((1, len(names)), int), drawn])[:, photograph]
    found = []
    for number in range(group.max() + 1):
        own = group.reshape(-1) == number
        if own.sum() >= _FEWEST:
            given = looked.agreement_db[own, None], looked.psnr_db[own, None]
            found.append(DATASET_METRICS["spearman"](*given)(times[:, own]))
    whole = np.stack(found) if found else np.full((1, len(times)), np.nan)
    known = ~np.isnan(whole)
    mean = np.where(known, whole, 0).sum(0) / np.maximum(known.sum(0), 1)
    if not known[:, 0].any():
        return None, None
    draws = mean[1:][known[:, 1:].any(0)]
    if len(names) < 2 or not len(draws):
        return float(mean[0]), None
    low, high = resampled_interval(float(mean[0]), draws)
    return float(mean[0]), (float(low), float(high))
