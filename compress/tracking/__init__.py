"""Tracking: a run's numbers, sent to experiment trackers while it runs.

One seam: :class:`Tracker`, of three calls. What is sent, and under which names, is decided once, by
:class:`Tracking`, which is a callback of the loop. Each library has a file of its own and is
imported when it is asked for. Knows nothing of stages, and reads events alone.
"""

from compress.tracking.callback import Tracking
from compress.tracking.tracker import TRACKERS, Tracker, tracker_of

__all__ = ["TRACKERS", "Tracker", "Tracking", "tracker_of"]
