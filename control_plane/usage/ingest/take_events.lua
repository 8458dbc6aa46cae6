-- Takes events out of a token's allowance, all or none. The allowance refills evenly; what is kept is the moment
-- (us of Redis time) at which it is full again.
-- KEYS[1]: the allowance. ARGV: events, us per event, most events at once.
-- Returns {1 if taken else 0, events left, us until as many are there (0 if taken)}.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local per_event, most = tonumber(ARGV[2]), tonumber(ARGV[3])
local full_at = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0))
local after = full_at + tonumber(ARGV[1]) * per_event
local over = after - now - most * per_event
if over > 0 then
    return {0, math.floor(most - (full_at - now) / per_event), math.ceil(over)}
end
redis.call('SET', KEYS[1], string.format('%.0f', after), 'PX', math.ceil((after - now) / 1000) + 1000)
return {1, math.floor(most - (after - now) / per_event), 0}
