"""One rank of a small job: a group, an all_reduce, a group of some, a step of DDP. Prints `rank R of W: SUM`; started by the tests."""

import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import raftkv.torch  # noqa: F401 -- registers raftkv://


def main(init_method: str, rank: int, world_size: int) -> None:
    group = {} if rank < 0 else {"rank": rank, "world_size": world_size}
    dist.init_process_group("gloo", init_method=init_method, timeout=timedelta(seconds=90), **group)
    rank, world_size = dist.get_rank(), dist.get_world_size()
    total = torch.tensor([float(rank + 1)])
    dist.all_reduce(total)
    some = dist.new_group([0, world_size - 1])
    if rank in (0, world_size - 1):
        part = torch.ones(1)
        dist.all_reduce(part, group=some)
        assert part.item() == 2, part
    torch.manual_seed(1)
    model = DistributedDataParallel(torch.nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.full((2, 4), float(rank))).sum().backward()
    optimizer.step()
    weights = [torch.zeros(1, 4) for _ in range(world_size)]
    dist.all_gather(weights, model.module.weight.data)
    assert all(torch.equal(weights[0], other) for other in weights), "ranks disagree after a step"
    dist.barrier()
    print(f"rank {rank} of {world_size}: {total.item():g}", flush=True)
    dist.destroy_process_group()
    # A thread of gloo's may still let go of a tensor, and torch aborts when the interpreter ends meanwhile (pytorch#190489), with any store.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
