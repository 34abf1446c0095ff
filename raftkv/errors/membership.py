"""Why the membership is not changed. Here because they are many; importers take them from raftkv.errors like all others."""

from raftkv.errors import MembershipRefused


class MemberNotFound(MembershipRefused):
    """There is no such member."""

    code = "member_not_found"


class PeerAddressTaken(MembershipRefused):
    """Another member has this peer address."""

    code = "peer_address_taken"


class NotALearner(MembershipRefused):
    """The member has a vote already."""

    code = "not_a_learner"


class LearnerNotReady(MembershipRefused):
    """The member cannot get a vote yet: it has not caught up with the leader."""

    code = "learner_not_ready"


class QuorumWouldBeLost(MembershipRefused):
    """Too few members would be left that vote and answer."""

    code = "quorum_would_be_lost"
