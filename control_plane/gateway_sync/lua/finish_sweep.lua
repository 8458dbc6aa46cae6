-- Declares buckets of key records complete, unless Redis was emptied while the sweep ran: the token is gone then.
-- The token stays, so that running this twice changes nothing.
-- KEYS[2i-1 .. 2i]  projection marker, sweep token of a bucket
-- ARGV[1 .. 2]      the token this sweep set, text of the marker
for i = 2, #KEYS, 2 do
  if redis.call('GET', KEYS[i]) ~= ARGV[1] then
    return 0
  end
end
for i = 1, #KEYS, 2 do
  redis.call('SET', KEYS[i], ARGV[2])
end
return 1
