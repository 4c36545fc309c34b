"""What a person does in the Dagster UI: clicks, waits for what it shows, and photographs that."""

import re

from cf_lab_assets import automation
from cf_lab_assets.definitions import defs
from cf_lab_assets.releases.gates import GATES
from cf_lab_tests.running import ENDED

# A run of the smallest batch takes one minute where nothing else is running.
RUN_SECONDS = 900


class Person:
    """Somebody before a page of the UI of a running lab.

    Args:
        page: a browser's.
        lab: the running `cf-lab up` that the page shows.
        album: folder for the photographs.
    """

    def __init__(self, page, lab, album):
        self.page, self.lab, self.album = page, lab, album

    def photograph(self, station):
        self.page.screenshot(path=self.album / f"{station}.png")

    def switch_off(self, sensor):
        """Stop a sensor on the page of automations."""
        self.page.goto("/automation")
        row = self.page.locator(f"a[href$='/sensors/{sensor}'] + div")
        row.locator("input:enabled").wait_for(state="attached")
        if row.locator("input:checked").count():
            row.locator("label").click()
        row.locator("input:enabled:not(:checked)").wait_for(state="attached")

    def make_dataset(self, batch):
        """Have a batch's counterfactuals, the dataset of all batches and its audits made."""
        self.watch(self.run_job(automation.MAKE_COUNTERFACTUALS, batch))
        self.watch(self.run_job(automation.MAKE_DATASET))
        for model in partitions_of(automation.AUDIT):
            self.watch(self.run_job(automation.AUDIT, model))

    def run_job(self, job, partition=None):
        """Launch a job from the list of jobs; gives the run's id."""
        self.page.goto("/jobs")
        self.page.get_by_text(job, exact=True).first.click()
        self.page.get_by_role("button", name="Materialize all").click()
        if partition is not None:
            self.page.get_by_text("Select a partition").click()
            self.page.get_by_text(partition, exact=True).filter(visible=True).first.click()
            self.page.get_by_role("button", name="Launch 1 run").wait_for()
            self.photograph(f"partition-of-{job}")
            self.page.get_by_role("button", name="Launch 1 run").click()
        return self._launched()

    def materialise(self, *key):
        """Materialise one asset from its own page; gives the run's id."""
        self.page.goto("/assets/" + "/".join(key))
        self.page.get_by_role("button", name="Materialize").first.click()
        return self._launched()

    def _launched(self):
        self.page.get_by_text("Launched run").wait_for()
        self.page.get_by_text("View", exact=True).click()
        self.page.wait_for_url(re.compile(r"/runs/[0-9a-f-]+"))
        return re.search(r"/runs/([0-9a-f-]+)", self.page.url)[1]

    def judge_again(self):
        """Have all gates of the candidate evaluated from its checks tab; gives the run's id."""
        self.page.goto("/assets/releases/candidate?view=checks")
        self.page.get_by_role("button", name="Execute all").click()
        return self._launched()

    def watch(self, run_id, end="Success"):
        """Look at a run's page until it has come to its end, which has to be this one."""
        self.page.goto(f"/runs/{run_id}")
        ended = self.lab.reaches(run_id, *ENDED, seconds=RUN_SECONDS)
        assert ended, self.lab.all_logs()
        assert self.lab.status(run_id) == end.upper(), self.lab.failures(run_id)
        self.page.get_by_text(end, exact=True).first.wait_for()

    def count_runs(self, status):
        """How many runs the page of all runs shows in a status."""
        self.page.goto("/runs")
        self.page.get_by_role("button", name="View").first.wait_for()
        return self.page.get_by_text(status, exact=True).count()

    def look_at_gates(self, photographed):
        """What the candidate's checks tab shows of each gate: sentence, verdict and metadata.

        Args:
            photographed: by station, the gate that its photograph shows.
        """
        self.page.goto("/assets/releases/candidate?view=checks")
        found = {}
        for gate in GATES:
            self.page.get_by_text(gate.name, exact=True).first.click()
            # No two gates say the same of their limit, so that this one's page is there.
            self.page.get_by_text(gate.origin, exact=True).wait_for()
            found[gate.name] = self._shown_of_check()
            for station in [name for name, shown in photographed.items() if shown == gate]:
                self.photograph(station)
        return found

    def _shown_of_check(self):
        shown = self.page.locator("body").inner_text()
        sentence, verdict = re.search(
            r"Latest execution\s+(.*?)\s+Evaluation result\s+(\w+)", shown, re.DOTALL
        ).groups()
        rows = [row.locator("td").all_inner_texts() for row in self.page.locator("tr").all()]
        metadata = {row[0]: row[1] for row in rows if len(row) == 2}
        return {**metadata, "sentence": sentence, "verdict": verdict}


def partitions_of(job):
    """The partitions of a job; a single None where it has none."""
    found = defs.resolve_job_def(job).partitions_def
    return found.get_partition_keys() if found else [None]
