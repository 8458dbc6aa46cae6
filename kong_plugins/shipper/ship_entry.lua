-- Adds one entry to a usage stream, while this run of the shipper still owns its epoch and there is room.
-- One script, so that nothing can empty Redis between the check and the entry.
--
-- KEYS: stream, the shipper's epoch.
-- ARGV: this run's epoch, most entries the stream may hold, then field, value, field, value ...
-- Returns {'added', entry id}, or why not: {'epoch_lost'}, {'epoch_taken'}, {'full'}.
local epoch = redis.call('GET', KEYS[2])
if not epoch then
  return {'epoch_lost'}
end
if epoch ~= ARGV[1] then
  return {'epoch_taken'}
end
if redis.call('XLEN', KEYS[1]) >= tonumber(ARGV[2]) then
  return {'full'}
end
return {'added', redis.call('XADD', KEYS[1], '*', unpack(ARGV, 3))}
