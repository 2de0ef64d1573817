"""Tracking: a run's numbers, told to experiment trackers while the run goes on.

One seam: :class:`Tracker`, of three calls. What is told, and by which names, is decided once, by
:class:`Tracking`, which is a callback of the loop. Each library has a file of its own and is
imported when it is asked for. Knows nothing of stages, and reads events alone.
"""

from compress.tracking.callback import Tracking
from compress.tracking.tracker import TRACKERS, Tracker, tracker_of

__all__ = ["TRACKERS", "Tracker", "Tracking", "tracker_of"]
