from cf_lab_assets.counterfactuals.pace import EVERY_SECONDS, Pace


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_speed_and_time_left_are_those_of_chunks_that_were_drawn():
    clock = Clock()
    pace = Pace(400, clock=clock)
    for done in (8, 16, 24):
        clock.now += 0.01
        assert pace.chunk(done, 7 * done, 0) is None, "read back within a moment"
    clock.now += 60.0
    pace.loaded()
    clock.now += 4.0
    line = pace.chunk(32, 7 * 32, 56)
    assert line == (
        "chunk 4: 32 of 400 sources, 224 candidates (168 of them read back), 14.0 images/s, "
        "about 3 min left"
    )


def test_lines_come_every_few_seconds_and_the_last_one_whenever_it_is_asked_for():
    clock = Clock()
    pace = Pace(100, clock=clock)
    said = []
    for done in range(1, 101):
        clock.now += EVERY_SECONDS / 10
        said.append(pace.chunk(done, done, done))
    assert [done for done, line in enumerate(said, start=1) if line] == list(range(10, 101, 10))
    assert said[49] == "chunk 50: 50 of 100 sources, 50 candidates, 2.0 images/s, about 25 s left"
    assert pace.line() == "chunk 100: 100 of 100 sources, 100 candidates, 2.0 images/s"


def test_of_wanted_sets_no_end_is_foretold():
    clock = Clock()
    pace = Pace(240, of_sets=True, clock=clock)
    clock.now += 10.0
    line = pace.chunk(11, 56, 56)
    assert line == "chunk 1: 11 of 240 wanted sets accepted, 56 candidates, 5.6 images/s"


def test_where_all_was_read_back_there_is_no_speed():
    clock = Clock()
    pace = Pace(8, clock=clock)
    clock.now += 10.0
    assert pace.chunk(8, 56, 0) == ("chunk 1: 8 of 8 sources, 56 candidates (56 of them read back)")


def test_hours_are_spoken_as_such():
    clock = Clock()
    pace = Pace(10_000, clock=clock)
    clock.now += 6.0
    assert pace.chunk(8, 56, 56).endswith("about 2 h 5 min left")
