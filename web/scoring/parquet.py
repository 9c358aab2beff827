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
from typing import IO

import msgspec
import numpy as np

from ml.errors import TableError
from ml.model.loaded import SLICE_S, LoadedModel
from ml.scoring.answers import Answers
from ml.scoring.batch import Model
from ml.scoring.parquet_process import (
    LENGTH,
    AnswersMessage,
    End,
    Header,
    Layout,
    ProcessOptions,
    Question,
    RowsMessage,
    columns_in,
    framed,
)
from ml.tables.confined import cpu_s_of, memory_bytes_of
from ml.tables.filekind import START_BYTES, kind_of
from web.api.threads import PIECE_S, in_thread
from web.metrics.channel import Channel
from web.problems import Problem
from web.scoring.scored_file import OpenFiles
from web.scoring.upload import READ_BYTES, ProcessedFile
from web.scoring.workbook import NICENESS
from web.settings import ROOT

# The process asks about so many rows at once, and so many cells: wrong ones are read one by one, in 50 us each.
MAX_ROWS = 2**11
MAX_CELLS = 2**14
# What it asks at once has at most so many bytes; words may be long.
MAX_QUESTION_BYTES = 2**22
# Arrow's own allocator would reserve a gigabyte, and that of the system 64 MB a thread: that counts as memory.
_COMMAND = (
    "/usr/bin/env", "ARROW_DEFAULT_MEMORY_POOL=system", "MALLOC_ARENA_MAX=1",
    sys.executable, "-c", "from ml.scoring.parquet_process import main; main()",
)  # fmt: skip

_decoder: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question)


class ParquetFile(ProcessedFile):
    """One Parquet file, which becomes the scored one.

    Args:
        model: answers all of its rows.
        channel: counts the answers.

    Raises:
        Problem: on construction: 415, pyarrow is not installed.
    """

    def __init__(self, model: LoadedModel, open_files: OpenFiles, channel: Channel) -> None:
        if find_spec("pyarrow") is None:
            raise Problem(415, "this service reads no Parquet, as pyarrow is not installed on it: send CSV")
        super().__init__(open_files.spool, open_files.process_turn)
        self._model = model
        self._answering = model.made(Model)
        self._max_bytes = open_files.max_table_bytes
        self._channel = channel

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the scored file."""
        while content := await asyncio.to_thread(self._sink.file.read, READ_BYTES):
            yield content

    async def _run(self, source: IO[bytes], sink: IO[bytes], room: int) -> None:
        if kind_of(source.read(START_BYTES)) != "parquet":
            raise TableError("this is no Parquet file")
        most, descriptors = self._max_bytes, (source.fileno(), sink.fileno())
        options = ProcessOptions(
            source=descriptors[0], sink=descriptors[1], max_bytes=most, max_sink_bytes=room,
            memory_bytes=memory_bytes_of(most), cpu_s=cpu_s_of(most), niceness=NICENESS,
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *_COMMAND, msgspec.json.encode(options),
            cwd=ROOT, stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.DEVNULL, pass_fds=descriptors,
        )  # fmt: skip
        try:
            await self._answer(process)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
            raise TableError("the Parquet file takes too much time or memory to read") from error
        except msgspec.MsgspecError as error:
            raise TableError("the Parquet file cannot be read") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.communicate()  # what it has written, up to its end

    async def _answer(self, process: Process) -> None:
        """Answer what the process asks, until all is written."""
        reader, writer = process.stdout, process.stdin
        assert reader is not None
        assert writer is not None
        while True:
            # Its processor time is bounded; this is for one that hangs.
            async with asyncio.timeout(cpu_s_of(self._max_bytes)):
                question = await _question(reader)
            match question:
                case End(error):
                    if error:
                        raise TableError(error)
                    return
                case Header(names):
                    writer.write(framed(await in_thread(self._layout, names)))
                case RowsMessage() as rows:
                    writer.write(framed(await self._answer_to(rows)))
            await writer.drain()

    def _layout(self, names: list[str]) -> Layout:
        model = self._answering
        positions = model.positions(names)
        max_rows = min(MAX_ROWS, MAX_CELLS // len(positions), int(self._model.slice_rows * PIECE_S / SLICE_S))
        return Layout(positions, model.added(names), [*model.labels], max(1, max_rows))

    async def _answer_to(self, rows: RowsMessage) -> AnswersMessage:
        model, channel = self._answering, self._channel
        columns = columns_in(rows, len(model.features))
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
        return AnswersMessage(indices.tobytes(), numbers.tobytes(), numbers.shape[1], notes, {**answers.errors})


async def _question(reader: asyncio.StreamReader) -> Question:
    (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
    if length > MAX_QUESTION_BYTES:
        raise TableError(f"{MAX_ROWS} rows have more than {MAX_QUESTION_BYTES} bytes in the columns of the features")
    return _decoder.decode(await reader.readexactly(length))
