-- Brings counters of one billing period back to at least what is known from usage, hour by hour.
-- A settled hour (revision > 0) overwrites at a newer revision; an open one is raised, never lowered, and left
-- alone where it was settled. The totals are made anew from the hours. Repeating it changes nothing.
-- KEYS[1]             counters of one billing period
-- ARGV[1]             moment (ms) at which the counters may be forgotten
-- ARGV[4i-2 .. 4i+1]  hour number, calls, units, revision (0: open)
for i = 1, (#ARGV - 1) / 4 do
  local hour, calls, units = ARGV[4 * i - 2], ARGV[4 * i - 1], ARGV[4 * i]
  local revision = tonumber(ARGV[4 * i + 1])
  local stored = redis.call('HMGET', KEYS[1], 'c:' .. hour, 'u:' .. hour, 'r:' .. hour)
  if tonumber(stored[1] or '0') < tonumber(calls) then
    redis.call('HSET', KEYS[1], 'c:' .. hour, calls)
  end
  if revision > 0 then
    if tonumber(stored[3] or '-1') < revision then
      redis.call('HSET', KEYS[1], 'u:' .. hour, units, 'r:' .. hour, ARGV[4 * i + 1])
    end
  elseif not stored[3] and tonumber(stored[2] or '0') < tonumber(units) then
    redis.call('HSET', KEYS[1], 'u:' .. hour, units)
  end
end

local fields = redis.call('HGETALL', KEYS[1])
local calls, units, last_call = 0, 0, 0
for i = 1, #fields, 2 do
  local kind, value = string.sub(fields[i], 1, 2), tonumber(fields[i + 1])
  if kind == 'c:' then
    calls = calls + value
  elseif kind == 'u:' then
    units = units + value
  elseif fields[i] == 'calls' then
    last_call = value
  end
end
-- call numbers never go back: numbers issued and not yet logged are beyond what usage knows
redis.call('HSET', KEYS[1], 'units', string.format('%.0f', units),
  'calls', string.format('%.0f', math.max(calls, last_call)))
if redis.call('PTTL', KEYS[1]) == -1 then
  redis.call('PEXPIREAT', KEYS[1], ARGV[1])
end
return 1
