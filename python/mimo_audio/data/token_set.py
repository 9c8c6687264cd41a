"""Token sets: the codes of many recordings and what is known about them, for training (docs/data.md).

A set is a folder:

    set.json       which tokenizer made it: fingerprint of its codebooks, their sizes, frames per second
    codes.bin      uint16 codes, frame by frame [T, C], one recording after another
    codes.idx      per recording 16 bytes: where its codes begin (u64), its frames (u32), CRC-32 of its codes (u32)
    records.jsonl  per recording: the file it came from
    rows.jsonl     the manifest's rows; recordings are numbers, "id" is a digest of the row

Files only grow. Codes are written before their index, the index before the rows: whatever a killed process leaves
behind, the last whole entry of each file tells where to go on, and what lies beyond is cut off. One process writes at a
time; readers take what is whole when they open a set, and check a recording's sum when they first touch it.
"""

import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mimo_audio.data.manifest import Row, map_audio, recordings
from mimo_audio.errors import CodesError
from mimo_audio.files.output import OutputError, atomic_output

FORMAT, VERSION = "mimo-audio token set", 1
ENTRY = np.dtype([("start", "<u8"), ("frames", "<u4"), ("crc", "<u4")])
DESCRIPTION, CODES, INDEX, RECORDS, ROWS = "set.json", "codes.bin", "codes.idx", "records.jsonl", "rows.jsonl"


@dataclass(frozen=True)
class SetDescription:
    """The tokenizer of a set. codebook_sizes are those of the C codebooks that it holds; frame_rate is in Hz."""

    fingerprint: str
    model: str
    codebook_sizes: tuple[int, ...]
    frame_rate: float

    def check(self, other: "SetDescription", name: str) -> None:
        """Raises CodesError unless both are of one tokenizer and as many codebooks."""
        for what in ("fingerprint", "codebook_sizes", "frame_rate"):
            ours, theirs = getattr(self, what), getattr(other, what)
            if ours != theirs:
                raise CodesError(
                    f"{name}: tokens of another tokenizer ({other.model}): expected {what} {ours} ({self.model}), "
                    f"got {theirs}"
                )


class TokenSet:
    """A set to read: codes of a recording whole or in part, memory-mapped; `rows` are the manifest's."""

    def __init__(self, folder: Path) -> None:
        """Opens a set. Raises CodesError with one line that says what is wrong with it."""
        self.folder = folder
        self.description = _read_description(folder)
        try:
            self.index: NDArray[Any] = np.fromfile(folder / INDEX, ENTRY)
            size = (folder / CODES).stat().st_size
            self._codes = np.memmap(folder / CODES, "<u2", "r") if size > 1 else np.zeros(0, "<u2")
        except (OSError, ValueError) as error:
            raise CodesError(f"{folder}: cannot read the token set: {error}") from error
        self._checked = np.zeros(len(self.index), bool)
        channels = len(self.description.codebook_sizes)
        ends = self.index["start"] + self.index["frames"].astype(np.uint64) * np.uint64(2 * channels)
        if len(ends) and (int(ends.max()) > size or not self.index["frames"].all() or (self.index["start"] % 2).any()):
            raise CodesError(f"{folder / INDEX}: damaged, or {CODES} is cut off: `mimo-audio data verify` says more")
        self.rows = _read_lines(folder / ROWS)
        for number, row in enumerate(self.rows, 1):
            wrong = [r for r in recordings(row) if not isinstance(r, int) or not 0 <= r < len(self.index)]
            if wrong:
                raise CodesError(f"{folder / ROWS}:{number}: expected recordings of the set, got {wrong[0]!r:.50}")

    def __len__(self) -> int:
        return len(self.index)

    @property
    def seconds(self) -> float:
        """Of all recordings."""
        return float(self.index["frames"].sum()) / self.description.frame_rate

    def frames(self, record: int) -> int:
        """How many frames a recording has."""
        return int(self.index["frames"][record])

    def codes(self, record: int, first: int = 0, last: int | None = None) -> NDArray[np.int64]:
        """Codes [C, T] of a recording's frames from `first` to before `last`. Raises CodesError if it is damaged."""
        frames = self._frames(record)
        if not self._checked[record]:
            if zlib.crc32(frames.tobytes()) != self.index["crc"][record]:
                raise CodesError(
                    f"{self.folder / CODES}: recording {record} is damaged, its checksum differs: "
                    "`mimo-audio data verify` lists all that are"
                )
            self._checked[record] = True
        return frames[first:last].T.astype(np.int64)

    def verify(self) -> list[str]:
        """What is damaged: recordings whose checksum or codes are wrong, rows that are not those of the manifest."""
        sizes = np.array(self.description.codebook_sizes)
        problems = []
        for record in range(len(self)):
            codes = self._frames(record)
            if zlib.crc32(codes.tobytes()) != self.index["crc"][record]:
                problems.append(f"recording {record}: checksum differs")
            elif (codes >= sizes).any():
                problems.append(f"recording {record}: codes beyond their codebook")
        names = [record.get("audio") for record in _read_lines(self.folder / RECORDS)][: len(self)]
        if len(names) < len(self):
            return [*problems, f"{RECORDS}: cut off, expected {len(self)} lines, got {len(names)}"]
        for number, row in enumerate(self.rows, 1):
            plain = {key: value for key, value in row.items() if key != "id"}
            if digest(map_audio(plain, names.__getitem__)) != row.get("id"):
                problems.append(f"{ROWS}:{number}: differs from the manifest's row")
        return problems

    def _frames(self, record: int) -> NDArray[np.uint16]:
        channels, start = len(self.description.codebook_sizes), int(self.index["start"][record]) // 2
        count = self.frames(record) * channels
        return np.asarray(self._codes[start : start + count]).reshape(-1, channels)


