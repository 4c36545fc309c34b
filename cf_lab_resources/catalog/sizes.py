"""How much room the catalog's database takes."""

from __future__ import annotations

from dataclasses import dataclass

from cf_lab_resources.catalog.connections import Database

# Partitions count as their table; what indexes and long values take is in it.
_TABLES = """
    SELECT coalesce(pg_partition_root(c.oid), c.oid)::regclass::text,
           sum(pg_total_relation_size(c.oid))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%%' AND n.nspname <> 'information_schema'
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %s
"""


@dataclass(frozen=True)
class TableSize:
    """A table with all its partitions.

    Attributes:
        table: Its name.
        bytes: That it takes with its indexes.
    """

    table: str
    bytes: int


class Sizes(Database):
    """Sizes of a database and its tables; safe to share among threads."""

    def database(self) -> int:
        """Bytes of the whole database."""
        ((found,),) = self._rows("SELECT pg_database_size(current_database())")
        return int(found)

    def tables(self, most: int) -> list[TableSize]:
        """The `most` largest tables, largest first."""
        return [TableSize(table, int(size)) for table, size in self._rows(_TABLES, (most,))]
