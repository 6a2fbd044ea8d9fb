"""The client: a shared connection without I/O (``protocol``), a sync shell (``sync``) and an async one (``aio``)."""
