"""Data as people have it: what a split and a sample may be, and how both come to be read by index.

A split is brought into the form that everything else reads, ``len(d)`` and ``d[i]``, once, when a
task is made (:mod:`.splits`); what a sample is has one owner (:mod:`.samples`). Knows nothing of
batches for training, or of files.
"""
