"""The cache: keys, whole releases in and out, and a Redis that is not there."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from cf_lab_resources.cache import Cache, CacheError, CacheKey, open_cache, parse_key, record_key

ONE, TWO = "r" + "1" * 12, "r" + "2" * 12
PAIR = "s000000000000001-gender-woman"


@pytest.fixture
def cache(redis_url: str) -> Iterator[Cache]:
    with open_cache(redis_url) as cache:
        yield cache


def records(release_id: str, count: int) -> Iterator[tuple[str, bytes]]:
    for number in range(count):
        yield record_key(release_id, "pair", f"s{number:015x}-gender-man"), b"\x00\xff%d" % number


def test_a_key_is_read_back_as_it_was_made() -> None:
    key = record_key(ONE, "pair", PAIR)
    assert key == f"cf:{ONE}:pair:{PAIR}"
    assert parse_key(key) == CacheKey(ONE, "pair", PAIR)
    assert str(parse_key(record_key(TWO, "set", PAIR))) == f"cf:{TWO}:set:{PAIR}"


@pytest.mark.parametrize(
    "key", ["", "cf:current", f"cf:{ONE}:pair:", f"cf:{ONE}:other:{PAIR}", f"xx:{ONE}:pair:{PAIR}",
            f"cf:r1:pair:{PAIR}", f"cf:{ONE}:pair:{PAIR}:more"]
)  # fmt: skip
def test_other_keys_are_refused(key: str) -> None:
    with pytest.raises(ValueError, match="not the key of a released record"):
        parse_key(key)


def test_a_release_is_warmed_in_and_read_as_many_as_asked(cache: Cache) -> None:
    assert cache.warm(ONE, records(ONE, 2345)) == 2345
    assert cache.warm(ONE, records(ONE, 2345)) == 2345
    keys = [key for key, _ in records(ONE, 3)]
    found = cache.get_many([keys[2], "cf:nothing", keys[0]])
    assert found == [b"\x00\xff2", None, b"\x00\xff0"]
    assert cache.get_many([]) == []


def test_records_of_another_release_are_not_taken(cache: Cache) -> None:
    with pytest.raises(ValueError, match="is not a key of release"):
        cache.warm(ONE, records(TWO, 1))


def test_a_release_goes_whole_and_alone(cache: Cache) -> None:
    cache.set_pointer(ONE)
    for release_id in (ONE, TWO):
        cache.warm(release_id, records(release_id, 1500))
    assert cache.drop(ONE) == 1500
    assert cache.drop(ONE) == 0
    assert cache.get_many([key for key, _ in records(TWO, 2)]) == [b"\x00\xff0", b"\x00\xff1"]
    assert cache.pointer() == ONE


def test_it_tells_which_releases_are_whole(cache: Cache) -> None:
    def broken() -> Iterator[tuple[str, bytes]]:
        yield from records(TWO, 1000)
        raise OSError("Postgres went away")

    assert cache.warmed() == {}
    cache.warm(ONE, records(ONE, 10))
    with pytest.raises(OSError, match="went away"):
        cache.warm(TWO, broken())
    assert cache.warmed() == {ONE: 10, TWO: 0}
    cache.drop(ONE)
    assert cache.warmed() == {TWO: 0}


def test_memory_is_bounded_and_what_was_written_last_stays(cache: Cache) -> None:
    limits = cache._client.config_get("maxmemory*")
    assert limits["maxmemory"] == str(2**30)  # the embedded one's
    assert limits["maxmemory-policy"] == "allkeys-lru"
    small = cache._client.info("memory")["used_memory"] + 8 * 2**20
    cache._client.config_set("maxmemory", small)
    try:
        for number in range(40):
            release_id = f"r{number:012x}"
            if number == 39:
                time.sleep(2)  # its clock of use counts seconds
            cache.warm(release_id, ((key, bytes(1000)) for key, _ in records(release_id, 1000)))
        assert cache._client.info("memory")["used_memory"] <= small + 2**20
        found = cache.get_many([key for key, _ in records(release_id, 1000)])
        # It compares a few keys at a time, so that one of the last may go by chance.
        assert found.count(bytes(1000)) >= 950
    finally:
        cache._client.config_set("maxmemory", limits["maxmemory"])
        cache._client.flushdb()


def test_the_pointer_is_set_read_and_cleared(cache: Cache) -> None:
    assert cache.pointer() is None
    cache.set_pointer(ONE)
    assert cache.pointer() == ONE
    cache.clear_pointer()
    assert cache.pointer() is None
    with pytest.raises(ValueError, match="not a release id"):
        cache.set_pointer("current")


def test_no_redis_says_so_without_the_password() -> None:
    with open_cache("redis://:secret@127.0.0.1:1/0") as cache:
        for call in (cache.ping, cache.pointer, lambda: cache.get_many(["a"])):
            with pytest.raises(CacheError, match="does not answer") as caught:
                call()
            assert "secret" not in str(caught.value)
