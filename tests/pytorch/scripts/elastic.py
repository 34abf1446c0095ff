"""A worker under torchrun: meets the others, works in small steps, and in its first life one of them dies. Started by the tests."""

import os
import sys
import time
from datetime import timedelta

import torch
import torch.distributed as dist


def main(dying_rank: int, marker: str, steps: int) -> None:
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    rank, restart = dist.get_rank(), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    print(f"rank {rank} of {dist.get_world_size()} at {os.environ['MASTER_ADDR']}, restart {restart}", flush=True)
    for step in range(steps):
        done = torch.ones(1)
        dist.all_reduce(done)
        assert done.item() == dist.get_world_size()
        if rank == dying_rank and step == steps // 2 and not os.path.exists(marker):
            with open(marker, "w") as file:
                file.write("died")
            os._exit(17)
        time.sleep(0.05)  # a step of work
    print(f"rank {rank} has finished", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
