-- Writes key records, each only over an older version of itself, or over another form of the same version.
-- KEYS[i]            name of a key record
-- ARGV[1]            invalidation channel, '' to publish nothing
-- ARGV[2]            '1': tell of records that are new, too
-- ARGV[3i .. 3i+2]   version, record as JSON, message
-- Returns how many were written.
local written = 0
for i = 1, #KEYS do
  local version, record = tonumber(ARGV[3 * i]), ARGV[3 * i + 1]
  local stored = redis.call('GET', KEYS[i])
  local stored_version = -1
  if stored then
    local readable, value = pcall(cjson.decode, stored)
    if readable and type(value) == 'table' then
      stored_version = tonumber(value.version) or -1
    end
  end
  if stored_version < version or (stored_version == version and stored ~= record) then
    redis.call('SET', KEYS[i], record)
    written = written + 1
    if ARGV[1] ~= '' and (stored or ARGV[2] == '1') then
      redis.call('PUBLISH', ARGV[1], ARGV[3 * i + 2])
    end
  end
end
return written
