-- One decision about one key, as lictor_core::limit::Quota takes it; times are microseconds of this server's clock.
-- ARGV: algorithm, requests, window, burst, and whether one is taken (1) or given back (0).
-- The value is "until count before"; it is as if it were not there from `until` on, and then it is not.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local algorithm, requests, window, burst = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local till, count, before = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%d+) (%d+)$')
till, count, before = tonumber(till or 0), tonumber(count or 0), tonumber(before or 0)

local function keep()
  if till <= now then return redis.call('DEL', KEYS[1]) end
  local value = string.format('%.3f %d %d', till, count, before)
  redis.call('SET', KEYS[1], value, 'PX', math.ceil((till - now) / 1000))
end

local interval = window / requests
if ARGV[5] == '0' then
  if algorithm == 'token_bucket' then till = till - interval else count = math.max(count - 1, 0) end
  keep()
  return {1, 0, 0}
end

local is_admitted, left, reset = 0, 0, 0
if algorithm == 'token_bucket' then
  local room = interval * burst
  till = math.min(math.max(till, now), now + room) -- a clock that was set back
  local debt = till + interval - now
  if debt <= room + 0.01 then
    till, is_admitted, left, reset = till + interval, 1, math.floor((room - debt) / interval + 0.000001), debt
  else
    reset = debt - room
  end
elseif algorithm == 'fixed_window' then
  if till <= now or till > now + window then till, count = now + window, 0 end
  reset = till - now
  if count < requests then
    count, is_admitted, left = count + 1, 1, requests - count - 1
  end
else
  if till <= now or till > now + 2 * window then
    till, count, before = now + 2 * window, 0, 0
  elseif till - now <= window then
    till, count, before = till + window, 0, count
  end
  local share = math.max(till - now - window, 0)
  local used = before * share + count * window
  if used + window <= requests * window then
    left = math.floor(((requests - 1) * window - used) / window)
    count, is_admitted, reset = count + 1, 1, till - now
  elseif count < requests then
    reset = share - (requests - 1 - count) * window / math.max(before, 1)
  else
    reset = share + window - (requests - 1) * window / count
  end
end
if is_admitted == 1 then keep() end
return {is_admitted, math.max(left, 0), math.max(math.ceil(reset), 1)}
