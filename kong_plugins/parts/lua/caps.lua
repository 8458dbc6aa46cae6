-- What few callers have: a spend cap of several prices, a limit of calls in flight, a dry run, a plan that changed
-- within the billing period, or is to change.
-- Functions are made for those who have it only, since that costs time too.

local MILLION = 1000000
local dry_run, spend, in_flight, allowance, ends_at
local price_of, spent_with, take_reserves, too_many_in_flight, take_off, counted_apart, take_apart

if ARGV[7] ~= '' then
  local given = cmsgpack.unpack(ARGV[7])
  dry_run, spend, in_flight = given.dry_run, given.spend, given.in_flight
  allowance, ends_at = given.allowance, given.ends_at
end

-- Whole numbers all the way: below 2^53 doubles are exact.
if spend then
  function price_of(units, steps)
    for i = #steps, 1, -1 do
      local above = steps[i][1]
      if units > above then
        local _, base, base_millionths, unit, unit_millionths, per_units = unpack(steps[i])
        local over = math.fmod(units - above, per_units)
        local times = (units - above - over) / per_units + (over > 0 and 1 or 0)
        local few = math.fmod(times, MILLION)
        local millionths = base_millionths + few * unit_millionths
        return base + times * unit + (times - few) / MILLION * unit_millionths
          + math.floor((millionths + MILLION / 2) / MILLION)
      end
    end
    return 0
  end

  -- what the period would cost with this call, each price rounded half up
  function spent_with(key, prices)
    local fields = {}
    for i, price in ipairs(prices) do
      fields[i] = price[1]
    end
    local sum = 0
    for i, counted in ipairs(redis.call('HMGET', key, unpack(fields))) do
      local _, before, reserve, steps = unpack(prices[i])
      sum = sum + price_of(tonumber(counted or 0) + reserve - before, steps)
    end
    return sum
  end

  function take_reserves(key, prices)
    local taken = {} -- several prices may count one dimension
    for _, price in ipairs(prices) do
      local field, reserve = price[1], price[3]
      if field ~= 'units' and reserve > 0 and not taken[field] then
        taken[field] = true
        redis.call('HINCRBY', key, field, reserve)
        redis.call('HINCRBY', key, field .. ':' .. hour, reserve)
      end
    end
  end
end

-- Units of a plan version apart from those of others in the same billing period.
if allowance then
  function counted_apart(key)
    local counted = tonumber(redis.call('HGET', key, allowance.of) or 0)
    for _, field in ipairs(allowance.without) do
      counted = counted - tonumber(redis.call('HGET', key, field) or 0)
    end
    return counted
  end

  function take_apart(key, units)
    redis.call('HINCRBY', key, allowance.part, units)
    redis.call('HINCRBY', key, allowance.part .. ':' .. hour, units)
  end
end

-- Calls in flight: their members, by the moment (ms) at which they are given up.
if in_flight then
  function too_many_in_flight(key, limit, lease_ms)
    if redis.call('ZCOUNT', key, '(' .. now_ms, '+inf') < limit then
      return false
    end
    -- the clock stepped back, or leases were shortened: nobody waits for longer than one lease
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '(' .. now_ms + lease_ms, '+inf')) do
      redis.call('ZADD', key, now_ms + lease_ms, member)
    end
    return true
  end

  function take_off(key, lease_ms, call_number)
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms)
    redis.call('ZADD', key, now_ms + lease_ms, now_ms .. '.' .. call_number)
    redis.call('PEXPIRE', key, lease_ms)
  end
end
