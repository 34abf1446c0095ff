"""Bugs of configurations and of changes of the membership (chapter 4), and of majorities in general: raft/membership.py and its users."""

from collections.abc import Iterator
from typing import Any

from raftkv.raft import election, membership, replication
from raftkv.raft.messages import ENTRY_CONFIGURATION, AppendEntries, Configuration, Entry
from raftkv.raft.node import HANDLERS, Raft
from raftkv.raft.quorum import VOTE_WON, joint_vote, majority_value, majority_vote
from raftkv.raft.state import State

from . import stories
from .registry import bug, swapped


@bug(
    "elected by a minority",
    "a candidate takes one vote less than a majority for enough",
    "election safety: a quorum votes for a leader (3.4)",
    knobs={"members": 5},
)
def elected_by_a_minority() -> Iterator[None]:
    def one_less(configuration: Configuration, votes: dict[int, bool]) -> str:
        granted = sum(votes.get(voter) is True for voter in configuration.voters)
        return VOTE_WON if granted >= len(configuration.voters) // 2 else joint_vote(configuration, votes)

    with swapped(election, "joint_vote", one_less):
        yield


@bug(
    "joint configuration left at once",
    "a leader appends what follows on a joint configuration together with it",
    "both majorities have to have agreed before the old one counts no more (4.3)",
    knobs={
        "members": 5,
        "spares": 3,
        "disasters": ("isolate_leader", "membership", "membership"),
        "nemesis_us": 300_000,
    },
)
def joint_left_at_once() -> Iterator[None]:
    original = replication.append

    def append(state: State, kind: int, data: bytes) -> Entry:
        entry = original(state, kind, data)
        if kind == ENTRY_CONFIGURATION and state.configuration.voters_outgoing:
            left = membership.leave_joint(state.configuration)
            original(state, kind, membership.encode_configuration(left))
        return entry

    with swapped(replication, "append", append):
        yield


@bug(
    "a new leader changes the membership at once",
    "a leader appends another configuration before anything of its own term is committed",
    "majorities of two leaders' configurations overlap (4.1, the bug of single-server changes)",
    story=stories.membership_changed_at_once,
)
def membership_changed_at_once() -> Iterator[None]:
    def propose(self: Raft, kind: int, data: bytes) -> tuple[int, int]:
        entry = replication.append(self._state, kind, data)
        return entry.index, entry.term

    with swapped(Raft, "propose", propose):
        yield


@bug(
    "joint configuration elects by one majority",
    "only the votes of the new members are counted while a configuration is joint",
    "both majorities are needed (4.3)",
    story=stories.joint_election,
)
def joint_election_by_one_majority() -> Iterator[None]:
    def new_only(configuration: Configuration, votes: dict[int, bool]) -> str:
        return majority_vote(configuration.voters, votes)

    with swapped(election, "joint_vote", new_only):
        yield


@bug(
    "configuration used before it is in the log",
    "a follower acts by a configuration that it was sent, also when it cannot append it yet",
    "a member acts by the latest configuration of its log (4.1)",
    story=stories.configuration_arrives_early,
)
def configuration_before_the_log() -> Iterator[None]:
    original = HANDLERS[AppendEntries]

    def on_append_entries(state: State, message: AppendEntries) -> None:
        original(state, message)
        for entry in message.entries:
            if entry.kind == membership.ENTRY_CONFIGURATION:  # type: ignore[attr-defined]
                state.configuration = membership.decode_configuration(entry.data)

    with swapped(HANDLERS, AppendEntries, on_append_entries):
        yield


@bug(
    "configuration used only when committed",
    "a member goes on acting by the old configuration after it has appended the new one",
    "a member acts by the latest configuration of its log (4.1)",
    story=stories.configuration_arrives_early,
)
def configuration_after_the_log() -> Iterator[None]:
    original = membership.adopt_latest

    def adopt_latest(state: State) -> None:
        if state.history.latest_index <= state.commit_index:
            original(state)

    with swapped(membership, "adopt_latest", adopt_latest):
        yield


@bug(
    "configuration not rolled back",
    "a member goes on acting by a configuration whose entry was replaced",
    "a truncated entry takes its configuration back (4.1)",
    story=stories.configuration_is_replaced,
)
def configuration_not_rolled_back() -> Iterator[None]:
    def on_truncated(state: State, index: int) -> None:
        state.history.truncate_from(index)

    with swapped(membership, "on_truncated", on_truncated):
        yield


@bug(
    "joint configuration committed by one majority",
    "only the new members are counted while a configuration is joint",
    "both majorities are needed (4.3)",
    story=stories.joint_configuration,
)
def joint_by_one_majority() -> Iterator[None]:
    def new_only(configuration: Any, acked: dict[int, int]) -> int:
        return majority_value(configuration.voters, acked)

    with swapped(replication, "joint_value", new_only):
        yield


@bug(
    "learners count",
    "a leader counts the copies of learners, too",
    "durability: only voters make a quorum (4.2.1)",
    story=stories.learners_only,
)
def learners_count() -> Iterator[None]:
    def everybody(configuration: Any, acked: dict[int, int]) -> int:
        return majority_value(configuration.members(), acked)

    with swapped(replication, "joint_value", everybody):
        yield
