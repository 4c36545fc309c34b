"""The sensor on the bucket's `incoming/`: a shell around `arrivals.decide`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dagster as dg

from cf_lab_assets.names import SOURCE_BATCHES
from cf_lab_resources.dagster import BucketResource

if TYPE_CHECKING:
    from cf_lab_assets.sources.arrivals import Arrival

# A delivery waits for two looks, then its run, and what follows for another look: at this interval
# all of it stays well within two ticks of 30 s, which is Dagster's own default.
INTERVAL_SECONDS = 10
# Half a minute without a change, of deliveries without a file that says that all are there.
QUIET_LOOKS = 3
DELIVERY_TAG = "cf_lab/delivery"


def incoming_sensor(job: Any, name: str = "incoming_deliveries") -> dg.SensorDefinition:
    """A sensor that has complete deliveries taken in.

    Args:
        job: The job to run for the new partition, or its name.
        name: The sensor's own.
    """
    target = {"job_name": job} if isinstance(job, str) else {"job": job}

    @dg.sensor(
        name=name,
        description="Registers each complete delivery below incoming/ as a source batch and runs "
        f"the job for it. {_SIGNAL}",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        **target,
    )
    def incoming(context: dg.SensorEvaluationContext, bucket: BucketResource) -> dg.SensorResult:
        from cf_lab_assets.sources import arrivals, batches, deliveries
        from cf_lab_assets.sources.refusals import BatchBroken, DeliveryRefused

        store = bucket.open()

        def stored_delivery(batch: str) -> str | None:
            try:
                manifest = batches.read_manifest(store, batch)
            except BatchBroken:
                return ""  # stored, from whatever delivery
            return manifest.delivery if manifest else None

        found = []
        for batch, delivery in deliveries.delivered(store):
            try:
                found.append(_arrival(batch, list(delivery.files())))
            except DeliveryRefused as error:
                context.log.warning(f"incoming/{batch} can't be looked at: {error}")
        decision = arrivals.decide(found, arrivals.from_cursor(context.cursor), stored_delivery)
        for batch, why in decision.refused.items():
            context.log.warning(f"incoming/{batch} refused: {why}")
        names = [arrival.batch for arrival in decision.requests]
        return dg.SensorResult(
            run_requests=[_request(arrival) for arrival in decision.requests],
            skip_reason=None if names else dg.SkipReason(decision.summary()),
            dynamic_partitions_requests=[SOURCE_BATCHES.build_add_request(names)] if names else [],
            cursor=arrivals.to_cursor(decision.seen),
        )

    return incoming


_SIGNAL = (
    "A delivery counts as complete when neither names nor sizes of its files change any more. Of "
    "an ImageFolder put the pictures there first and the metadata file last; tar shards, Parquet "
    "files and caption sets have no such file, so put them there without a pause of half a minute, "
    "or move them there when all are together."
)


def _request(arrival: Arrival) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{arrival.batch}:{arrival.fingerprint}",
        partition_key=arrival.batch,
        tags={DELIVERY_TAG: arrival.fingerprint[:16]},
    )


def _arrival(batch: str, files: list[tuple[str, int]]) -> Arrival:
    from cf_lab_assets.sources import deliveries, imagefolder, kinds
    from cf_lab_assets.sources.arrivals import Arrival
    from cf_lab_assets.sources.refusals import DeliveryRefused

    mark = deliveries.fingerprint(files)
    try:
        found = kinds.told([name for name, _ in files], f"incoming/{batch}")
    except DeliveryRefused as error:
        return Arrival(batch, mark, None, str(error), QUIET_LOOKS)
    looks = 1 if found.kind is imagefolder.KIND else QUIET_LOOKS
    return Arrival(batch, mark, found.kind.name, looks=looks)
