"""The text form of a transaction, close to etcdctl's: comparisons, an empty line, what to do if all hold, an empty line, what else.

    mod("job/1") = "7"
    value("job/1/state") != "done"

    put job/1/state running
    del job/1/lock

    get job/1/state

Parsing only: what a line means is plain data, the verb turns it into the client's words. Errors name the line.
"""

from typing import NamedTuple, Sequence

TARGETS = ("version", "create", "mod", "value", "lease")
RESULTS = ("=", "!=", ">", "<")
SCRIPT_BYTES_MAX = 16 * 1024 * 1024
ESCAPES = {"n": b"\n", "t": b"\t", "r": b"\r", "0": b"\0", '"': b'"', "\\": b"\\"}


class ScriptError(ValueError):
    """A line of the script that cannot be understood; the text names it."""


class Comparison(NamedTuple):
    target: str
    key: bytes
    result: str
    operand: bytes | int


class Operation(NamedTuple):
    verb: str
    """put, get or del."""
    key: bytes
    value: bytes = b""
    range_end: bytes = b""
    prefix: bool = False


class Script(NamedTuple):
    comparisons: tuple[Comparison, ...]
    success: tuple[Operation, ...]
    failure: tuple[Operation, ...]


def parse_script(text: str) -> Script:
    """Raises ScriptError. Lines that start with # are comments; a part that is not wanted stays empty."""
    parts: list[list[tuple[int, str]]] = [[]]
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        if stripped.startswith("#"):
            continue
        if stripped:
            parts[-1].append((number, stripped))
        else:
            parts.append([])
    while len(parts) > 3 and not parts[-1]:
        parts.pop()
    if len(parts) > 3:
        line_number = next(part[0][0] for part in parts[3:] if part)
        raise ScriptError(
            f"line {line_number}: a fourth part; a script is comparisons, success and failure, with one empty line between them"
        )
    comparisons, success, failure = (*parts, [], [])[:3]
    script = Script(
        tuple(parse_comparison(number, line) for number, line in comparisons),
        tuple(parse_operation(number, line) for number, line in success),
        tuple(parse_operation(number, line) for number, line in failure),
    )
    if not any(script):
        raise ScriptError("the transaction is empty")
    return script


def parse_comparison(number: int, line: str) -> Comparison:
    """`target("key") RESULT "operand"`; quotes are needed only around spaces and special characters."""
    opening = line.find("(")
    target = line[:opening].strip() if opening > 0 else ""
    if target not in TARGETS:
        raise ScriptError(
            f'line {number}: a comparison looks like mod("key") = "7"; the targets are {", ".join(TARGETS)}'
        )
    key, after = read_word(number, line, opening + 1, stop=")")
    after = skip_spaces(line, after)
    if line[after : after + 1] != ")":
        raise ScriptError(f"line {number}: the key of a comparison ends with )")
    after = skip_spaces(line, after + 1)
    result = line[after : after + 2] if line[after : after + 2] in RESULTS else line[after : after + 1]
    if result not in RESULTS:
        raise ScriptError(f"line {number}: a comparison is one of {' '.join(RESULTS)}")
    operand, after = read_word(number, line, skip_spaces(line, after + len(result)))
    if skip_spaces(line, after) != len(line):
        raise ScriptError(f"line {number}: {line[after:].strip()!r} is left over; quote an operand that has spaces")
    if not key:
        raise ScriptError(f"line {number}: the key is empty")
    return Comparison(target, key, result, operand if target == "value" else read_integer(number, target, operand))


def parse_operation(number: int, line: str) -> Operation:
    """`put KEY VALUE`, `get KEY [--prefix | RANGE_END]` or `del KEY [--prefix | RANGE_END]`."""
    words = split_words(number, line)
    verb, arguments = words[0].decode("utf-8", "backslashreplace"), words[1:]
    if verb == "put":
        if len(arguments) != 2:
            raise ScriptError(f"line {number}: put takes a key and a value, quoted if they have spaces")
        operation = Operation("put", arguments[0], arguments[1])
    elif verb in ("get", "del"):
        prefix = b"--prefix" in arguments
        rest = [word for word in arguments if word != b"--prefix"]
        if not 1 <= len(rest) <= (1 if prefix else 2):
            raise ScriptError(f"line {number}: {verb} takes a key, then --prefix or a range end")
        operation = Operation(verb, rest[0], range_end=rest[1] if len(rest) == 2 else b"", prefix=prefix)
    else:
        raise ScriptError(f"line {number}: unknown operation {verb!r}; the operations are put, get and del")
    if not operation.key:
        raise ScriptError(f"line {number}: the key is empty")
    return operation


def split_words(number: int, line: str) -> Sequence[bytes]:
    words: list[bytes] = []
    position = 0
    while position < len(line):
        word, position = read_word(number, line, position)
        words.append(word)
        position = skip_spaces(line, position)
    return words


def read_word(number: int, line: str, position: int, stop: str = "") -> tuple[bytes, int]:
    r"""A bare word, or one in double quotes with \n \t \r \0 \" \\ and \xNN. Returns it and where it ended."""
    position = skip_spaces(line, position)
    if line[position : position + 1] != '"':
        end = position
        while end < len(line) and not line[end].isspace() and line[end] != stop and line[end] != '"':
            end += 1
        return as_bytes(line[position:end]), end
    word = bytearray()
    position += 1
    while position < len(line):
        letter = line[position]
        if letter == '"':
            return bytes(word), position + 1
        if letter == "\\":
            data, position = read_escape(number, line, position + 1)
            word += data
        else:
            word += as_bytes(letter)
            position += 1
    raise ScriptError(f"line {number}: a closing quote is missing")


def read_escape(number: int, line: str, position: int) -> tuple[bytes, int]:
    letter = line[position : position + 1]
    if letter in ESCAPES and letter:
        return ESCAPES[letter], position + 1
    digits = line[position + 1 : position + 3]
    if letter == "x" and len(digits) == 2 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
        return bytes((int(digits, 16),)), position + 3
    raise ScriptError(rf"line {number}: \{letter} is no escape; known are \n \t \r \0 \" \\ and \xNN")


def read_integer(number: int, target: str, operand: bytes) -> int:
    try:
        value = int(operand)
    except ValueError:
        raise ScriptError(f"line {number}: {target} is compared with a whole number, not {operand!r}") from None
    if not 0 <= value < 2**63:
        raise ScriptError(f"line {number}: {value} is no {target}")
    return value


def skip_spaces(line: str, position: int) -> int:
    while position < len(line) and line[position].isspace():
        position += 1
    return position


def as_bytes(text: str) -> bytes:
    """The bytes that the script's file held: it is decoded with surrogateescape, so nothing is lost."""
    return text.encode("utf-8", "surrogateescape")
