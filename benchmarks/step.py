"""`make bench-step`: what a training step costs while quantising, against the plain float step of the same network.

The plain step is eager float32 in NCHW; every other network is what jobs train, in their memory format. All are timed
in turn, round by round: a ratio compares steps of one round, and the median of the rounds' ratios is reported. Random
images and weights: neither decides how long a step takes. `--peers` adds what published frameworks take, as far as they
are installed (the `bench` extra), and what `torch.compile` makes of our own steps.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from peers import PeerError, peers
from results import record, record_rows, table, titled
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

from dianaq.schemas.cores import CoreMapping, Noise
from dianaq.schemas.quantisers import Quantisers
from dianaq.schemas.spec import parse_spec
from dianaq_quant.editors import canonicalise, fake_quantise, hardware
from dianaq_quant.editors.hardware.plan import plan_scales
from dianaq_quant.graph import run_editors
from dianaq_quant.graph.shapes import record_shapes
from dianaq_quant.importers import Wishes, import_network
from dianaq_quant.kernels.build import library
from dianaq_quant.modules.adc import disturb
from dianaq_quant.targets.diana import TERNARY
from dianaq_quant.training.calibrate import calibrate, observe
from dianaq_quant.training.calibrate_analog import calibrate_analog
from dianaq_quant.training.data import Normalisation, Split
from dianaq_quant.training.device import choose_device
from dianaq_quant.zoo import build

BATCH, CLASSES = 128, 10
NETWORKS = {"resnet8": ((3, 32, 32), 1.0), "resnet20": ((3, 32, 32), 1.0), "mobilenet_v1": ((3, 96, 96), 0.25)}
"""Shape of the input, and width (that of MLPerf Tiny)."""

PLAIN = "float, NCHW"
LIMITS = {"fake_quantised": 1.10, "mapped, digital": 1.10, "mapped, analog": 1.35}
LIMITS |= {"exact, digital": 1.20, "exact, analog": 1.20}
"""Largest ratio of times."""
MEMORY = 1.3
"""Largest ratio of the memory that a step allocates."""
NOISE = Noise(gaussian=0.5, column_gain=0.02, column_offset=0.25)
UNCHANGED = Normalisation(torch.ones(()), torch.zeros(()))

HEADER = ["network", "step", "time", "ratio", "limit", "memory"]
NOTE = (
    f"Batch {BATCH}: forward, backward, SGD. `ratio` is the median over rounds of the time against `{PLAIN}` in the "
    f"same round; `memory` is the most that a step holds at once, against the same (limit {MEMORY})."
)
COMPILED = ("fake_quantised", "mapped, analog")
"""Networks that are timed through `torch.compile` as well, beside peers: what it would give, were it used."""
PEERS_NOTE = f"Peers train in NCHW, as `{PLAIN}` does; all else in channels last, as jobs do."

Step = Callable[[], None]


@dataclass
class Case:
    """A network in training, and the step that trains it."""

    step: Step
    seconds: list[float]


def variants(name: str) -> tuple[dict[str, nn.Module], Tensor]:
    """A network of the zoo in each iteration, on each core; and a batch for it."""
    shape, width = NETWORKS[name]
    torch.manual_seed(0)
    module = build(name, input_shape=shape, classes=CLASSES, width=width)
    x = torch.randn(BATCH, *shape)
    data = Split(x, None)
    spec = parse_spec({"model": "-", "dataset": "-", "recipe": {"preset": "ptq"}})
    network = import_network(spec, None, module, shape, Wishes()).graph
    record_shapes(network, shape)
    run_editors(network, canonicalise.EDITORS)
    record_shapes(network, shape)
    found: dict[str, nn.Module] = {PLAIN: copy.deepcopy(network), "float, channels last": copy.deepcopy(network)}
    for core in ("digital", "analog"):
        net: fx.GraphModule = copy.deepcopy(network)
        run_editors(net, hardware.assignment(CoreMapping(default=core)))
        run_editors(net, fake_quantise.editors(Quantisers(), equalise=True))
        calibrate(net, data, UNCHANGED)
        found.setdefault("fake_quantised", copy.deepcopy(net))
        observe(net, data, UNCHANGED)
        run_editors(net, hardware.mapping(TERNARY))
        calibrate_analog(net, data, UNCHANGED)
        found[f"mapped, {core}"] = copy.deepcopy(net)
        run_editors(net, hardware.FOLDING)
        observe(net, data, UNCHANGED)
        run_editors(net, hardware.exact_editors(plan_scales(net)))
        found[f"exact, {core}"] = net
    for network_ in found.values():
        disturb(network_, NOISE, seed=0)
    return found, x


def stepper(network: nn.Module, x: Tensor, y: Tensor) -> Step:
    """A step of plain training."""
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        loss = F.cross_entropy(network(x), y)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if x.is_cuda:
            torch.cuda.synchronize()

    return step


def held(step: Step, device: torch.device) -> int:
    """The most bytes that a step holds at once on its device, beyond what is there before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    events, left = [], list(seen.profiler.kineto_results.experimental_event_tree())
    while left:
        event = left.pop()
        left += event.children
        if event.name == "[memory]":
            events.append((event.start_time_ns, event.extra_fields.alloc_size))
    now = most = 0
    for _, size in sorted(events):
        now += size
        most = max(most, now)
    return most


