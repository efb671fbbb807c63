-- KEYS[1]: a meter; ARGV: microseconds for a unit, and units that were not used.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local all = tonumber(redis.call('GET', KEYS[1]) or '0') - ARGV[1] * ARGV[2]
if all <= now then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], string.format('%.0f', all), 'PX', math.floor((all - now) / 1000) + 1)
end
return 1
