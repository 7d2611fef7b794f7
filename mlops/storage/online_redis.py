"""Logs in Redis, shared by every worker: each key is read and written in one step, all keys in one round trip."""

from collections.abc import Iterable, Sequence

from mlops.errors import StorageFailed
from mlops.storage.online import TRIMMED_FROM, Ask, Layout
from mlops.storage.redis_pipe import Command, RedisPipe, Script

SPARE_SECONDS = 3_600
"""How much longer than its records matter a key lives."""
AT_ONCE = 64
"""Records that are filled in one round trip: what Redis does for them holds up no answer for long."""

FOUND_AT = """
    -- Bytes that look like a record across two others do not count.
    local function found_at(log, record)
        local place = string.find(log, record, 1, true)
        while place and (place - 1) % #record ~= 0 do
            place = string.find(log, record, place + 1, true)
        end
        return place
    end
"""
ADDING = (
    FOUND_AT
    + """
    local function add()
    local size, keep, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
    local ttl, from = ARGV[4], tonumber(ARGV[5])
    local log = redis.call('GET', KEYS[1]) or ''
    local added = false
    for place = 6, #ARGV do
        local record = ARGV[place]
        if not found_at(log, record) then
            log = log .. record
            redis.call('APPEND', KEYS[1], record)
            added = true
        end
    end
    if not added then
        return log
    end
    local count = #log / size
    local power = count
    while power > 1 and power % 2 == 0 do power = power / 2 end
    if count == most or count > most + math.floor(most / 8) or (count >= from and power == 1) then
        local times, young, newest = {}, {}, nil
        for place = 1, count do
            local time = struct.unpack('<i8', log, (place - 1) * size + 1)
            times[place] = time
            if newest == nil or time > newest then newest = time end
        end
        for place = 1, count do
            if times[place] > newest - keep then young[#young + 1] = times[place] end
        end
        -- The oldest of the young go, and of equally old ones the first to come, until no more than the most are left.
        local over, oldest, ties = #young - most, newest - keep, 0
        if over > 0 then
            table.sort(young)
            oldest = young[over]
            for place = 1, over do
                if young[place] == oldest then ties = ties + 1 end
            end
        end
        -- Cut out in whole stretches: Lua keeps a table of all strings, and records that are alike crowd it.
        local kept, first = {}, nil
        for place = 1, count + 1 do
            local stays = place <= count and times[place] > newest - keep
            if stays and over > 0 then
                if times[place] == oldest and ties > 0 then
                    stays, ties = false, ties - 1
                elseif times[place] < oldest then
                    stays = false
                end
            end
            if stays and not first then
                first = place
            elseif first and not stays then
                kept[#kept + 1] = string.sub(log, (first - 1) * size + 1, (place - 1) * size)
                first = nil
            end
        end
        log = table.concat(kept)
        redis.call('SET', KEYS[1], log)
    end
    redis.call('EXPIRE', KEYS[1], ttl)
    return log
    end
    """
)
EXCHANGE = Script(ADDING + "return add()")
ADD = Script(ADDING + "add()")
"""Without the log: filling needs no answer."""
FORGET = Script(
    FOUND_AT
    + """
    local log = redis.call('GET', KEYS[1]) or ''
    local place = found_at(log, ARGV[1])
    if place then
        redis.call('SET', KEYS[1], string.sub(log, 1, place - 1) .. string.sub(log, place + #ARGV[1]), 'KEEPTTL')
    end
    return place
    """
)
RAISE = Script(
    """
    local reached = tonumber(redis.call('GET', KEYS[1]) or '-1')
    if tonumber(ARGV[1]) > reached then
        redis.call('SET', KEYS[1], ARGV[1])
    end
    return 1
    """
)
SCRIPTS = (EXCHANGE, ADD, FORGET, RAISE)


class Lost(StorageFailed):
    """The server came back without what it held."""


class Redis:
    """Logs in Redis. A key holds one log as one string; the braces keep it whole where Redis is a cluster."""

    def __init__(self, pipe: RedisPipe, layout: Layout) -> None:
        self._pipe, self._layout = pipe, layout
        self._mark = f"{layout.name}:reached"
        ttl = layout.keep // 1_000_000 + SPARE_SECONDS
        self._given = (layout.size, layout.keep, layout.most, ttl, TRIMMED_FROM)

    async def exchange(self, asks: Sequence[Ask]) -> list[bytes]:
        commands = [("GET", self._mark)]
        commands += [
            EXCHANGE.on(self._key(key), *self._given, record) if record else ("GET", self._key(key))
            for key, record in asks
        ]
        reached, *logs = await self._pipe.run(commands)
        if reached is None:
            raise Lost("Redis came back without what it held")
        return [log or b"" for log in logs]

    async def forget(self, asks: Sequence[Ask]) -> None:
        await self._pipe.run([FORGET.on(self._key(key), record) for key, record in asks])

    async def fill(self, logs: Iterable[tuple[str, bytes]]) -> None:
        commands: list[Command] = []
        room, size = AT_ONCE, self._layout.size
        for key, records in logs:
            each = [records[place : place + size] for place in range(0, len(records), size)]
            while each:
                commands.append(ADD.on(self._key(key), *self._given, *each[:room]))
                each, room = each[room:], room - len(each[:room])
                if room == 0:
                    await self._pipe.run(commands, patient=True)
                    commands, room = [], AT_ONCE
        await self._pipe.run(commands, patient=True)

    async def replace(self, logs: Iterable[tuple[str, bytes]]) -> None:
        ttl = self._given[3]
        for key, log in logs:
            await self._pipe.run([("SET", self._key(key), log, "EX", ttl)], patient=True)

    async def reached(self) -> int | None:
        found = (await self._pipe.run([("GET", self._mark)], patient=True))[0]
        return None if found is None else int(found)

    async def reach(self, sequence: int) -> None:
        await self._pipe.run([RAISE.on(self._mark, sequence)], patient=True)

    def _key(self, key: str) -> str:
        return f"{self._layout.name}:{{{key}}}"
