-- Decide one call: compare versions, check every window and quota, then consume all of them or nothing.
--
-- KEYS  versions hash
--       counters of each billing period (1 or 2)
--       the key's own counters of each period, where the key has a quota share
--       one state for each window
-- ARGV  1 key id, 2 key version, 3 account version, 4 units of the call,
--       5 hard quota of the plan or '', 6 quota share of the key or '', 7 number of periods,
--       then start_ms, end_ms of each period, then limit, window_ms of each window
--
-- Answers (all numbers):
--       {1, now_ms, call number, limit, remaining, reset_ms}  admitted; the tightest limit
--       {0, now_ms, limit, remaining, wait_ms}                refused; the limit with the longest wait
--       {2, now_ms, reason}   1: versions are missing, 2: a newer version is there, 3: no period holds this moment
-- `limit` counts the windows from 1, then the plan's quota, then the key's share; 0 where there is none at all.
--
-- A window up to LOG_MAX keeps each admission's time, newest first: exact. Above that it keeps SPANS counts of
-- window / SPANS each, newest first, and a call counts until its whole bucket has left the window: never more
-- than the limit in any interval, and at most a sixtieth of the window too strict.
-- When the clock steps back, the state is moved back with it: calls then count longer, never shorter.

local ADMITTED, REFUSED, STALE = 1, 0, 2
local LOG_MAX, SPANS = 100, 60
local HOUR_MS, KEEP_MS = 3600000, 40 * 86400000

local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000000 + tonumber(clock[2])
local now_ms = math.floor(now / 1000)

-- Exact windows: eight bytes (a double, microseconds) for each admission.

local function log_read(key, limit, window)
  local log = redis.call('GET', key) or ''
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

local function log_take(key, window, state)
  local log = struct.pack('>d', now) .. string.sub(state.log, 1, state.used * 8)
  redis.call('SET', key, log, 'PX', math.ceil(window / 1000))
  return struct.unpack('>d', log, #log - 7) + window - now
end

-- Counted windows: newest bucket's number and the total (doubles), then four bytes for each bucket's count.

local function buckets_write(key, state)
  redis.call('SET', key, struct.pack('>dd', state.newest, state.used) .. state.counts,
    'PX', math.ceil((SPANS + 1) * state.width / 1000))
end

-- microseconds until the bucket that lies `age` buckets behind the newest stops counting
local function leaves_in(state, age)
  return (state.newest - age + SPANS + 1) * state.width - now
end

local function buckets_read(key, limit, window)
  local width = math.ceil(window / SPANS)
  local current = math.floor(now / width)
  local state = {newest = current, used = 0, counts = '\0\0\0\0', width = width, wait = 0}
  local stored = redis.call('GET', key)
  if stored then
    local newest, used = struct.unpack('>dd', stored)
    if current - newest <= SPANS then
      state.used, state.counts = used, string.sub(stored, 17)
      if current > newest then
        local counts = string.rep('\0', 4 * (current - newest)) .. state.counts
        local kept = math.min(#counts / 4, SPANS + 1)
        for i = kept + 1, #counts / 4 do
          state.used = state.used - struct.unpack('>I4', counts, i * 4 - 3)
        end
        while kept > 1 and struct.unpack('>I4', counts, kept * 4 - 3) == 0 do
          kept = kept - 1
        end
        state.counts = string.sub(counts, 1, kept * 4)
      elseif current < newest then
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

local function take_counters(key, units, period_end)
  local hour = math.floor(now_ms / HOUR_MS)
  local number = redis.call('HINCRBY', key, 'calls', 1)
  local used = redis.call('HINCRBY', key, 'units', units)
  redis.call('HINCRBY', key, 'c:' .. hour, 1)
  redis.call('HINCRBY', key, 'u:' .. hour, units)
  if number == 1 then
    redis.call('PEXPIREAT', key, period_end + KEEP_MS)
  end
  return number, used
end

-- 1. is what the caller knows still true?

local seen = redis.call('HMGET', KEYS[1], 'account', ARGV[1])
if not seen[1] or not seen[2] then
  return {STALE, now_ms, 1}
end
if tonumber(seen[1]) > tonumber(ARGV[3]) or tonumber(seen[2]) > tonumber(ARGV[2]) then
  return {STALE, now_ms, 2}
end

local periods = tonumber(ARGV[7])
local period, period_end
for i = 1, periods do
  local starts, ends = tonumber(ARGV[6 + 2 * i]), tonumber(ARGV[7 + 2 * i])
  if starts <= now_ms and now_ms < ends then
    period, period_end = i, ends
  end
end
if not period then
  return {STALE, now_ms, 3}
end

-- 2. check everything

local units = tonumber(ARGV[4])
local counters = {KEYS[1 + period]}
local quotas = {tonumber(ARGV[5]) or false, tonumber(ARGV[6]) or false}
local first_window = 1 + periods
if quotas[2] then
  counters[2] = KEYS[1 + periods + period]
  first_window = first_window + periods
end
local windows = #KEYS - first_window

local longest, refused_by, refused_left = 0, nil, 0
local states = {}
for i = 1, windows do
  local limit, window = tonumber(ARGV[6 + 2 * (periods + i)]), tonumber(ARGV[7 + 2 * (periods + i)]) * 1000
  local read = limit > LOG_MAX and buckets_read or log_read
  local state = read(KEYS[first_window + i], limit, window)
  state.limit, state.window = limit, window
  states[i] = state
  if state.wait > longest then
    longest, refused_by, refused_left = state.wait, i, 0
  end
end
for i = 1, 2 do
  if quotas[i] then
    local left = quotas[i] - tonumber(redis.call('HGET', counters[i], 'units') or 0)
    local wait = (period_end - now_ms) * 1000
    if units > left and wait > longest then
      longest, refused_by, refused_left = wait, windows + i, math.max(left, 0)
    end
  end
end
if refused_by then
  return {REFUSED, now_ms, refused_by, refused_left, math.ceil(longest / 1000)}
end

-- 3. consume all of it, and find the tightest

local tightest, lowest, remaining, reset = 0, 2, 0, 0
local function weigh(index, limit, left, frees_in)
  if left / limit < lowest then
    tightest, lowest, remaining, reset = index, left / limit, left, frees_in
  end
end
for i, state in ipairs(states) do
  local frees_in
  if state.counts then
    frees_in = buckets_take(KEYS[first_window + i], state)
    weigh(i, state.limit, state.limit - state.used, frees_in)
  else
    frees_in = log_take(KEYS[first_window + i], state.window, state)
    weigh(i, state.limit, state.limit - state.used - 1, frees_in)
  end
end
local call_number
for i = 1, 2 do
  if counters[i] then
    local number, used = take_counters(counters[i], units, period_end)
    call_number = call_number or number
    if quotas[i] then
      weigh(windows + i, quotas[i], quotas[i] - used, (period_end - now_ms) * 1000)
    end
  end
end
return {ADMITTED, now_ms, call_number, tightest, remaining, math.ceil(reset / 1000)}
