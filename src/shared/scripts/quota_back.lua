-- KEYS[1]: a meter; ARGV: when the window of the lease began, and units that were not used. What was of another window
-- is not given back.
local since, used = string.match(redis.call('GET', KEYS[1]) or '0 0', '^(%d+) (%d+)$')
if tonumber(since) == tonumber(ARGV[1]) and redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('SET', KEYS[1], since .. string.format(' %.0f', math.max(used - ARGV[2], 0)), 'KEEPTTL')
end
return 1
