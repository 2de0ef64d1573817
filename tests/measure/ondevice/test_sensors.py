"""What the worker reads in /sys: the machine's state, and its energy; on a folder made up here."""

import itertools
import json
import time

import pytest

from compress.measure.ondevice import machine, worker
from compress.measure.ondevice.sensors import EnergyMeter
from compress.measure.ondevice.timing import WarmModel

TIMING = {"window_s": 0.002, "warmup_cap_s": 0.02, "cap_s": 0.1}

POLICY, ZONE = "devices/system/cpu/cpufreq/policy", "class/thermal/thermal_zone"
COOLING = "class/thermal/cooling_device"
RAPL = "class/powercap/intel-rapl:"


@pytest.fixture
def sensors(tmp_path, monkeypatch):
    """Writes files of a made-up /sys, which the worker looks at from then on."""
    monkeypatch.setattr(machine, "SYS", tmp_path)

    def write(**folders):
        for folder, files in folders.items():
            for name, text in files.items():
                path = tmp_path / folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{text}\n")

    return write


def zone(name, energy_uj=0, most=1000):
    return {"name": name, "energy_uj": energy_uj, "max_energy_range_uj": most}


# -- state ------------------------------------------------------------------------------------


def test_a_system_that_tells_nothing_has_an_empty_state(sensors):
    state = machine.machine_state()
    assert state.pop("load") is not None
    assert state == {
        "governor": [],
        "khz": [],
        "temperatures_mc": [],
        "throttled": "",
        "throttle_count": 0,
        "cooling": 0,
    }


def test_the_state_has_what_the_system_tells(sensors):
    sensors(
        **{
            f"{POLICY}0": {"scaling_governor": "schedutil", "scaling_cur_freq": 1_800_000},
            f"{POLICY}4": {"scaling_governor": "performance", "scaling_cur_freq": 2_400_000},
            f"{ZONE}0": {"temp": 41_500},
            f"{ZONE}1": {"temp": "-274000"},  # a zone without a sensor
            f"{COOLING}0": {"type": "thermal-cpufreq-0", "cur_state": 2},
            f"{COOLING}1": {"type": "Processor", "cur_state": 0},
            f"{COOLING}2": {"type": "pwm-fan", "cur_state": 3},
            "devices/system/cpu/cpu0/thermal_throttle": {
                "core_throttle_count": 2,
                "package_throttle_count": 3,
            },
            "devices/platform/soc/soc:firmware": {"get_throttled": "50000"},
        }
    )
    state = machine.machine_state()
    del state["load"]
    assert state == {
        "governor": ["performance", "schedutil"],
        "khz": [1_800_000, 2_400_000],
        "temperatures_mc": [41_500],
        "throttled": "50000",
        "throttle_count": 5,
        "cooling": 1,
    }
    assert machine.machine()["temperatures_mc"] == [41_500]


# -- sensors of energy ------------------------------------------------------------------------


def ina(label=None, **files):
    named = {} if label is None else {"in1_label": label}
    return {"name": "ina3221", **named, **files}


VOLTS_AND_AMPERES = {"in1_input": 5000, "curr1_input": 400}


@pytest.mark.parametrize(
    ("folders", "source"),
    [
        ({}, ""),
        ({f"{RAPL}0": zone("package-0")}, "RAPL, package-0"),
        # Parts of a package, and the whole that has it in it, would count twice.
        (
            {
                f"{RAPL}0": zone("package-0"),
                f"{RAPL}0:0": zone("core"),
                f"{RAPL}0:1": zone("dram"),
                f"{RAPL}1": zone("psys"),
                "class/powercap/intel-rapl-mmio:0": zone("package-0"),
            },
            "RAPL, package-0, dram",
        ),
        ({f"{RAPL}0": {"name": "package-0"}}, ""),  # what only root may read looks empty
        ({"class/hwmon/hwmon2": ina(**VOLTS_AND_AMPERES)}, "ina3221 hwmon2/1"),
        ({"class/hwmon/hwmon2": {"name": "nvme", "power1_input": 5}}, ""),
        (
            {
                "class/hwmon/hwmon2": ina("VDD_IN", **VOLTS_AND_AMPERES),
                "class/hwmon/hwmon3": ina("VDD_SOC", **VOLTS_AND_AMPERES),
            },
            "ina3221 VDD_IN",
        ),
        # Which of two rails feeds the board, or whether they add up, is not known.
        (
            {
                "class/hwmon/hwmon2": ina("A", **VOLTS_AND_AMPERES),
                "class/hwmon/hwmon3": ina("B", **VOLTS_AND_AMPERES),
            },
            "",
        ),
    ],
)
def test_only_sensors_that_can_be_read_and_add_up_are_a_source(sensors, folders, source):
    sensors(**folders)
    assert EnergyMeter().source == source


