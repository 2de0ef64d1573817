"""What a run is in Python: a record that knows its folder, and shows itself in a notebook."""

from compress.notebook.record import Record

__all__ = ["Record"]
