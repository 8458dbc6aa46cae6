-- Goes before project_accounts.lua, in one script with it: whoever judges by the new record finds what the calls
-- before it may come to, and no call is admitted in between. Hours that are settled stay as they are; settling the
-- others takes back what calls did not use.
-- KEYS[3 ..]   counters of billing periods of the account; the rest is project_accounts.lua's
-- ARGV[6 ..]   for each of these as JSON: `maximums`, the most that a call can report by dimension, and `known` by
--              hour number: `calls` that are known from usage, and what they `used` by dimension
for i = 3, #KEYS do
  local key, given = KEYS[i], cjson.decode(ARGV[3 + i])
  local fields, hours = redis.call('HGETALL', key), {}
  local values = {}
  for at = 1, #fields, 2 do
    values[fields[at]] = tonumber(fields[at + 1])
    hours[#hours + 1] = string.match(fields[at], '^c:(%d+)$')
  end
  for _, hour in ipairs(hours) do
    local known = given.known[hour] or {calls = 0, used = {}}
    local unknown = math.max(0, values['c:' .. hour] - known.calls)
    for dimension, most in pairs(values['r:' .. hour] and {} or given.maximums) do
      local field = 'x:' .. dimension .. ':' .. hour
      -- beyond 2^53 the limit script would not reckon exactly, nor would any cap be left
      local at_most = math.min((known.used[dimension] or 0) + unknown * most, 2^53)
      local missing = at_most - (values[field] or 0)
      if missing > 0 then
        redis.call('HINCRBY', key, field, string.format('%.0f', missing))
        redis.call('HINCRBY', key, 'x:' .. dimension, string.format('%.0f', missing))
      end
    end
  end
end
local KEYS = {KEYS[1], KEYS[2]}
