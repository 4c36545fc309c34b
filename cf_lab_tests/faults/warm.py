"""Imported by a fork server: everything that drawing imports, so that its forks start at once."""

import torch

from cf_lab_assets.models import artifacts
from cf_lab_resources.engine.editors import EditorSettings

torch.set_num_threads(1)  # a fork has none of the threads that its parent had
artifacts.load_editor(EditorSettings())
artifacts.load_judge()
