"""Measure a run on a device that cannot be reached from here: a file there, a file back.

``bundle`` writes everything that a device needs into one file, ``run`` is the program that works on
it there, ``result`` reads what comes back, ``merge`` takes it into the record. No torch.
"""
