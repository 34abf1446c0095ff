"""Plays a story: lines that begin with `> ` are commands, the lines below are what the members then did.

README.md lists the words of a command line. Everything but `settle` and `tick` only changes the members; `settle` lets effects,
saves and messages run until nothing is left, and `tick` settles by itself. What a member refuses is told, not raised.
"""

from collections.abc import Callable

from raftkv.errors import RaftKVError
from raftkv.limits import Limits
from raftkv.raft.effects import Effects
from raftkv.raft.membership import encode_configuration, leave_joint
from raftkv.raft.messages import ENTRY_CONFIGURATION, Configuration, Entry, Message
from tests.scenarios.telling import show_configuration, tell, tell_progress, tell_status
from tests.unit.raft.cluster import Cluster, Disk, Node, config_of

NO_MEMBERS = Configuration(frozenset())
"""What a member knows that has only just been made: it waits to be told."""


def settings_of(words: tuple[str, ...]) -> dict[str, object]:
    """`setting=value` as keyword arguments: on and off are booleans, everything else is a number."""
    given = dict(word.split("=") for word in words)
    values: dict[str, object] = {
        name: value == "on" if value in ("on", "off") else int(value) for name, value in given.items()
    }
    bounds = {name: values.pop(name) for name in list(values) if name.endswith(("_max", "_bytes"))}
    if bounds:
        values["limits"] = Limits(**bounds)  # type: ignore[arg-type]
    return values


def members_of(text: str) -> frozenset[int]:
    return frozenset(map(int, text.split(",")))


