-- Sliding windows. Each is one string of one of two forms:
--
-- A window up to LOG_MAX keeps each admission's time, newest first: exact. Above that it keeps SPANS counts of
-- window / SPANS each, newest first, and a call counts until its whole bucket has left the window: never more
-- than the limit in any interval, and at most a sixtieth of the window too strict.
-- Where a limit has crossed LOG_MAX, the state is turned into the other form by the next call that is admitted; a
-- log has an even length, buckets an odd one.
-- When the clock steps back, the state is moved back with it: calls then count longer, never shorter.

local LOG_MAX, SPANS = 100, 60

-- Counted windows: a `b`, newest bucket's number and the total (doubles), then four bytes for each bucket's count.

local function buckets_write(key, state)
  redis.call('SET', key, 'b' .. struct.pack('>dd', state.newest, state.used) .. state.counts,
    'PX', math.ceil((SPANS + 1) * state.width / 1000))
end

-- microseconds until the bucket that lies `age` buckets behind the newest stops counting
local function leaves_in(state, age)
  return (state.newest - age + SPANS + 1) * state.width - now
end

-- newest bucket, total and counts of a log
local function buckets_of_log(log, width)
  local latest = struct.unpack('>d', log)
  local ahead = math.max(latest - now, 0)
  local newest, used, counts = math.floor((latest - ahead) / width), 0, {}
  for i = 1, #log / 8 do
    local age = newest - math.floor((struct.unpack('>d', log, i * 8 - 7) - ahead) / width)
    if age > SPANS then
      break
    end
    for missing = #counts + 1, age + 1 do
      counts[missing] = 0
    end
    counts[age + 1] = counts[age + 1] + 1
    used = used + 1
  end
  for i, count in ipairs(counts) do
    counts[i] = struct.pack('>I4', count)
  end
  return newest, used, table.concat(counts)
end

local function buckets_read(key, limit, window, stored)
  local width = math.ceil(window / SPANS)
  local current = math.floor(now / width)
  local state = {newest = current, used = 0, counts = '\0\0\0\0', width = width, wait = 0}
  stored = stored or redis.call('GET', key)
  if stored then
    local newest, used, counts
    if #stored % 2 == 0 then
      newest, used, counts = buckets_of_log(stored, width)
    else
      newest, used = struct.unpack('>dd', stored, 2)
      counts = string.sub(stored, 18)
    end
    if current - newest <= SPANS then
      if current > newest then
        counts = string.rep('\0', 4 * (current - newest)) .. counts
        local kept = math.min(#counts / 4, SPANS + 1)
        for i = kept + 1, #counts / 4 do
          used = used - struct.unpack('>I4', counts, i * 4 - 3)
        end
        while kept > 1 and struct.unpack('>I4', counts, kept * 4 - 3) == 0 do
          kept = kept - 1
        end
        counts = string.sub(counts, 1, kept * 4)
      end
      state.used, state.counts = used, counts
      if current < newest then
        buckets_write(key, state)
      end
    end
  end
  if state.used >= limit then
    state.wait = (SPANS + 1) * width
    local left, age = state.used, #state.counts / 4
    while age > 0 and left >= limit do
      left = left - struct.unpack('>I4', state.counts, age * 4 - 3)
      age = age - 1
    end
    if left < limit then
      state.wait = leaves_in(state, age)
    end
  end
  return state
end

local function buckets_take(key, state)
  local newest_count = struct.unpack('>I4', state.counts)
  state.counts = struct.pack('>I4', newest_count + 1) .. string.sub(state.counts, 5)
  state.used = state.used + 1
  buckets_write(key, state)
  return leaves_in(state, #state.counts / 4 - 1)
end

-- Exact windows: eight bytes (a double, microseconds) for each admission.

local function log_read(key, limit, window)
  local log = redis.call('GET', key) or ''
  if #log % 2 == 1 then
    return buckets_read(key, limit, window, log)
  end
  local stored = #log / 8
  if stored > 0 then
    local ahead = struct.unpack('>d', log) - now
    if ahead > 0 then
      local moved = {}
      for i = 1, stored do
        moved[i] = struct.pack('>d', struct.unpack('>d', log, i * 8 - 7) - ahead)
      end
      log = table.concat(moved)
      redis.call('SET', key, log, 'PX', math.ceil(window / 1000))
    end
  end
  local used, beyond = 0, stored + 1
  while beyond - used > 1 do
    local middle = math.floor((used + beyond) / 2)
    if now - struct.unpack('>d', log, middle * 8 - 7) < window then
      used = middle
    else
      beyond = middle
    end
  end
  local wait = 0
  if used >= limit then
    wait = window
    if limit > 0 then
      wait = struct.unpack('>d', log, limit * 8 - 7) + window - now
    end
  end
  return {log = log, used = used, wait = wait}
end

-- The times that buckets may stand for, none earlier than it was; they are fewer than the limit.
local function log_of_buckets(state)
  local times = {}
  for age = 0, #state.counts / 4 - 1 do
    local time = struct.pack('>d', math.min((state.newest - age + 1) * state.width - 1, now))
    for _ = 1, struct.unpack('>I4', state.counts, age * 4 + 1) do
      times[#times + 1] = time
    end
  end
  return table.concat(times)
end

local function log_take(key, window, state)
  if state.counts then
    state.log = log_of_buckets(state)
  end
  local log = struct.pack('>d', now) .. string.sub(state.log, 1, state.used * 8)
  redis.call('SET', key, log, 'PX', math.ceil(window / 1000))
  return struct.unpack('>d', log, #log - 7) + window - now
end
