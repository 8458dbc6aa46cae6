-- Writes account records, each only over an older version of itself, or over another form of the same version
-- (its periods move on with time), then its version.
-- KEYS[2i-1 .. 2i]   account record, version hash of the account
-- ARGV[1]            invalidation channel, '' to publish nothing
-- ARGV[2]            '1': tell of records that are new, too
-- ARGV[3i .. 3i+2]   version, record as JSON, message
-- Returns how many were written.
local written = 0
for i = 1, #KEYS / 2 do
  local record_name, versions_name = KEYS[2 * i - 1], KEYS[2 * i]
  local version, record = tonumber(ARGV[3 * i]), ARGV[3 * i + 1]
  local stored = redis.call('GET', record_name)
  local stored_version = -1
  if stored then
    local readable, value = pcall(cjson.decode, stored)
    if readable and type(value) == 'table' then
      stored_version = tonumber(value.version) or -1
    end
  end
  if stored_version < version or (stored_version == version and stored ~= record) then
    redis.call('SET', record_name, record)
    written = written + 1
    if ARGV[1] ~= '' and (stored or ARGV[2] == '1') then
      redis.call('PUBLISH', ARGV[1], ARGV[3 * i + 2])
    end
  end
  if stored_version <= version and tonumber(redis.call('HGET', versions_name, 'account') or '-1') < version then
    redis.call('HSET', versions_name, 'account', ARGV[3 * i])
  end
end
return written
