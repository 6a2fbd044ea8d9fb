"""The daemon as a process: started and detached, alone in its state directory, stopped by signals.

``launch`` starts a detached one, ``run`` is the life of one, and ``__main__`` stands between the two.
"""
