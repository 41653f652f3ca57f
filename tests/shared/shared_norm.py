"""A shared batch norm and gathered rows in two processes, against one with all rows.

python tests/shared/shared_norm.py FILE RANK      twice, with ranks 0 and 1; they meet at FILE
"""

import sys

import torch
import torch.distributed as dist
from torch import nn

from cqr.trainer.models.sharing import gathered, mean, with_shared_norms


def main() -> None:
    file, rank, world = sys.argv[1], int(sys.argv[2]), 2
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=world)
    rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float32) + 2

    whole, all_rows = nn.Sequential(nn.BatchNorm1d(3)), rows.clone().requires_grad_()
    norms = nn.Sequential(nn.BatchNorm1d(3))
    with torch.no_grad():
        for norm in (whole[0], norms[0]):
            norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
    parameters, names = list(norms.parameters()), list(norms.state_dict())
    shared, own = with_shared_norms(norms), rows[rank::world].clone().requires_grad_()
    assert next(iter(shared.parameters())) is parameters[0]
    assert list(shared.state_dict()) == names

    expected = whole(all_rows)
    out = shared(own)  # of 4 rows in one process and of 3 in the other
    torch.testing.assert_close(out, expected[rank::world])
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(shared.state_dict()[name], value)

    expected[:6].pow(3).sum().backward()
    three = gathered(out[:3])
    torch.testing.assert_close(three, expected[:6])
    three.pow(3).sum().backward()
    torch.testing.assert_close(own.grad, world * all_rows.grad[rank::world], rtol=1e-4, atol=1e-5)
    total = mean(shared[0].weight.grad)  # as DDP takes it
    torch.testing.assert_close(total, whole[0].weight.grad, rtol=1e-4, atol=1e-5)

    torch.testing.assert_close(shared.eval()(own), whole.eval()(own))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
