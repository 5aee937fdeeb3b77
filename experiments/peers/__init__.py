"""What the processes of `peer_benchmark.py` run: one module for us, one for each peer.

A module has `load(network)` and one function for each kind of task that it can do; a task's
arguments are the function's, and what it finds is a dictionary for JSON.
"""
