"""Ship: a row of a run as a folder that runs with numpy and onnxruntime alone.

``program/`` is what lies in every such folder; nothing here imports it, nor it anything of ours.
"""

from compress.ship.request import ShipRequest
from compress.ship.write import ship_advised, write_ship

__all__ = ["ShipRequest", "ship_advised", "write_ship"]
