"""The store as a plain dict and a full history: deliberately dumb, sharing no code with what it is compared with.

Every revision keeps a copy of the whole map. A command works on a copy and the copy is thrown away when it fails.
"""

from typing import Any

PUT, DELETE_RANGE, TXN, INCREMENT, APPEND, GRANT, REVOKE, GUARDED, COMPACT = range(1, 10)
PUBLISH, EXPIRE, CREATE_CLUSTER, EXPIRE_LEASES, CHECKPOINT_LEASES, SET_ALARM, RECORD, FORGET = range(32, 40)
GET, RANGE, LEASES, READ_TXN = 64, 65, 67, 68
TERM = 1  # of all entries

KeyValue = tuple[int, int, int, int, bytes]  # create, mod, version, lease, value
Map = dict[bytes, KeyValue]


class Refused(Exception):
    """The code of the error."""


def inside(key: bytes, start: bytes, range_end: bytes) -> bool:
    if not range_end:
        return key == start
    return key >= start and (range_end == b"\0" or key < range_end)


def items_of(key: bytes, value: KeyValue) -> list[Any]:
    return [key, *value]


def grows(command: list[Any]) -> bool:
    """Whether it may need room, whatever branch is taken."""
    if command and command[0] == TXN:
        return any(map(grows, command[3] + command[4]))
    if command and command[0] == GUARDED:
        return grows(command[3])
    return bool(command) and command[0] in (PUT, INCREMENT, APPEND, GRANT)


def check_shape(command: list[Any], operations_max: int) -> None:
    """What can be refused without any state."""
    if not command:
        raise Refused("key_not_found")
    kind = command[0]
    if kind == GUARDED:
        check_shape(command[3], operations_max)
    elif kind == TXN:
        _, _, compares, success, failure = command
        widest = max(map(len, (compares, success, failure)))
        if widest > operations_max:
            raise Refused("too_many_operations")
        for compare in compares:
            if not compare[2]:
                raise Refused("key_empty")
        for operation in success + failure:
            check_shape(operation, operations_max - widest)
    elif kind in (PUT, DELETE_RANGE, INCREMENT, APPEND, RANGE):
        if not command[2]:
            raise Refused("key_empty")
        if kind == PUT and command[5] & 2 and command[3]:
            raise Refused("value_provided")
        if kind == PUT and command[5] & 4 and command[4]:
            raise Refused("lease_provided")


def check_twice(operations: list[list[Any]]) -> tuple[list[bytes], list[tuple[bytes, bytes]]]:
    """The keys put and the ranges deleted by a branch. Open-ended deletes slip through, and the order of nested ones counts."""
    deleted = [(operation[2], operation[3]) for operation in operations if operation[0] == DELETE_RANGE]
    put: list[bytes] = []

    def check(key: bytes) -> None:
        if key in put or any(key == start if not end else start <= key < end for start, end in deleted):
            raise Refused("duplicate_key")

    for operation in operations:
        if operation[0] == TXN:
            branches = [check_twice(operation[3]), check_twice(operation[4])]
            for keys, _ in branches:
                for key in keys:
                    check(key)
            for keys, ranges in branches:
                put += keys
                deleted += ranges
    for operation in operations:
        if operation[0] == PUT:
            check(operation[2])
            put.append(operation[2])
    return put, deleted


