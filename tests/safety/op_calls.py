"""Calls that ops accept, for the ops whose arguments are rarely right by chance."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch


class Floats(NamedTuple):
    """A tensor of ones."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32


class Integers(NamedTuple):
    """A vector of positions or lengths."""

    numbers: tuple[int, ...]
    dtype: torch.dtype = torch.int64


def f(*shape: int, dtype: torch.dtype = torch.float32) -> Floats:
    return Floats(shape, dtype)


def i(*numbers: int, dtype: torch.dtype = torch.int64) -> Integers:
    return Integers(numbers, dtype)


BYTE = torch.uint8
# By op: the name of the overload, and its positional arguments.
CALLS: dict[str, list[tuple[Any, ...]]] = {
    "aten::_reshape_alias": [("default", f(4), [2, 2], [2, 1])],
    "aten::as_strided": [("default", f(4), [2, 2], [2, 1], 0)],
    "aten::as_strided_": [("default", f(4), [2, 2], [2, 1], 0)],
    "aten::as_strided_copy": [("default", f(4), [2, 2], [2, 1], 0)],
    "aten::as_strided_scatter": [("default", f(4), f(2, 2), [2, 2], [2, 1], 0)],
    "aten::_unsafe_view": [("default", f(4), [2, 2])],
    "aten::_embedding_bag": [
        ("default", f(5, 3), i(0, 1, 2), i(0, 2), False, 0, False, f(3), False, -1),
        ("default", f(5, 3), i(0, 1, 2), i(0, 2), False, 1, False, None, True, 1),
        ("default", f(5, 3), i(0, 1, 2), i(0, 2), False, 2, False, None, False, -1),
    ],
    "aten::_embedding_bag_forward_only": [
        ("default", f(5, 3), i(0, 1, 2), i(0, 2), False, 0, False, f(3), False, -1),
        ("default", f(5, 3), i(0, 1, 2), i(0, 2), False, 2, False, None, True, 1),
    ],
    "aten::embedding_bag": [
        ("default", f(5, 3), i(0, 1, 2), i(0, 2), False, 0, False, f(3), False),
        ("default", f(5, 3), i(0, 1, 2), i(0, 2), False, 2, False, None, True),
    ],
    "aten::embedding": [("default", f(5, 3), i(0, 4))],
    "aten::embedding_renorm_": [("default", f(5, 3), i(0, 4), 1.0, 2.0)],
    "aten::max_unpool2d": [("default", f(1, 2, 2), i(0, 1, 2, 3), [4, 4])],
    "aten::_ctc_loss": [
        ("default", f(4, 2, 5), i(1, 2, 3, 4), [4, 4], [2, 2], 0, False),
        ("Tensor", f(4, 2, 5), i(1, 2, 3, 4), i(4, 4), i(2, 2), 0, False),
    ],
    "aten::ctc_loss": [
        ("IntList", f(4, 2, 5), i(1, 2, 3, 4), [4, 4], [2, 2], 0),
        ("Tensor", f(4, 2, 5), i(1, 2, 3, 4), i(4, 4), i(2, 2), 0),
    ],
    "aten::_pack_padded_sequence": [("default", f(4, 2, 3), i(4, 2), False)],
    "aten::_pad_packed_sequence": [("default", f(6, 3), i(2, 2, 1, 1), False, 0.0, 4)],
    "aten::nll_loss_forward": [("default", f(2, 3), i(0, 2), f(3), 1, -100)],
    "aten::nll_loss": [("default", f(2, 3), i(0, 2), f(3), 1, -100)],
    "aten::multi_margin_loss": [("default", f(2, 3), i(0, 2), 1, 1.0, f(3), 1)],
    "aten::multilabel_margin_loss_forward": [("default", f(3), i(0, 2, -1), 1)],
    "aten::_index_put_impl_": [("default", f(4), [i(0, 3)], f(2), True, True)],
    "aten::index_put_": [("default", f(4), [i(0, 3)], f(2), True)],
    "aten::_unsafe_index_put": [("default", f(4), [i(0, 3)], f(2), True)],
    "aten::_unsafe_index": [("Tensor", f(4), [i(0, 3)])],
    "aten::index": [("Tensor", f(4), [i(0, 3)])],
    "aten::index_select": [("default", f(4, 2), 0, i(0, 3))],
    "aten::index_add": [("default", f(4), 0, i(0, 3), f(2))],
    "aten::index_copy": [("default", f(4), 0, i(0, 3), f(2))],
    "aten::index_fill": [("int_Scalar", f(4), 0, i(0, 3), 1)],
    "aten::index_reduce": [("default", f(4), 0, i(0, 3), f(2), "mean")],
    "aten::gather": [("default", f(4), 0, i(0, 3))],
    "aten::scatter": [("src", f(4), 0, i(0, 3), f(2)), ("value", f(4), 0, i(0, 3), 1.0)],
    "aten::scatter_add": [("default", f(4), 0, i(0, 3), f(2))],
    "aten::scatter_reduce": [("two", f(4), 0, i(0, 3), f(2), "amax")],
    "aten::take": [("default", f(4), i(0, 3))],
    "aten::put": [("default", f(4), i(0, 3), f(2), True)],
    "aten::bincount": [("default", i(0, 3), f(2), 0)],
    "aten::histc": [("default", f(4), 4, 0, 1)],
    "aten::searchsorted": [("Tensor", f(4), f(2), False, False, "left", i(0, 1, 2, 3))],
    "aten::bucketize": [("Tensor", f(4), f(3))],
    "aten::repeat_interleave": [("Tensor", i(1, 2, 0)), ("self_Tensor", f(3), i(1, 2, 0), 0)],
    "aten::one_hot": [("default", i(0, 3), 4)],
    "aten::_fft_r2c": [("default", f(2, 4), [1], 0, True)],
    "aten::_fft_c2r": [("default", f(2, 3, dtype=torch.complex64), [1], 0, 4)],
    "aten::_fft_c2c": [("default", f(2, 4, dtype=torch.complex64), [0, 1], 0, True)],
    "aten::native_batch_norm": [
        ("default", f(2, 3, 4), f(3), f(3), f(3), f(3), True, 0.1, 1e-5),
        ("default", f(2, 3, 4), f(3), f(3), f(3), f(3), False, 0.1, 1e-5),
    ],
    "aten::_native_batch_norm_legit": [
        ("default", f(2, 3, 4), f(3), f(3), f(3), f(3), False, 0.1, 1e-5),
        ("no_stats", f(2, 3, 4), f(3), f(3), True, 0.1, 1e-5),
    ],
    "aten::_native_batch_norm_legit_no_training": [
        ("default", f(2, 3, 4), f(3), f(3), f(3), f(3), 0.1, 1e-5),
    ],
    "aten::batch_norm": [
        ("default", f(2, 3, 4), f(3), f(3), f(3), f(3), True, 0.1, 1e-5, False),
        ("default", f(2, 3, 4), f(3), f(3), f(3), f(3), False, 0.1, 1e-5, False),
    ],
    "aten::_batch_norm_impl_index": [
        ("default", f(2, 3, 4), f(3), f(3), f(3), f(3), False, 0.1, 1e-5, False),
    ],
    "aten::instance_norm": [
        ("default", f(2, 3, 4), f(3), f(3), f(3), f(3), True, 0.1, 1e-5, False),
    ],
    "aten::native_layer_norm": [("default", f(2, 3), [3], f(3), f(3), 1e-5)],
    "aten::native_group_norm": [("default", f(2, 4, 3), f(4), f(4), 2, 4, 3, 2, 1e-5)],
    "aten::group_norm": [("default", f(2, 4, 3), 2, f(4), f(4), 1e-5, False)],
    "aten::_weight_norm": [("default", f(4, 3), f(4, 1), 0)],
    "aten::lstm": [
        ("input", f(2, 1, 3), [f(1, 1, 4), f(1, 1, 4)],
         [f(16, 3), f(16, 4), f(16), f(16)], True, 1, 0.0, False, False, False),
        ("data", f(3, 3), i(2, 1), [f(1, 2, 4), f(1, 2, 4)],
         [f(16, 3), f(16, 4), f(16), f(16)], True, 1, 0.0, False, False),
    ],
    "aten::gru": [
        ("input", f(2, 1, 3), f(1, 1, 4), [f(12, 3), f(12, 4), f(12), f(12)],
         True, 1, 0.0, False, False, False),
        ("data", f(3, 3), i(2, 1), f(1, 2, 4), [f(12, 3), f(12, 4), f(12), f(12)],
         True, 1, 0.0, False, False),
    ],
    "aten::rnn_tanh": [
        ("input", f(2, 1, 3), f(1, 1, 4), [f(4, 3), f(4, 4), f(4), f(4)],
         True, 1, 0.0, False, False, False),
        ("data", f(3, 3), i(2, 1), f(1, 2, 4), [f(4, 3), f(4, 4), f(4), f(4)],
         True, 1, 0.0, False, False),
    ],
    "aten::lstm_cell": [
        ("default", f(1, 3), [f(1, 4), f(1, 4)], f(16, 3), f(16, 4), f(16), f(16)),
    ],
    "aten::gru_cell": [("default", f(1, 3), f(1, 4), f(12, 3), f(12, 4), f(12), f(12))],
    "aten::grid_sampler": [("default", f(1, 2, 3, 3), f(1, 2, 2, 2), 0, 0, False)],
    "aten::grid_sampler_2d": [("default", f(1, 2, 3, 3), f(1, 2, 2, 2), 0, 0, False)],
    "aten::grid_sampler_3d": [("default", f(1, 2, 3, 3, 3), f(1, 2, 2, 2, 3), 0, 0, False)],
    "aten::col2im": [("default", f(4, 4), [3, 3], [2, 2], [1, 1], [0, 0], [1, 1])],
    "aten::im2col": [("default", f(1, 1, 3, 3), [2, 2], [1, 1], [0, 0], [1, 1])],
    "aten::fractional_max_pool2d": [("default", f(1, 2, 5, 5), [2, 2], [2, 2], f(1, 2, 2))],
    "aten::fractional_max_pool3d": [
        ("default", f(1, 2, 5, 5, 5), [2, 2, 2], [2, 2, 2], f(1, 2, 3)),
    ],
    "aten::upsample_bilinear2d": [("default", f(1, 1, 3, 3), [5, 5], False, 2.0, 2.0)],
    "aten::upsample_bicubic2d": [("default", f(1, 1, 3, 3), [5, 5], False, 2.0, 2.0)],
    "aten::_upsample_bilinear2d_aa": [("default", f(1, 1, 3, 3), [5, 5], False, 2.0, 2.0)],
    "aten::_upsample_bicubic2d_aa": [("default", f(1, 1, 3, 3), [5, 5], False, 2.0, 2.0)],
    "aten::_upsample_lanczos2d_aa": [("default", f(1, 1, 3, 3), [5, 5], False, 2.0, 2.0)],
    "aten::upsample_nearest2d": [("default", f(1, 1, 3, 3), [5, 5], 2.0, 2.0)],
    "aten::upsample_trilinear3d": [
        ("default", f(1, 1, 3, 3, 3), [5, 5, 5], False, 2.0, 2.0, 2.0),
    ],
    "aten::reflection_pad1d": [("default", f(1, 2, 4), [1, 2])],
    "aten::reflection_pad2d": [("default", f(1, 2, 4, 4), [1, 2, 1, 1])],
    "aten::replication_pad2d": [("default", f(1, 2, 4, 4), [1, 2, 1, 1])],
    "aten::avg_pool2d": [("default", f(1, 2, 4, 4), [2, 2], [2, 2], [0, 0], True, True, 3)],
    "aten::max_pool2d": [("default", f(1, 2, 4, 4), [2, 2], [2, 2], [0, 0], [1, 1], True)],
    "aten::max_pool3d": [
        ("default", f(1, 2, 4, 4, 4), [2, 2, 2], [2, 2, 2], [0, 0, 0], [1, 1, 1], True),
    ],
    "aten::max_pool1d": [("default", f(1, 2, 4), [2], [2], [0], [1], True)],
    "aten::convolution": [
        ("default", f(1, 2, 4, 4), f(4, 2, 3, 3), f(4), [1, 1], [1, 1], [1, 1], False, [0, 0], 1),
        ("default", f(1, 2, 4, 4), f(2, 2, 3, 3), f(2), [1, 1], [1, 1], [1, 1], True, [0, 0], 1),
        ("default", f(1, 4, 4, 4), f(4, 1, 3, 3), f(4), [1, 1], [1, 1], [2, 2], False, [0, 0], 4),
    ],
    "aten::_convolution": [
        ("default", f(1, 2, 4, 4), f(4, 2, 3, 3), f(4), [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
         False, False, False, False),
    ],
    "aten::mkldnn_convolution": [
        ("default", f(1, 2, 4, 4), f(4, 2, 3, 3), f(4), [1, 1], [1, 1], [1, 1], 1),
    ],
    "aten::conv_tbc": [("default", f(4, 2, 3), f(2, 3, 5), f(5), 0)],
    "aten::_scaled_dot_product_flash_attention_for_cpu": [
        ("default", f(1, 2, 4, 8), f(1, 2, 4, 8), f(1, 2, 4, 8), 0.0, False),
    ],
    "aten::scaled_dot_product_attention": [
        ("default", f(1, 2, 4, 8), f(1, 2, 4, 8), f(1, 2, 4, 8), f(4, 4), 0.0, False),
        ("default", f(1, 2, 4, 8), f(1, 2, 4, 8), f(1, 2, 4, 8), None, 0.0, True),
    ],
    "aten::_native_multi_head_attention": [
        ("default", f(1, 4, 8), f(1, 4, 8), f(1, 4, 8), 8, 2, f(24, 8), f(24), f(8, 8), f(8), None,
         True, True, None),
    ],
    "aten::_transformer_encoder_layer_fwd": [
        ("default", f(1, 4, 8), 8, 2, f(24, 8), f(24), f(8, 8), f(8), False, False, 1e-5, f(8),
         f(8), f(8), f(8), f(8, 8), f(8), f(8, 8), f(8), None, None),
    ],
    "aten::_nested_tensor_from_mask": [("default", f(2, 3, 4), f(2, 3, dtype=torch.bool), True)],
    "aten::nested_to_padded_tensor": [("default", f(2, 3), 0.0, [2, 3])],
    "aten::sparse_coo_tensor": [("indices_size", i(0, 3), f(2), [4])],
    "aten::sparse_csr_tensor": [("crow_col_value_size", i(0, 1, 2), i(0, 1), f(2), [2, 2])],
    "aten::sparse_compressed_tensor": [
        ("comp_plain_value_size", i(0, 1, 2), i(0, 1), f(2), [2, 2]),
    ],
    "aten::_weight_int8pack_mm": [
        ("default", f(2, 32, dtype=torch.bfloat16), f(4, 32, dtype=torch.int8),
         f(4, dtype=torch.bfloat16)),
    ],
    "aten::_int_mm": [("default", f(2, 3, dtype=torch.int8), f(3, 4, dtype=torch.int8))],
    "aten::_scaled_mm": [
        ("default", f(16, 16, dtype=torch.float8_e4m3fn), f(16, 16, dtype=torch.float8_e4m3fn),
         f(1), f(1)),
    ],
    "aten::_grouped_mm": [
        ("default", f(4, 8, dtype=torch.bfloat16), f(2, 8, 8, dtype=torch.bfloat16),
         i(2, 4, dtype=torch.int32)),
    ],
    "aten::ormqr": [("default", f(3, 2), f(2), f(3, 2), True, False)],
    "aten::linalg_householder_product": [("default", f(3, 2), f(2))],
    "aten::cholesky_solve": [("default", f(2, 1), f(2, 2), False)],
    "aten::cdist": [("default", f(2, 3), f(2, 3), 2.0)],
    "aten::_cdist_forward": [("default", f(2, 3), f(2, 3), 2.0, 1)],
    "aten::unfold": [("default", f(4), 0, 2, 1)],
    "aten::slice_inverse": [("default", f(2), f(4), 0, 0, 2, 1)],
    "aten::diagonal_scatter": [("default", f(3, 3), f(3), 0, 0, 1)],
    "aten::nonzero_static": [("default", f(4), )],
    "aten::fake_quantize_per_channel_affine": [
        ("default", f(2, 3), f(3), i(0, 0, 0, dtype=torch.int32), 1, 0, 255),
    ],
    "aten::fused_moving_avg_obs_fake_quant": [
        ("default", f(2, 3), i(1), i(1), f(3), f(3), f(3), i(0, 0, 0, dtype=torch.int32), 0.1, 0,
         255, 1, True, False),
    ],
    "aten::quantize_per_channel": [("default", f(2, 3), f(3), i(0, 0, 0), 1, torch.quint8)],
    "aten::_make_per_channel_quantized_tensor": [
        ("default", f(2, 3, dtype=BYTE), f(3), i(0, 0, 0), 1),
    ],
    "aten::choose_qparams_optimized": [("default", f(4), 4, 10, 0.1, 8)],
    "aten::istft": [("default", f(9, 5, dtype=torch.complex64), 16, 4, 16, f(16))],
    "aten::stft": [("default", f(1, 32), 16, 4, 16, f(16), False, True, True)],
    "quantized::embedding_bag_byte_unpack": [("default", f(5, 11, dtype=BYTE))],
    "quantized::embedding_bag_4bit_unpack": [("default", f(5, 8, dtype=BYTE))],
    "quantized::int4mm_packed_weight_cpu": [
        ("default", f(2, 32), f(8, 16, dtype=BYTE), 32, f(1, 8, 2)),
    ],
    "prims::as_strided": [("default", f(4), [2, 2], [2, 1], 0)],
    "prims::as_strided_scatter": [("default", f(4), f(2, 2), [2, 2], [2, 1], 0)],
    "prims::copy_strided": [("default", f(2, 2), [2, 1])],
    "prims::fft_r2c": [("default", f(2, 4))],
}  # fmt: skip
