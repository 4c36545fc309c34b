"""Postgres: the record of what is released, and of what happened to each release when.

`store` has the queries and state changes, `loading` the COPY of a whole release in one
transaction, `migration` the schema's versions, `ids` the form of every id. What a release is
made of, and whether it may be published, is decided elsewhere.
"""

from cf_lab_resources.catalog.loading import NewRelease, Record
from cf_lab_resources.catalog.migration import migrate
from cf_lab_resources.catalog.store import (
    Catalog,
    CatalogError,
    CatalogUnavailable,
    Event,
    Flip,
    Release,
    Waiver,
    open_catalog,
)

__all__ = [
    "Catalog",
    "CatalogError",
    "CatalogUnavailable",
    "Event",
    "Flip",
    "NewRelease",
    "Record",
    "Release",
    "Waiver",
    "migrate",
    "open_catalog",
]
