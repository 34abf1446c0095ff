"""What goes wrong, and when: a disaster every now and then, of the kinds that the seed allows, each healed after a while.

Nothing here breaks a promise of the environment that raftkv needs: a disk keeps what it synced, unless it rots, and at most a minority
rots; clocks never go back; with leases on they drift less than the settings allow.
"""

from itertools import combinations
from typing import TYPE_CHECKING, Callable

from raftkv.raft.messages import Configuration
from raftkv.raft.quorum import has_quorum
from raftkv.replica.membership import Newcomer, Request
from raftkv.replica.service import LEADER
from raftkv.units import NodeId
from raftkv.wire.commands import OK, Answer

from .network import CLIENT_PLACES

if TYPE_CHECKING:
    from .machine import Machine
    from .world import World

OUTAGE_US = 2_000_000  # mean length of a disaster that heals
LEAP_US_MAX = 2_000_000
LEAPS_MAX = 5  # all leaps together must not outlive a session


class Nemesis:
    """The disasters of one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._random = world.stream("nemesis")
        self._over = False
        self._leaps = 0
        self.newcomer: NodeId = 0  # whose id the cluster is about to draw
        self.struck: dict[str, int] = {}

    def start(self) -> None:
        if self._world.knobs.nemesis_us and self._world.knobs.disasters:
            self._later()

    def stop(self) -> None:
        """Faults are over: everything heals, except for what `faulty_minority` keeps broken."""
        self._over = True
        world = self._world
        world.network.heal()
        broken = self._broken_minority() if world.knobs.faulty_minority else []
        for machine in world.machines.values():
            machine.failing_syncs = False
            machine.extra_sync_us = 0
            machine.fill_disk(full=False)
            if machine not in broken:
                machine.held_down = False
        for machine in broken:
            self._break_for_good(machine)
        members = world.members_now()
        for machine in world.machines.values():
            if machine.process is None and (machine.lives or machine.node_id in members):
                machine.restart_later()

    def _later(self) -> None:
        delay_us = int(self._random.expovariate(1 / self._world.knobs.nemesis_us)) + 1
        self._world.after(delay_us, self._strike)

    def _strike(self) -> None:
        if self._over:
            return
        name = self._random.choice(self._world.knobs.disasters)
        machine = self._draw_machine()
        self.struck[name] = self.struck.get(name, 0) + 1
        self._world.tell(f"nemesis: {name} ({machine.name})")
        DISASTERS[name](self, machine)
        self._later()

    def _heal_later(self, heal: Callable[[], None]) -> None:
        delay_us = int(self._random.expovariate(1 / OUTAGE_US)) + 10_000
        self._world.after(delay_us, self._heal, (heal,))

    def _heal(self, heal: Callable[[], None]) -> None:
        if not self._over:
            heal()

    def _draw_machine(self) -> "Machine":
        """Half of the time the leader: that is where it hurts."""
        leaders = [machine for machine in self._machines() if machine.process and machine.process.raft.role == LEADER]
        return self._random.choice(leaders if leaders and self._random.random() < 0.5 else self._machines())

    def _machines(self) -> "list[Machine]":
        return list(self._world.machines.values())

    # What stays broken.

    def _broken_minority(self) -> "list[Machine]":
        """As many as the cluster can do without, those whose log has rotted first, also when they have not noticed it yet.

        With a change of the membership under way: under every configuration that may come of it, also by the promotions that
        leaders make by themselves. A learner with a full disk answers, and may be promoted like any other.
        """
        rotten = self._world.checks.rotten
        machines = sorted(self._machines(), key=lambda machine: (machine.node_id not in rotten, self._random.random()))
        if not self._world.knobs.spares:
            return machines[: self._world.knobs.members - self._world.knobs.quorum]
        healthy = {machine.node_id for machine in machines if not machine.retired}
        broken = []
        configurations = self._possible_configurations()
        for machine in machines:
            without = healthy - {machine.node_id}
            if all(has_quorum(configuration, without) for configuration in configurations):
                broken.append(machine)
                healthy = without
        return broken

    def _possible_configurations(self) -> list[Configuration]:
        """Those that are in some log, and all that promotions may make of them: of whoever was announced as a voter."""
        tables = [machine.process.storage.store.members() for machine in self._machines() if machine.process]
        announced = {member["id"] for table in tables for member in table if member["wants_vote"]}
        configurations = [c for c in self._world.checks.possible_configurations() if c.voters]
        grown = []
        for voters in {configuration.voters for configuration in configurations}:
            waiting = sorted(announced - voters)
            for count in range(1, len(waiting) + 1):
                grown += [Configuration(voters.union(promoted)) for promoted in combinations(waiting, count)]
        return configurations + grown

    def _break_for_good(self, machine: "Machine") -> None:
        if machine.node_id in self._world.checks.rotten:
            return
        fate = self._random.choice(self._world.knobs.fates)
        if fate == "slow disk" and not self._world.knobs.pre_vote:
            # Its syncs outlast an election timeout, so it stands for election again and again: against that only pre-vote helps (9.6).
            fate = "dead"
        self._world.tell(f"nemesis: {machine.name} stays {fate}")
        network = self._world.network
        # Cut off from every client, too: who can reach only a leader that reaches nobody waits there, without check-quorum for ever (6.2).
        others = [place for place in self._everybody() if place != machine.node_id]
        if fate == "dead":
            machine.held_down = True
            machine.kill()
        elif fate == "full disk":
            machine.fill_disk(full=True)
        elif fate == "slow disk":
            machine.extra_sync_us = 1_000_000
        if fate in ("cut off", "deaf"):
            network.cut(others, [machine.node_id])
        if fate in ("cut off", "mute"):
            network.cut([machine.node_id], others)

    def _places(self) -> list[int]:
        world = self._world
        others = world.data.clients if world.data is not None else ()
        return [*world.machines, *(client.place for client in (*world.clients, *others))]

    def _everybody(self) -> list[int]:
        """The places, and those of clients whom no passing disaster cuts off."""
        world = self._world
        users = world.users.clients if world.users is not None else ()
        owners = [*(owner.client for owner in world.owners), *(worker.client for worker in world.pool_workers)]
        return [*self._places(), *(client.place for client in (*owners, *users))]

    # Processes.

    def _kill(self, machine: "Machine") -> None:
        machine.kill()

    def _lose_power(self, machine: "Machine") -> None:
        """Of one machine, or of the whole site."""
        for victim in self._machines() if self._random.random() < 0.15 else (machine,):
            victim.lose_power()

    def _shut_down(self, machine: "Machine") -> None:
        if machine.process is not None:
            machine.input(machine.process, machine.process.begin_shutdown)

    def _pause(self, machine: "Machine") -> None:
        machine.pause(int(self._random.expovariate(1 / self._world.knobs.election_timeout_us)) + 1_000)

    # The network.

    def _partition(self, machine: "Machine") -> None:
        places = self._places()
        self._random.shuffle(places)
        at = self._random.randint(1, len(places) - 1)
        network = self._world.network
        network.cut(places[:at], places[at:])
        network.cut(places[at:], places[:at])
        self._heal_later(network.cuts.clear)

    def _cut_one_way(self, machine: "Machine") -> None:
        others = [place for place in self._places() if place != machine.node_id]
        chosen = self._random.sample(others, self._random.randint(1, len(others)))
        network = self._world.network
        if self._random.random() < 0.5:
            network.cut([machine.node_id], chosen)
        else:
            network.cut(chosen, [machine.node_id])
        self._heal_later(network.cuts.clear)

    def _isolate(self, machine: "Machine") -> None:
        """From the other members, not from clients: they go on asking it."""
        network = self._world.network
        others = [node_id for node_id in self._world.machines if node_id != machine.node_id]
        network.cut([machine.node_id], others)
        network.cut(others, [machine.node_id])
        self._heal_later(network.cuts.clear)

    def _slow_link(self, machine: "Machine") -> None:
        slow = self._world.network.slow
        extra_us = int(self._random.expovariate(1 / self._world.knobs.election_timeout_us * 2))
        for place in self._places():
            slow[machine.node_id, place] = extra_us
            if self._random.random() < 0.5:
                slow[place, machine.node_id] = extra_us
        self._heal_later(slow.clear)

    def _lose_messages(self, machine: "Machine") -> None:
        network, loss = self._world.network, self._world.knobs.loss
        network.loss = self._random.choice((0.1, 0.4))

        def heal() -> None:
            network.loss = loss

        self._heal_later(heal)

    def _reset(self, machine: "Machine") -> None:
        """Connections break, and nobody died."""
        if machine.process is not None:
            for peer in self._world.machines:
                if peer != machine.node_id:
                    machine.receive("on_peer_reset", (peer,))

    # Disks.

    def _slow_disk(self, machine: "Machine") -> None:
        machine.extra_sync_us = int(self._random.expovariate(1 / 100_000))
        self._heal_later(lambda: setattr(machine, "extra_sync_us", 0))

    def _stall_disk(self, machine: "Machine") -> None:
        machine.extra_sync_us = 3_000_000
        self._heal_later(lambda: setattr(machine, "extra_sync_us", 0))

    def _fail_syncs(self, machine: "Machine") -> None:
        machine.failing_syncs = True
        self._heal_later(lambda: setattr(machine, "failing_syncs", False))

    def _fill_disk(self, machine: "Machine") -> None:
        machine.fill_disk(full=True)
        self._heal_later(lambda: machine.fill_disk(full=False))

    def _rot(self, machine: "Machine") -> None:
        """A bit of an old segment flips; the member will not start again, so at most a minority may rot."""
        rotten = [other for other in self._machines() if other.books.node_id in self._world.checks.rotten]
        if machine in rotten or len(rotten) >= self._world.knobs.members - self._world.knobs.quorum:
            return
        if machine.rot():
            self._world.checks.allow_rot(machine.node_id)
            machine.kill()

    # Clocks and people.

    def _leap_clock(self, machine: "Machine") -> None:
        if self._leaps < LEAPS_MAX:
            self._leaps += 1
            machine.clock.leap(int(self._random.random() * LEAP_US_MAX))

    def _drift(self, machine: "Machine") -> None:
        drift = self._world.knobs.drift_max
        machine.clock.set_rate(self._world.now_us, 1 + drift * (2 * self._random.random() - 1))

    def _transfer(self, machine: "Machine") -> None:
        if machine.process is not None:
            target = self._random.choice((None, *self._world.machines))
            machine.input(machine.process, machine.process.transfer, target)

    def _change_members(self, machine: "Machine") -> None:
        """Ask the leader for any change that comes to mind; what makes no sense or is dangerous it has to refuse."""
        leaders = [other for other in self._machines() if other.process and other.process.raft.is_leader]
        for member in sorted(self._world.members_now()):
            if not self._world.machines[member].lives:
                self._world.machines[member].start()  # it was taken in, and its asker did not hear of it
        if not leaders:
            return
        leader = max(leaders, key=lambda other: other.books.term)
        process = leader.process
        assert process is not None, "it leads"
        request = self._draw_change(process.raft.configuration)
        self._world.tell(f"nemesis: {leader.name} is asked for {request}")

        def on_answer(answer: Answer) -> None:
            self._world.tell(f"nemesis: {leader.name} answers {answer}")
            if answer[0] == OK:
                for node_id in answer[1]["ids"].values():
                    self._world.machines[node_id].start()

        leader.input(process, process.service.change_members, request, on_answer, 5_000)

    def _draw_change(self, now: Configuration) -> Request:
        random = self._random
        if random.random() < 0.4:
            spares = [other for other in self._machines() if other.node_id not in now.members() and not other.retired]
            if spares:
                spare = random.choice(spares)
                self.newcomer = spare.node_id
                return Request(
                    add=(Newcomer(spare.name, spare.peer_address, random.random() < 0.3, spare.incarnation),)
                )
        lists: dict[str, list[str]] = {"promote": [], "demote": [], "remove": []}
        for node_id in sorted(now.members()):
            if random.random() < 0.4:
                kind = "promote" if node_id in now.learners else random.choice(("demote", "remove"))
                lists[kind].append(self._world.machines[node_id].name)
        return Request(**{kind: tuple(names) for kind, names in lists.items()})

    def _lose_client(self, machine: "Machine") -> None:
        """A client dies in the middle of its calls; another one comes."""
        self._world.replace_client(self._random.randrange(len(self._world.clients)))


DISASTERS: dict[str, "Callable[[Nemesis, Machine], None]"] = {
    "kill": Nemesis._kill,
    "power_loss": Nemesis._lose_power,
    "shutdown": Nemesis._shut_down,
    "pause": Nemesis._pause,
    "partition": Nemesis._partition,
    "one_way_cut": Nemesis._cut_one_way,
    "isolate_leader": Nemesis._isolate,
    "slow_link": Nemesis._slow_link,
    "loss": Nemesis._lose_messages,
    "slow_disk": Nemesis._slow_disk,
    "stalled_disk": Nemesis._stall_disk,
    "failing_sync": Nemesis._fail_syncs,
    "full_disk": Nemesis._fill_disk,
    "bit_rot": Nemesis._rot,
    "clock_jump": Nemesis._leap_clock,
    "drift": Nemesis._drift,
    "reset": Nemesis._reset,
    "transfer": Nemesis._transfer,
    "client_gone": Nemesis._lose_client,
    "membership": Nemesis._change_members,
}

__all__ = ["CLIENT_PLACES", "DISASTERS", "Nemesis"]
