"""Names that several modules share: groups, owners, pools, partitions and asset keys.

A leaf: it imports dagster, and of the lab the settings, which say which models are audited. Dagster
has to know all assets before anything runs, so that they are read once, when this is imported.
"""

from __future__ import annotations

import dagster as dg

from cf_lab_resources.settings import audited_models

OWNERS = ["team:lab"]

SOURCES = "sources"
COUNTERFACTUALS = "counterfactuals"
MODELS = "models"
STARTER = "starter"
AUDITS = "audits"
RELEASES = "releases"
BACKUPS = "backups"
OPERATIONS = "operations"

GPU_POOL = "gpu"

# For steps that run as their own pods (k8s_job_executor); elsewhere it does nothing.
# The request for a GPU is what keeps a pod off the nodes without one. The label is a preference
# only: a cluster without NVIDIA's feature discovery has none, and the pod would wait for ever.
# No shared memory is mounted: one process works on one GPU and loads no data in others.
GPU_OP_TAGS = {
    "dagster-k8s/config": {
        "container_config": {
            "resources": {
                "requests": {"cpu": "4", "memory": "16Gi", "nvidia.com/gpu": "1"},
                "limits": {"memory": "32Gi", "nvidia.com/gpu": "1"},
            }
        },
        "pod_spec_config": {
            "tolerations": [
                {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
            ],
            "affinity": {
                "node_affinity": {
                    "preferred_during_scheduling_ignored_during_execution": [
                        {
                            "weight": 100,
                            "preference": {
                                "match_expressions": [
                                    {
                                        "key": "nvidia.com/gpu.present",
                                        "operator": "In",
                                        "values": ["true"],
                                    }
                                ]
                            },
                        }
                    ]
                }
            },
        },
    }
}

SOURCE_BATCHES = dg.DynamicPartitionsDefinition(name="source_batches")
AUDITED_MODELS = [one.name for one in audited_models()]

SOURCE_PAIRS = dg.AssetKey([SOURCES, "pairs"])
EDIT_PLAN = dg.AssetKey([COUNTERFACTUALS, "edit_plan"])
CANDIDATES = dg.AssetKey([COUNTERFACTUALS, "candidates"])
PAIR_SCORES = dg.AssetKey([COUNTERFACTUALS, "pair_scores"])
ACCEPTED_SETS = dg.AssetKey([COUNTERFACTUALS, "accepted_sets"])
DATASET = dg.AssetKey([COUNTERFACTUALS, "dataset"])
PACKAGE = dg.AssetKey([COUNTERFACTUALS, "package"])
MODEL_ARTIFACTS = dg.AssetKey([MODELS, "artifacts"])
OPTIMISED_MODELS = dg.AssetKey([MODELS, "optimised"])
# By audited model: assets of their own and no partitions, since one run makes all of them together
# with the dataset before and the report after them, and since a check has one latest result: a
# model that failed it would be hidden by the next one that did not.
RESPONSES = {model: dg.AssetKey([AUDITS, "responses", model]) for model in AUDITED_MODELS}
BIAS_METRICS = {model: dg.AssetKey([AUDITS, "bias_metrics", model]) for model in AUDITED_MODELS}
CALIBRATION = dg.AssetKey([AUDITS, "calibration"])
INSTRUMENT = dg.AssetKey([AUDITS, "instrument"])
MULTIVERSE = dg.AssetKey([AUDITS, "multiverse"])
BIAS_REPORT = dg.AssetKey([AUDITS, "bias_report"])
RELEASE_CANDIDATE = dg.AssetKey([RELEASES, "candidate"])
RELEASE_CURRENT = dg.AssetKey([RELEASES, "current"])
CATALOG_BACKUP = dg.AssetKey([BACKUPS, "catalog"])
BUCKET_BACKUP = dg.AssetKey([BACKUPS, "bucket"])
DEPENDENCIES = dg.AssetKey([OPERATIONS, "dependencies"])
CONFIGURATION = dg.AssetKey([OPERATIONS, "configuration"])
CAPACITY = dg.AssetKey([OPERATIONS, "capacity"])
