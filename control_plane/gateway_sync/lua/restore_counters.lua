-- Brings counters of one billing period back to at least what is known from usage, hour by hour.
-- A settled hour (revision > 0) overwrites at a newer revision; an open one is raised, never lowered, and left
-- alone where it was settled. Dimensions that a spend cap counts may be new to an hour that was settled before:
-- they are filled in at the same revision too. The totals are made anew from the hours. Repeating it changes nothing.
-- What it adds to the calls of an hour, and the call numbers that it passes over, are noted (`n:<hour>`, `skipped`):
-- nobody must look for calls that were never made.
-- KEYS[1]             counters of one billing period
-- ARGV[1]             moment (ms) at which the counters may be forgotten
-- ARGV[5i-3 .. 5i+1]  hour number, calls, units, revision (0: open), units of dimensions (`tokens=120 images=3`)
local key = KEYS[1]

local function raise(field, units)
  if tonumber(redis.call('HGET', key, field) or '0') < tonumber(units) then
    redis.call('HSET', key, field, units)
  end
end

for i = 1, (#ARGV - 1) / 5 do
  local hour, calls, units = ARGV[5 * i - 3], ARGV[5 * i - 2], ARGV[5 * i - 1]
  local revision, dimensions = tonumber(ARGV[5 * i]), ARGV[5 * i + 1]
  local settled = tonumber(redis.call('HGET', key, 'r:' .. hour) or '-1')
  local counted = tonumber(redis.call('HGET', key, 'c:' .. hour) or '0')
  if counted < tonumber(calls) then
    redis.call('HSET', key, 'c:' .. hour, calls)
    redis.call('HINCRBY', key, 'n:' .. hour, string.format('%.0f', tonumber(calls) - counted))
  end
  if revision > settled and revision > 0 then
    redis.call('HSET', key, 'u:' .. hour, units, 'r:' .. hour, ARGV[5 * i])
  elseif settled < 0 then
    raise('u:' .. hour, units)
  end
  for dimension, used in string.gmatch(dimensions, '([%w_]+)=(%d+)') do
    local field = 'x:' .. dimension .. ':' .. hour
    if revision > 0 and revision >= settled then
      redis.call('HSET', key, field, used)
    elseif settled < 0 then
      raise(field, used)
    else
      redis.call('HSETNX', key, field, used)
    end
  end
end

local fields = redis.call('HGETALL', key)
local calls, units, last_call, totals = 0, 0, 0, {}
for i = 1, #fields, 2 do
  local kind, value = string.sub(fields[i], 1, 2), tonumber(fields[i + 1])
  if kind == 'c:' then
    calls = calls + value
  elseif kind == 'u:' then
    units = units + value
  elseif kind == 'x:' then
    local total = string.match(fields[i], '^(x:[%w_]+):%d+$')
    if total then
      totals[total] = (totals[total] or 0) + value
    end
  elseif fields[i] == 'calls' then
    last_call = value
  end
end
-- call numbers never go back: numbers issued and not yet logged are beyond what usage knows
if calls > last_call then
  local skipped = redis.call('HGET', key, 'skipped')
  local range = string.format('%.0f-%.0f', last_call + 1, calls)
  redis.call('HSET', key, 'skipped', skipped and (skipped .. ' ' .. range) or range)
end
redis.call('HSET', key, 'units', string.format('%.0f', units),
  'calls', string.format('%.0f', math.max(calls, last_call)))
for total, value in pairs(totals) do
  redis.call('HSET', key, total, string.format('%.0f', value))
end
if redis.call('PTTL', key) == -1 then
  redis.call('PEXPIREAT', key, ARGV[1])
end
return 1
