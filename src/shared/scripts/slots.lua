-- KEYS[1]: a meter, for each lease until when it counts and how much; ARGV: all slots, for how many seconds, the least
-- and the most that are wanted, the lease, and how many leases there may be. Answers: slots, and if there are none,
-- microseconds until one may be there; and all that are used.
local all, least, most = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local held = redis.call('HGETALL', KEYS[1])
local used, leases, first, last = 0, 0, math.huge, now
for at = 1, #held, 2 do
  local till, units = string.match(held[at + 1], '^(%d+) (%d+)$')
  till, units = tonumber(till), tonumber(units)
  if till <= now then
    redis.call('HDEL', KEYS[1], held[at])
  else
    used, leases, first, last = used + units, leases + 1, math.min(first, till), math.max(last, till)
  end
end
local units = math.min(all - used, most)
if units < least or leases >= tonumber(ARGV[6]) then
  return { 0, first - now, used }
end
local till = now + ARGV[2] * 1000000
redis.call('HSET', KEYS[1], ARGV[5], string.format('%.0f %.0f', till, units))
redis.call('PEXPIRE', KEYS[1], math.floor((math.max(last, till) - now) / 1000) + 1)
return { units, 0, used + units }
