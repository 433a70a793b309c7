"""The pipeline's stages, run on a model in memory."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import onnx
import torch
from torch import Tensor, fx

from dianaq.schemas.cores import CoreMapping
from dianaq.schemas.deployment import Remedies
from dianaq.schemas.quantisers import Quantisers
from dianaq.schemas.ranges import QRange
from dianaq_quant.editors import canonicalise, deploy, fake_quantise, hardware
from dianaq_quant.editors.hardware.plan import ScalePlan, plan_scales
from dianaq_quant.export.layers import IntegerNetwork, read_layers
from dianaq_quant.graph import run_editors
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.importers import import_onnx
from dianaq_quant.training.calibrate import calibrate, correct_biases, observe
from dianaq_quant.training.calibrate_analog import calibrate_analog
from dianaq_quant.training.data import Normalisation, Split

UNCHANGED = Normalisation(torch.ones(()), torch.zeros(()))
"""The normalisation of data that already is the network's input."""

DIGITAL = CoreMapping()
TERNARY = QRange.model_validate("ternary")


def remedied(network: IntegerNetwork, dialect: deploy.Dialect, **remedies: bool) -> IntegerNetwork:
    """A copy of an integer network after the given remedies for a compiler alone."""
    off = dict.fromkeys(Remedies.model_fields, False)
    graph = copy.deepcopy(network.graph)
    run_editors(graph, deploy.editors(dialect, Remedies(**{**off, **remedies})))
    record_shapes(graph, network.input_shape)
    return read_layers(graph, network.interface)


def imported(model: onnx.ModelProto) -> fx.GraphModule:
    """A model in memory as the importer reads it from a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        network = import_onnx(path)
    record_shapes(network.graph, network.input_shape)
    return network.graph.eval()


def canonical(model: onnx.ModelProto, cores: CoreMapping = DIGITAL) -> fx.GraphModule:
    """The canonical float network, its layers assigned to cores."""
    network = imported(model)
    run_editors(network, canonicalise.EDITORS)
    shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)[1:]
    record_shapes(network, shape)
    run_editors(network, hardware.assignment(cores))
    return network


def folded_network(
    model: onnx.ModelProto, cores: CoreMapping = DIGITAL, quantisers: Quantisers | None = None
) -> tuple[fx.GraphModule, Tensor, tuple[int, ...]]:
    """A mapped, folded network that has observed its calibration data; the data, and the input's shape."""
    network = canonical(model, cores)
    shape = tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)[1:]
    data = torch.randn(40, *shape, generator=torch.Generator().manual_seed(0))
    run_editors(network, fake_quantise.editors(quantisers or Quantisers(), equalise=True))
    calibrate(network, Split(data, None), UNCHANGED)
    observe(network, Split(data, None), UNCHANGED)
    run_editors(network, hardware.mapping(TERNARY))
    calibrate_analog(network, Split(data, None), UNCHANGED)
    run_editors(network, hardware.FOLDING)
    observe(network, Split(data, None), UNCHANGED)
    return network, data, shape


def plan_of(network: fx.GraphModule) -> ScalePlan:
    """The scales of a folded network, by the default strategies."""
    return plan_scales(network)


def exact_network(
    model: onnx.ModelProto,
    cores: CoreMapping = DIGITAL,
    quantisers: Quantisers | None = None,
    batch_norm_bits: int = 8,
) -> tuple[fx.GraphModule, Tensor, tuple[int, ...]]:
    """The hardware-exact network in evaluation mode; its calibration data, and the input's shape."""
    network, data, shape = folded_network(model, cores, quantisers)
    plan, reference = plan_scales(network, batch_norm_bits=batch_norm_bits), copy.deepcopy(network)
    run_editors(network, hardware.exact_editors(plan, batch_norm_bits))
    correct_biases(network, reference, Split(data, None), UNCHANGED)
    return network.eval(), data, shape
