"""The published frameworks that a training step is compared with: the same network, prepared as each documents it.

Every peer quantises weights and activations to 8 bits, keeps BatchNorm in training mode as the float network does, and
is past its observer phase: one batch has set the ranges, and no statistics are collected any more. torchao and Brevitas
come with `pip install 'dianaq[bench]'`.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import torch
from naive_fake_quantise import naive_fake_quantise
from torch import Tensor, nn


class PeerError(Exception):
    """A peer is not installed, or cannot train the network; the message names it and gives the reason."""


@dataclass(frozen=True)
class Peer:
    """A framework for quantisation-aware training."""

    name: str
    version: str
    """Of the package; empty if that is not installed."""
    how: str
    """What is prepared, and in which phase of training it is."""
    recipe: Callable[[nn.Module, Tensor], nn.Module]

    def prepare(self, module: nn.Module, example: Tensor) -> nn.Module:
        """A quantised copy of a float network in training mode, that has trained on the example once.

        Args:
            module: stays as it is.
            example: a batch (N, C, H, W); what comes back may accept no other batch size.

        Raises:
            PeerError: the framework is not installed or fails on this network.
        """
        if not self.version:
            raise PeerError(f"{self.name}: not installed; `pip install 'dianaq[bench]'` brings it")
        try:
            # What the frameworks warn of (deprecations among themselves) is not ours to change.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                prepared = self.recipe(copy.deepcopy(module).train(), example)
                prepared(example).sum().backward()
        except Exception as error:  # whatever a foreign framework raises is the reason why it has no figure
            reason = (str(error).strip() or "no message").splitlines()[0]
            raise PeerError(f"{self.name} {self.version}: {type(error).__name__}: {reason}") from error
        for parameter in prepared.parameters():
            parameter.grad = None
        return prepared


def peers() -> dict[str, Peer]:
    """Every peer by name, also those that are not installed: `Peer.prepare` gives the reason."""
    observed = "observers off after one batch, BatchNorm in training"
    known = [
        ("torchao pt2e", "torchao", f"XNNPACKQuantizer, weights per channel; {observed}", _pt2e_xnnpack),
        ("torchao pt2e x86", "torchao", f"X86InductorQuantizer, weights per channel; {observed}", _pt2e_x86),
        ("torch FX", "torch", f"prepare_qat_fx, x86 mapping, weights per channel; {observed}", _torch_fx),
        ("Brevitas", "brevitas", "graph quantize, BatchNorm kept, learned scales; after calibration", _brevitas),
        ("fake_quantize", "torch", "torch's fused operator on weights and activations; fixed ranges", _fake_quantize),
    ]
    return {name: Peer(name, _installed(package), how, recipe) for name, package, how, recipe in known}


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _pt2e_xnnpack(module: nn.Module, example: Tensor) -> nn.Module:
    """The quantiser of the tutorial on QAT by export. ExecuTorch publishes it; torchao carries a copy for its tests."""
    from torchao.testing.pt2e._xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config

    config = get_symmetric_quantization_config(is_per_channel=True, is_qat=True)
    return _pt2e(module, example, XNNPACKQuantizer().set_global(config))


def _pt2e_x86(module: nn.Module, example: Tensor) -> nn.Module:
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    config = x86.get_default_x86_inductor_quantization_config(is_qat=True)
    return _pt2e(module, example, x86.X86InductorQuantizer().set_global(config))


def _pt2e(module: nn.Module, example: Tensor, quantizer: object) -> nn.Module:
    """As in torchao's tutorial, which turns the observers off for the later epochs."""
    from torchao.quantization.pt2e import allow_exported_model_train_eval, disable_observer
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

    exported = torch.export.export(module, (example,)).module()
    prepared: nn.Module = prepare_qat_pt2e(exported, quantizer)
    allow_exported_model_train_eval(prepared)
    prepared.train()  # a statement of its own: an exported module returns None here
    _observe(prepared, example)
    return prepared.apply(disable_observer)


def _torch_fx(module: nn.Module, example: Tensor) -> nn.Module:
    """As in torch's documentation; torchvision's reference training turns the observers off for the later epochs."""
    from torch.ao.quantization import disable_observer, get_default_qat_qconfig_mapping
    from torch.ao.quantization.quantize_fx import prepare_qat_fx

    prepared: nn.Module = prepare_qat_fx(module, get_default_qat_qconfig_mapping("x86"), (example,))
    _observe(prepared.to(example.device), example)
    return prepared.apply(disable_observer)


def _brevitas(module: nn.Module, example: Tensor) -> nn.Module:
    """Programmatic quantisation and calibration, then QAT. BatchNorm is kept, as in Brevitas' own QAT examples."""
    from brevitas.graph.calibrate import calibration_mode
    from brevitas.graph.quantize import preprocess_for_quantize, quantize

    prepared: nn.Module = quantize(preprocess_for_quantize(module, merge_bn=False)).to(example.device)
    with calibration_mode(prepared):
        _observe(prepared, example)
    return prepared


def _fake_quantize(module: nn.Module, example: Tensor) -> nn.Module:
    prepared = naive_fake_quantise(module).to(example.device)
    _observe(prepared, example)
    return prepared


def _observe(prepared: nn.Module, example: Tensor) -> None:
    """Let observers see one batch: how long a step takes does not depend on which ranges they found."""
    with torch.no_grad():
        prepared(example)
