"""Does a net that makes images know which frames it makes badly?

The last row of a run of ``recipes/effect.yaml``, on frames of three kinds: the
test split's as they are, one of each test photograph changed in six ways, and pictures of other
things (text, drawings, slides of a microscope, white noise). The teacher makes all of them. How far
the net agrees with itself on the frame moved by a few pixels (``compresskit cascade``) is ranked
beside the PSNR against the teacher's; intervals are over photographs and pictures.

    compresskit run recipes/effect.yaml         # an hour on one core
    python benchmarks/frame_score.py            # 6 min
    python benchmarks/frame_score.py --smoke    # a tiny net
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import skimage
from claims import Claim, at_least, script_parser, write
from effects import recipes_of
from scipy.ndimage import gaussian_filter

from compress.cascade.frames import Expectation, FrameFacts, Looked, facts_of, look_at
from compress.cascade.threshold import threshold_of_share
from compress.cli.filtering import DeployedFilter, as_bytes, as_input, middle_of
from compress.config.references import CodeReferences
from compress.notebook.record import Record
from compress.recipe import Recipe
from compress.tasks.image_to_image import plan_of
from compress.tasks.pairs.making import PairsPlan

Array = np.ndarray[Any, Any]
SHARE = 0.2
RANDOM = np.random.default_rng(0)
# None of them is among the photographs that recipes learn from.
OTHERS = ("cell", "chessboard_RGB", "color", "horse", "ihc", "logo", "microaneurysms", "page")
OTHERS += ("phantom", "text")
CHANGES: Mapping[str, Callable[[Array], Array]] = {
    "noise": lambda x: x + RANDOM.normal(0, 0.1, x.shape),
    "dark": lambda x: 0.3 * x,
    "blur": lambda x: gaussian_filter(x, (0, 2.5, 2.5)),
    "low contrast": lambda x: 0.5 + 0.25 * (x - 0.5),
    "inverted": lambda x: 1 - x,
    "bright": lambda x: 0.6 + 0.4 * x,
}


def changed(plan: PairsPlan) -> Iterator[tuple[str, int, Array]]:
    """Of each test photograph its first frame, changed: what, the photograph, and the image."""
    images, photographs = plan.arrays("test")[0], plan.photographs("test")
    for number in sorted(set(photographs)):
        image = images[photographs.index(number)] / 255
        for name, change in CHANGES.items():
            yield name, number, change(image)


def others(size: int, first: int) -> Iterator[tuple[str, int, Array]]:
    """Pictures of other things, each a photograph of its own, numbered from ``first``."""
    folder = Path(skimage.__file__).parent / "data"
    found = {name: as_input(middle_of(folder / f"{name}.png", size)) for name in OTHERS}
    found["white noise"] = RANDOM.random((3, size, size))
    for number, (name, image) in enumerate(found.items(), start=first):
        yield name, number, image


def joined(*parts: Looked) -> Looked:
    """All frames together."""
    agreements, psnr, photographs = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("agreement_db", "psnr_db", "photographs")
    )
    return Looked(agreements, psnr, photographs, {})


def by_teacher(
    net: DeployedFilter, plan: PairsPlan, frames: Iterator[tuple[str, int, Array]]
) -> tuple[list[str], Looked]:
    """Names of frames, and what net and teacher make of them."""
    names, photographs, images = zip(*frames, strict=True)
    given = [as_bytes(image.clip(0, 1)) for image in images]
    made = [plan.teacher(image, {}).transpose(2, 0, 1) for image in given]
    pixels = np.stack([image.transpose(2, 0, 1) for image in given])
    return list(names), look_at(net, pixels, np.stack(made), {}, np.array(photographs))


def tiny_run(folder: Path) -> Path:
    """A run of a net that has learned next to nothing, for ``--smoke``."""
    recipe = next(iter(recipes_of(is_smoke=True, folder=folder)))
    task = recipe.make_task()
    recipe.run(recipe.make_candidate(task), task, workdir=folder / "run", mode="quick")
    return folder / "run"


def found_of(run: Path) -> dict[str, Any]:
    """All frames, by kind and together."""
    record = Record.load(run)
    row = record.rows[-1].index
    net, recipe = DeployedFilter(record.artifact(row)), Recipe.of_record(record)
    assert recipe.task is not None
    plan = plan_of(recipe.task, CodeReferences())
    assert plan is not None
    images, made, _ = plan.arrays("validation")
    validation = look_at(net, images, made, {}, np.array(plan.photographs("validation")))
    threshold = threshold_of_share(validation.agreement_db, SHARE)
    expected = Expectation.of(validation)
    images, made, _ = plan.arrays("test")
    test = look_at(net, images, made, {}, np.array(plan.photographs("test")))
    names, spoilt = by_teacher(net, plan, changed(plan))
    own = int(test.photographs.max()) + 1
    of_others, other = by_teacher(net, plan, others(plan.of.size, own))
    kinds = {
        "test frames": test,
        "test frames, changed": spoilt,
        "other pictures": other,
        "all": joined(test, spoilt, other),
    }
    facts = [facts_of(name, looked, threshold, expected) for name, looked in kinds.items()]
    return {
        "row": row,
        "threshold_db": threshold,
        "expected": asdict(expected),
        "changed": names,
        "others": of_others,
        "kinds": [asdict(each) for each in facts],
    }


def claims_of(facts: FrameFacts) -> Iterator[Claim]:
    """The score ranks frames, and what it sends back is worse than what it keeps."""
    assert facts.correlation is not None
    assert facts.ci95 is not None
    words = "rank correlation of agreement and PSNR against the teacher, all frames: lower end"
    yield at_least("frame-score-rank", words, facts.ci95[0], 0, facts.ci95)
    won = 0.0 if facts.kept_db is None else facts.kept_db - facts.psnr_db
    words = "dB won in the mean over the frames that the net keeps, all frames"
    yield at_least("frame-score-kept", words, won, 1)


def table(found: dict[str, Any]) -> str:
    """Every kind of frame."""
    lines = [
        "| frames | count | rank correlation | sent back | all, dB (least) | kept | off by |",
        "| :-- | --: | --: | --: | --: | --: | --: |",
    ]
    for each in found["kinds"]:
        low, high = each["ci95"]
        kept = "-"
        if each["kept_db"] is not None:
            kept = f"{each['kept_db']:.2f} ({each['worst_kept_db']:.2f})"
        lines.append(
            f"| {each['name']} | {each['frames']} | {each['correlation']:.2f} "
            f"\\[{low:.2f}, {high:.2f}\\] | {100 * each['share']:.0f} % "
            f"| {each['psnr_db']:.2f} ({each['worst_db']:.2f}) | {kept} | {each['off_db']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Look at all frames, and write the result."""
    parser = script_parser(__doc__)
    parser.add_argument(
        "--run", type=Path, default=Path("runs/effect"), help="a finished run; default: %(default)s"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="compresskit-frames-") as scratch:
        found = found_of(tiny_run(Path(scratch)) if arguments.smoke else arguments.run)
    whole = FrameFacts(**found["kinds"][-1])
    write("frame_score", found, list(claims_of(whole)), arguments.results, table(found))


if __name__ == "__main__":
    main()
