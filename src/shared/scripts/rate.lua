-- KEYS[1]: a meter; ARGV: microseconds for a unit, the burst, the least and the most that are wanted (GCRA).
-- Answers: units, if there are none microseconds until the least may be there, and all that are used.
local each, burst, least, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local all = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
local room = math.floor((burst * each - (all - now)) / each)
if room < least then
  return { 0, all + least * each - now - burst * each, burst - room }
end
local units = math.min(room, most)
all = all + units * each
redis.call('SET', KEYS[1], string.format('%.0f', all), 'PX', math.floor((all - now) / 1000) + 1)
return { units, 0, math.ceil((all - now) / each) }
