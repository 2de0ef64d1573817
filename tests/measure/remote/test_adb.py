"""The same sessions through adb, whose device here is a folder of this machine."""

import sys

import numpy as np
import pytest

from compress.errors import MeasurementError
from compress.measure.local import LocalTarget
from compress.measure.remote.adb import AdbTarget
from compress.measure.target import BenchmarkConfig, Target, Timing

X = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def _lock_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.fixture
def phone(adb, there):
    return AdbTarget(serial="emulator-5554", python=sys.executable, folder=str(there))


def test_a_whole_session(phone, there, one):
    assert isinstance(phone, Target)
    (timing,) = phone.measure([one], BenchmarkConfig({"": X}, "quick"))
    assert isinstance(timing, Timing)
    assert len(there.starts()) == 1
    (outputs,) = phone.predict(one, {"": X})
    np.testing.assert_array_equal(outputs, LocalTarget().predict(one, {"": X})[0])


def test_a_full_phone(phone, adb, one):
    adb("push", "adb: error: failed to copy 'a' to 'b': remote No space left on device")
    with pytest.raises(MeasurementError, match=r"^adb:emulator-5554: no space is left there"):
        phone.predict(one, {"": X})


def test_a_phone_that_is_not_there(phone, one):
    other = phone.model_copy(update={"serial": "other"})
    with pytest.raises(MeasurementError, match=r"^adb:other: no such device is attached"):
        other.predict(one, {"": X})


def test_a_phone_without_python(phone, one):
    other = phone.model_copy(update={"python": "/nowhere/python3"})
    with pytest.raises(MeasurementError, match=r"there is no /nowhere/python3 there"):
        other.predict(one, {"": X})
