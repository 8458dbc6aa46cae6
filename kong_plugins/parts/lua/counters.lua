-- What a billing period counts.

local HOUR_MS, KEEP_MS = 3600000, 40 * 86400000

local hour = math.floor(now_ms / HOUR_MS)
local hour_calls, hour_units = 'c:' .. hour, 'u:' .. hour

-- calls and units of the period, calls and units of the hour; `used`: what counts of the period's units
local function counters_read(key)
  local found = redis.call('HMGET', key, 'calls', 'units', hour_calls, hour_units)
  local units = tonumber(found[2] or 0)
  return {tonumber(found[1] or 0), units, tonumber(found[3] or 0), tonumber(found[4] or 0), used = units}
end

local function counters_take(key, counted, units, period_end)
  counted[1], counted[2], counted.used = counted[1] + 1, counted[2] + units, counted.used + units
  redis.call('HSET', key, 'calls', counted[1], 'units', counted[2],
    hour_calls, counted[3] + 1, hour_units, counted[4] + units)
  if counted[1] == 1 then
    redis.call('PEXPIREAT', key, period_end + KEEP_MS)
  end
end
