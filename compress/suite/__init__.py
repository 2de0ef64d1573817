"""Suite: a fixed set of nets, each in float32 and in int8, as one comparable table for a device.

The nets are built, lowered for the target, and measured by the usual protocol: a session for each
net, in which its int8 file is paired with its own float32 one. Calibration data are random and come
from a seed, and so do weights where no trained ones are given, since speed and memory are compared
and accuracy is not.
"""

from compress.suite.measuring import NetResult, measure_suite
from compress.suite.nets import FORMATS, SUITES, Net, Suite, suite_of

__all__ = ["FORMATS", "SUITES", "Net", "NetResult", "Suite", "measure_suite", "suite_of"]
