-- KEYS[1]: a meter, when its window began and what is used of it; ARGV: units and seconds of a window, the least and
-- the most that are wanted. Answers: units, microseconds until the window's end, all that
-- are used, and when it began.
local whole, length, least, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local since, used = string.match(redis.call('GET', KEYS[1]) or '0 0', '^(%d+) (%d+)$')
since, used = tonumber(since), tonumber(used)
local current = math.floor(clock[1] / length) * length
-- A window that is to come, because the clock went back, goes on.
if current > since then since, used = current, 0 end
local left = (since + length) * 1000000 - now
local units = math.min(whole - used, most)
if units < least then
  return { 0, left, used, since }
end
redis.call('SET', KEYS[1], string.format('%.0f %.0f', since, used + units), 'PX', math.floor(left / 1000) + 1)
return { units, left, used + units, since }
