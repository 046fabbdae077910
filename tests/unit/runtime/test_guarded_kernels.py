"""Kernels that trust their arguments are called only with those that fit their tensors."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from composecli.files.safety.allowlist import allowed
from composecli.runtime.guarded_kernels import GUARDS, guarded_kernels
from composecli.runtime.kernel_checks import BeyondMemory

pytestmark = pytest.mark.skipif(
    not hasattr(torch.library, "get_kernel"), reason="this PyTorch cannot guard kernels"
)
ops = torch.ops.aten
NAMES = sorted({guard.op for guard in GUARDS})


def ints(*numbers: int) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


def norm(*channels: int) -> list[Tensor]:
    return [torch.ones(count) for count in channels]


X = torch.ones(2, 3, 4)
COMPLEX = torch.ones(2, 3, dtype=torch.complex64)
IMAGE = torch.ones(1, 1, 3, 3)
TABLE = torch.ones(5, 3)
SCORES = torch.zeros(4, 2, 5).log_softmax(2)
LAYER = [torch.ones(16, 3), torch.ones(16, 4), torch.ones(16), torch.ones(16)]
STATE = torch.ones(1, 2, 4)
GATES = [torch.ones(12, 4), torch.ones(12, 4), torch.ones(12), torch.ones(12)]
with warnings.catch_warnings(action="ignore"):
    QUANTIZED = torch.quantize_per_tensor(torch.ones(4), 1.0, 0, torch.qint8)

SQUARES = torch.eye(3).expand(3, 3, 3, 3).contiguous()
FITTING: dict[str, Callable[[], Any]] = {
    "_reshape_alias": lambda: ops._reshape_alias(torch.ones(4), [2, 2], [2, 1]),
    "lstm": lambda: nn.LSTM(3, 4, 2, bidirectional=True)(torch.ones(2, 2, 3))[0],
    "lstm with a projection": lambda: nn.LSTM(3, 4, proj_size=2, bias=False)(torch.ones(2, 3))[0],
    "gru": lambda: nn.GRU(3, 4, 2, bias=False)(torch.ones(2, 2, 3))[0],
    "rnn": lambda: nn.RNN(3, 4)(torch.ones(2, 2, 3))[0],
    "rrelu": lambda: nn.RReLU()(torch.ones(2, 3, 4, 5).transpose(1, 2)),
    "tril": lambda: torch.tril(torch.ones(2, 1, 3, 3), out=torch.empty(2, 1, 3, 3)),
    "tril of an empty output": lambda: torch.tril(torch.ones(2, 3, 3), out=torch.empty(0)),
    "triu in place": lambda: torch.ones(2, 2, 3, 3).transpose(0, 1).triu_(),
    "triu of a transposed matrix": lambda: torch.triu(
        torch.ones(2, 3, 3), out=torch.empty(2, 3, 3).transpose(1, 2)
    ),
    "as_strided": lambda: torch.as_strided(torch.ones(4), (2, 2), (1, 2)),
    "as_strided of nothing": lambda: torch.as_strided(torch.ones(0), (0, 9), (9, 1)),
    "as_strided of a view": lambda: torch.ones(9)[4:].as_strided((5,), (1,)),
    "as_strided_": lambda: torch.ones(4).as_strided_((2, 2), (1, 2)),
    "as_strided on meta": lambda: torch.ones(4, device="meta").as_strided((2, 2), (2, 1)),
    "as_strided, quantized": lambda: QUANTIZED.as_strided((2, 2), (2, 1)),
    "fft": lambda: torch.fft.irfft2(torch.fft.rfft2(torch.ones(3, 8, 6))),
    "fftn": lambda: torch.fft.ifftn(torch.fft.fftn(torch.ones(3, 4))),
    "batch norm": lambda: nn.BatchNorm2d(3)(torch.rand(2, 3, 4, 4)),
    "batch norm in eval": lambda: nn.BatchNorm1d(3).eval()(torch.rand(2, 3)),
    "batch norm without weights": lambda: functional.batch_norm(X, None, None, training=True),
    "instance norm": lambda: functional.instance_norm(X),
    "bags": lambda: functional.embedding_bag(ints(0, 4, 1), TABLE, ints(0, 0, 2)),
    "bags with the last offset": lambda: functional.embedding_bag(
        ints(0, 4), TABLE, ints(0, 1, 2), include_last_offset=True
    ),
    "bags of a matrix": lambda: functional.embedding_bag(ints(0, 4).view(1, 2), TABLE, mode="max"),
    "no bags": lambda: functional.embedding_bag(ints(), TABLE, ints()),
    "CTC loss": lambda: functional.ctc_loss(SCORES, ints(1, 2, 3, 4), ints(4, 4), ints(2, 2)),
    "CTC loss of a matrix": lambda: functional.ctc_loss(
        SCORES, ints(1, 2, 3, 4).view(2, 2), (4, 4), (2, 1)
    ),
    "LSTM": lambda: nn.LSTM(3, 4, 2, bidirectional=True).eval()(torch.ones(5, 2, 3)),
    "packed LSTM": lambda: pad_packed_sequence(
        nn.LSTM(3, 4, 2)(pack_padded_sequence(torch.ones(3, 2, 3), [3, 1]))[0]
    ),
    "packed GRU": lambda: nn.GRU(3, 4)(pack_padded_sequence(torch.ones(3, 2, 3), [3, 1])),
    "resampling": lambda: functional.interpolate(
        IMAGE, scale_factor=1.7, mode="bilinear", antialias=True
    ),
    "resampling to a size": lambda: functional.interpolate(
        IMAGE, (2, 7), mode="bicubic", antialias=True
    ),
}
BEYOND: dict[str, Callable[[], Any]] = {
    "_reshape_alias": lambda: ops._reshape_alias(torch.ones(4), [400, 250], [250, 1]),
    "_reshape_alias backwards": lambda: ops._reshape_alias(torch.ones(4), [2], [-1]),
    "_reshape_alias, quantized": lambda: ops._reshape_alias(QUANTIZED, [400], [1]),
    "as_strided": lambda: torch.as_strided(torch.ones(4), (5,), (1,)),
    "as_strided that overflows": lambda: torch.ones(6).as_strided((2, 1), (2**62, 3)),
    "as_strided_ that overflows": lambda: torch.ones(6).as_strided_((2, 1), (2**62, 3)),
    "as_strided_copy": lambda: ops.as_strided_copy(torch.ones(6), (2, 1), (2**62, 3)),
    "an axis that is not there": lambda: ops._fft_r2c(torch.ones(2, 4), [2**31], 0, True),
    "an axis twice": lambda: ops._fft_c2c(COMPLEX, [1, 1], 0, True),
    "a long result": lambda: ops._fft_c2r(COMPLEX, [1], 0, 10**6),
    "few weights": lambda: ops.native_batch_norm(X, *norm(2, 3, 3, 3), True, 0.1, 1e-5),
    "few statistics": lambda: ops._native_batch_norm_legit_no_training(
        X, *norm(3, 3, 3, 1), 0.1, 1e-5
    ),
    "no statistics": lambda: ops._native_batch_norm_legit.no_stats(
        X, *norm(3, 3), False, 0.1, 1e-5
    ),
    "a bag that starts before": lambda: ops._embedding_bag(TABLE, ints(0, 1), ints(0, -9)),
    "a bag that starts behind": lambda: ops._embedding_bag(TABLE, ints(0, 1), ints(0, 10**6)),
    "bags in another order": lambda: ops._embedding_bag(TABLE, ints(0, 1), ints(0, 2, 1)),
    "a row that is not there": lambda: ops._embedding_bag(TABLE, ints(0, 5), ints(0)),
    "targets that are no classes": lambda: ops._ctc_loss(
        SCORES, ints(1, 2, 3, 10**6), [4, 4], [2, 2]
    ),
    "lengths of targets": lambda: ops._ctc_loss(SCORES, ints(1, 2, 3, 4), [4, 4], [2, 10**6]),
    "lengths of inputs": lambda: ops._ctc_loss.Tensor(
        SCORES, ints(1, 2, 3, 4), ints(4, 10**6), ints(2, 2)
    ),
    "negative batch sizes": lambda: ops._pad_packed_sequence(
        torch.ones(6, 3), ints(4, 2, -(10**6), 1), False, 0.0, 4
    ),
    "packed states": lambda: ops.lstm.data(
        torch.ones(3, 3), ints(2, 1), [STATE[:, :1], STATE], LAYER, True, 1, 0.0, False, False
    ),
    "weights of a layer": lambda: ops.mkldnn_rnn_layer(
        torch.ones(2, 1, 3), LAYER[0], torch.ones(4, 4), *LAYER[2:], STATE, STATE, False, [], 2,
        4, 1, True, False, False, False,
    ),
    "statistics of an observer": lambda: ops.fused_moving_avg_obs_fake_quant(
        X, ints(1), ints(1), *norm(1, 1, 0), ints(0), 0.1, 0, 255, 1, True
    ),
    "no layers": lambda: ops.lstm.input(
        torch.ones(2, 1, 3), [STATE, STATE], LAYER, True, -1, 0.0, False, False, False
    ),
    "states for one layer of two": lambda: ops.gru.input(
        torch.ones(2, 2, 4), STATE, [*GATES, *GATES], True, 2, 0.0, False, False, False
    ),
    "parameters for one layer of two": lambda: ops.gru.input(
        torch.ones(2, 2, 4), torch.cat([STATE, STATE]), GATES, True, 2, 0.0, False, False, False
    ),
    "noise": lambda: ops.rrelu_with_noise(X, X[:1].clone(), 0.1, 0.3, True),
    "an output of noise": lambda: ops.rrelu_with_noise.out(
        X, X.clone(), 0.1, 0.3, True, out=torch.empty(1)
    ),
    "an output whose matrices lie in another order": lambda: torch.tril(
        SQUARES[:2], out=torch.empty(3, 2, 3, 3).transpose(0, 1)
    ),
    "a scale": lambda: ops._upsample_bilinear2d_aa(IMAGE, [5, 1000], False, 2.0, 2.0),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
@pytest.mark.parametrize("name", FITTING)
def test_fitting_arguments_give_the_same_result(name: str) -> None:
    torch.manual_seed(0)
    plain = FITTING[name]()
    torch.manual_seed(0)
    with guarded_kernels():
        guarded = FITTING[name]()
    torch.testing.assert_close(guarded, plain)


@pytest.mark.parametrize("name", BEYOND)
def test_arguments_beyond_the_memory_are_an_error(name: str) -> None:
    with guarded_kernels(), pytest.raises(BeyondMemory, match="an op was called with"):
        BEYOND[name]()


def test_a_scripted_model_is_guarded() -> None:
    graph = torch._C.parse_ir(
        """
        graph(%x : Tensor):
          %size : int[] = prim::Constant[value=[400, 250]]()
          %stride : int[] = prim::Constant[value=[250, 1]]()
          %view : Tensor = aten::_reshape_alias(%x, %size, %stride)
          return (%view)
        """
    )
    function = torch._C._create_function_from_graph("forward", graph)
    with guarded_kernels(), pytest.raises(RuntimeError, match="an op was called with a view"):
        function(torch.ones(4))


def test_gradients_pass_through_guarded_kernels() -> None:
    with guarded_kernels():
        x = torch.ones(3, 2, 3, requires_grad=True)
        result, _ = pad_packed_sequence(nn.LSTM(3, 4)(pack_padded_sequence(x, [3, 1]))[0])
        result.sum().backward()
    assert x.grad is not None


def test_nothing_is_guarded_afterwards() -> None:
    """The Python API runs in the process of its user."""
    with guarded_kernels(), guarded_kernels():
        pass
    with pytest.raises(RuntimeError) as raised:
        torch.as_strided(torch.ones(4), (5,), (1,))
    assert not isinstance(raised.value, BeyondMemory)


@pytest.mark.parametrize("op", NAMES)
def test_every_guarded_op_can_be_called(op: str) -> None:
    """It is on the allow-list, or an op that is on it calls it."""
    inner = {"aten::mkldnn_rnn_layer", "aten::_fused_moving_avg_obs_fq_helper"}
    assert op in allowed() | inner


NOTHING = torch.empty(0)
# Results that are written over what they are computed from, before all of it is read.
OVERWRITING: dict[str, Callable[[Tensor], Any]] = {
    "eigh": lambda x: torch.linalg.eigh(x, out=(x, NOTHING.clone())),
    "eigh, the vectors alone": lambda x: ops._linalg_eigh.eigenvalues(
        x, "L", False, eigenvalues=NOTHING.clone(), eigenvectors=x
    ),
    "eigh, one tensor for both": lambda x: torch.linalg.eigh(x, out=(NOTHING, NOTHING)),
    "eigvalsh": lambda x: torch.linalg.eigvalsh(x, out=x),
    "eigvalsh of a part": lambda x: torch.linalg.eigvalsh(x[1:], out=x[:1]),
    "svdvals": lambda x: torch.linalg.svdvals(x, out=x),
    "svd": lambda x: torch.linalg.svd(x, out=(NOTHING.clone(), x, NOTHING.clone())),
    "det": lambda x: torch.linalg.det(x, out=x),
    "slogdet": lambda x: torch.linalg.slogdet(x, out=(x, NOTHING.clone())),
    "solve": lambda x: torch.linalg.solve(x, torch.ones(3, 3, 3, 1), out=x),
    "qr": lambda x: torch.linalg.qr(x, out=(NOTHING.clone(), x)),
    "lu": lambda x: torch.linalg.lu(x, out=(NOTHING.clone(), x, NOTHING.clone())),
    "geqrf": lambda x: torch.geqrf(x, out=(NOTHING.clone(), x)),
}


@pytest.mark.parametrize("call", list(OVERWRITING.values()), ids=list(OVERWRITING))
def test_no_result_is_written_over_what_is_read(call: Callable[[Tensor], Any]) -> None:
    with guarded_kernels(), pytest.raises(RuntimeError, match="an output that is also read"):
        call(SQUARES.clone())


@pytest.mark.parametrize("name", ["eigh", "svd", "qr", "lu", "slogdet", "eig", "lstsq"])
def test_results_of_their_own_are_written(name: str) -> None:
    function = getattr(torch.linalg, name)
    arguments = [SQUARES.clone()]
    if name == "lstsq":
        arguments.append(torch.ones(3, 3, 3, 1))
    with guarded_kernels():
        results = [torch.empty_like(result) for result in function(*arguments)]
        function(*arguments, out=tuple(results))


def test_a_matrix_is_inverted_in_place() -> None:
    with guarded_kernels():
        x = SQUARES.clone() * 2
        torch.linalg.inv(x, out=x)
    assert torch.equal(x, SQUARES / 2)