def test_zones_add_up_and_a_counter_that_begins_again_has_gone_on(sensors):
    sensors(**{f"{RAPL}0": zone("package-0", 900), f"{RAPL}1": zone("package-1", 10)})
    meter = EnergyMeter()
    assert meter.read() == 0
    sensors(**{f"{RAPL}0": zone("package-0", 50), f"{RAPL}1": zone("package-1", 30)})
    assert meter.read() == (50 + 1000 - 900) + 20
    sensors(**{f"{RAPL}0": zone("package-0", 70)})
    assert meter.read() == 170 + 20


def test_power_is_added_up_over_time(sensors):
    sensors(**{"class/hwmon/hwmon0": ina(**VOLTS_AND_AMPERES)})
    meter, begin = EnergyMeter(), time.monotonic()
    time.sleep(0.05)
    took_uj, seconds = meter.read(), time.monotonic() - begin
    assert took_uj == pytest.approx(5000 * 400 * seconds, rel=0.2)


def test_a_sensor_that_stops_telling_is_no_source_any_more(sensors):
    sensors(**{f"{RAPL}0": zone("package-0", 900)})
    meter = EnergyMeter()
    sensors(**{f"{RAPL}0": {"energy_uj": "lost"}})
    meter.read()
    assert meter.source == ""


# -- jobs -------------------------------------------------------------------------------------


def work(kind, model, **settings):
    return worker.answer(json.dumps({"kind": kind, "model": str(model), **TIMING, **settings}))


@pytest.fixture
def five_watts(sensors, monkeypatch):
    """A package that takes 5 W, whatever runs on it."""
    sensors(**{f"{RAPL}0": zone("package-0")})
    real = machine.read_file

    def read(path):
        if path.endswith("energy_uj"):
            return str(int(time.monotonic() * 5e6))
        return real(path)

    monkeypatch.setattr(machine, "read_file", read)


def test_energy_is_read_over_windows_of_idling_and_of_running(one, five_watts):
    found = work("energy", one, energy_s=0.5)
    assert found["source"] == "RAPL, package-0"
    assert len(found["windows"]) == 5
    for window in (found["idle"], *found["windows"]):
        assert window["ns"] >= 0.1e9
        assert window["uj"] / window["ns"] * 1e3 == pytest.approx(5, rel=0.1)
    assert found["idle"]["runs"] == 0
    assert all(window["runs"] > 1 for window in found["windows"])


def test_energy_is_unavailable_without_a_sensor(one, sensors):
    assert work("energy", one, energy_s=0.5) == {
        "unavailable": "no sensor of energy can be read here"
    }


@pytest.mark.parametrize("there", [True, False])
def test_a_sustained_run_is_watched(one, sensors, there, request):
    sensors(**{f"{ZONE}0": {"temp": 50_000}})
    if there:
        request.getfixturevalue("five_watts")
    found = work("sustain", one, sustain_s=0.2, interval_s=0.05)
    slots = found["slots"]
    assert 2 <= len(slots) <= 5
    assert slots[-1]["end_ns"] >= 0.2e9
    for before, after in itertools.pairwise(slots):
        assert before["begin_ns"] < before["end_ns"] <= after["begin_ns"]
    assert all(slot["runs"] > 1 and slot["temperatures_mc"] == [50_000] for slot in slots)
    assert found["before"]["temperatures_mc"] == [50_000]
    assert found["source"] == ("RAPL, package-0" if there else "")
    watts = slots[-1]["uj"] / slots[-1]["end_ns"] * 1e3
    assert watts == (pytest.approx(5, rel=0.1) if there else 0)


def test_a_timed_process_tells_the_state_before_and_after(one, sensors):
    sensors(**{f"{ZONE}0": {"temp": 50_000}})
    timed = WarmModel({"model": str(one), **TIMING})
    sensors(**{f"{ZONE}0": {"temp": 60_000}})
    result = timed.result()
    assert [state["temperatures_mc"] for state in result["state"]] == [[50_000], [60_000]]
    assert result["at_ns"][0] < result["at_ns"][1]
    assert result["load"] == [state["load"] for state in result["state"]]