class TokenSetWriter:
    """Makes a set or lets one grow; what an interrupted writer left half written is cut off first."""

    def __init__(self, folder: Path, description: SetDescription) -> None:
        """Raises CodesError if the folder holds a set of another tokenizer, OutputError if it cannot be written."""
        self.folder, self.description = folder, description
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / DESCRIPTION).exists():
            _read_description(folder).check(description, "this tokenizer")
        else:
            if any(folder.iterdir()):
                raise OutputError(f"{folder}: expected a token set, an empty folder or none, got other files")
            with atomic_output(folder / DESCRIPTION) as partial:
                contents = {"format": FORMAT, "format_version": VERSION, **asdict(description)}
                partial.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
        self._files = {}
        try:
            for name in (CODES, INDEX, RECORDS, ROWS):
                self._files[name] = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._files[INDEX], fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._recover()
        except BlockingIOError as error:
            self._close()
            raise OutputError(f"{folder}: another process is writing this token set") from error
        except OSError as error:
            self._close()
            raise OutputError(f"{folder}: cannot write, {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self._close()
            raise CodesError(f"{folder}: damaged token set, {RECORDS} or {ROWS}: {error}") from error

    def _recover(self) -> None:
        index = np.frombuffer(self._read(INDEX)[: self._size(INDEX) // ENTRY.itemsize * ENTRY.itemsize], ENTRY)
        records = _whole_lines(self._read(RECORDS))
        count = min(len(index), len(records))
        channels = len(self.description.codebook_sizes)
        ends = index["start"][:count].astype(np.int64) + index["frames"][:count].astype(np.int64) * 2 * channels
        count = int(np.searchsorted(ends, self._size(CODES), "right"))
        self._end = int(ends[count - 1]) if count else 0
        self._cut(CODES, self._end)
        self._cut(INDEX, count * ENTRY.itemsize)
        self._cut(RECORDS, sum(map(len, records[:count])))
        self.records = {json.loads(line)["audio"]: number for number, line in enumerate(records[:count])}
        rows, kept = _whole_lines(self._read(ROWS)), []
        for line in rows:
            if any(record >= count for record in recordings(json.loads(line))):
                break
            kept.append(line)
        self._cut(ROWS, sum(map(len, kept)))
        self.ids = {json.loads(line)["id"] for line in kept}
        self.frames = int(index["frames"][:count].sum())

    def __enter__(self) -> "TokenSetWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        for file in self._files.values():
            os.close(file)

    def add_recordings(self, names: Sequence[str], codes: Sequence[NDArray[np.integer]]) -> None:
        """Appends recordings, codes [C, T] each. Raises OutputError; then none of them is there."""
        blocks, entries, lines, start = [], np.zeros(len(codes), ENTRY), [], self._end
        for number, (name, item) in enumerate(zip(names, codes, strict=True)):
            block = np.ascontiguousarray(item.T, "<u2").tobytes()
            entries[number] = start, item.shape[1], zlib.crc32(block)
            blocks.append(block)
            lines.append(json.dumps({"audio": name}, ensure_ascii=False) + "\n")
            start += len(block)
        self._append(CODES, b"".join(blocks))
        self._append(RECORDS, "".join(lines).encode())
        self._append(INDEX, entries.tobytes())
        for name in names:
            self.records[name] = len(self.records)
        self._end, self.frames = start, self.frames + int(entries["frames"].sum())

    def add_rows(self, rows: Iterable[Row]) -> int:
        """Appends rows whose recordings, by name, are all there, those aside that are there already; how many."""
        lines = []
        for row in rows:
            if (identity := digest(row)) not in self.ids:
                self.ids.add(identity)
                numbered = map_audio(row, self.records.__getitem__)
                lines.append(json.dumps({"id": identity, **numbered}, ensure_ascii=False) + "\n")
        self._append(ROWS, "".join(lines).encode())
        return len(lines)

    def _read(self, name: str) -> bytes:
        return os.pread(self._files[name], self._size(name), 0)

    def _size(self, name: str) -> int:
        return os.fstat(self._files[name]).st_size

    def _cut(self, name: str, size: int) -> None:
        os.ftruncate(self._files[name], size)
        os.lseek(self._files[name], size, os.SEEK_SET)

    def _append(self, name: str, content: bytes) -> None:
        left = memoryview(content)
        try:
            while left:
                left = left[os.write(self._files[name], left) :]
            if content:
                os.fsync(self._files[name])  # a power failure keeps the order of the files, too
        except OSError as error:
            raise OutputError(f"{self.folder / name}: cannot write, {error.strerror or error}") from error


def digest(row: Row) -> str:
    """16 hexadecimal digits that stand for a row."""
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]


def merge(sources: Sequence[TokenSet], folder: Path) -> TokenSet:
    """All recordings and rows of sets of one tokenizer, once each, in a new set or one that grows.

    Raises CodesError if they are of different tokenizers or damaged, OutputError.
    """
    for source in sources[1:]:
        sources[0].description.check(source.description, str(source.folder))
    for source in sources:
        problems = source.verify()
        if problems:
            raise CodesError(f"{source.folder}: {problems[0]}")
    with TokenSetWriter(folder, sources[0].description) as writer:
        for source in sources:
            names = [record["audio"] for record in _read_lines(source.folder / RECORDS)][: len(source)]
            for record, name in enumerate(names):
                if name not in writer.records:
                    writer.add_recordings([name], [source.codes(record)])
            plain = ({key: value for key, value in row.items() if key != "id"} for row in source.rows)
            writer.add_rows(map_audio(row, names.__getitem__) for row in plain)
    return TokenSet(folder)


def _read_description(folder: Path) -> SetDescription:
    path = folder / DESCRIPTION
    try:
        contents = json.loads(path.read_text(encoding="utf-8"))
        if contents.pop("format") != FORMAT or contents.pop("format_version") != VERSION:
            raise CodesError(f"{path}: expected a token set of version {VERSION}")
        sizes = tuple(int(size) for size in contents.pop("codebook_sizes"))
        return SetDescription(codebook_sizes=sizes, **contents)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CodesError(f"{folder}: not a token set: {error}") from error


def _read_lines(path: Path) -> list[Row]:
    """The whole lines of a file: a last one without its end is still being written."""
    try:
        lines = _whole_lines(path.read_bytes())
    except OSError as error:
        raise CodesError(f"cannot read {path}: {error.strerror or error}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise CodesError(f"{path}:{number}: damaged, expected a JSON object, got {line[:80]!r}") from error
        if not isinstance(rows[-1], dict):
            raise CodesError(f"{path}:{number}: damaged, expected a JSON object, got {line[:80]!r}")
    return rows


def _whole_lines(content: bytes) -> list[bytes]:
    return [line + b"\n" for line in content.split(b"\n")[:-1]]
