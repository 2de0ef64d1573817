"""What measures on a device: a worker process, the session that starts them, a bundle's program.

It needs Python 3.9 or newer, numpy and a runtime, and imports only itself; ``measure/program.py``
packs it into one file that any such Python runs. Sessions on this machine go through the same code.
From the inside out::

    jobs answers            what a worker process is asked, and what it answers
    runtimes/               one file for each runtime: how it is imported, opens a file and runs it
    model_file tensor_spec inputs drawn_inputs
                            a model's file, and its inputs: samples, or drawn to its signature
    timing memory checks energy operators predictions
                            the worker's jobs; machine and sensors are what they read
    start_worker worker parent
                            the process: one job in, one answer out, and its end
    process                 starts worker processes and exchanges lines with them
    plan intervals loop     how hard to try, the statistics that stop it, and the rounds
    session session_log scoring lock
                            a whole session in a folder: what it does, and its lines
    bundle table program    the command: a bundle in, a result out
"""