class Model:
    def __init__(
        self,
        *,
        window: int,
        ttl_ms: int,
        sessions_max: int,
        leases_max: int = 3,
        lease_keys_max: int = 1000,
        lease_expiry_keys_max: int = 3,
        operations_max: int = 128,
    ) -> None:
        self.history: dict[int, Map] = {1: {}}
        self.revision = 1
        self.compacted = -1
        self.clock_ms = 0
        self.window, self.ttl_ms, self.sessions_max = window, ttl_ms, sessions_max
        self.sessions: dict[bytes, dict[str, Any]] = {}
        self.leases: dict[int, list[int]] = {}  # granted and remaining time
        self.leases_max, self.lease_expiry_keys_max = leases_max, lease_expiry_keys_max
        self.lease_keys_max, self.operations_max = lease_keys_max, operations_max
        self.drawn: list[int] = []  # the ids that the store will give to leases without one
        self.cluster_id = 0
        self.members: dict[int, dict[str, Any]] = {}
        self.removed: list[int] = []
        self.full: set[int] = set()

    # Batches and sessions.

    def apply(self, time_ms: int, groups: list[list[Any]]) -> list[list[Any]]:
        self.clock_ms = max(self.clock_ms, time_ms)
        return [self._group(*group) for group in groups]

    def _group(
        self, name: bytes | None, register: bool, ack_below: int, _user: None, _revision: int, commands: list[Any]
    ) -> list[Any]:
        if name is None:
            return [self._answer(command) for command in commands]
        if name not in self.sessions:
            refusal = "" if register else "session_expired"
            if register and len(self.sessions) >= self.sessions_max:
                refusal = "too_many_sessions"
            if refusal:
                return [self._answer(command) if command[1] == 0 else refusal for command in commands]
            self.sessions[name] = {"ack": 0, "answers": {}}
        session = self.sessions[name]
        session["ack"] = max(session["ack"], ack_below)
        session["deadline"] = self.clock_ms + self.ttl_ms
        answers = []
        for command in commands:
            sequence = command[1]
            if sequence == 0:
                answers.append(self._answer(command))
            elif not session["ack"] <= sequence < session["ack"] + self.window:
                answers.append("session_window")
            else:
                if sequence not in session["answers"]:
                    session["answers"][sequence] = self._answer(command)
                answers.append(session["answers"][sequence])
        return answers

    def _answer(self, command: list[Any]) -> Any:
        try:
            if self.full and grows(command):
                raise Refused("no_space")
            check_shape(command, self.operations_max)
            inner = command[3] if command[0] == GUARDED else command
            if inner[0] == TXN:
                check_twice(inner[3])
                check_twice(inner[4])
            return self.execute(command)
        except Refused as error:
            return str(error)

    # Commands.

    def execute(self, command: list[Any]) -> list[Any]:
        if command[0] == EXPIRE:
            gone = [name for name, session in self.sessions.items() if session["deadline"] <= self.clock_ms]
            for name in gone:
                del self.sessions[name]
            return [0, self.revision, len(gone)]
        if command[0] in (PUBLISH, CREATE_CLUSTER, SET_ALARM, RECORD, FORGET):
            self._member(*command)
            return [0, self.revision]
        if command[0] == GRANT:
            if command[2] in self.leases:
                raise Refused("lease_exists")
            if len(self.leases) >= self.leases_max:
                raise Refused("too_many_leases")
            lease, ttl_ms = command[2] or self.drawn.pop(0), max(command[3], 2000)
            self.leases[lease] = [ttl_ms, ttl_ms]
            return [0, self.revision, lease, ttl_ms]
        if command[0] == REVOKE:
            if command[2] not in self.leases:
                raise Refused("lease_not_found")
            count = self._end(command[2])
            return [0, self.revision, count]
        if command[0] in (EXPIRE_LEASES, CHECKPOINT_LEASES):
            done = self._of_leader(*command) if command[2] == TERM else 0
            return [0, self.revision, done]
        if command[0] == COMPACT:
            self.check_revision(command[2], command[2] > self.compacted)
            self.compacted = command[2]
            return [0, self.revision]
        if command[0] == GUARDED:
            for key, create_revision in command[2]:
                if self.history[self.revision].get(key, (0,))[0] != create_revision:
                    raise Refused("fencing_token_stale")
            return self.execute(command[3])
        before = self.history[self.revision]
        current = dict(before)
        changed = [False]
        answer = self._one(command, current, changed, before)
        if changed[0]:
            self.revision += 1
            self.history[self.revision] = current
        return [0, self.revision, *answer]

    def check_revision(self, revision: int, kept: bool) -> None:
        if not kept:
            raise Refused("compacted")
        if revision > self.revision:
            raise Refused("future_revision")

    def _member(self, kind: int, _sequence: int, node_id: int, *items: Any) -> None:
        known = self.members.get(node_id)
        if kind == CREATE_CLUSTER:
            if not self.cluster_id:
                self.cluster_id = node_id
                for initial, name, _ in items[1]:
                    self.members.setdefault(initial, {"name": name, "incarnation": None, "pending": False})
        elif kind == SET_ALARM:
            self.full.discard(node_id)
            if items[0] and known:
                self.full.add(node_id)
        elif kind == FORGET:
            if not known or not known["pending"]:
                raise Refused("invalid_request")
            del self.members[node_id]
            self.full.discard(node_id)
            self.removed.append(node_id)
        elif node_id in self.removed:
            raise Refused("invalid_request")
        elif kind == PUBLISH:
            if known and known["incarnation"] not in (None, items[1]):
                raise Refused("incarnation_mismatch")
            pending = known["pending"] if known else False
            self.members[node_id] = {"name": items[0], "incarnation": items[1], "pending": pending}
        else:
            if any(member["name"] == items[0] for other, member in self.members.items() if other != node_id):
                raise Refused("invalid_request")
            self.members.setdefault(node_id, {"name": items[0], "incarnation": None, "pending": True})

    def _check_lease(self, lease: int, key: bytes, state: Map) -> None:
        if lease and lease not in self.leases:
            raise Refused("lease_not_found")
        attached = [name for name, value in state.items() if value[3] == lease]
        if lease and len(attached) >= self.lease_keys_max and key not in attached:
            raise Refused("too_many_keys")

    def _end(self, lease: int) -> int:
        """Everything that hangs on the lease goes with it, at one revision."""
        del self.leases[lease]
        current = dict(self.history[self.revision])
        gone = [key for key, value in current.items() if value[3] == lease]
        for key in gone:
            del current[key]
        if gone:
            self.revision += 1
            self.history[self.revision] = current
        return len(gone)

    def _of_leader(self, kind: int, _sequence: int, _term: int, rows: list[Any]) -> int:
        done, keys_left = 0, self.lease_expiry_keys_max
        for row in rows:
            if kind == CHECKPOINT_LEASES and row[0] in self.leases:
                granted = self.leases[row[0]][0]
                self.leases[row[0]][1] = max(1, min(row[1], granted))
                done += 1
            elif kind == EXPIRE_LEASES and row in self.leases and keys_left > 0:
                keys_left -= 1 + self._end(row)
                done += 1
        return done

    def _one(self, command: list[Any], current: Map, changed: list[bool], before: Map) -> list[Any]:
        kind = command[0]
        if kind == PUT:
            if current is not before:  # not within a transaction, which has checked it
                self._check_lease(command[4], command[2], before)
            return [self._put(command, current, changed)]
        if kind == DELETE_RANGE:
            _, _, key, range_end, flags = command
            gone = [name for name in sorted(current) if inside(name, key, range_end)]
            previous = [items_of(name, current.pop(name)) for name in gone]
            changed[0] |= bool(gone)
            return [len(gone), previous if flags & 1 else []]
        if kind in (INCREMENT, APPEND):
            _, _, key, operand, *lease_of_new = command
            old = current.get(key)
            if kind == APPEND:
                value = (old[4] if old else b"") + operand
                result = len(value)
            else:
                try:
                    result = int(old[4] if old else b"0") + operand
                except ValueError:
                    raise Refused("not_a_number") from None
                if not -(2**63) <= result < 2**63:
                    raise Refused("not_a_number")
                value = str(result).encode()
            lease = old[3] if old else sum(lease_of_new)
            if not old:
                self._check_lease(lease, key, before)
            self._set(key, value, current, changed, lease)
            return [result]
        assert kind == TXN
        plan = self._branches(command, before)
        self._check(plan, before, [])
        return self._run(plan, current, changed)

    def _set(self, key: bytes, value: bytes, current: Map, changed: list[bool], lease: int) -> None:
        revision = self.revision + 1
        old = current.get(key)
        created, version = (revision, 1) if old is None else (old[0], old[2] + 1)
        current[key] = (created, revision, version, lease, value)
        changed[0] = True

    def _put(self, command: list[Any], current: Map, changed: list[bool]) -> Any:
        _, _, key, value, lease, flags = command
        old = current.get(key)
        if flags & 6 and old is None:
            raise Refused("key_not_found")
        kept = old[3] if flags & 4 and old else lease
        self._set(key, old[4] if flags & 2 and old else value, current, changed, kept)
        return items_of(key, old) if flags & 1 and old else None

    def _branches(self, command: list[Any], before: Map) -> tuple[bool, list[Any]]:
        _, _, compares, success, failure = command
        succeeded = all(self._holds(compare, before) for compare in compares)
        chosen = success if succeeded else failure
        return succeeded, [self._branches(op, before) if op[0] == TXN else op for op in chosen]

    def _holds(self, compare: list[Any], before: Map) -> bool:
        result, target, key, operand, range_end = compare
        found: list[KeyValue] = [value for name, value in before.items() if inside(name, key, range_end)]
        if not found:
            if target == 3:
                return False
            found = [(0, 0, 0, 0, b"")]
        field = {0: 2, 1: 0, 2: 1, 3: 4, 4: 3}[target]
        for value in found:
            actual: Any = value[field]
            outcome = {0: actual == operand, 1: actual > operand, 2: actual < operand, 3: actual != operand}[result]
            if not outcome:
                return False
        return True

    def _check(self, plan: tuple[bool, list[Any]], before: Map, deleted: list[list[Any]]) -> None:
        ranges: list[list[Any]] = []
        self._check_puts(plan, before, deleted, ranges)
        for op in ranges:
            if op[5] > self.revision:
                raise Refused("future_revision")
            if op[5] and op[5] < self.compacted:
                raise Refused("compacted")

    def _check_puts(
        self, plan: tuple[bool, list[Any]], before: Map, deleted: list[list[Any]], ranges: list[list[Any]]
    ) -> None:
        for op in plan[1]:
            if isinstance(op, tuple):
                self._check_puts(op, before, deleted, ranges)
            elif op[0] == DELETE_RANGE:
                deleted.append(op)
            elif op[0] == RANGE:
                ranges.append(op)
            else:
                gone = any(inside(op[2], other[2], other[3]) for other in deleted)
                if op[5] & 6 and (gone or op[2] not in before):
                    raise Refused("key_not_found")
                self._check_lease(op[4], op[2], before)

    def _run(self, plan: tuple[bool, list[Any]], current: Map, changed: list[bool]) -> list[Any]:
        responses = []
        for op in plan[1]:
            if isinstance(op, tuple):
                answer, kind = self._run(op, current, changed), TXN
            elif op[0] == RANGE:
                state = current if op[5] <= 0 else self.history[op[5]]
                answer, kind = self.ranged(op, state), RANGE
            else:
                answer, kind = self._one(op, current, changed, current), op[0]
            responses.append([kind, self.revision + changed[0], *answer])
        return [plan[0], responses]

    # Reads.

    def read(self, command: list[Any]) -> list[Any]:
        if command[0] == GET:
            value = self.history[self.revision].get(command[2])
            return [0, self.revision, None if value is None else items_of(command[2], value)]
        if command[0] == LEASES:
            return [0, self.revision, sorted(self.leases)]
        if command[0] == READ_TXN:
            plan = self._branches(command, self.history[self.revision])
            self._check(plan, self.history[self.revision], [])
            return [0, self.revision, *self._run(plan, self.history[self.revision], [False])]
        if command[5] > self.revision:
            raise Refused("future_revision")
        if 0 < command[5] < self.compacted:
            raise Refused("compacted")
        revision = command[5] if command[5] > 0 else self.revision
        return [0, self.revision, *self.ranged(command, self.history.get(revision, {}))]

    def ranged(self, command: list[Any], state: Map) -> list[Any]:
        _, flags, key, range_end, limit, _, order, target, min_mod, max_mod, min_create, max_create = command
        found = [(name, state[name]) for name in sorted(state) if inside(name, key, range_end)]
        count = len(found)
        if flags & 4:
            return [[], False, count]
        filtered = [
            (name, value)
            for name, value in found
            if (not min_mod or value[1] >= min_mod)
            and (not max_mod or value[1] <= max_mod)
            and (not min_create or value[0] >= min_create)
            and (not max_create or value[0] <= max_create)
        ]
        if order == 0 and target != 0 and limit > 0 and not (min_mod or max_mod or min_create or max_create):
            filtered = filtered[: limit + 1]
        field = {1: 2, 2: 0, 3: 1, 4: 4}
        filtered.sort(key=lambda item: item[1][field[target]] if target else item[0], reverse=order == 2)
        more = limit > 0 and len(filtered) > limit
        chosen = filtered[:limit] if limit > 0 else filtered
        return [[items_of(name, (*value[:4], b"" if flags & 2 else value[4])) for name, value in chosen], more, count]
