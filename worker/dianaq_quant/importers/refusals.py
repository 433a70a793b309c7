"""Why an operation is not supported, and what would work in its place."""

from __future__ import annotations

ACTIVATION = "no core computes it; ReLU or ReLU6 would work"
PER_SAMPLE_NORM = "no core computes statistics of a sample; BatchNorm2d would work, it becomes a part of its layer"
ONE_DIMENSION = "only 2-d layers are supported; Conv2d or a pool over maps of height 1 would work"
TRANSPOSED = "no core computes it; a convolution with stride 1 would work"
JOINED = "no core joins tensors; adding them, or one wider layer, would work"
PRODUCT = "no core multiplies by a tensor or a constant; a factor can go into the weights of a layer before it"
SCALED = f"{PRODUCT}, and a normalisation of the input into the dataset's settings"
MOVED = "no core moves values between dimensions; a layout (N, C, H, W) from the start would work"
COMPUTED = (
    "its weight is computed while the network runs; torch.nn.utils.parametrize.remove_parametrizations would work"
)
SPLIT = "no core splits a tensor; one layer for each part would work"

REASONS: dict[str, str] = (
    dict.fromkeys(("threshold", "softsign", "logsigmoid", "softshrink", "hardshrink", "tanhshrink"), ACTIVATION)
    | dict.fromkeys(
        ("layernorm", "groupnorm", "instancenorm1d", "instancenorm2d", "localresponsenorm"), PER_SAMPLE_NORM
    )
    | dict.fromkeys(("layer_norm", "group_norm", "instance_norm", "local_response_norm"), PER_SAMPLE_NORM)
    | dict.fromkeys(("conv1d", "conv3d", "maxpool1d", "avgpool1d", "adaptiveavgpool1d", "max_pool1d"), ONE_DIMENSION)
    | dict.fromkeys(("avg_pool1d", "batchnorm3d", "adaptive_avg_pool1d", "maxpool3d", "avgpool3d"), ONE_DIMENSION)
    | dict.fromkeys(("convtranspose1d", "convtranspose2d", "convtranspose3d", "conv_transpose2d"), TRANSPOSED)
    | dict.fromkeys(("upsample", "interpolate", "pixelshuffle"), TRANSPOSED)
    | dict.fromkeys(("cat", "concat", "concatenate", "stack", "hstack", "vstack"), JOINED)
    | dict.fromkeys(("mul", "imul", "matmul", "bmm", "einsum"), PRODUCT)
    | dict.fromkeys(("sub", "isub", "truediv", "itruediv", "div", "rsub"), SCALED)
    | dict.fromkeys(("permute", "transpose", "t", "movedim", "swapaxes"), MOVED)
    | dict.fromkeys(("chunk", "split", "unbind"), SPLIT)
    | dict.fromkeys(("parametrizedconv2d", "parametrizedlinear"), COMPUTED)
)
"""By the operation's name in lower case."""

SUPPORTED = (
    "convolutions (2-d), fully connected layers, batch normalisation, ReLU, ReLU6 and hardtanh from 0, additions of "
    "two tensors, max and average pools, means over the map, flattens, and what is the identity in evaluation"
)


def reason(operation: str) -> str:
    """Why a module, function or method of that name is refused."""
    name = operation.strip(".()").rstrip("_").lower()
    return REASONS.get(name, f"not supported; supported are {SUPPORTED}")
