-- Overwrites one hour of period counters with billed units, at a newer revision only; moves the total by the
-- difference. Applying the same revision again changes nothing.
-- KEYS[i]             counters of one billing period
-- ARGV[1 .. 2]        hour number, revision
-- ARGV[2i+1 .. 2i+2]  billed units, moment (ms) at which the counters may be forgotten
-- Returns how many counters were written.
local units_field, revision_field = 'u:' .. ARGV[1], 'r:' .. ARGV[1]
local revision = tonumber(ARGV[2])
local written = 0
for i = 1, #KEYS do
  local units = tonumber(ARGV[2 * i + 1])
  local stored = redis.call('HMGET', KEYS[i], units_field, revision_field)
  -- nothing was counted and nothing is billed: no need for a hash
  local idle = not stored[1] and not stored[2] and units == 0
  if not idle and tonumber(stored[2] or '-1') < revision then
    local before = tonumber(stored[1] or '0')
    redis.call('HSET', KEYS[i], units_field, ARGV[2 * i + 1], revision_field, ARGV[2])
    redis.call('HINCRBY', KEYS[i], 'units', string.format('%.0f', units - before))
    if redis.call('PTTL', KEYS[i]) == -1 then
      redis.call('PEXPIREAT', KEYS[i], ARGV[2 * i + 2])
    end
    written = written + 1
  end
end
return written
