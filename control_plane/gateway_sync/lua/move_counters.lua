-- Goes before begin_spend_caps.lua and project_accounts.lua, in one script with them: the subscription's billing
-- periods begin at other moments by the new record, so its counters have another name. What was counted by the old
-- one goes on there, with the call numbers; no call is admitted in between. Counters that have begun stay as they are.
-- KEYS       behind those of the other scripts two for each counter: its old and its new name
-- ARGV       behind those of the other scripts for each counter `<first hour> <moment (ms) at which it may be
--            forgotten> <1: units count on, 0: calls are numbered on only>`, then the number of counters
local moves = tonumber(ARGV[#ARGV])
local keys_before, args_before = #KEYS - 2 * moves, #ARGV - 1 - moves

for i = 1, moves do
  local old, new = KEYS[keys_before + 2 * i - 1], KEYS[keys_before + 2 * i]
  local first, forget_at_ms, units_too = string.match(ARGV[args_before + i], '^(%d+) (%d+) (%d)$')
  local calls = redis.call('HGET', old, 'calls')
  if calls and redis.call('HEXISTS', new, 'calls') == 0 then
    local fields = redis.call('HGETALL', old)
    redis.call('HSET', new, 'calls', calls)
    redis.call('HINCRBY', new, 'units', 0)
    for at = 1, #fields, 2 do
      local field, value = fields[at], fields[at + 1]
      local counter, hour = string.match(field, '^(.+):(%d+)$')
      if field == 'skipped' then
        redis.call('HSET', new, field, value)
      elseif not hour or tonumber(hour) < tonumber(first) then
        -- a total, or of another period
      elseif counter == 'c' or counter == 'n' then
        redis.call('HSET', new, field, value)
      elseif units_too == '1' and redis.call('HSETNX', new, field, value) == 1 then
        -- what is there was settled under the new name
        if counter == 'u' then
          redis.call('HINCRBY', new, 'units', value)
        elseif counter ~= 'r' then
          redis.call('HINCRBY', new, counter, value)
        end
      end
    end
    redis.call('PEXPIREAT', new, forget_at_ms)
  end
end

local given_keys, given_args = KEYS, ARGV
local KEYS, ARGV = {}, {}
for i = 1, keys_before do
  KEYS[i] = given_keys[i]
end
for i = 1, args_before do
  ARGV[i] = given_args[i]
end
