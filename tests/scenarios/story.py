"""Plays a story: lines that begin with `> ` are commands, the lines below are what the members then did.

Words of a command line: `cluster SIZE [learners=N] [setting=value ...]`, `tick WHO [COUNT]`, `settle`, `propose WHO DATA...`,
`read WHO CONTEXT...`, `transfer WHO [TARGET]`, `compact WHO INDEX`, `isolate WHO...`, `drop KIND`, `heal`, `crash WHO`,
`restart WHO`, `reset WHO PEER`, `hold-saves WHO`, `finish-saves WHO`, `clock MS`, `status`. WHO is a member or `all`.
`quietly COMMAND` does it without telling. Everything but `settle` only changes the members; `settle` lets effects and messages
run until nothing is left, and `tick` settles by itself. A message after `then` leaves once that member's save is durable.
"""

from collections.abc import Callable, Sequence

from raftkv.limits import Limits
from raftkv.raft.effects import Effects
from raftkv.raft.messages import (
    ENTRY_CONFIGURATION,
    ENTRY_NOOP,
    AppendEntries,
    AppendEntriesResponse,
    Entry,
    Heartbeat,
    HeartbeatResponse,
    InstallSnapshotResponse,
    Message,
    ReadIndex,
    ReadIndexResponse,
    RequestVote,
    RequestVoteResponse,
)
from tests.unit.raft.cluster import Cluster, Node


def show_entries(entries: Sequence[Entry]) -> str:
    def data(entry: Entry) -> str:
        if entry.kind == ENTRY_NOOP:
            return "noop"
        return "configuration" if entry.kind == ENTRY_CONFIGURATION else entry.data.decode()

    return "[" + ", ".join(f"{entry.index}/{entry.term} {data(entry)}" for entry in entries) + "]"


def show_append_response(m: AppendEntriesResponse) -> str:
    if m.rejected:
        return f"rejects previous={m.match_index} hint={m.hint_index}/{m.hint_term}"
    return f"accepts match={m.match_index}"


SHOWN: dict[type, Callable[..., str]] = {
    RequestVote: lambda m: f"last={m.last_index}/{m.last_term}" + " pre-vote" * m.pre_vote + " transfer" * m.transfer,
    RequestVoteResponse: lambda m: ("grants" if m.granted else "refuses") + " pre-vote" * m.pre_vote,
    AppendEntries: lambda m: (
        f"previous={m.previous_index}/{m.previous_term} commit={m.commit_index} {show_entries(m.entries)}"
    ),
    AppendEntriesResponse: show_append_response,
    Heartbeat: lambda m: f"commit={m.commit_index} round={m.read_round}",
    HeartbeatResponse: lambda m: f"round={m.read_round}" + f" promise={m.promise_ms}ms" * bool(m.promise_ms),
    InstallSnapshotResponse: lambda m: f"next={m.next_offset}" + " installed" * m.installed,
    ReadIndex: lambda m: f"context={m.context}",
    ReadIndexResponse: lambda m: f"context={m.context} index={m.index}",
}


def show(message: Message) -> str:
    details = SHOWN.get(type(message), lambda m: "")(message)
    return f"-> {message.target} {type(message).__name__} term={message.term} {details}".rstrip()


