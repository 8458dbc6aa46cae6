-- Overwrites one hour of period counters with billed units, at a newer revision only; moves the total by the
-- difference. Applying the same revision again changes nothing.
-- KEYS[i]             counters of one billing period
-- ARGV[1 .. 2]        hour number, revision
-- ARGV[3i .. 3i+2]    billed units, moment (ms) at which the counters may be forgotten, and where a spend cap counts
--                     dimensions, billed units of each (`tokens=120 images=3`)
-- Returns how many counters were written.
local hour, revision = ARGV[1], tonumber(ARGV[2])

local function overwrite(key, field, total, units)
  local before = tonumber(redis.call('HGET', key, field) or '0')
  redis.call('HSET', key, field, units)
  redis.call('HINCRBY', key, total, string.format('%.0f', tonumber(units) - before))
end

local written = 0
for i = 1, #KEYS do
  local key, units, dimensions = KEYS[i], ARGV[3 * i], ARGV[3 * i + 2]
  local stored = redis.call('HMGET', key, 'u:' .. hour, 'r:' .. hour)
  -- nothing was counted and nothing is billed: no need for a hash
  local idle = not stored[1] and not stored[2] and tonumber(units) == 0
  if not idle and tonumber(stored[2] or '-1') < revision then
    redis.call('HSET', key, 'r:' .. hour, ARGV[2])
    overwrite(key, 'u:' .. hour, 'units', units)
    for dimension, billed in string.gmatch(dimensions, '([%w_]+)=(%d+)') do
      overwrite(key, 'x:' .. dimension .. ':' .. hour, 'x:' .. dimension, billed)
    end
    if redis.call('PTTL', key) == -1 then
      redis.call('PEXPIREAT', key, ARGV[3 * i + 1])
    end
    written = written + 1
  end
end
return written
