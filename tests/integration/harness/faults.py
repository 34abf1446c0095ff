"""What happens to a cluster while a recipe is at work: leaders killed, stopped, and brought back."""

import asyncio

from raftkv_jepsen.machines.cluster import Cluster


async def kill_and_pause_leaders(cluster: Cluster, *, rounds: int = 2, between_s: float = 1.5) -> None:
    """One leader after the other: stopped until there is another, or killed and started again."""
    for round_ in range(rounds):
        await asyncio.sleep(between_s)
        leader = await asyncio.to_thread(cluster.leader)
        if round_ % 2:
            leader.kill()
            await asyncio.to_thread(cluster.leader, cluster.others(leader))
            leader.start()
        else:
            leader.pause()
            await asyncio.to_thread(cluster.leader, cluster.others(leader))
            leader.resume()
    await asyncio.to_thread(cluster.leader)
