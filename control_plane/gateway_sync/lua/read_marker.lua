-- Returns the run id of the server that keeps this marker, and the marker. A script, since it is sent where the
-- marker's slot is now, also after a failover. A replica is no server to rely on: it answers as to a write.
-- KEYS[1]  projection marker
if not string.find(redis.call('INFO', 'replication'), 'role:master', 1, true) then
  return redis.error_reply('READONLY this server is a replica')
end
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
return {run_id, redis.call('GET', KEYS[1])}
