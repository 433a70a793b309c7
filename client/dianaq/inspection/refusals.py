"""Why no core computes an operation, and what would work in its place: one table for ONNX and for Python.

Plain Python. Operations that a core computes in some form have no entry by their ONNX names: what is wrong with their
use is said by the rules of their form (`node_rules`, and the importer).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """An entry of the table.

    Args:
        why: what no core can do about it.
        instead: what would work.
        onnx: names of ONNX operators, separated by blanks.
        python: names of functions, methods and module classes, with neither underscores nor capitals.
        whole: whether it says what kind of network it is, so that it goes before whatever stands around it.
    """

    why: str
    instead: str
    onnx: str = ""
    python: str = ""
    whole: bool = False

    def __str__(self) -> str:
        return f"{self.why}; {self.instead}"


QUANTISED = Refusal(
    "the network is quantised already, in another way than the chip's",
    "the float network that it was made from would work",
    "QuantizeLinear DequantizeLinear DynamicQuantizeLinear QLinearConv QLinearMatMul ConvInteger MatMulInteger",
    "quantizepertensor quantizeperchannel dequantize quantize fakequantize quantstub dequantstub "
    "fakequantizepertensoraffine fakequantizeperchannelaffine",
    whole=True,
)
RECURRENT = Refusal(
    "a recurrent layer reads what it gave one step before, and no core keeps a state",
    "convolutions along time (a temporal convolutional network) would work",
    "LSTM GRU RNN CausalConvWithState",
    "lstm gru rnn lstmcell grucell rnncell rnntanh rnnrelu",
    whole=True,
)
ATTENTION = Refusal(
    "attention multiplies computed tensors with one another, and a core multiplies by constant weights alone",
    "a network of convolutions and fully connected layers would work",
    "Attention LinearAttention RotaryEmbedding MultiHeadAttention GroupQueryAttention",
    "multiheadattention multiheadattentionforward scaleddotproductattention transformer transformerencoder "
    "transformerencoderlayer transformerdecoder transformerdecoderlayer",
    whole=True,
)
PER_SAMPLE_NORM = Refusal(
    "no core computes statistics of a sample",
    "BatchNorm2d would work, it becomes a part of its layer",
    "LayerNormalization GroupNormalization InstanceNormalization RMSNormalization MeanVarianceNormalization LRN",
    "layernorm groupnorm instancenorm instancenorm1d instancenorm2d instancenorm3d rmsnorm localresponsenorm",
    whole=True,
)
CONTROL = Refusal(
    "what runs is decided while the network runs, and the chip's program is fixed",
    "a forward without branches and loops would work (flatten(1) where squeeze() depends on sizes)",
    "If Loop Scan SequenceMap",
    whole=True,
)
GATE = Refusal(
    "it is the gate of a squeeze-and-excitation block: it multiplies another tensor, and no core multiplies two",
    "a network without these blocks would work, and no substitution does",
)
PRODUCT = Refusal(
    "no core multiplies two tensors of the samples",
    "a constant factor would work, or an addition",
    "Einsum",
    "mul imul multiply truediv itruediv div divide matmul bmm mm einsum baddbmm addmm dot inner outer tensordot "
    "bilinear",
)
LENGTH = Refusal(
    "no core divides a sample by its length",
    "the network up to it would work, with its output normalised by the program that reads it",
    "LpNormalization ReduceL2",
    "normalize norm linalgnorm linalgvectornorm cosinesimilarity pairwisedistance",
)
REDUCED = Refusal(
    "no core reduces a tensor in this way",
    "a max or average pool, or the mean over the map, would work",
    "ReduceSum ReduceMin ReduceProd ReduceL1 ReduceLogSum ReduceLogSumExp ReduceSumSquare GlobalLpPool LpPool Mean "
    "CumSum CumProd",
    "sum amax amin max min prod logsumexp std var cumsum cumprod lppool1d lppool2d median",
)
ENLARGED = Refusal(
    "no core enlarges a map",
    "a convolution with stride 1 would work, after layers of smaller strides",
    "ConvTranspose Resize Upsample MaxUnpool Col2Im DepthToSpace",
    "convtranspose1d convtranspose2d convtranspose3d upsample upsamplingnearest2d upsamplingbilinear2d interpolate "
    "pixelshuffle maxunpool2d fold",
)
REARRANGED = Refusal(
    "no core moves values between rows, columns and channels",
    "a convolution of that stride, or one of group 1 in place of a shuffle, would work",
    "SpaceToDepth",
    "pixelunshuffle unfold im2col channelshuffle roll flip rot90",
)
MOVED = Refusal(
    "no core moves values between dimensions",
    "a layout (N, C, H, W) from the start would work",
    python="permute transpose t movedim moveaxis swapaxes swapdims",
)
JOINED = Refusal(
    "no core joins tensors",
    "adding them, or one wider layer, would work",
    "Concat",
    "cat concat concatenate stack hstack vstack dstack",
)
SPLIT = Refusal(
    "no core splits a tensor",
    "one layer for each part would work",
    "Split",
    "chunk split splitwithsizes tensorsplit unbind narrow",
)
INDEXED = Refusal(
    "no core looks values up by an index",
    "one-hot inputs of a fully connected layer (an embedding), or weights that are 0 elsewhere (a choice of channels), "
    "would work",
    "Gather GatherElements GatherND Scatter ScatterElements ScatterND TensorScatter",
    "gather indexselect take takealongdim embedding embeddingbag scatter maskedselect",
)
SAMPLED = Refusal(
    "where it reads is computed, and a core reads one window after the other",
    "a convolution or a pool would work",
    "GridSample AffineGrid DeformConv RoiAlign MaxRoiPool CenterCropPad ReverseSequence",
    "gridsample affinegrid deformconv2d roialign roipool",
)
REPEATED = Refusal(
    "no core repeats values",
    "a layer that gives them as often as they are needed would work",
    "Expand Tile",
    "expand repeat tile repeatinterleave broadcastto expandas",
)
CHOSEN = Refusal(
    "it chooses among what the network gives, and no core compares values of one tensor",
    "the network up to it would work, with the choice left to the program that reads its output",
    "ArgMax ArgMin TopK NonMaxSuppression Hardmax NonZero Unique Compress OneHot",
    "argmax argmin topk sort argsort nms nonzero unique onehot kthvalue",
)
COMPARED = Refusal(
    "no core decides value by value",
    "ReLU, ReLU6 or a max pool would work, and a mask that is always the same can go into the weights",
    "And Or Not Xor Equal Greater GreaterOrEqual Less LessOrEqual Where IsInf IsNaN Trilu BitShift BitwiseAnd "
    "BitwiseNot BitwiseOr BitwiseXor BitCast",
    "where gt ge lt le eq ne maskedfill isnan isinf logicaland logicalor logicalnot tril triu",
)
ACTIVATION = Refusal(
    "no core computes it",
    "ReLU or ReLU6 would work",
    "Abs Acos Acosh Asin Asinh Atan Atanh Cos Cosh Erf Exp Log Pow Reciprocal Shrink Sign Sin Sinh Softsign Sqrt "
    "SwiGLU Tan ThresholdedRelu",
    "abs acos acosh asin asinh atan atanh cos cosh erf exp log pow ipow reciprocal sign sin sinh softsign sqrt rsqrt "
    "square tan threshold logsigmoid softshrink hardshrink tanhshrink softmin glu",
)
ROUNDED = Refusal(
    "it rounds, which the chip's integers do by themselves",
    "the network without it would work",
    "Ceil Floor Round Mod",
    "ceil floor round trunc fmod remainder frac",
)
RANDOM = Refusal(
    "no core draws random numbers",
    "the model after model.eval(), in which layers like Dropout are the identity, would work",
    "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
    "bernoulli multinomial rand randlike randn randnlike normal",
)
LOSS = Refusal(
    "it is a loss, which only training needs",
    "the network up to its outputs would work",
    "SoftmaxCrossEntropyLoss NegativeLogLikelihoodLoss",
    "crossentropyloss crossentropy nllloss mseloss bcewithlogitsloss",
)
PREPARED = Refusal(
    "it prepares data, and no core computes it",
    "a dataset of its results would work, with the network that reads them",
    "STFT DFT MelWeightMatrix HannWindow HammingWindow BlackmanWindow ImageDecoder TfIdfVectorizer StringConcat "
    "StringNormalizer StringSplit RegexFullMatch",
    "stft istft fftfft fftrfft fftfft2 fftrfft2 fftifft melspectrogram spectrogram mfcc",
)
LISTED = Refusal(
    "no core has lists of tensors",
    "one tensor from each layer to the next would work",
    "SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength ConcatFromSequence "
    "SplitToSequence Optional OptionalGetElement OptionalHasElement",
)
SIZES = Refusal(
    "sizes follow from values here, and the chip's program is fixed",
    "sizes that are known at the export would work",
    "Shape Size Range ConstantOfShape EyeLike CastLike",
)
THREE_DIMENSIONS = Refusal(
    "only 1-d and 2-d layers are supported",
    "layers of 2-d maps, with the third dimension among the channels, would work",
    python="conv3d maxpool3d avgpool3d batchnorm3d adaptiveavgpool3d adaptivemaxpool3d",
)
COMPUTED = Refusal(
    "its weight is computed while the network runs",
    "torch.nn.utils.parametrize.remove_parametrizations would work",
    python="parametrizedconv2d parametrizedlinear parametrizedconv1d",
)

TABLE: tuple[Refusal, ...] = (
    *(QUANTISED, RECURRENT, ATTENTION, PER_SAMPLE_NORM, CONTROL, GATE, PRODUCT, LENGTH, REDUCED, ENLARGED),
    *(REARRANGED, MOVED, JOINED, SPLIT, INDEXED, SAMPLED, REPEATED, CHOSEN, COMPARED, ACTIVATION, ROUNDED, RANDOM),
    *(LOSS, PREPARED, LISTED, SIZES, THREE_DIMENSIONS, COMPUTED),
)
"""Of those that are `whole`, what stands first here goes first."""

SUPPORTED = (
    "convolutions (1-d and 2-d), fully connected layers, batch normalisation, ReLU, ReLU6 and hardtanh from 0, "
    "additions of two tensors, constant factors and offsets, zero padding, max and average pools, means over the map, "
    "flattens, other layouts than (N, C, H, W), and what is the identity in evaluation"
)

UNKNOWN = Refusal("no core computes it", f"supported are {SUPPORTED}")

DOMAINS: Mapping[str, Refusal] = {
    "com.microsoft": Refusal(
        "it is onnxruntime's own, whose optimiser puts it in the place of several operators",
        "the file as its exporter wrote it would work",
    ),
    "ai.onnx.ml": Refusal(
        "it is no neural network's, but of classical machine learning", "a neural network would work"
    ),
    "ai.onnx.preview.training": Refusal("it trains", "the network after model.eval() would work"),
    "org.pytorch.aten": Refusal(
        "its exporter found no operator of ONNX for it", "an export with torch.onnx.export(..., dynamo=True) would work"
    ),
}
"""Domains whose operators have one reason, whatever they are."""

MAX_NAME = 80
"""Characters of a name that comes from a file; those that people give are shorter."""

_ONNX = {name: entry for entry in TABLE for name in entry.onnx.split()}
_PYTHON = {name: entry for entry in TABLE for name in entry.python.split()}


def refusal_of_operator(operator: str) -> Refusal:
    """Why an ONNX operator is refused.

    Args:
        operator: `OpType`, or `domain.OpType` for one of another domain.
    """
    domain, _, name = operator.rpartition(".")
    if not domain:
        return _ONNX.get(name, UNKNOWN)
    known = QUANTISED if name.startswith("QLinear") else _ONNX.get(name)
    if known is not None and known.whole:
        return known
    return DOMAINS.get(domain) or Refusal(
        f"it comes from the domain {shown(domain)!r}",
        "operators of the default ONNX domain would work, or a package that brings this one (entry point "
        "dianaq.operators)",
    )


def refusal_of_call(operation: str) -> Refusal:
    """Why a module, function or method is refused.

    Args:
        operation: its name: `LSTM`, `layer_norm`, `.permute()`.
    """
    return _PYTHON.get(operation.strip(".()").replace("_", "").lower(), UNKNOWN)


def rank(refusal: Refusal) -> int:
    """What goes before in a message: less is first."""
    return TABLE.index(refusal) if refusal.whole else len(TABLE)


def shown(name: str) -> str:
    """A name from a file, in a length that fits a sentence."""
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."
