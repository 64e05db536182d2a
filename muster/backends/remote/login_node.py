"""What is sent to a login node as text, to look at many files in one command.

Whatever Python is there runs it, down to 3.6, and with nothing but its own library.  The request
is JSON, packed, on stdin.  What is new below the batches' folders is answered as frames: a line of
JSON, and the bytes that it tells of.  A result is looked for before its log and outputs are read,
and sent after them, so that whoever has the result has all that it rests on.
"""

import base64
import contextlib
import errno
import hashlib
import json
import os
import stat
import sys
import time
import zlib
from typing import Any, BinaryIO

CHUNK = 1 << 20
LONGEST_RESULT = 16 << 20
OVERLAP = 256
ABANDONED_S = 86400
STARTED = "started."
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class Collector:
    """Sends what is new, within a number of bytes."""

    def __init__(self, request: "dict[str, Any]", out: BinaryIO) -> None:
        self.out = out
        self.left = request["limit"]
        self.share = request["share"]
        self.folders = request["folders"]
        self.scheduler = request["scheduler"]
        self.problems: list[str] = []
        self.waiting: set[int] = set()
        self.sent: dict[str, bool] = {}
        self.withheld = 0

    def run(self) -> None:
        """Send what has begun, then ended elements, whole; then how far the others are."""
        for number, folder in enumerate(self.folders):
            self.send_begun(number, folder)
        left = self.left
        for number, folder in enumerate(self.folders):  # what one leaves, the others may take
            given = self.left = max(left // (len(self.folders) - number), 1)
            self.send_ended(number, folder)
            left -= given - self.left
        self.left = left
        for number, folder in enumerate(self.folders):
            self.send_running(number, folder)
        end = {
            "end": True,
            "withheld": self.withheld,
            "waiting": sorted(self.waiting),
            "problems": self.problems[:5],
        }
        self.out.write(json.dumps(end).encode() + b"\n")
        self.out.flush()

    def send_begun(self, number: int, folder: "dict[str, Any]") -> None:
        """Send the notes of tasks that have begun: where there is none, nothing has run."""
        for name, status in self.scan(number, folder["path"], self.scheduler):
            is_note = name.rpartition("/")[2].startswith(STARTED)
            if is_note and not is_known(folder["known"].get(name), status):
                self.send_whole(number, folder, name)

    def send_ended(self, number: int, folder: "dict[str, Any]") -> None:
        """Send each new result behind its log, its progress and its outputs."""
        outputs: dict[str, list[Any]] = {}
        for place, output in enumerate(folder["outputs"]):
            outputs.setdefault(str(output["index"]), []).append((place, output))
        new = []
        for name, status in self.scan(number, folder["path"], "results"):
            if name.endswith(".json") and not is_known(folder["known"].get(name), status):
                new.append((status.st_mtime_ns, name))
        for _, name in sorted(new):
            stem = name[len("results/") : -len(".json")]
            index = stem.replace("/", ".").partition(".")[0]
            if "/" in stem:
                parts = [
                    self.send_grown(number, folder, f"logs/{stem}.log"),
                    self.send_whole(number, folder, f"progress/{stem}.json"),
                ]
            else:  # it shares a log with others, and says which
                shared = find_log(os.path.join(folder["path"], name))
                parts = [] if shared is None else [self.send_grown(number, folder, shared)]
            for place, output in outputs.get(index, []):
                parts.append(self.send_file({"f": number, "o": place}, output["path"], output))
            if all(parts) and self.send_whole(number, folder, name):
                continue
            self.withheld += 1
            self.waiting.add(number)

    def send_running(self, number: int, folder: "dict[str, Any]") -> None:
        """Send what is new of progress and logs, the least known log first."""
        known = folder["known"]
        for name, status in self.scan(number, folder["path"], "progress"):
            if name.endswith(".json") and not is_known(known.get(name), status):
                self.send_whole(number, folder, name)
        logs = [
            name
            for sub in ("logs", self.scheduler)
            for name, status in self.scan(number, folder["path"], sub)
            if name.endswith((".log", ".out")) and not is_known(known.get(name), status)
        ]
        for name in sorted(logs, key=lambda name: known.get(name, [0])[0]):
            self.send_grown(number, folder, name)

    def send_grown(self, number: int, folder: "dict[str, Any]", name: str) -> bool:
        """Send what a log has more than is known; a little of what is known proves it the same."""
        known = folder["known"].get(name)
        asked = {"known": known, "have": known[0] if known else 0}
        about = {"f": number, "p": name, "k": OVERLAP}
        return self.send_file(about, os.path.join(folder["path"], name), asked)

    def send_whole(self, number: int, folder: "dict[str, Any]", name: str) -> bool:
        """Send a small file that is replaced, never appended to."""
        asked = {"known": folder["known"].get(name)}
        return self.send_file({"f": number, "p": name}, os.path.join(folder["path"], name), asked)

    def send_file(self, about: "dict[str, Any]", path: str, asked: "dict[str, Any]") -> bool:
        """Send a file from what the other side has of it; say whether it has all now."""
        if path in self.sent:
            return self.sent[path]
        try:
            file = open_regular(path)
            if file is None:
                return True
            with file:
                status = os.fstat(file.fileno())
                whole = is_known(asked["known"], status)
                if not whole:
                    size, version = status.st_size, f"{status.st_size}-{status.st_mtime_ns}"
                    have = asked.get("parts", {}).get(version, asked.get("have", 0))
                    about = dict(about, s=size, m=status.st_mtime_ns)
                    most = min(self.left, self.share) if "have" in asked else size
                    whole = self.send_bytes(about, file, have if have <= size else 0, most)
        except OSError as error:
            whole = error.errno in GONE
            if not whole:
                self.tell(about["f"], f"{path}: {error.strerror}")
        self.sent[path] = whole
        return whole

    def send_bytes(self, about: "dict[str, Any]", file: BinaryIO, start: int, most: int) -> bool:
        """Send a file's bytes from an offset on, as many as may go."""
        size, overlap = about["s"], min(start, about.get("k", 0))
        if self.left <= 0:
            return False
        stop = min(size, start + most)
        at = start - overlap
        file.seek(at)
        while True:
            data = file.read(min(CHUNK, stop - at))
            if len(data) < overlap or (at < stop and not data):
                return False  # it is being written anew
            header = dict(about, at=at, n=len(data), k=overlap)
            self.out.write(json.dumps(header).encode() + b"\n" + data)
            at += len(data)
            self.left -= len(data) - overlap
            overlap = 0
            if at >= stop:
                return bool(at == size)

    def scan(self, number: int, folder: str, sub: str) -> "list[tuple[str, os.stat_result]]":
        """List the regular files below a folder, hidden ones left out."""
        found: list[tuple[str, os.stat_result]] = []
        waiting = [sub]
        while waiting:
            below = waiting.pop()
            try:
                with os.scandir(os.path.join(folder, below)) as listing:
                    items = [item for item in listing if not item.name.startswith(".")]
                for item in items:
                    name = f"{below}/{item.name}"
                    if item.is_dir(follow_symlinks=False):
                        waiting.append(name)
                    elif item.is_file(follow_symlinks=False):
                        with contextlib.suppress(FileNotFoundError):
                            found.append((name, item.stat(follow_symlinks=False)))
            except OSError as error:
                if error.errno not in GONE:
                    self.tell(number, f"{below}: {error.strerror}")
        return found

    def tell(self, number: int, problem: str) -> None:
        """Note what could not be read of a folder."""
        self.problems.append(problem)
        self.waiting.add(number)


def is_known(known: "list[Any] | None", status: os.stat_result) -> bool:
    """Say whether the other side has this very state; a size of None is not compared."""
    return (
        known is not None
        and known[0] in (None, status.st_size)
        and known[1] == status.st_mtime_ns // 1000
    )


def find_log(result: str) -> "str | None":
    """Name the log that a result says its output lies in, where that is below the batch's folder.

    Whoever reads the result there opens no other log either.
    """
    try:
        file = open_regular(result)
        if file is None:
            return None
        with file:
            said = json.loads(file.read(LONGEST_RESULT).decode())
        name = said["log"]["name"]
        parts = name.split("/")
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    sound = parts[0] in ("logs", "slurm") and all(part not in ("", ".", "..") for part in parts)
    return name if sound and len(parts) > 1 else None


def open_regular(path: str) -> "BinaryIO | None":
    """Open a file for reading; None for what is no file, or a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")


def look(request: "dict[str, Any]", out: BinaryIO) -> None:
    """Make folders, and say of files that have the size that is asked for what is in them."""
    for path, mode in request["folders"]:
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.mkdir(path, mode)
            os.chmod(path, mode)
        except FileExistsError:
            continue
    for folder in {os.path.dirname(path) for path, _ in request["files"]}:
        for name in os.listdir(folder):
            if name.startswith(".muster-") and name.endswith(".part"):
                sweep(os.path.join(folder, name))
    answers = [describe(path, size) for path, size in request["files"]]
    out.write(json.dumps(answers).encode())
    out.flush()


def describe(path: str, size: int) -> "list[Any] | None":
    """Return mode and sha256 of a file of that size; None where there is none."""
    try:
        file = open_regular(path)
        if file is None:
            return None
        with file:
            status = os.fstat(file.fileno())
            if status.st_size != size:
                return None
            digest = hashlib.sha256()
            for data in iter(lambda: file.read(CHUNK), b""):
                digest.update(data)
            return [stat.S_IMODE(status.st_mode), digest.hexdigest()]
    except OSError:
        return None


def sweep(path: str) -> None:
    """Remove what a connection that broke long ago has left."""
    try:
        if time.time() - os.stat(path).st_mtime > ABANDONED_S:
            os.unlink(path)
    except OSError:
        return


def main() -> None:
    """Do what the request asks for."""
    request = json.loads(zlib.decompress(base64.b64decode(sys.stdin.read())).decode())
    sys.stdout.buffer.write(request["token"].encode() + b"\n")
    if request["do"] == "collect":
        Collector(request, sys.stdout.buffer).run()
    else:
        look(request, sys.stdout.buffer)


if __name__ == "__main__":
    main()
