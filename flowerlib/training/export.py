"""A trained network for use elsewhere, as an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from flowerlib.files import make_folder, replacing
from flowerlib.training.trained import read_best

TOLERANCE = 1e-3  # in logits: many times what the order of float32 sums may change in a deep network


def export_onnx(checkpoint: Path, out: Path) -> None:
    """Write a best.pt as an ONNX file, and check it against the network with ONNX Runtime.

    Its input ``pictures``, float32 (n, 3, size, size), must be standardized by the mean and standard deviation in
    the file's metadata, which also hold the classes, the image size and the calibration; its output is ``logits``,
    float32 (n, classes).

    Args:
        checkpoint: best.pt of a session.
        out: the ONNX file.

    Raises:
        UserError: the checkpoint can't be read, or the file can't be written.
        ArithmeticError: the file's logits differ from the network's.
    """
    trained = read_best(checkpoint)
    pictures = torch.rand(2, 3, trained.image_size, trained.image_size, generator=torch.Generator().manual_seed(0))
    program = torch.onnx.export(
        trained.network,
        (pictures,),
        input_names=["pictures"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("n")},),
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    metadata = {
        "classes": json.dumps(trained.classes),
        "image_size": str(trained.image_size),
        "mean": json.dumps(trained.standardization.mean),
        "std": json.dumps(trained.standardization.std),
        "temperature": str(trained.temperature),
        "unsure_below": str(trained.unsure_below),
    }
    onnx.helper.set_model_props(model, metadata)
    make_folder(out.parent)
    with replacing(out) as temporary:
        onnx.save_model(model, temporary)
        _check(temporary, trained.network, torch.cat([pictures, 1 - pictures[:1]]))


def _check(file: Path, network: nn.Module, pictures: torch.Tensor) -> None:
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"pictures": pictures.numpy()})
    with torch.inference_mode():
        error = np.abs(logits - network(pictures).numpy()).max()
    if not error < TOLERANCE:
        raise ArithmeticError(f"the ONNX file's logits differ from the network's by up to {error:g}")