class Story:
    """A cluster and what it says."""

    def __init__(self) -> None:
        self.cluster = Cluster(1)
        self.lines: list[str] = []
        self.quiet = False
        self.clock_ms = 0

    def run(self, command: str) -> list[str]:
        """Carry out one command; returns what the members did."""
        self.lines = []
        words = command.split()
        self.quiet = words[0] == "quietly"
        if self.quiet:
            del words[0]
        COMMANDS[words[0]](self, *words[1:])
        return [] if self.quiet else self.lines

    def members(self, who: str) -> list[Node]:
        return list(self.cluster.nodes.values()) if who == "all" else [self.cluster.nodes[int(who)]]

    def observe(self, node: Node, effects: Effects) -> None:
        name = node.config.node_id
        for message in effects.send_now:
            self.lines.append(f"{name} {show(message)}")
        save = []
        if effects.restored is not None:
            save.append(f"snapshot {effects.restored.index}/{effects.restored.term}")
        if effects.hard_state is not None:
            save.append(f"term={effects.hard_state.term} vote={effects.hard_state.vote}")
        if effects.entries:
            save.append(show_entries(effects.entries))
        if save:
            self.lines.append(f"{name} saves {' '.join(save)}")
        for message in effects.send_after_save:
            self.lines.append(f"{name} then {show(message)}")
        if effects.need_snapshot:
            self.lines.append(f"{name} needs a snapshot")
        for chunk in effects.snapshot_chunks:
            of = f"snapshot {chunk.snapshot.index}/{chunk.snapshot.term}"
            self.lines.append(f"{name} sends {chunk.target} the bytes of {of} from {chunk.offset}")
        if effects.committed:
            self.lines.append(f"{name} applies {show_entries(effects.committed)}")
        for ready in effects.reads:
            self.lines.append(f"{name} serves read {ready.context} at {ready.index}")
        for context in effects.reads_failed:
            self.lines.append(f"{name} fails read {context}")
        if effects.role_change is not None:
            change = effects.role_change
            self.lines.append(f"{name} is {change.role} in term {change.term}, leader {change.leader or 'nobody'}")

    # Commands.

    def do_cluster(self, size: str, *settings: str) -> None:
        given = dict(setting.split("=") for setting in settings)
        learners = int(given.pop("learners", "0"))
        values: dict[str, object] = {
            name: value == "on" if value in ("on", "off") else int(value) for name, value in given.items()
        }
        bounds = {name: values.pop(name) for name in list(values) if name.endswith(("_max", "_bytes"))}
        limits = Limits(**bounds) if bounds else None  # type: ignore[arg-type]
        self.cluster = Cluster(int(size), learners=learners, limits=limits, clock_ms=lambda: self.clock_ms, **values)
        self.cluster.observer = self.observe

    def do_tick(self, who: str, count: str = "1") -> None:
        for _ in range(int(count)):
            for node in self.members(who):
                if node.alive:
                    node.raft.tick()
            self.cluster.settle()

    def do_settle(self) -> None:
        self.cluster.settle()

    def do_propose(self, who: str, *data: str) -> None:
        for item in data:
            self.members(who)[0].raft.propose(1, item.encode())

    def do_read(self, who: str, *contexts: str) -> None:
        for context in contexts:
            self.members(who)[0].raft.read_index(int(context))

    def do_transfer(self, who: str, target: str = "") -> None:
        self.members(who)[0].raft.transfer_leadership(int(target) if target else None)

    def do_compact(self, who: str, index: str) -> None:
        for node in self.members(who):
            node.compact(int(index))

    def do_isolate(self, *who: str) -> None:
        self.cluster.isolate(*map(int, who))

    def do_drop(self, kind: str) -> None:
        self.cluster.drop = lambda message: type(message).__name__ == kind

    def do_heal(self) -> None:
        self.cluster.heal()

    def do_crash(self, who: str) -> None:
        self.cluster.crash(int(who))

    def do_restart(self, who: str) -> None:
        self.cluster.restart(int(who))

    def do_reset(self, who: str, peer: str) -> None:
        self.cluster[int(who)].on_peer_reset(int(peer))

    def do_hold_saves(self, who: str) -> None:
        self.cluster.saves_held.add(int(who))

    def do_finish_saves(self, who: str) -> None:
        self.cluster.saves_held.discard(int(who))
        while self.cluster.nodes[int(who)].finish_save():
            pass

    def do_clock(self, now_ms: str) -> None:
        self.clock_ms = int(now_ms)

    def do_status(self) -> None:
        for node_id, node in self.cluster.nodes.items():
            raft = node.raft
            text = f"{node_id} {raft.role if node.alive else 'down'} term={raft.term} leader={raft.leader or 'nobody'}"
            log = f"log={raft.log_start_index + 1}..{raft.last_index}/{raft.last_term} commit={raft.commit_index}"
            self.lines.append(f"{text} {log} data={b' '.join(node.data).decode()}".rstrip())


COMMANDS: dict[str, Callable[..., None]] = {
    "cluster": Story.do_cluster,
    "tick": Story.do_tick,
    "settle": Story.do_settle,
    "propose": Story.do_propose,
    "read": Story.do_read,
    "transfer": Story.do_transfer,
    "compact": Story.do_compact,
    "isolate": Story.do_isolate,
    "drop": Story.do_drop,
    "heal": Story.do_heal,
    "crash": Story.do_crash,
    "restart": Story.do_restart,
    "reset": Story.do_reset,
    "hold-saves": Story.do_hold_saves,
    "finish-saves": Story.do_finish_saves,
    "clock": Story.do_clock,
    "status": Story.do_status,
}


def retell(text: str) -> str:
    """Play the commands of a story again; comments and empty lines stay, what happened is written anew."""
    story = Story()
    told: list[str] = []
    for line in text.splitlines():
        if line.startswith("> "):
            told += [line, *(f"  {event}" for event in story.run(line[2:]))]
        elif not line.startswith("  "):
            told.append(line)
    return "\n".join(told) + "\n"
