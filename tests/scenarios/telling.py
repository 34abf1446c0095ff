"""How a story words what the members do: one line per message, save, application or change of role.

The words are the golden text, so a change here changes every story (`--rewrite`). What is told is what the core asked for, in
the order of the effects' contract; a message after `then` leaves once that member's save is durable.
"""

from collections.abc import Callable, Iterable, Sequence

from raftkv.raft.effects import Effects
from raftkv.raft.membership import decode_configuration
from raftkv.raft.messages import (
    ENTRY_CONFIGURATION,
    ENTRY_NOOP,
    AppendEntries,
    AppendEntriesResponse,
    Configuration,
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
from tests.unit.raft.cluster import Node


def show_members(members: Iterable[int]) -> str:
    return ",".join(map(str, sorted(members))) or "nobody"


def show_configuration(configuration: Configuration) -> str:
    """As the `configure` command takes it."""
    parts = [f"voters={show_members(configuration.voters)}"]
    if configuration.voters_outgoing:
        parts.append(f"outgoing={show_members(configuration.voters_outgoing)}")
    if configuration.learners:
        parts.append(f"learners={show_members(configuration.learners)}")
    if configuration.learners_next:
        parts.append(f"next={show_members(configuration.learners_next)}")
    return " ".join(parts) + " auto-leave" * configuration.auto_leave


def show_entries(entries: Sequence[Entry]) -> str:
    def data(entry: Entry) -> str:
        if entry.kind == ENTRY_NOOP:
            return "noop"
        if entry.kind == ENTRY_CONFIGURATION:
            return f"({show_configuration(decode_configuration(entry.data))})"
        return entry.data.decode()

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


def tell(node: Node, effects: Effects) -> list[str]:
    """What one batch of effects of one member sounds like."""
    name = node.config.node_id
    lines = [f"{name} {show(message)}" for message in effects.send_now]
    save = []
    if effects.restored is not None:
        save.append(f"snapshot {effects.restored.index}/{effects.restored.term}")
    if effects.hard_state is not None:
        save.append(f"term={effects.hard_state.term} vote={effects.hard_state.vote}")
    if effects.entries:
        save.append(show_entries(effects.entries))
    if save:
        lines.append(f"{name} saves {' '.join(save)}")
    lines += [f"{name} then {show(message)}" for message in effects.send_after_save]
    if effects.need_snapshot:
        lines.append(f"{name} needs a snapshot")
    for chunk in effects.snapshot_chunks:
        of = f"snapshot {chunk.snapshot.index}/{chunk.snapshot.term}"
        lines.append(f"{name} sends {chunk.target} the bytes of {of} from {chunk.offset}")
    if effects.committed:
        lines.append(f"{name} applies {show_entries(effects.committed)}")
    lines += [f"{name} serves read {ready.context} at {ready.index}" for ready in effects.reads]
    lines += [f"{name} fails read {context}" for context in effects.reads_failed]
    if effects.role_change is not None:
        change = effects.role_change
        lines.append(f"{name} is {change.role} in term {change.term}, leader {change.leader or 'nobody'}")
    return lines


def tell_status(node: Node) -> str:
    raft = node.raft
    role = raft.role if node.alive else "down"
    text = f"{node.config.node_id} {role} term={raft.term} leader={raft.leader or 'nobody'}"
    log = f"log={raft.log_start_index + 1}..{raft.last_index}/{raft.last_term} commit={raft.commit_index}"
    log += f" durable={raft.durable_index}" * (raft.durable_index < raft.last_index)
    return f"{text} {log} data={b' '.join(node.data).decode()}".rstrip()


def tell_progress(node: Node, peer: int) -> str:
    """A follower as its leader sees it."""
    view = node.raft.progress(peer)
    if view is None:
        return f"{node.config.node_id} knows nothing of {peer}"
    text = f"{node.config.node_id} sees {peer} in {view.state} match={view.match_index} next={view.next_index}"
    return f"{text} in-flight={view.in_flight}" + " silent" * (not view.recently_active)