class Story:
    """A cluster and what it says."""

    def __init__(self) -> None:
        self.cluster = Cluster(1)
        self.settings: dict[str, object] = {}
        self.configurations: dict[int, Configuration] = {}
        self.lines: list[str] = []
        self.clock_ms = 0

    def run(self, command: str) -> list[str]:
        """Carry out one command; returns what the members did."""
        self.lines = []
        words = command.split()
        is_quiet = words[0] == "quietly"
        if is_quiet:
            del words[0]
        try:
            COMMANDS[words[0]](self, *words[1:])
        except RaftKVError as error:
            if is_quiet:
                raise AssertionError(f"{command}: a refusal is never quiet: {error.message}") from error
            self.lines.append(f"refused: {error.message}")
        return [] if is_quiet else self.lines

    def end(self) -> None:
        """What must hold at the end of every story, besides what the cluster checks on the way."""
        self.cluster.check_logs()

    def members(self, who: str) -> list[Node]:
        return list(self.cluster.nodes.values()) if who == "all" else [self.cluster.nodes[int(who)]]

    def observe(self, node: Node, effects: Effects) -> None:
        self.lines += tell(node, effects)
        name, configuration = node.config.node_id, node.raft.configuration
        if self.configurations.setdefault(name, configuration) != configuration:
            self.configurations[name] = configuration
            self.lines.append(f"{name} goes by {show_configuration(configuration)}")

    # The cluster.

    def do_cluster(self, size: str, *settings: str) -> None:
        self.settings = {"clock_ms": lambda: self.clock_ms, **settings_of(settings)}
        learners = self.settings.pop("learners", 0)
        self.cluster = Cluster(int(size), learners=learners, **self.settings)  # type: ignore[arg-type]
        self.cluster.observer = self.observe
        self.configurations = {name: node.raft.configuration for name, node in self.cluster.nodes.items()}

    def do_join(self, who: str) -> None:
        node = Node(self.cluster, config_of(int(who), **self.settings), Disk(NO_MEMBERS))
        self.cluster.nodes[int(who)] = node
        self.configurations[int(who)] = NO_MEMBERS

    def do_log(self, who: str, *terms: str) -> None:
        """A member with this log and nothing committed, as after a restart; it knows the last of its terms, or `term=N`."""
        *given, last = terms
        term = int(last.removeprefix("term=")) if last.startswith("term=") else int(last)
        terms = tuple(given) if last.startswith("term=") else terms
        for node in self.members(who):
            entries = [Entry(index, int(term), 1, b"%d" % index) for index, term in enumerate(terms, 1)]
            node.disk = Disk(node.disk.configuration, entries=entries)
            node.disk.hard_state.term = term
            node.start()

    # Time and the wire.

    def do_tick(self, who: str, count: str = "1") -> None:
        for _ in range(int(count)):
            self.do_pass(who)
            self.cluster.settle()

    def do_pass(self, who: str, count: str = "1") -> None:
        for _ in range(int(count)):
            for node in self.members(who):
                if node.alive:
                    node.raft.tick()

    def do_settle(self, *who: str) -> None:
        self.cluster.settle(only={int(name) for name in who} or None)

    def on_wire(self, change: Callable[[list[Message]], list[Message]], who: tuple[str, ...]) -> None:
        """Change what is under way to these members; everything else keeps its order."""
        targets = {int(name) for name in who}
        theirs = [message for message in self.cluster.wire if message.target in targets]
        others = [message for message in self.cluster.wire if message.target not in targets]
        assert theirs, "nothing is under way to them"
        self.cluster.wire = others + change(theirs)

    def do_lose(self, *who: str) -> None:
        self.on_wire(lambda messages: [], who)

    def do_double(self, *who: str) -> None:
        self.on_wire(lambda messages: messages * 2, who)

    def do_reverse(self, *who: str) -> None:
        self.on_wire(lambda messages: messages[::-1], who)

    def do_isolate(self, *who: str) -> None:
        self.cluster.isolate(*map(int, who))

    def do_cut(self, source: str, *targets: str) -> None:
        self.cluster.cuts.update((int(source), int(target)) for target in targets)

    def do_drop(self, kind: str) -> None:
        self.cluster.drop = lambda message: type(message).__name__ == kind

    def do_heal(self) -> None:
        self.cluster.heal()

    # What members are asked to do.

    def do_propose(self, who: str, *data: str) -> None:
        for item in data:
            self.members(who)[0].raft.propose(1, item.encode())

    def do_configure(self, who: str, *parts: str) -> None:
        given = dict(part.split("=") for part in parts if "=" in part)
        sets = {name: members_of(value) for name, value in given.items()}
        assert sets.keys() <= {"voters", "outgoing", "learners", "next"}, parts
        nobody: frozenset[int] = frozenset()
        configuration = Configuration(
            sets["voters"],
            sets.get("outgoing", nobody),
            sets.get("learners", nobody),
            sets.get("next", nobody),
            "auto-leave" in parts,
        )
        self.members(who)[0].raft.propose(ENTRY_CONFIGURATION, encode_configuration(configuration))

    def do_leave(self, who: str) -> None:
        raft = self.members(who)[0].raft
        raft.propose(ENTRY_CONFIGURATION, encode_configuration(leave_joint(raft.configuration)))

    def do_read(self, who: str, *contexts: str) -> None:
        for context in contexts:
            self.members(who)[0].raft.read_index(int(context))

    def do_transfer(self, who: str, target: str = "") -> None:
        self.members(who)[0].raft.transfer_leadership(int(target) if target else None)

    def do_compact(self, who: str, index: str) -> None:
        for node in self.members(who):
            node.compact(int(index))

    # What happens to members.

    def do_crash(self, who: str) -> None:
        self.cluster.crash(int(who))

    def do_restart(self, who: str, *settings: str) -> None:
        for node in self.members(who):
            node.crash()
            node.config = config_of(node.config.node_id, **{**self.settings, **settings_of(settings)})
            node.start()
            self.configurations[node.config.node_id] = node.raft.configuration

    def do_reset(self, who: str, peer: str) -> None:
        self.cluster[int(who)].on_peer_reset(int(peer))

    def do_unreachable(self, who: str, peer: str) -> None:
        self.cluster[int(who)].on_peer_unreachable(int(peer))

    def do_hold_saves(self, who: str) -> None:
        self.cluster.saves_held.add(int(who))

    def do_finish_save(self, who: str) -> None:
        assert self.cluster.nodes[int(who)].finish_save(), "no save is under way"

    def do_finish_saves(self, who: str) -> None:
        self.cluster.saves_held.discard(int(who))
        while self.cluster.nodes[int(who)].finish_save():
            pass

    def do_fail_snapshots(self, who: str) -> None:
        self.cluster.installs_fail.add(int(who))

    def do_mend_snapshots(self, who: str) -> None:
        self.cluster.installs_fail.discard(int(who))

    def do_make_snapshots(self, answer: str) -> None:
        self.cluster.makes_snapshots = answer == "on"

    def do_withdraw(self, who: str) -> None:
        self.cluster[int(who)].withdraw_snapshot()

    def do_clock(self, now_ms: str) -> None:
        self.clock_ms = int(now_ms)

    # What can be looked at.

    def do_status(self) -> None:
        self.lines += map(tell_status, self.cluster.nodes.values())

    def do_logs(self) -> None:
        for name, node in self.cluster.nodes.items():
            self.lines.append(f"{name} " + " ".join(f"{index}/{term}" for index, term in node.log()))

    def do_progress(self, who: str, *peers: str) -> None:
        node = self.members(who)[0]
        names = [int(peer) for peer in peers] or [name for name in self.cluster.nodes if name != int(who)]
        self.lines += [tell_progress(node, name) for name in names]


COMMANDS: dict[str, Callable[..., None]] = {
    name.removeprefix("do_").replace("_", "-"): command
    for name, command in vars(Story).items()
    if name.startswith("do_")
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
    story.end()
    return "\n".join(told) + "\n"
