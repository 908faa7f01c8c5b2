"""Forms of shape arithmetic and of constants that are computed in the graph, as PyTorch's old exporter leaves them."""
import numpy as np
from onnx import TensorProto, helper, numpy_helper

F32 = np.float32


def number(value):
    return numpy_helper.from_array(np.array([value]))


def register(form, forms):
    cubic = dict(mode="cubic", cubic_coeff_a=-0.75)
    linear, nearest = dict(mode="linear"), dict(mode="nearest", nearest_mode="floor")
    half, corners, asymmetric = [
        dict(coordinate_transformation_mode=mode) for mode in ("half_pixel", "align_corners", "asymmetric")
    ]

    @forms(
        "K",
        cubic_smaller=((5, 4), {**cubic, **half}),
        cubic_larger=((1, 1), {**cubic, **half}),
        cubic_same=((2, 2), {**cubic, **half}),
        cubic_corners=((3, 4), {**cubic, **corners}),
        cubic_sharper=((3, 5), {**cubic, **half, "cubic_coeff_a": -0.5}),
        linear=((3, 3), {**linear, **half}),
        linear_corners=((3, 5), {**linear, **corners}),
        linear_asymmetric=((5, 3), {**linear, **asymmetric}),
        linear_pytorch=((3, 1), {**linear, "coordinate_transformation_mode": "pytorch_half_pixel"}),
        nearest=((5, 3), {**nearest, **asymmetric}),
        nearest_half=((5, 3), {**nearest, **half, "nearest_mode": "round_prefer_floor"}),
        nearest_ceil=((5, 3), {**nearest, **half, "nearest_mode": "ceil"}),
        nearest_default=((3, 7), {}),
    )
    def resize_of_positions(g, case):
        """Position embeddings of a grid of another size, for two times two tokens."""
        (rows, columns), attributes = case
        table = g("Reshape", g.normal(1, rows * columns, 8), np.array([1, rows, columns, 8]))
        table = g("Transpose", table, perm=[0, 3, 1, 2])
        sizes = g("Concat", g("Slice", g("Shape", table), np.array([0]), np.array([2])), np.array([2, 2]), axis=0)
        table = g("Resize", table, None, None, sizes, **attributes)
        table = g("Reshape", g("Transpose", table, perm=[0, 2, 3, 1]), np.array([1, -1, 8]))
        g.head(g.linear(g("Add", g.tokens(), table)))

    @forms("K", up=(1, 2.0), down=(4, 0.5), between=(3, 0.7))
    def resize_by_factors(g, case):
        side, factor = case
        factors = np.array([1, 1, factor, factor], F32)
        table = g("Resize", g.normal(1, 8, side, side), np.zeros(0, F32), factors, **cubic, **half)
        table = g("Transpose", g("Reshape", table, np.array([1, 8, 4])), perm=[0, 2, 1])
        g.head(g.linear(g("Add", g.tokens(), table)))

    @form("T")
    def resize_in_front_of_tract(g):
        """A graph for tract with a resized constant in it."""
        table = g("Resize", g.normal(1, 8, 3, 3), None, None, np.array([1, 8, 2, 2]), **cubic, **half)
        table = g("Transpose", g("Reshape", table, np.array([1, 8, 4])), perm=[0, 2, 1])
        g.head(g("Where", g.random.random(8) > 0.5, g.tokens(), table))

    @form("R")
    def resize_of_a_map(g):
        y = g("Conv", "image", g.normal(8, 3, 4, 4, scale=0.3), g.normal(8), strides=[4, 4])
        y = g("Resize", y, None, None, np.array([1, 8, 4, 4]), **linear, **half)
        y = g("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
        g.head(g.flat(y))

    @form("K")
    def positions_as_dinov2_has_them(g):
        side = g("Cast", g("Pow", F32(9), F32(0.5)), to=TensorProto.INT64)
        side = g("Unsqueeze", side, np.array([0]))
        shape = g("Concat", np.array([1]), side, side, np.array([8]), axis=0)
        table = g("Transpose", g("Reshape", g.normal(1, 9, 8), shape), perm=[0, 3, 1, 2])
        table = g("Cast", table, to=TensorProto.FLOAT)
        sizes = g("Concat", g("Slice", g("Shape", table), np.array([0]), np.array([2])), np.array([2, 2]), axis=0)
        table = g("Cast", g("Resize", table, None, None, sizes, **cubic, **half), to=TensorProto.FLOAT)
        table = g("Reshape", g("Transpose", table, perm=[0, 2, 3, 1]), np.array([1, -1, 8]))
        g.head(g.linear(g("Add", g.tokens(), table)))

    @forms("K", forward=(0, 1), backward=(9, -2), later=(3, 5))
    def range_of_positions(g, case):
        start, step = case
        count = g("Squeeze", g("Slice", g("Shape", g.tokens()), np.array([1]), np.array([2])), np.array([0]))
        limit = g("Add", g("Mul", count, np.array(step)), np.array(start))
        places = g("Cast", g("Range", np.array(start), limit, np.array(step)), to=TensorProto.FLOAT)
        angles = g("Mul", g("Unsqueeze", places, np.array([0, 2])), g.normal(8))
        g.head(g.linear(g("Add", g.tokens(), angles)))

    @form("K")
    def range_of_reals(g):
        places = g("Range", F32(0.5), F32(2.5), F32(0.5))
        g.head(g.linear(g("Add", g.tokens(), g("Mul", g("Reshape", places, np.array([1, 4, 1])), g.normal(8)))))

    @forms("K", last=-1, axis=0)
    def scatter_nd_of_indices(g, axis):
        """Indices of relative positions that are changed in places, as in BEiT."""
        index = g("ScatterND", np.arange(16).reshape(4, 4) % 9, np.array([[0, 1], [3, -1]]), np.array([8, 6]))
        index = g("ScatterND", index, np.array([[2]]), np.array([[7, 0, 7, 1]]))
        row = g("Gather", index, np.array(1), axis=0 if axis == 0 else 1)
        g.head(g.linear(g("Add", g.tokens(), g("Gather", g.normal(9, 8), row, axis=0))))

    @form("K")
    def scatter_nd_of_reals(g):
        """Parts of windows numbered in place, and what is in another part masked, as in Swin."""
        numbers = g("ConstantOfShape", np.array([4]), value=number(F32(0)))
        numbers = g("ScatterND", numbers, np.array([[1], [2]]), np.array([1, 2], F32))
        numbers = g("ScatterND", numbers, np.array([[3]]), g("Expand", F32(2), np.array([1])))
        apart = g("Sub", g("Unsqueeze", numbers, np.array([0])), g("Unsqueeze", numbers, np.array([1])))
        same = g("Equal", apart, F32(0))
        mask = g("Where", g("Cast", g("Not", same), to=TensorProto.BOOL), F32(-100), apart)
        mask = g("Where", g("Cast", same, to=TensorProto.BOOL), F32(0), mask)
        x = g("Reshape", g.linear(g.tokens()), np.array([1, 4, 8]))
        scores = g("Add", g("MatMul", x, g("Transpose", x, perm=[0, 2, 1])), g("Unsqueeze", mask, np.array([0])))
        g.head(g.linear(g("MatMul", g("Softmax", scores, axis=-1), x)))

    @form("R")
    def scatter_nd_of_tokens(g):
        g.head(g("ScatterND", g.tokens(), np.array([[0, 1]]), g.normal(1, 8)))

    @forms(
        "K",
        equal=("Equal", np.int64),
        greater=("Greater", np.int64),
        greater_or_equal=("GreaterOrEqual", np.int64),
        less=("Less", F32),
        less_or_equal=("LessOrEqual", F32),
        equal_reals=("Equal", F32),
    )
    def comparison_of_constants(g, case):
        op, kind = case
        places = np.arange(4).astype(kind)
        holds = g(op, g("Reshape", places, np.array([4, 1])), np.array(2, kind))
        part = g("Where", holds, F32(0.75), F32(-0.5))
        g.head(g.linear(g("Add", g.tokens(), g("Mul", g("Unsqueeze", part, np.array([0])), g.normal(8)))))

    @forms("K", both="And", either="Or")
    def conditions_together(g, op):
        places = np.arange(4)
        holds = g(op, g("Greater", places, np.array(0)), g("Not", g("Equal", places, np.array(2))))
        part = g("Reshape", g("Cast", holds, to=TensorProto.FLOAT), np.array([1, 4, 1]))
        g.head(g.linear(g("Add", g.tokens(), g("Mul", part, g.normal(8)))))

    @forms("K", ceil="Ceil", floor="Floor")
    def whole_numbers(g, op):
        """Padding as timm computes it."""
        whole = g(op, g("Div", g("Cast", g("Size", g.tokens()), to=TensorProto.FLOAT), F32(5)))
        count = g("Cast", g("Clip", g("Sub", whole, F32(2)), F32(0), F32(4)), to=TensorProto.INT64)
        part = g("Slice", g.tokens(), np.array([0]), g("Reshape", count, np.array([1])), np.array([1]))
        y = g("ReduceMean", part, axes=[1], keepdims=0)
        g.end(g("Gemm", y, g.normal(8, 5), g.normal(5)))

    @form("R")
    def ceil_of_tokens(g):
        g.head(g("Ceil", g.tokens()))

    @form("R")
    def integers_of_tokens(g):
        y = g("Cast", g("Cast", g.tokens(), to=TensorProto.INT64), to=TensorProto.FLOAT)
        g.head(y)

    @forms("K", first=0, last=1)
    def empty_part(g, place):
        """No register tokens, as DINOv3 has them."""
        parts = [g.normal(1, 1, 8), g.tokens()]
        parts.insert(place, np.zeros((1, 0, 8), F32))
        g.head(g.linear(g("Concat", *parts, axis=1)))

    @form("R")
    def empty_addend(g):
        y = g("Add", g("Slice", g.tokens(), np.array([0]), np.array([1]), np.array([1])), np.zeros((1, 0, 8), F32))
        g.head(g("Concat", y, g.tokens(), axis=1))

    @forms("K", angles=((1, 4, 4), (1, 1, 2)), rows=((1, 2, 8), (1, 2, 1)), both=((1, 2, 4), (1, 2, 2)))
    def tile_of_a_constant(g, case):
        """Angles of positions, each for two values, as DINOv3 has them."""
        dims, repeats = case
        g.head(g.linear(g("Add", g.tokens(), g("Tile", g.normal(*dims), np.array(repeats)))))

    def branch(name, nodes, output, kind=TensorProto.FLOAT, weights=()):
        port = helper.make_tensor_value_info(output, kind, None)
        weights = [numpy_helper.from_array(np.asarray(value), key) for key, value in weights]
        return helper.make_graph(nodes, name, [], [port], weights)

    def either(g, condition, *inputs):
        """Twice the first input plus a weight, or the second as it is."""
        first, second = inputs
        twice = [helper.make_node("Add", [first, first], ["t0"]), helper.make_node("Add", ["t0", "t1"], ["t2"])]
        then = branch("then", twice, "t2", weights=[("t1", g.normal(8))])
        other = branch("else", [helper.make_node("Identity", [second], ["e0"])], "e0")
        return g("If", condition, then_branch=then, else_branch=other)

    @forms("K", taken=True, not_taken=False)
    def branch_by_a_weight(g, condition):
        y = g.tokens()
        g.head(either(g, np.array(condition), y, g.linear(y)))

    @forms("K", taken=3, not_taken=4)
    def branch_by_shape_arithmetic(g, least):
        """Whether there are more tokens than that, as an exporter asks that does not follow a rank."""
        y = g.linear(g.tokens())
        tokens = g("Gather", g("Shape", y), np.array(1), axis=0)
        g.head(either(g, g("Greater", tokens, np.array(least)), y, y))

    @form("K")
    def branch_in_a_branch(g):
        """How often each axis is repeated, as `torch.tile` asks: the repeats, with ones before them if they are fewer."""
        y = g.tokens()
        ones = helper.make_node("Constant", [], ["o0"], value=numpy_helper.from_array(np.array([1, 1, 1])))
        inner = branch("inner", [ones], "o0", TensorProto.INT64)
        other = branch("other", [helper.make_node("Constant", [], ["p0"], value=number(7))], "p0", TensorProto.INT64)
        choose = helper.make_node("If", ["q1"], ["q2"], then_branch=inner, else_branch=other)
        not_ = [helper.make_node("Not", ["q0"], ["q1"]), choose]
        outer = branch("outer", not_, "q2", TensorProto.INT64, [("q0", np.array(False))])
        unused = branch("unused", [helper.make_node("Constant", [], ["u0"], value=number(9))], "u0", TensorProto.INT64)
        repeats = g("If", np.array([True]), then_branch=outer, else_branch=unused)
        g.head(g.linear(g("Tile", g("Add", y, g("Tile", g.normal(1, 1, 8), repeats)), repeats)))

    @form("R")
    def branch_by_the_image(g):
        y = g.tokens()
        brightest = g("ReduceMax", "image", keepdims=0)
        g.head(either(g, g("Greater", brightest, F32(0.5)), y, g.linear(y)))
