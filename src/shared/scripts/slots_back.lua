-- KEYS[1]: a meter; ARGV: a lease, and how many of its slots are free again.
local till, units = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', '^(%d+) (%d+)$')
if units then
  if tonumber(units) <= tonumber(ARGV[2]) then
    redis.call('HDEL', KEYS[1], ARGV[1])
  else
    redis.call('HSET', KEYS[1], ARGV[1], till .. string.format(' %.0f', units - ARGV[2]))
  end
end
return 1
