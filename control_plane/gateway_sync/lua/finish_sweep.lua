-- Declares the projection complete, unless Redis was emptied while the sweep ran: its token is gone then.
-- KEYS[1 .. 2]  projection marker, sweep token
-- ARGV[1 .. 2]  the token this sweep set, text of the marker
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
return 1
