-- Raises versions of keys in their accounts' version hashes; never lowers one.
-- KEYS[i]           version hash of an account (may repeat)
-- ARGV[2i-1 .. 2i]  key id, version
for i = 1, #KEYS do
  local stored = tonumber(redis.call('HGET', KEYS[i], ARGV[2 * i - 1]) or '-1')
  if stored < tonumber(ARGV[2 * i]) then
    redis.call('HSET', KEYS[i], ARGV[2 * i - 1], ARGV[2 * i])
  end
end
return #KEYS
