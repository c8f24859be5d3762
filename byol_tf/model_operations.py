"""What an encoder from elsewhere may be made of: Keras' layers that compute and nothing else, and TensorFlow's operations of that kind.

Left out are, of the layers, those that hold code or a path (Lambda, TFSMLayer, TorchModuleWrapper, JaxLayer, StringLookup,
TextVectorization) or no part of an image encoder; of the operations, all that know files, processes, Python, devices, queues or networks.
"""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PLAIN_LAYERS = _words("""
    Activation Add AlphaDropout Average AveragePooling2D BatchNormalization CenterCrop Concatenate Conv1D Conv2D Conv2DTranspose
    Cropping2D Dense DepthwiseConv2D Dot Dropout ELU EinsumDense Embedding Flatten GaussianDropout GaussianNoise
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalMaxPooling2D GroupNormalization Identity InputLayer LayerNormalization
    LeakyReLU MaxPooling2D Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute ReLU RepeatVector Rescaling Reshape
    Resizing SeparableConv2D Softmax SpatialDropout2D SpectralNormalization Subtract UnitNormalization UpSampling2D ZeroPadding2D
""")
_ACTIVATIONS = _words("""
    celu elu exponential gelu hard_sigmoid hard_silu hard_swish leaky_relu linear log_softmax mish relu relu6 selu sigmoid silu
    softmax softplus softsign swish tanh
""")
_INITIALIZERS = _words("""
    Constant GlorotNormal GlorotUniform HeNormal HeUniform Identity LecunNormal LecunUniform Ones Orthogonal RandomNormal
    RandomUniform TruncatedNormal VarianceScaling Zeros
""")

LAYERS = frozenset(
    [("keras.layers", name) for name in _PLAIN_LAYERS]
    + [("keras.activations", name) for name in _ACTIVATIONS]
    + [("keras.initializers", name) for name in _INITIALIZERS]
    + [("keras.regularizers", name) for name in ("L1", "L2", "L1L2", "OrthogonalRegularizer")]
    + [("keras.constraints", name) for name in ("MaxNorm", "MinMaxNorm", "NonNeg", "UnitNorm")]
    + [("keras.src.models.functional", "Functional"), ("keras", "Functional"), ("keras.models", "Functional")]
    + [("keras.src.models.sequential", "Sequential"), ("keras", "Sequential"), ("keras.models", "Sequential")]
    + [("keras", "DTypePolicy"), ("keras.dtype_policies", "DTypePolicy")]
)
"""(module, class) as a `.keras` file names them."""

OPERATIONS = _words("""
    Abs Add AddN AddV2 All Any ArgMax ArgMin AssignVariableOp AvgPool BatchMatMul BatchMatMulV2 BatchMatMulV3 BatchToSpaceND BiasAdd
    Bitcast BroadcastArgs BroadcastTo Cast Ceil ClipByValue ConcatV2 Const Conv2D Conv2DBackpropInput Cos DecodeImage DepthToSpace
    DepthwiseConv2dNative DisableCopyOnRead Div DivNoNan Einsum Elu EnsureShape Equal Erf Erfc Exp ExpandDims Expm1 Fill Floor FloorDiv
    FloorMod FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 GatherNd GatherV2 Greater GreaterEqual Identity IdentityN If IsFinite
    IsInf IsNan L2Loss LeakyRelu Less LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul Max MaxPool MaxPoolV2
    Maximum Mean Min Minimum MirrorPad Mul MulNoNan Neg NoOp NotEqual OneHot OnesLike Pack Pad PadV2 PartitionedCall Placeholder
    PlaceholderWithDefault Pow PreventGradient Prod Range Rank ReadVariableOp RealDiv Reciprocal Relu Relu6 Reshape ResizeArea
    ResizeBicubic ResizeBilinear ResizeNearestNeighbor Reverse ReverseV2 Rint Round Rsqrt ScaleAndTranslate Select SelectV2 Selu Shape
    ShapeN Sigmoid Sign Sin Size Slice Softmax Softplus Softsign SpaceToBatchND SpaceToDepth Split SplitV Sqrt Square SquaredDifference
    Squeeze StatefulPartitionedCall StatelessIf StatelessWhile StopGradient StridedSlice Sub Sum Tanh TensorListFromTensor
    TensorListGetItem TensorListReserve TensorListSetItem TensorListStack Tile TopKV2 Transpose Unpack VarHandleOp VarIsInitializedOp
    Where While Xdivy Xlogy ZerosLike
""")
"""TensorFlow's operations that compute from their inputs and from the model's own variables."""

SAVER_OPERATIONS = _words("MergeV2Checkpoints RestoreV2 SaveV2 ShardedFilename StaticRegexFullMatch StringJoin")
"""What TensorFlow puts beside a model, to save and restore its variables under a path that the caller gives."""