def measure(name: str, rounds: int, with_peers: bool, device: torch.device) -> list[list[str]]:
    """The rows of one network."""
    networks, x = variants(name)
    x, y = x.to(device), torch.randint(0, CLASSES, (BATCH,), device=device)
    last = x.contiguous(memory_format=torch.channels_last)
    cases = {
        step: Case(stepper(network.to(device).train(), x if step == PLAIN else last, y), [])
        for step, network in networks.items()
    }
    failed = []
    if with_peers:
        shape, width = NETWORKS[name]
        module = build(name, input_shape=shape, classes=CLASSES, width=width).to(device)
        for peer in peers().values():
            try:
                cases[f"{peer.name} {peer.version}"] = Case(stepper(peer.prepare(module, x), x, y), [])
            except PeerError as error:
                failed.append([name, f"{peer.name} {peer.version}".strip(), "-", "-", "-", f"none: {error}"])
        for step in COMPILED:
            network = torch.compile(copy.deepcopy(networks[step]), dynamic=False)
            case, label = Case(stepper(network, last, y), []), f"{step}, torch.compile"
            try:
                case.step()
            except Exception as error:  # whatever the compiler raises is the reason why there is no figure
                failed.append([name, label, "-", "-", "-", f"none: {type(error).__name__}"])
            else:
                cases[label] = case
    for case in cases.values():
        case.step()
    for _ in range(rounds):
        for case in cases.values():
            start = time.perf_counter()
            case.step()
            case.seconds.append(time.perf_counter() - start)
    bytes_held = {step: held(case.step, device) for step, case in cases.items()}
    rows = []
    for step, case in cases.items():
        ratio = statistics.median(a / b for a, b in zip(case.seconds, cases[PLAIN].seconds, strict=True))
        memory = bytes_held[step] / bytes_held[PLAIN]
        limit = LIMITS.get(step)
        verdict = "-" if limit is None else f"{limit:.2f} {'met' if ratio <= limit and memory <= MEMORY else 'MISSED'}"
        milliseconds = f"{statistics.median(case.seconds) * 1e3:.0f} ms"
        rows.append([name, step, milliseconds, f"{ratio:.2f}", verdict, f"{memory:.2f}"])
    return rows + failed


def main() -> int:
    """Measure, print and record; 1 if a limit was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NETWORK")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--peers", action="store_true", help="measure published frameworks as well")
    args = parser.parse_args()
    device = choose_device()
    if library() is None:
        print("no compiled kernels: the steps take longer than they would with a C compiler")
    if args.peers:
        known = [[peer.name, peer.version or "not installed", peer.how] for peer in peers().values()]
        record(titled("Step, peers", device), f"{PEERS_NOTE}\n\n{table(['peer', 'version', 'what is timed'], known)}")
    missed = False
    for name in args.networks:
        rows = measure(name, args.rounds, args.peers, device)
        print(table(HEADER, rows), flush=True)
        record_rows(titled("Step", device), NOTE, HEADER, rows)
        missed |= any("MISSED" in row[4] for row in rows)
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
