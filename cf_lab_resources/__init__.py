"""What the lab works with: one module or package per outside thing.

Nothing here imports Dagster except the thin resource wrappers in the `dagster` module, so that
the lookup API and the command line start without it.
"""

__version__ = "0.1.0"
