"""The sentence at the end of a profile: why a model is slower, faster or neither.

Says what the numbers say, and no more: where no difference is shown, none is claimed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from compress.formatting import duration, times
from compress.measure.profile.facts import Kind, Profile
from compress.measure.stats import Ratio

__all__ = ["ProfileComparison", "int8_dot_product", "summary"]

_WORTH_SAYING = 0.05  # of the time; what is less explains nothing
_OUTSIDE = 0.25
_FASTER = 0.95  # of kernels, against those that they replace

_KIND_WORDS: Mapping[Kind, str] = {
    "int8": "int8 kernels",
    "float": "float operators",
    "convert": "quantizing, dequantizing and casts",
    "layout": "changes of layout",
    "move": "moving values",
    "outside": "what lies outside of the operators",
}


@dataclass(frozen=True)
class ProfileComparison:
    """A profile, what it is compared with, and what is known beside them.

    ``kernel_ratio`` is as of :func:`.parts.kernel_ratio`. ``stores_integers`` says whether
    most of the file's weights are integers. ``dot_product`` is as of :func:`int8_dot_product`.
    """

    own: Profile
    reference: Profile
    kernel_ratio: Ratio | None
    stores_integers: bool
    dot_product: bool | None


def int8_dot_product(device: Mapping[str, Any]) -> bool | None:
    """Whether the CPU multiplies and sums bytes in one instruction; ``None`` if it does not tell.

    ``device`` is that part of a target's environment.
    """
    flags: Collection[str] = device.get("isa") or ()
    if not flags:
        return None
    return not {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}.isdisjoint(flags)


def summary(found: ProfileComparison) -> str:
    """One sentence (two where there is much to say) on where the time goes, and why."""
    own, reference = found.own, found.reference
    if own is reference:
        return _alone(own)
    head = _verdict(own, reference)
    reasons = _reasons(found)
    return f"{head}: {'; '.join(reasons)}." if reasons else f"{head}."


def _alone(own: Profile) -> str:
    ranked = sorted(own.kinds.items(), key=lambda pair: -pair[1].share)
    shares = [f"{_percent(t.share)} of it in {_KIND_WORDS[kind]}" for kind, t in ranked[:2]]
    largest = own.modules[0] if len(own.modules) > 1 else None
    module = f"; {largest.name} alone takes {_percent(largest.time.share)}" if largest else ""
    return f"{own.name} takes {duration(own.latency_s)}, {', '.join(shares)}{module}."


def _verdict(own: Profile, reference: Profile) -> str:
    assert own.speedup is not None
    assert own.ci95_speedup is not None
    lo, hi = own.ci95_speedup
    if own.verdict == "faster":
        ratio, ends = own.speedup, f"{times(lo)} to {times(hi)}"
        return f"{own.name} is {times(ratio)} faster than {reference.name} (95 % interval {ends})"
    if own.verdict == "slower":
        ratio, ends = 1 / own.speedup, f"{times(1 / hi)} to {times(1 / lo)}"
        return f"{own.name} is {times(ratio)} slower than {reference.name} (95 % interval {ends})"
    ends = f"the 95 % interval of the speed-up is {times(lo)} to {times(hi)}"
    if own.verdict == "noisy":
        return f"the times are too noisy to tell {own.name} from {reference.name} ({ends})"
    return f"no difference is shown between {own.name} and {reference.name} ({ends})"


def _reasons(found: ProfileComparison) -> list[str]:
    own = found.own
    if own.kinds["int8"].share > 0:
        return _int8_reasons(found)
    if own.kinds["convert"].share >= _WORTH_SAYING and found.stores_integers:
        causes = [remedy.cause for island in own.islands for remedy in island.remedies]
        return ["none of it runs on int8 kernels", *causes[:1], *_conversions(found)]
    if found.stores_integers:
        what = "its weights are stored as integers and computed in float"
        return [f"{what}, which makes the file smaller and the arithmetic no faster"]
    return _module_reasons(found)


def _int8_reasons(found: ProfileComparison) -> list[str]:
    """What int8 costs and gains here, the largest share first."""
    own = found.own
    weighed = [
        (_turning(own), _conversions(found)),
        (own.kinds["int8"].share, _kernels(found)),
        (own.kinds["float"].share, _float_parts(own)),
        (own.kinds["outside"].share, _outside(own)),
    ]
    ranked = sorted(weighed, key=lambda pair: -pair[0])
    return [words for _, reasons in ranked for words in reasons] or _module_reasons(found)


def _turning(profile: Profile) -> float:
    return profile.kinds["convert"].share + profile.kinds["layout"].share


def _conversions(found: ProfileComparison) -> list[str]:
    share, before = _turning(found.own), _turning(found.reference)
    if share < _WORTH_SAYING:
        return []
    where = "in Quantize/DequantizeLinear, casts and layout changes"
    return [
        f"{_percent(share)} of its time is {where} ({_percent(before)} in {found.reference.name})"
    ]


def _kernels(found: ProfileComparison) -> list[str]:
    if found.kernel_ratio is None:
        return []
    ratio, (lo, hi), *_ = found.kernel_ratio
    ends = f"95 % interval {lo:.2f} to {hi:.2f}"
    taken = f"its int8 kernels take {ratio:.2f} times as long as the float kernels in their place"
    if lo > 1 and found.dot_product is False:
        return [f"{taken} ({ends}), since this CPU has no dot product for bytes (VNNI)"]
    if hi > _FASTER and found.dot_product is False:
        little = "without a dot product for bytes (VNNI), int8 gains little on this CPU"
        return [f"{taken} ({ends}): {little}"]
    return [f"{taken} ({ends})"]


def _float_parts(own: Profile) -> list[str]:
    share = own.kinds["float"].share
    if share < _WORTH_SAYING:
        return []
    between = [name for island in own.islands for name in island.operators if name != "Transpose"]
    named = ", ".join(dict.fromkeys(between[:6]))
    return [f"{_percent(share)} stays in float operators{f' ({named})' if named else ''}"]


def _outside(own: Profile) -> list[str]:
    share = own.kinds["outside"].share
    if share < _OUTSIDE:
        return []
    where = "outside of the operators, which no number format makes faster"
    return [f"{_percent(share)} is spent {where}"]


def _module_reasons(found: ProfileComparison) -> list[str]:
    """The modules that changed most, in the direction that the whole did."""
    own = found.own
    if own.verdict not in ("faster", "slower"):
        return []
    ranked = own.changes if own.verdict == "slower" else own.changes[::-1]
    shown = [c for c in ranked[:3] if c.ci95[0] > 0 or c.ci95[1] < 0]
    words = [f"{c.module} {_signed(c.seconds)}" for c in shown if _fits(c.seconds, own.verdict)]
    return [f"most of it in {', '.join(words)}"] if words else []


def _fits(seconds: float, verdict: str) -> bool:
    return seconds > 0 if verdict == "slower" else seconds < 0


def _signed(seconds: float) -> str:
    return f"{'+' if seconds > 0 else '−'}{duration(abs(seconds))}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
