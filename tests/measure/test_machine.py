"""Fingerprints, and which CPUs saturate."""

import pytest

from compress.measure.machine import describe, saturates
from compress.measure.ondevice import machine

pytestmark = pytest.mark.fast

FACTS = machine.machine() | {"onnxruntime": "1.0", "build": "", "providers": []}


@pytest.mark.parametrize(
    ("arch", "system", "flags", "expected"),
    [
        ("x86_64", "Linux", {"avx2"}, True),
        ("x86_64", "Linux", {"avx2", "avx_vnni"}, False),
        ("AMD64", "Windows", set(), True),
        ("aarch64", "Linux", {"asimd", "asimddp"}, False),
        ("aarch64", "Linux", {"i8mm"}, False),
        ("aarch64", "Linux", {"asimd"}, True),
        ("arm64", "Darwin", set(), False),
        ("riscv64", "Linux", set(), True),
    ],
)
def test_what_is_not_known_to_sum_wide_is_taken_to_saturate(arch, system, flags, expected):
    assert saturates(arch=arch, system=system, flags=flags) == expected


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        ({"cpu": "another"}, "device_id"),
        ({"onnxruntime": "2.0"}, "device_id"),
        ({"governor": ["powersave"]}, "state_id"),
        ({"affinity": [0]}, "state_id"),
        ({"load": 9.0}, None),
    ],
)
def test_each_fact_moves_its_own_fingerprint(change, moves):
    before = describe(FACTS, threads=1, batch=1)
    after = describe(FACTS | change, threads=1, batch=1)
    moved = [key for key in ("device_id", "state_id") if before[key] != after[key]]
    assert moved == ([moves] if moves else [])


def test_every_fact_is_kept_somewhere():
    described = describe(FACTS, threads=1, batch=1)
    kept = {*described["device"], *described["state"], *described["volatile"]}
    assert set(FACTS) <= kept
