-- Returns the run id of the server that keeps this marker, and the marker. A script, since it is sent where the
-- marker's slot is now, also after a failover.
-- KEYS[1]  projection marker
local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
return {run_id, redis.call('GET', KEYS[1])}
