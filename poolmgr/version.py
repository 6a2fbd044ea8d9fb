"""The version of this package, which pyproject.toml reads here; and which of its two builds this is."""

__version__ = "0.1.0"


def is_compiled() -> bool:
    """Whether what each task goes through is machine code here (docs/how-to/compile.md), and not plain Python."""
    from importlib.util import find_spec

    spec = find_spec("poolmgr.core.scheduler")
    return spec is not None and not str(spec.origin).endswith(".py")
