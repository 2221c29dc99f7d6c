from __future__ import annotations

import torch
import torch.nn.functional as F

from musicrl.mulan import rvq


def test_residual_codes_by_hand() -> None:
    books = torch.tensor([[[0.0, 0.0], [4.0, 4.0]], [[1.0, 0.0], [0.0, -1.0]]])
    points = torch.tensor([[5.0, 4.1], [0.2, -0.9]])
    codes = rvq.quantize(points, books)
    assert codes.tolist() == [[1, 0], [0, 1]]
    assert rvq.dequantize(codes, books).tolist() == [[5.0, 4.0], [0.0, -1.0]]
    assert rvq.dequantize(codes[:, :1], books).tolist() == [[4.0, 4.0], [0.0, 0.0]]


def test_every_level_comes_closer_and_a_seed_repeats() -> None:
    points = F.normalize(torch.randn(600, 8, generator=torch.Generator().manual_seed(3)), dim=-1)
    books = rvq.fit(points, 4, 32, iterations=5, generator=torch.Generator().manual_seed(0))
    again = rvq.fit(points, 4, 32, iterations=5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(books, again)
    codes = rvq.quantize(points, books)
    errors = [float((rvq.dequantize(codes[:, :k], books) - points).norm(dim=1).mean()) for k in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]
