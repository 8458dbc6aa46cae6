-- Raises versions of keys in their accounts' version hashes; never lowers one.
-- KEYS[i]        version hash of an account (may repeat)
-- ARGV[1 .. 2]   key ids, versions: one a line, in the order of KEYS
-- The first one is taken out before: behind a write that needs no memory Redis allows others when it has none left.
local next_field = string.gmatch(ARGV[1], '[^\n]+')
local next_version = string.gmatch(ARGV[2], '[^\n]+')
local raised = 0
for i = 1, #KEYS do
  local field, version = next_field(), next_version()
  if tonumber(redis.call('HGET', KEYS[i], field) or '-1') < tonumber(version) then
    if raised == 0 then
      redis.call('HDEL', KEYS[i], field)
    end
    redis.call('HSET', KEYS[i], field, version)
    raised = raised + 1
  end
end
return #KEYS
