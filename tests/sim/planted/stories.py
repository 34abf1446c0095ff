"""The scripts of bugs that chance practically never shows. Each must be played to its end, and pass, with the right code.

Where a script waits for something or expects it, that is to know that it got where the bug shows; the promises themselves are
only looked after by the checks of every world.
"""

from raftkv.raft.messages import AppendEntries, AppendEntriesResponse, Configuration, Message
from raftkv.replica.service import LEADER

from .stage import Stage

ONE_ENTRY_A_MESSAGE = {"value_bytes_max": 320, "request_bytes_max": 350, "append_message_bytes_max": 351}
LARGE = b"x" * 320
"""A value that leaves no room for another entry in such a message."""

NOTHING_RETAINED = {
    "log_retained_entries_max": 5,
    "log_retained_bytes_max": 1024,
    "commit_interval_ms": 50,
    "commit_bytes": 64,
}


def figure_3_7(stage: Stage) -> None:
    """3.6.2: an entry of an old term is on a majority, and is replaced all the same."""
    stage.open(5)
    # (a) S1 leads and brings its second entry to S2 alone.
    stage.elect(1)
    stage.rest()
    stage.lose(lambda message: message.source == 1 and message.target != 2)
    old = stage.write(1, b"old")
    term = stage.process(1).raft.term
    stage.wait("S2 has the entry", lambda: stage.holds(2, old, term))
    # (b) S1 dies. S5 is elected by S3 and S4, has another entry at the index, and dies before anybody hears of it.
    stage.stop(1)
    stage.lose(lambda message: message.source == 5 and type(message) is AppendEntries)
    stage.elect(5)
    newer = stage.process(5).raft.term
    stage.wait("S5 has another entry there", lambda: stage.holds(5, old, newer))
    stage.stop(5)
    # (c) S1 is back and leads. Its old entry reaches S3, and with that a majority; the one of its own term reaches nobody.
    stage.start(1)
    stage.rest()
    stage.lose(lambda message: _shortened(message, newer))
    stage.elect(1)
    stage.wait("S3 has the old entry", lambda: stage.holds(3, old, term))
    stage.rest(500_000)
    # (d) S1 and S2 are gone. S5 is elected by S3 and S4, whose logs are older, and brings its entry to everybody.
    stage.stop(1)
    stage.stop(2)
    stage.heal()
    stage.start(5)
    stage.rest()
    stage.elect(5)
    stage.wait("S5's entry replaces the old one", lambda: stage.holds(3, old, newer))
    stage.start(1)
    stage.start(2)
    stage.wait("everybody has it", lambda: stage.holds(1, old, newer) and stage.holds(2, old, newer))


def _shortened(message: Message, term: int) -> bool:
    """Let a message through as if it had been sent before there were entries of later terms than `term`."""
    if type(message) is AppendEntries:
        message.entries = [entry for entry in message.entries if entry.term <= term]
    return False


def configuration_arrives_early(stage: Stage) -> None:
    """4.1: a follower lacks the entry before a configuration, and so cannot have the configuration either."""
    stage.open(3, limits=ONE_ENTRY_A_MESSAGE)
    stage.elect(1)
    stage.rest()
    lost = [LARGE]

    def is_lost(message: Message) -> bool:
        return (
            type(message) is AppendEntries
            and message.target == 3
            and any(value in entry.data for entry in message.entries for value in lost)
        )

    stage.lose(is_lost)
    missing = stage.write(1, LARGE)
    changed = stage.change(1, Configuration(frozenset({1, 2, 3}), learners=frozenset({4})))
    stage.wait("the change is committed without n3", lambda: stage.process(1).raft.commit_index >= changed)
    stage.expect("n3 lacks what is before the configuration", stage.process(3).raft.last_index < missing)
    lost.clear()
    stage.wait("n3 catches up", lambda: stage.process(3).raft.commit_index >= changed)


def configuration_is_replaced(stage: Stage) -> None:
    """4.1: a change reaches nobody but its leader, and the next leader has another entry there."""
    stage.open(3)
    stage.elect(1)
    stage.rest()
    stage.cut_off(1)
    changed = stage.change(1, Configuration(frozenset({1, 2, 3}), learners=frozenset({4})))
    stage.rest()
    stage.expect("n1 acts by what it appended", bool(stage.process(1).raft.configuration.learners))
    stage.elect(2)
    stage.write(2, b"other")
    stage.rest()
    stage.heal()
    newer = stage.process(2).raft.term
    stage.wait("n1 has n2's entry instead", lambda: stage.holds(1, changed, newer))
    stage.rest()


def joint_configuration(stage: Stage) -> None:
    """4.3: of the old members only the leader hears anything, so nothing may be committed."""
    stage.open(3, spares=2)
    stage.elect(1)
    stage.rest()
    stage.start(4)
    stage.start(5)
    stage.lose(lambda message: message.target in (2, 3))
    joint = Configuration(frozenset({1, 4, 5}), frozenset({1, 2, 3}))
    changed = stage.change(1, joint)
    term = stage.process(1).raft.term
    stage.wait("all new members have it", lambda: stage.holds(4, changed, term) and stage.holds(5, changed, term))
    stage.rest(500_000)
    stage.heal()
    stage.wait("the old ones have it too", lambda: stage.process(2).raft.commit_index >= changed)


