"""The outside things as Dagster resources: thin wrappers, one for each.

A field left empty takes its URL from the environment (``CF_LAB_...``), and what is not set
there is started by the embedded supervisor for as long as the process lives.
"""

from __future__ import annotations

import atexit
import functools
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.cache import Cache
    from cf_lab_resources.catalog import Catalog
    from cf_lab_resources.embedded import Endpoints
    from cf_lab_resources.publication import Publication


@functools.cache
def endpoints() -> Endpoints:
    """Where the services are; holds them for as long as this process lives."""
    from cf_lab_resources import embedded
    from cf_lab_resources.settings import Settings

    lease = embedded.running(Settings.from_env())
    atexit.register(lease.__exit__, None, None, None)
    return lease.__enter__()


class BucketResource(dg.ConfigurableResource):
    """Object storage: pictures by content hash, tables by partition."""

    url: str = Field(default="", description="file:// or s3:// URL; empty: CF_LAB_BUCKET")

    @property
    def address(self) -> str:
        """The URL that is used."""
        return self.url or endpoints().bucket_url

    def open(self) -> Bucket:
        """The bucket behind this resource."""
        from cf_lab_resources.bucket import open_bucket

        return open_bucket(self.address)


class BackupResource(dg.ConfigurableResource):
    """The second place: where backups of bucket and catalog go."""

    url: str = Field(default="", description="file:// or s3:// URL; empty: CF_LAB_BACKUP")

    def open(self) -> Bucket:
        """The bucket behind this resource."""
        from cf_lab_resources.bucket import open_bucket
        from cf_lab_resources.settings import Settings

        return open_bucket(self.url or Settings.from_env().backup)


class CatalogResource(dg.ConfigurableResource):
    """Postgres: the record of what is released."""

    url: str = Field(default="", description="postgresql:// URL; empty: CF_LAB_POSTGRES_URL")

    @property
    def address(self) -> str:
        """The URL that is used, with its password."""
        return self.url or endpoints().postgres_url

    def open(self) -> Catalog:
        """The catalog behind this resource."""
        from cf_lab_resources.catalog import open_catalog

        return open_catalog(self.address)


class CacheResource(dg.ConfigurableResource):
    """Redis: the released records, ready to be sent."""

    url: str = Field(default="", description="redis:// URL; empty: CF_LAB_REDIS_URL")

    @property
    def address(self) -> str:
        """The URL that is used, with its password."""
        return self.url or endpoints().redis_url

    def open(self) -> Cache:
        """The cache behind this resource."""
        from cf_lab_resources.cache import open_cache

        return open_cache(self.address)


class PublicationResource(dg.ConfigurableResource):
    """Publisher, licence and signing key of packaged datasets."""

    home: str = Field(default="", description="folder of the test key; empty: CF_LAB_HOME")

    def open(self) -> Publication:
        """What the environment says; see `cf_lab_resources.settings`."""
        from dataclasses import replace
        from pathlib import Path

        from cf_lab_resources.publication import Publication
        from cf_lab_resources.settings import Settings

        settings = Settings.from_env()
        if self.home:
            settings = replace(settings, home=Path(self.home))
        return Publication.from_settings(settings)
