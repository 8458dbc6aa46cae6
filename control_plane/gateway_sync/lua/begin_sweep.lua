-- Sets the token of a sweep for buckets of key records; a sweep under an older token will not finish.
-- KEYS[2i-1 .. 2i]  projection marker, sweep token of a bucket
-- ARGV[1 .. 3]      token, seconds it is kept, '1': take the marker away (what is there is in doubt)
for i = 1, #KEYS, 2 do
  redis.call('SET', KEYS[i + 1], ARGV[1], 'EX', ARGV[2])
  if ARGV[3] == '1' then
    redis.call('DEL', KEYS[i])
  end
end
return 1
