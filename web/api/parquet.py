"""A Parquet file on its way: it waits on disk until all of it has come, and is then read by a process of its own.

The process asks for the answers to what it reads, which are made and counted here, and writes them into a second file.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from importlib.util import find_spec
from time import perf_counter

import msgspec
import numpy as np

from ml.answers import Answers
from ml.batch import Model
from ml.errors import DatasetError
from ml.model.classifier import SLICE_S, Classifier
from ml.parquet_process import LENGTH, Answer, End, Header, Layout, Options, Question, Rows, columns_of, framed
from ml.tables.filekind import START_BYTES, kind_of
from ml.tables.sheet import cpu_s_of, memory_bytes_of
from web.api.scoring import Uploads
from web.api.threads import PIECE_S, in_thread
from web.api.upload import PATIENCE_S, READ_BYTES, SpooledFile
from web.api.workbook import NICENESS
from web.metrics.channel import Channel
from web.problems import Problem
from web.settings import ROOT

# The process asks about so many rows at once, and so many cells: wrong ones are looked at one by one, in 50 us each.
MAX_ROWS = 2**11
MAX_CELLS = 2**14
# What it asks at once has at most so many bytes; words may be long.
MAX_QUESTION_BYTES = 2**22
# Arrow's own allocator would reserve a gigabyte, and that of the system 64 MB a thread: that counts as memory.
_COMMAND = (
    "/usr/bin/env", "ARROW_DEFAULT_MEMORY_POOL=system", "MALLOC_ARENA_MAX=1",
    sys.executable, "-c", "from ml.parquet_process import main; main()",
)  # fmt: skip

_decoder: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question)


class ParquetFile:
    """One Parquet file. It is closed when it is no longer needed.

    Args:
        model: answers all of its rows.
        channel: counts the answers.

    Attributes:
        size: of the scored file, once it is.

    Raises:
        Problem: on construction: 415, pyarrow is not installed.
    """

    def __init__(self, model: Classifier, uploads: Uploads, channel: Channel) -> None:
        if find_spec("pyarrow") is None:
            raise Problem(415, "this service reads no Parquet, as pyarrow is not installed on it: send CSV")
        self.size = 0
        self._model = model
        self._answering = model.made(Model)
        self._uploads = uploads
        self._channel = channel
        self._source, self._sink = SpooledFile(uploads.spool), SpooledFile(uploads.spool)
        self._scoring: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Free what it takes on disk, and end the process that reads it."""
        if self._scoring is not None:
            self._scoring.cancel()
        self._source.close()
        self._sink.close()

    async def add(self, content: bytes) -> None:
        """Take some more of the file; errors are those of `SpooledFile.add`."""
        await self._source.add(content)

    async def score(self) -> AsyncIterator[None]:
        """Score the file; yield again and again until that is done.

        Raises:
            DatasetError: it is no Parquet file with the features of the model; or reading it takes too much.
            Problem: 503, there is no room on disk for the answer.
        """
        self._scoring = asyncio.create_task(self._score())
        while not self._scoring.done():
            await asyncio.wait({self._scoring}, timeout=PATIENCE_S)
            yield
        self._scoring.result()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the scored file."""
        self._sink.file.seek(0)
        while content := await asyncio.to_thread(self._sink.file.read, READ_BYTES):
            yield content

    async def _score(self) -> None:
        async with self._uploads.process_turn:
            self._source.file.seek(0)
            if kind_of(self._source.file.read(START_BYTES)) != "parquet":
                raise DatasetError("this is no Parquet file")
            process = await self._start()
            try:
                await self._answer(process)
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
                raise DatasetError("the Parquet file takes too much time or memory to read") from error
            except msgspec.MsgspecError as error:
                raise DatasetError("the Parquet file cannot be read") from error
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.communicate()  # what it has written, up to its end
        self.size = self._sink.file.seek(0, 2)
        self._sink.count(self.size)

    async def _start(self) -> Process:
        source, sink = self._source.file.fileno(), self._sink.file.fileno()
        most, spool = self._uploads.max_table_bytes, self._uploads.spool
        options = Options(
            source=source, sink=sink, max_bytes=most, max_sink_bytes=max(0, spool.most - spool.taken),
            memory_bytes=memory_bytes_of(most), cpu_s=cpu_s_of(most), niceness=NICENESS,
        )  # fmt: skip
        return await asyncio.create_subprocess_exec(
            *_COMMAND, msgspec.json.encode(options),
            cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL, pass_fds=(source, sink),
        )  # fmt: skip

    async def _answer(self, process: Process) -> None:
        """Answer what the process asks, until all is written."""
        reader, writer = process.stdout, process.stdin
        assert reader is not None
        assert writer is not None
        while True:
            # Its processor time is bounded; this is for one that hangs.
            async with asyncio.timeout(cpu_s_of(self._uploads.max_table_bytes)):
                question = await _question(reader)
            match question:
                case End(error):
                    if error:
                        raise DatasetError(error)
                    return
                case Header(names):
                    writer.write(framed(await in_thread(self._layout, names)))
                case Rows() as rows:
                    writer.write(framed(await self._answer_to(rows)))
            await writer.drain()

    def _layout(self, names: list[str]) -> Layout:
        model = self._answering
        positions = model.positions(names)
        max_rows = min(MAX_ROWS, MAX_CELLS // len(positions), int(self._model.slice_rows * PIECE_S / SLICE_S))
        return Layout(positions, model.added(names), [*model.labels], max(1, max_rows))

    async def _answer_to(self, rows: Rows) -> Answer:
        model, channel = self._answering, self._channel
        columns = columns_of(rows, len(model.features))
        values, wrong = await in_thread(model.read, columns)
        started = perf_counter()
        answers: Answers = await in_thread(model.answers_to, columns, values, wrong)
        channel.model_time(perf_counter() - started)
        is_right = answers.indices >= 0
        outcomes = answers.indices if model.labels else answers.numbers[:, 0]
        channel.many(self._model, values[is_right], outcomes[is_right])
        for error in wrong.values():
            channel.errors(error.errors)
        notes = {index: answers.notes[index] for index in np.flatnonzero(answers.notes != np.array(None)).tolist()}
        numbers = np.ascontiguousarray(answers.numbers, dtype=np.float64)
        indices = answers.indices.astype(np.int64)
        return Answer(indices.tobytes(), numbers.tobytes(), numbers.shape[1], notes, {**answers.errors})


async def _question(reader: asyncio.StreamReader) -> Question:
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if length > MAX_QUESTION_BYTES:
        raise DatasetError(f"{MAX_ROWS} rows have more than {MAX_QUESTION_BYTES} bytes in the columns of the features")
    return _decoder.decode(await reader.readexactly(length))
