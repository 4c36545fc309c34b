"""A release as users will see it: records whose answers are known are asked of the lookup API.

The API that is asked is the deployed one, under the release's id, where there is a key of the scope
`shadow` to it; otherwise one that is started in this process, on the same stores. What must come
back is made anew from the dataset, so that it is right only if the store that answers, Redis where
the release is warm and else Postgres, has the records whole, and the API joins them well.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cf_lab_resources.errors import LabError

if TYPE_CHECKING:
    import httpx
    import pyarrow as pa

    from cf_lab_resources.bucket import Bucket
    from cf_lab_resources.catalog import Record, Release

# Enough that one wrong record in fifty is met with probability 0.87, and done in a second.
PAIRS = 100
SETS = 20
PICTURES = 10
SECONDS = 10.0
UNKNOWN = "s000000000000000-nothing-none"


class SmokeTestError(LabError):
    """The API can't be asked, which says nothing of the release."""

    passing = True


@dataclass(frozen=True)
class Smoke:
    """What asking found.

    Attributes:
        wrong: What was answered wrongly, one sentence each.
        seconds: How long each answer took.
    """

    wrong: Sequence[str]
    seconds: Sequence[float]

    @property
    def p95(self) -> float:
        """The 95th percentile of the answers' seconds, as the nearest rank."""
        return sorted(self.seconds)[max(0, -(-len(self.seconds) * 95 // 100) - 1)]


@dataclass(frozen=True)
class Question:
    """A request, and what the answer must be.

    Attributes:
        path: With the query.
        right: Whether an answer's body is right.
        status: That the answer must have.
        ids: The body of a POST; None for a GET.
    """

    path: str
    right: Callable[[bytes], bool]
    status: int = 200
    ids: Sequence[str] | None = None


@dataclass(frozen=True)
class Api:
    """The lookup API to be asked.

    Attributes:
        catalog_url: Of the stores for one in this process.
        cache_url: Likewise.
        bucket_url: Likewise.
        url: Of a deployed one; None for one in this process.
        key_file: Holds a key of the deployed one, with the scope shadow.
    """

    catalog_url: str
    cache_url: str
    bucket_url: str
    url: str | None = None
    key_file: Path | None = None

    @asynccontextmanager
    async def client(self, release_id: str) -> AsyncIterator[httpx.AsyncClient]:
        """Asks about one release."""
        import httpx

        if self.url is not None:
            headers = {"x-release-id": release_id, **self._authorization()}
            async with httpx.AsyncClient(
                base_url=self.url, headers=headers, timeout=SECONDS
            ) as client:
                yield client
            return
        from cf_lab_resources.api import create_app

        no_keys = secrets.token_bytes()
        app = create_app(self.catalog_url, self.cache_url, self.bucket_url, no_keys, release_id)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://lookups") as client,
        ):
            yield client

    def _authorization(self) -> Mapping[str, str]:
        if self.key_file is None:
            return {}
        try:
            return {"authorization": f"Bearer {self.key_file.read_text().strip()}"}
        except OSError as error:
            raise SmokeTestError(
                f"CF_LAB_API_KEY: {self.key_file} can't be read ({error.strerror}); write a key "
                "with the scope shadow into it"
            ) from error


def smoke_test(
    api: Api, bucket: Bucket, release: Release, pairs: pa.Table, sets: pa.Table
) -> Smoke:
    """Asks for records, pictures and reports of a release, one after another.

    Args:
        api: which is asked.
        bucket: has the reports.
        release: in the catalog, with its records.
        pairs: the dataset's.
        sets: the dataset's.

    Raises:
        SmokeTestError: The API does not answer at all.
    """
    questions = [
        *_of_records(release.release_id, pairs, sets),
        *_of_pictures(pairs),
        *_of_reports(bucket, release),
        Question(f"/v1/pairs/{UNKNOWN}", lambda body: b"detail" in body, status=404),
    ]
    return asyncio.run(_ask(api, release.release_id, questions))


async def _ask(api: Api, release_id: str, questions: Sequence[Question]) -> Smoke:
    import httpx

    wrong, seconds = [], []
    async with api.client(release_id) as client:
        for question in questions:
            began = time.perf_counter()
            try:
                fault = await _fault(client, release_id, question)
            except httpx.TransportError as error:
                raise SmokeTestError(
                    f"the lookup API at {api.url} does not answer ({type(error).__name__}); check "
                    "that it runs and that CF_LAB_API_URL is right"
                ) from error
            seconds.append(time.perf_counter() - began)
            if fault is not None:
                wrong.append(f"{question.path.partition('?')[0]}: {fault}")
    return Smoke(wrong, seconds)


async def _fault(client: httpx.AsyncClient, release_id: str, question: Question) -> str | None:
    if question.ids is None:
        answer = await client.get(question.path)
    else:
        answer = await client.post(question.path, json={"ids": question.ids})
    if answer.status_code != question.status:
        return f"status {answer.status_code} in place of {question.status}: {answer.text[:200]}"
    if (named := answer.headers.get("x-release-id")) != release_id:
        return f"answered from release {named}"
    return None if question.right(answer.content) else "it is not what the dataset has"


def _of_records(release_id: str, pairs: pa.Table, sets: pa.Table) -> Iterator[Question]:
    import orjson
    import pyarrow.compute as pc

    from cf_lab_assets.releases.candidate import pair_record, set_records

    chosen = [pair_record(row, release_id) for row in _rows(_spread(pairs, PAIRS))]
    for record in chosen:
        yield Question(f"/v1/pairs/{quote(record.id)}", _is(record))
    some = _spread(sets, SETS)
    members = pairs.filter(pc.is_in(pairs["set_id"], some["set_id"]))
    for record in set_records(_rows(members), _rows(some), release_id):
        yield Question(f"/v1/sets/{quote(record.id)}", _is(record))
    slots = [
        {"id": record.id, "found": True, "pair": orjson.loads(record.body)} for record in chosen
    ]
    batch = {"release_id": release_id, "results": [*slots, {"id": UNKNOWN, "found": False}]}
    ids = [*(record.id for record in chosen), UNKNOWN]
    yield Question("/v1/pairs/batch", lambda body: bool(orjson.loads(body) == batch), ids=ids)


def _of_pictures(pairs: pa.Table) -> Iterator[Question]:
    for row in _rows(_spread(pairs.select(["image_sha256"]), PICTURES)):
        yield Question(f"/v1/images/{row['image_sha256']}", _hashes_to(row["image_sha256"]))


def _of_reports(bucket: Bucket, release: Release) -> Iterator[Question]:
    for kind, key in release.manifest["report"].items():
        if key is not None and bucket.exists(key):  # another gate demands it
            digest = hashlib.sha256(bucket.get_bytes(key)).hexdigest()
            yield Question(f"/v1/report?format={kind}", _hashes_to(digest))


def _is(record: Record) -> Callable[[bytes], bool]:
    return lambda body: body == record.body


def _hashes_to(digest: str) -> Callable[[bytes], bool]:
    return lambda body: hashlib.sha256(body).hexdigest() == digest


def _spread(table: pa.Table, count: int) -> pa.Table:
    """At most so many rows, evenly spread over the table."""
    count = min(count, table.num_rows)
    return table.take([number * table.num_rows // count for number in range(count)])


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist(maps_as_pydicts="strict")
    return rows
