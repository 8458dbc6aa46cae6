-- KEYS[1] stream; ARGV[1] group, ARGV[2] ms. Deletes consumers that have not asked for anything in so long and hold
-- nothing, and returns how many. In one step: with a consumer goes what is pending for it, which nobody would get.
local deleted = 0
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local consumer = {}
    for at = 1, #fields, 2 do
        consumer[fields[at]] = fields[at + 1]
    end
    if consumer['pending'] == 0 and consumer['idle'] >= tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], consumer['name'])
        deleted = deleted + 1
    end
end
return deleted
