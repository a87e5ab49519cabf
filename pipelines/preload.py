"""Imported once by the server that workers are forked from, so that no worker repeats it.

Only what starts no thread that a fork would lose (ONNX Runtime does).
"""

import importlib

import pandas  # noqa: F401
import sklearn.metrics  # noqa: F401
import torch.onnx  # noqa: F401

import tunetrail.cli
import tunetrail.stages.cost
import tunetrail.stages.export  # noqa: F401
from tunetrail.modeling.sites import model_modules

for name in model_modules():
    importlib.import_module(name)
