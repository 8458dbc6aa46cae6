-- Decide one call: compare versions, check every limit, then consume all of them or nothing.
--
-- KEYS  versions hash
--       counters of each billing period
--       the key's own counters of each period, where the key has a quota share
--       one state for each window
--       calls in flight, where their number is limited
-- ARGV  1 key id, 2 key version, 3 account version, 4 units of the call,
--       5 units that the plan allows in a period or '', 6 quota share of the key or '',
--       7 what few callers have (MessagePack) or '', 8 number of periods,
--       then start_ms, end_ms of each period, then limit, window_ms of each window
--
-- Of 7: `dry_run`; `ends_at`, the moment (ms) from which another plan holds; `allowance`, for the period with the
-- number `period`: in place of 5 the quota there (`limit` or none) with the field `of` which counts for it `without`
-- others, the `ceiling` of all units (or none), and the `part` that calls are counted in, too (or '');
-- `in_flight` {limit, lease_ms}; `spend` {most in minor units, prices}, each price {field of the
-- counters, units counted before it, units that this call may turn out to be, steps}, each step {above, base, unit,
-- per_units} where amounts are two numbers: whole minor units and millionths.
--
-- Answers (all numbers):
--       {1, now_ms, call number, limit, remaining, reset_ms}  admitted; the tightest limit
--       {0, now_ms, limit, remaining, wait_ms}                refused; the limit with the longest wait
--       {2, now_ms, reason}   1: versions are missing, 2: a newer version is there, 3: no period holds this moment,
--                             or another plan does
--       {3, now_ms, call number, limit, remaining, wait_ms}   dry run: counted, but would have been refused
-- `limit` counts the windows from 1, then the plan's units, the key's share, the spend cap, the calls in flight, the
-- quota and the ceiling of an allowance; 0 where there is none at all.
--
-- One script, in five files: clock, windows, counters, caps, and this one.

local ADMITTED, REFUSED, STALE, WOULD_REFUSE = 1, 0, 2, 3
local IN_FLIGHT_WAIT_US = 1000000

-- 1. is what the caller knows still true?

local seen = redis.call('HMGET', KEYS[1], 'account', ARGV[1])
if not seen[1] or not seen[2] then
  return {STALE, now_ms, 1}
end
if tonumber(seen[1]) > tonumber(ARGV[3]) or tonumber(seen[2]) > tonumber(ARGV[2]) then
  return {STALE, now_ms, 2}
end

local periods = tonumber(ARGV[8])
local period, period_end
for i = 1, periods do
  local starts, ends = tonumber(ARGV[7 + 2 * i]), tonumber(ARGV[8 + 2 * i])
  if starts <= now_ms and now_ms < ends then
    period, period_end = i, ends
  end
end
if not period or (ends_at and now_ms >= ends_at) then
  return {STALE, now_ms, 3}
end

-- 2. check everything

local units = tonumber(ARGV[4])
local counters = {KEYS[1 + period]}
local quotas = {tonumber(ARGV[5]) or false, tonumber(ARGV[6]) or false}
local plan_quota, ceiling = 1, nil
if allowance and allowance.period ~= period then
  allowance = nil
elseif allowance then
  quotas[1], plan_quota, ceiling = allowance.limit or false, 5, allowance.ceiling
end
local first_window = 1 + periods
if quotas[2] then
  counters[2] = KEYS[1 + periods + period]
  first_window = first_window + periods
end
local windows = #KEYS - first_window
if in_flight then
  windows = windows - 1
end

local period_left = (period_end - now_ms) * 1000
local longest, refused_by, refused_left = 0, nil, 0
local states = {}
for i = 1, windows do
  local limit, window = tonumber(ARGV[7 + 2 * (periods + i)]), tonumber(ARGV[8 + 2 * (periods + i)]) * 1000
  local read = limit > LOG_MAX and buckets_read or log_read
  local state = read(KEYS[first_window + i], limit, window)
  state.limit, state.window = limit, window
  states[i] = state
  if state.wait > longest then
    longest, refused_by, refused_left = state.wait, i, 0
  end
end
local counted = {}
for i = 1, #counters do
  counted[i] = counters_read(counters[i])
  if allowance then
    counted[i].used = counted_apart(counters[i])
  end
  if quotas[i] then
    local left = quotas[i] - counted[i].used
    if units > left and period_left > longest then
      longest, refused_by, refused_left = period_left, windows + (i == 1 and plan_quota or i), math.max(left, 0)
    end
  end
end
if ceiling and units > ceiling - counted[1][2] and period_left > longest then
  longest, refused_by, refused_left = period_left, windows + 6, math.max(ceiling - counted[1][2], 0)
end
if spend and spent_with(counters[1], spend[2]) > spend[1] and period_left > longest then
  longest, refused_by, refused_left = period_left, windows + 3, 0
end
if in_flight and IN_FLIGHT_WAIT_US > longest and too_many_in_flight(KEYS[#KEYS], in_flight[1], in_flight[2]) then
  longest, refused_by, refused_left = IN_FLIGHT_WAIT_US, windows + 4, 0
end
if refused_by and not dry_run then
  return {REFUSED, now_ms, refused_by, refused_left, math.ceil(longest / 1000)}
end

-- 3. consume all of it, and find the tightest

local tightest, lowest, remaining, reset = 0, 2, 0, 0
local function weigh(index, limit, left, frees_in)
  if left / limit < lowest then
    tightest, lowest, remaining, reset = index, left / limit, left, frees_in
  end
end
for i = 1, #counters do
  counters_take(counters[i], counted[i], units, period_end)
  if allowance and allowance.part ~= '' then
    take_apart(counters[i], units)
  end
end
local call_number = counted[1][1]
if spend then
  take_reserves(counters[1], spend[2])
end
if refused_by then
  return {WOULD_REFUSE, now_ms, call_number, refused_by, refused_left, math.ceil(longest / 1000)}
end
for i, state in ipairs(states) do
  local frees_in
  if state.limit > LOG_MAX then
    frees_in = buckets_take(KEYS[first_window + i], state)
    weigh(i, state.limit, state.limit - state.used, frees_in)
  else
    frees_in = log_take(KEYS[first_window + i], state.window, state)
    weigh(i, state.limit, state.limit - state.used - 1, frees_in)
  end
end
for i = 1, #counters do
  if quotas[i] then
    weigh(windows + (i == 1 and plan_quota or i), quotas[i], quotas[i] - counted[i].used, period_left)
  end
end
if ceiling then
  weigh(windows + 6, ceiling, ceiling - counted[1][2], period_left)
end
if in_flight then
  take_off(KEYS[#KEYS], in_flight[2], call_number)
end
return {ADMITTED, now_ms, call_number, tightest, remaining, math.ceil(reset / 1000)}
