-- Writes account records, each only over an older version of itself, or over another form of the same version
-- (its periods move on with time), then its version.
-- KEYS[2i-1 .. 2i]   account record, version hash of the account
-- ARGV[1]            invalidation channel, '' to publish nothing
-- ARGV[2]            '1': tell of records that are new, too
-- ARGV[3 .. 5]       versions, records as JSON, messages: one a line, in the order of KEYS
-- Returns how many were written.
-- Gateways go on reading a Redis that is out of memory, so a revocation has to be written there too. Behind a first
-- write that needs no memory Redis allows others: so the first value that is replaced is taken out before.
local next_version = string.gmatch(ARGV[3], '[^\n]+')
local next_record = string.gmatch(ARGV[4], '[^\n]+')
local next_message = string.gmatch(ARGV[5], '[^\n]+')
local written = 0
for i = 1, #KEYS, 2 do
  local record_name, versions_name = KEYS[i], KEYS[i + 1]
  local version, record, message = next_version(), next_record(), next_message()
  local number = tonumber(version)
  local stored = redis.call('GET', record_name)
  local stored_version = -1
  if stored then
    local readable, value = pcall(cjson.decode, stored)
    if readable and type(value) == 'table' then
      stored_version = tonumber(value.version) or -1
    end
  end
  if stored_version < number or (stored_version == number and stored ~= record) then
    if written == 0 then
      redis.call('DEL', record_name)
    end
    redis.call('SET', record_name, record)
    written = written + 1
    if ARGV[1] ~= '' and (stored or ARGV[2] == '1') then
      redis.call('PUBLISH', ARGV[1], message)
    end
  end
  if stored_version <= number and tonumber(redis.call('HGET', versions_name, 'account') or '-1') < number then
    redis.call('HDEL', versions_name, 'account')
    redis.call('HSET', versions_name, 'account', version)
  end
end
return written
