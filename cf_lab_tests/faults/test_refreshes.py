"""A lab that is left alone recovers from the end of any of its processes; 20 kills of each by hand.

The whole drill, for an hour: ``python -m cf_lab_tests.faults.refreshes --kills 20``.
"""

import pytest

from cf_lab_tests.faults.refreshes import VICTIMS, drill


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_lab_that_refreshes_by_itself_survives_the_end_of_each_of_its_processes(memory_folder):
    folder = memory_folder / "refreshes"
    folder.mkdir()
    said, violations = drill(folder, kills=1, seed=2)
    assert not violations, said
    assert all(f"{victim:10}     1" in said for victim in VICTIMS), said
