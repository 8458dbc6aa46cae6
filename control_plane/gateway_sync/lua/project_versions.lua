-- Raises versions of keys in their accounts' version hashes; never lowers one.
-- KEYS[i]        version hash of an account (may repeat)
-- ARGV[1 .. 2]   key ids, versions: one a line, in the order of KEYS
local next_field = string.gmatch(ARGV[1], '[^\n]+')
local next_version = string.gmatch(ARGV[2], '[^\n]+')
for i = 1, #KEYS do
  local field, version = next_field(), next_version()
  if tonumber(redis.call('HGET', KEYS[i], field) or '-1') < tonumber(version) then
    redis.call('HSET', KEYS[i], field, version)
  end
end
return #KEYS