def joint_election(stage: Stage) -> None:
    """4.3: a new member has the votes of the new ones only."""
    stage.open(3, spares=2)
    stage.elect(1)
    stage.rest()
    stage.start(4)
    stage.start(5)
    stage.lose(lambda message: message.target in (2, 3))
    changed = stage.change(1, Configuration(frozenset({1, 4, 5}), frozenset({1, 2, 3})))
    term = stage.process(1).raft.term
    stage.wait("all new members have it", lambda: stage.holds(4, changed, term) and stage.holds(5, changed, term))
    stage.stop(1)
    stage.stand(4)
    stage.heal()
    stage.elect(4)
    stage.start(1)
    stage.wait("everybody has it", lambda: stage.process(2).raft.commit_index >= changed)


def membership_changed_at_once(stage: Stage) -> None:
    """4.1: two leaders change the membership by one member each, and their majorities do not overlap."""
    stage.open(4, spares=1)
    stage.elect(1)
    stage.rest()
    stage.start(5)
    # S1 takes S5 in, and only S5 hears of it.
    stage.lose(lambda message: message.source == 1 and message.target != 5)
    changed = stage.change(1, Configuration(frozenset({1, 2, 3, 4, 5})))
    term = stage.process(1).raft.term
    stage.wait("S5 has it", lambda: stage.holds(5, changed, term))
    # S2 is elected by S3 and S4, and removes S1; of the entries of its term S3 alone hears.
    stage.cut_off(1, 5)
    stage.lose(lambda message: type(message) is AppendEntries and message.target == 4)
    stage.elect(2)
    stage.change(2, Configuration(frozenset({2, 3, 4})))
    stage.rest(500_000)
    # S1 is elected by S4 and S5.
    stage.heal()
    stage.cut_off(2, 3)
    stage.rest()
    stage.expect("S1 has heard that its term is over", stage.process(1).raft.role != LEADER)
    stage.elect(1)
    stage.rest()
    stage.heal()
    stage.rest(500_000)


def learners_only(stage: Stage) -> None:
    """4.2.1: a leader and its learners are no quorum."""
    stage.open(3, spares=2)
    stage.elect(1)
    stage.rest()
    stage.start(4)
    stage.start(5)
    changed = stage.change(1, Configuration(frozenset({1, 2, 3}), learners=frozenset({4, 5})))
    stage.wait("the learners follow", lambda: stage.process(4).raft.commit_index >= changed)
    stage.lose(lambda message: message.target in (2, 3))
    written = stage.write(1, b"only on learners")
    term = stage.process(1).raft.term
    stage.wait("the learners have it", lambda: stage.holds(4, written, term) and stage.holds(5, written, term))
    stage.rest(500_000)
    stage.heal()
    stage.wait("the voters have it too", lambda: stage.process(2).raft.commit_index >= written)


def membership_in_a_snapshot(stage: Stage) -> None:
    """5.1: a member slept through a change of the membership, and all that it needs is compacted."""
    stage.open(3, spares=1, limits=NOTHING_RETAINED, election_timeout_ticks=40)
    stage.elect(1)
    stage.rest()
    stage.stop(3)
    stage.start(4)
    changed = stage.change(1, Configuration(frozenset({1, 2, 3, 4})))
    stage.wait("the new member counts", lambda: stage.process(4).raft.commit_index >= changed)
    for number in range(20):
        stage.write(1, b"%d" % number)
        stage.rest(50_000)
    stage.wait("the change is compacted", lambda: stage.process(1).raft.log_start_index > changed)
    stage.start(3)
    last = stage.process(1).raft.last_index
    stage.wait("n3 catches up", lambda: stage.process(3).raft.commit_index >= last)
    stage.expect("by a snapshot", stage.process(3).storage.snapshots_installed > 0)
    stage.elect(3)
    stage.write(3, b"after")
    stage.rest()


def session_ends_before_the_retry(stage: Stage) -> None:
    """6.3: a write is done, its answer is lost, its session ends for idleness, and then the client sends it again."""
    stage.open(3, limits={"session_ttl_ms": 1_000})
    stage.elect(1)
    stage.rest()
    stage.increment(1, sequence=1, register=True, answered=True)
    stage.increment(1, sequence=2, register=False, answered=False)
    store = stage.process(1).storage.store
    stage.wait("its session ends", lambda: store.sessions_count == 0)
    stage.increment(1, sequence=2, register=False, answered=None)
    stage.world.judge()


def transfer_under_a_lease(stage: Stage) -> None:
    """6.4.1: the old leader tells n2 to take over, and hears no more; its lease would last for a long time yet."""
    stage.open(3, lease_reads=True, check_quorum=True)
    stage.elect(1)
    stage.rest(1_000_000)
    stage.expect("n1 reads by its lease", stage.read(1))
    stage.lose(lambda message: message.target == 1 and type(message) is not AppendEntriesResponse)
    stage.process(1).transfer(2)
    stage.wait("n2 leads", lambda: stage.process(2).raft.role == LEADER)
    written = stage.write(2, b"newer")
    stage.wait("n2 has applied it", lambda: stage.process(2).storage.applied_index >= written)
    stage.wait("and tells somebody", lambda: stage.read(2) or stage.world.checks.acknowledged_index >= written)
    stage.expect("n1 does not know", stage.process(1).raft.role == LEADER)
    stage.read(1)
    stage.heal()
    stage.rest()
