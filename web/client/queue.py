"""The samples of a client that wait for sending or for answers: batches, in the order of the samples.

Decides on the next frame and on the meaning of an answer; knows no sockets, no tasks and no time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ml.model.sample import MAX_ERRORS, FieldError, summary_of
from web.api.messages import ModelFrame, StreamLimits
from web.client.errors import Rejected
from web.client.replies import (
    LATER,
    VERDICTS,
    ErrorReply,
    NamedError,
    Outcome,
    Prediction,
    ProblemReply,
    Refused,
    Reply,
    predictions_of,
)

# Large enough that a frame's own cost vanishes, small enough that 64 KiB of a file are not one batch.
BATCH_SAMPLES = 2_048
# Numbers in a frame and in its answer: with many features or labels a batch is smaller.
BATCH_VALUES = 65_536
# Frames without an answer: one is being read, one answered, one written, and the rest cover the way there and back.
FRAMES_IN_FLIGHT = 8
# The number of batches of one call that are under way, or answered and not taken yet: the bound of memory.
CALL_BATCHES = FRAMES_IN_FLIGHT + 2
# {"id":…,"samples":[]} with an id of up to 20 digits.
FRAME_BYTES = 48

# Stands where an answer is to come, and is never handed out.
_UNANSWERED = Prediction("", {}, "")


class Call:
    """One sequence of samples: those waiting to be sent, and batches under way, in order.

    Attributes:
        room: set when a sample can be added again.
        answered: set when there are new answers, or an error.
    """

    def __init__(self, queue: Queue) -> None:
        self.room = asyncio.Event()
        self.answered = asyncio.Event()
        self.is_complete = False
        self.is_abandoned = False
        self._queue = queue
        self._waiting: list[bytes | Refused] = []
        self._waiting_bytes = 0
        self._batches: deque[_Batch] = deque()

    def add(self, sample: bytes | Refused) -> bool:
        """Add an encoded sample, or one that is refused already and keeps its place; return whether there was room."""
        waiting = self._waiting
        size = self._waiting_bytes + (0 if isinstance(sample, Refused) else len(sample) + 1)
        if not waiting:
            self._queue.offer(self)
        elif len(waiting) >= self._queue.batch_samples or size + FRAME_BYTES > self._queue.limits.max_frame_bytes:
            self.room.clear()
            return False
        waiting.append(sample)
        self._waiting_bytes = size
        return True

    def complete(self) -> None:
        """Mark the end of the samples."""
        self.is_complete = True
        self.answered.set()

    def take(self) -> list[Outcome] | None:
        """Return the next batch of answers, in the order of the samples, or None while it is not there."""
        if not self._batches or self._batches[0].unanswered:
            return None
        batch = self._batches.popleft()
        if self._waiting:
            self._queue.offer(self)
        return batch.outcomes

    @property
    def is_over(self) -> bool:
        """Whether every answer was taken and no more can come."""
        return self.is_complete and not self._waiting and not self._batches

    @property
    def may_send(self) -> bool:
        """Whether few enough answers wait to be taken."""
        return len(self._batches) < CALL_BATCHES

    def close_batch(self) -> Request:
        """Make what waits one batch, and the request of all of it."""
        batch = _Batch(self, self._waiting)
        self._batches.append(batch)
        self._waiting, self._waiting_bytes = [], 0
        self.room.set()
        if not batch.unanswered:
            self.answered.set()
        return Request(batch, [index for index, encoded in enumerate(batch.encoded) if encoded])


class _Batch:
    """Samples that were sent together, and their answers as far as they are known."""

    def __init__(self, call: Call, samples: list[bytes | Refused]) -> None:
        self.call = call
        self.encoded = [b"" if isinstance(sample, Refused) else sample for sample in samples]
        self.outcomes: list[Outcome] = [sample if isinstance(sample, Refused) else _UNANSWERED for sample in samples]
        self.unanswered = sum(map(bool, self.encoded))

    def settle(self, indices: Sequence[int], outcomes: Iterable[Outcome]) -> None:
        for index, outcome in zip(indices, outcomes, strict=True):
            self.outcomes[index] = outcome
        self.unanswered -= len(indices)
        if not self.unanswered:
            self.call.answered.set()


@dataclass(slots=True, eq=False)
class Request:
    """Samples of one batch that go, or went, in one frame."""

    batch: _Batch
    indices: Sequence[int]
    id: int = field(default=0, init=False)

    def frame(self, request_id: int) -> bytes:
        """Return the frame that asks for these samples; a single one gets an error of its own, in full."""
        self.id = request_id
        encoded = [self.batch.encoded[index] for index in self.indices]
        if len(encoded) == 1:
            return b'{"id":%d,"sample":%b}' % (request_id, encoded[0])
        return b'{"id":%d,"samples":[%b]}' % (request_id, b",".join(encoded))

    def parts(self, size: int) -> list[Request]:
        """Return requests for `size` of these samples each."""
        starts = range(0, len(self.indices), size)
        return [Request(self.batch, self.indices[start : start + size]) for start in starts]


class Queue:
    """All calls of one stream.

    Attributes:
        changed: set when there may be something to send.
        batch_samples: the present number of samples in a frame: fewer while many of them are refused.
    """

    def __init__(self) -> None:
        self.changed = asyncio.Event()
        self.limits = StreamLimits(max_frame_bytes=0, max_samples=0)
        self.batch_samples = 1
        self._labels: frozenset[str] = frozenset()
        self._most_samples = 1
        self._last_id = 0
        self._ready: dict[Call, None] = {}  # a set that keeps its order
        self._again: deque[Request] = deque()
        self._sent: deque[Request] = deque()

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits for an answer."""
        return not (self._sent or self._again or self._ready)

    def follow(self, announced: ModelFrame) -> None:
        """Adopt the limits and labels that the server announced."""
        self.limits = announced.limits
        self._labels = frozenset(announced.model.labels)
        # A quantity has a value and the ends of its interval.
        values = len(announced.model.features) + (len(announced.model.labels) or 3)
        self._most_samples = max(1, min(self.limits.max_samples, BATCH_SAMPLES, BATCH_VALUES // values))
        self.batch_samples = self._most_samples

    def offer(self, call: Call) -> None:
        """Let a call that has samples waiting have its turn, if it may send."""
        if call.may_send:
            self._ready[call] = None
            self.changed.set()

    def abandon(self, call: Call) -> None:
        """Forget a call: its waiting samples are neither sent nor kept."""
        call.is_abandoned = True
        self._ready.pop(call, None)
        self._again = deque(request for request in self._again if request.batch.call is not call)

    def next_frame(self) -> bytes | None:
        """Return the next frame to send, or None while there is none or enough are under way."""
        while len(self._sent) < FRAMES_IN_FLIGHT and (request := self._next_request()):
            frame = request.frame(self._last_id + 1)
            size, limit = len(frame), self.limits.max_frame_bytes
            if len(request.indices) <= self.limits.max_samples and size <= limit:
                self._last_id += 1
                self._sent.append(request)
                return frame
            if len(request.indices) == 1:
                refused = Refused(f"the sample makes a frame of {size} bytes, at most {limit} are allowed")
                request.batch.settle(request.indices, [refused])
            else:
                self._send_again(request.parts((len(request.indices) + 1) // 2))
        return None

    def _next_request(self) -> Request | None:
        if self._again:
            return self._again.popleft()
        while self._ready:
            call = next(iter(self._ready))
            del self._ready[call]
            request = call.close_batch()
            if request.indices:
                return request
        return None

    def settle(self, reply: Reply) -> None:
        """Take in the answer to the oldest request under way; one that says "later" leaves it to be sent again whole.

        Raises:
            ValueError: it is no answer to that request.
            Rejected: the service answers nothing, whatever the samples are.
        """
        request = self._sent.popleft() if self._sent else None
        if request is None or reply.id not in (request.id, None):
            raise ValueError(f"frame {reply.id} was answered out of turn")
        self.changed.set()
        if request.batch.call.is_abandoned:
            return
        if isinstance(reply, ErrorReply):
            if reply.error.status in LATER:
                self._again.append(request)
            elif reply.error.status in VERDICTS:
                self._refuse(request, reply.error)
            else:
                raise Rejected(f"the service gives no predictions: status {reply.error.status}, {reply.error.detail}")
            return
        count = len(request.indices)
        request.batch.settle(request.indices, predictions_of(reply, count=count, labels=self._labels))
        self.batch_samples = min(2 * self.batch_samples, self._most_samples)

    def lose(self) -> None:
        """Queue the sent frames again: the connection is lost, and they will not be answered."""
        self._send_again([request for request in self._sent if not request.batch.call.is_abandoned])
        self._sent.clear()

    def _send_again(self, requests: Sequence[Request]) -> None:
        self._again.extendleft(reversed(requests))
        self.changed.set()

    def _refuse(self, request: Request, problem: ProblemReply) -> None:
        """Settle the samples that are named, and ask again for the others of the same frame."""
        count = len(request.indices)
        if count == 1:
            request.batch.settle(request.indices, [Refused(problem.detail, _plain_errors(problem.errors))])
            return
        named: dict[int, list[NamedError]] = {}
        for error in problem.errors:
            if 0 <= error.sample < count:
                named.setdefault(error.sample, []).append(error)
        if not named:  # something else is wrong with one of them
            self._send_again(request.parts((count + 1) // 2))
            return
        known = count
        if len(problem.errors) >= MAX_ERRORS:
            # The list was cut: nothing is known of the samples from the last one in it. The denser the errors, the
            # fewer samples are worth asking for at once.
            known = max(named)
            del named[known]
            self.batch_samples = max(1, known // 2)
        refused = [Refused(summary_of(errors), _plain_errors(errors)) for errors in named.values()]
        request.batch.settle([request.indices[index] for index in named], refused)
        good = [request.indices[index] for index in range(known) if index not in named]
        again = [Request(request.batch, good)] if good else []
        if known < count:
            again += Request(request.batch, request.indices[known:]).parts(self.batch_samples)
        self._send_again(again)


def _plain_errors(errors: Iterable[FieldError]) -> tuple[FieldError, ...]:
    return tuple(FieldError(error.feature, error.code, error.message, error.value) for error in errors)
