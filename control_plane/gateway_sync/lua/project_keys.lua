-- Writes key records, each only over an older version of itself, or over another form of the same version.
-- KEYS[i]        name of a key record
-- ARGV[1]        invalidation channel, '' to publish nothing
-- ARGV[2]        '1': tell of records that are new, too
-- ARGV[3 .. 5]   versions, records as JSON, messages: one a line, in the order of KEYS
-- Lines, since a million records in arguments of their own would take the client twice as long to send.
-- Returns how many were written.
-- Gateways go on reading a Redis that is out of memory, so a revocation has to be written there too. Behind a first
-- write that needs no memory Redis allows others: so the first value that is replaced is taken out before.
local next_version = string.gmatch(ARGV[3], '[^\n]+')
local next_record = string.gmatch(ARGV[4], '[^\n]+')
local next_message = string.gmatch(ARGV[5], '[^\n]+')
local written = 0
for i = 1, #KEYS do
  local version, record, message = tonumber(next_version()), next_record(), next_message()
  local stored = redis.call('GET', KEYS[i])
  local stored_version = -1
  if stored then
    local readable, value = pcall(cjson.decode, stored)
    if readable and type(value) == 'table' then
      stored_version = tonumber(value.version) or -1
    end
  end
  if stored_version < version or (stored_version == version and stored ~= record) then
    if written == 0 then
      redis.call('DEL', KEYS[i])
    end
    redis.call('SET', KEYS[i], record)
    written = written + 1
    if ARGV[1] ~= '' and (stored or ARGV[2] == '1') then
      redis.call('PUBLISH', ARGV[1], message)
    end
  end
end
return written
